"""The conversion mapping of the transformers that is installed, as plain descriptions: nothing of the package goes further than here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from surgery.errors import RecipeError, SurgeryError, near

_BRANCH = re.compile(r"\(\?P<g(\d+)>")
_LEGACY = "legacy"
"""The entry of the mapping that transformers adds to those of every model when it loads one."""


class Operation(NamedTuple):
    """What is done to tensors: the name of its class and what it was made with."""

    name: str
    options: Mapping[str, Any]


class Transform(NamedTuple):
    """One entry of the mapping.

    `sources` are regular expressions, searched in keys, in the order of the arguments; `tried` is the order in which they are tried.
    `targets` are texts with `\\1` and, for a number in its place, `*`. `called` are the sources as operations know them.
    """

    kind: str
    sources: Sequence[str]
    targets: Sequence[str]
    tried: Sequence[int] = (0,)
    called: Sequence[str] = ()
    operations: Sequence[Operation] = ()
    offset: int = 0

    @property
    def told(self) -> str:
        """The entry for a message: what becomes what, and by which operations."""
        names = " and ".join(self.called or self.sources) + " → " + " and ".join(self.targets)
        return f"{self.kind} {names}" + (f" ({', '.join(operation.name for operation in self.operations)})" if self.operations else "")


class Mapped(NamedTuple):
    """What transformers does for a model type: its own entries, those for every model, and the version that says so."""

    own: Sequence[Transform]
    common: Sequence[Transform]
    version: str


def installed(model_type: str, reverse: bool) -> Mapped:
    """The entries for a model type or class, in their order; with `reverse` those of the way back.

    Raises:
        SurgeryError: transformers or the torch it needs is not installed (`missing-package`).
        RecipeError: it has no such model type.
    """
    mapping, version = _mapping()
    if model_type not in mapping:
        close = near(model_type, mapping, most=3)
        help = f"did you mean {' or '.join(f'`{name}`' for name in close)}?" if close else f"it knows {len(mapping)} types, such as `mixtral`"
        raise RecipeError(f"transformers {version} converts nothing for `{model_type}`", code="bad-option", help=help)
    own = list(mapping[model_type])
    if reverse:
        return Mapped([described(transform.reverse_transform()) for transform in reversed(own)], (), version)
    common = mapping.get(_LEGACY, ()) if model_type != _LEGACY else ()
    return Mapped([described(transform) for transform in own], [described(transform) for transform in common], version)


def model_types() -> list[str]:
    """All model types and classes for which the installed transformers converts anything. Raises SurgeryError as `installed` does."""
    return list(_mapping()[0])


def _mapping() -> tuple[Mapping[str, Any], str]:
    import importlib

    try:
        version = importlib.import_module("transformers").__version__
        conversion = importlib.import_module("transformers.conversion_mapping")
    except ImportError as fault:
        known = fault.name in ("transformers", "torch")
        raise SurgeryError(
            f"this needs {fault.name}, which is not installed" if known else f"this transformers has no conversion mapping: {fault}",
            code="missing-package",
            help="pip install 'transformers>=5' torch",
        ) from None
    conversion.get_checkpoint_conversion_mapping(_LEGACY)  # builds them all
    return conversion._checkpoint_conversion_mapping_cache, version


def described(transform: Any) -> Transform:
    """The description of an entry; any object with the same attributes will do."""
    branches = _branches(transform.compiled_sources.pattern)
    operations = [Operation(type(operation).__name__, dict(vars(operation))) for operation in getattr(transform, "operations", ())]
    return Transform(
        type(transform).__name__,
        [branches[index] for index in sorted(branches)],
        list(transform.target_patterns),
        list(branches),
        list(transform.source_patterns),
        operations,
        getattr(transform, "offset", 0),
    )


def _branches(pattern: str) -> dict[int, str]:
    """The alternatives `(?P<g0>…)|(?P<g1>…)` of a compiled pattern by their number, in the order they are tried."""
    found = list(_BRANCH.finditer(pattern))
    ends = [token.start() - 2 for token in found[1:]] + [len(pattern) - 1]
    return {int(token[1]): _readable(pattern[token.end() : end]) for token, end in zip(found, ends, strict=True)}


def _readable(pattern: str) -> str:
    """The same pattern with `\\b` for the lookahead that transformers puts behind names."""
    return re.sub(r"(?<=[A-Za-z0-9])\(\?!\\w\)\Z", r"\\b", pattern)
