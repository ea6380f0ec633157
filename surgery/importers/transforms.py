"""The conversion mapping of the transformers that is installed, as plain descriptions: nothing of the package goes further than here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from surgery.errors import RecipeError, SurgeryError, near
from surgery.importers.draft import Inexpressible, literal_pattern

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
    scopes: tuple[str, str] | None = None
    """For an entry of a model in a model: the prefix of the base model and the place in that, each with its dot."""

    @property
    def lead(self) -> str:
        """What stands first in each `to`: what `within` finds in front of the name."""
        return r"\1" if self.scopes else ""

    def within(self, source: str) -> str:
        """The pattern for whole keys; of a model in a model it is searched behind that one's place. Raises Inexpressible."""
        if self.scopes is None:
            return source
        inner = source.removeprefix("^")
        if "^" in inner.replace("[^", "") or "(?<" in inner:
            raise Inexpressible("its pattern looks back, which means something else inside of another model")
        base, place = (literal_pattern(text) for text in self.scopes)
        found = f"(?:{base})?{'' if place else '+'}{place}" if base else place
        return f"^({found}{'' if source.startswith('^') else '.*?'}){inner}"

    @property
    def told(self) -> str:
        """The entry for a message: what becomes what, and by which operations."""
        names = " and ".join(self.called or self.sources) + " → " + " and ".join(self.targets)
        return f"{self.kind} {names}" + (f" ({', '.join(operation.name for operation in self.operations)})" if self.operations else "")


class Mapped(NamedTuple):
    """What transformers does for a model: its own entries, those for every model, and the version that says so."""

    own: Sequence[Transform]
    common: Sequence[Transform]
    version: str
    name: str
    known: Mapping[str, int] = {}
    """Numbers of the configuration by the names that parameters have."""


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
    return _mapped(mapping[model_type], mapping[_LEGACY] if model_type != _LEGACY else (), version, model_type, {}, reverse)


def of_config(path: str, reverse: bool) -> Mapped:
    """The entries for the very model that a `config.json` describes, those of the models inside of it too. It is built without memory.

    Raises:
        SurgeryError: as `installed`.
        RecipeError: transformers makes no model of it.
    """
    import importlib

    mapping, version = _mapping()
    transformers, torch = importlib.import_module("transformers"), importlib.import_module("torch")
    try:
        config = transformers.AutoConfig.from_pretrained(path.removesuffix("config.json") or ".", local_files_only=True)
        architecture = config.architectures[0]
        with torch.device("meta"):
            model = getattr(transformers, architecture)(config)
    except Exception as fault:  # of code that is not ours, for any reason
        reason = (str(fault).splitlines() or [type(fault).__name__])[0]
        help = "give a config.json with `model_type` and `architectures`, or a model type"
        raise RecipeError(f"transformers {version} makes no model of {path}: {reason}", code="bad-option", help=help) from None
    own = importlib.import_module("transformers.conversion_mapping").get_model_conversion_mapping(model, add_legacy=False)
    return _mapped(own, mapping[_LEGACY], version, architecture, _known(config), reverse)


def _known(config: Any) -> dict[str, int]:
    """The numbers that operations read in a configuration."""
    known = {name: value for name, value in vars(config.get_text_config()).items() if type(value) is int and name != "experts"}
    sections = {f"{name}_": getattr(config, name, None) for name in config.sub_configs} | {"": config}
    heads = {f"{name}heads": getattr(section, "num_attention_heads", 1) for name, section in sections.items()}
    return known | {name: value for name, value in heads.items() if type(value) is int}


def _mapped(own: Sequence[Any], common: Sequence[Any], version: str, name: str, known: Mapping[str, int], reverse: bool) -> Mapped:
    """The entries in their order; on the way back turned round, and without the old names of every model."""
    if reverse:
        return Mapped([described(transform.reverse_transform()) for transform in reversed(own)], (), version, name, known)
    return Mapped([described(transform) for transform in own], [described(transform) for transform in common], version, name, known)


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
        _scopes(getattr(transform, "scope_prefix", None), getattr(transform, "base_model_prefix", None)),
    )


def _scopes(place: str | None, base: str | None) -> tuple[str, str] | None:
    return None if place is None else (f"{base}." if base else "", f"{place}." if place else "")


def _branches(pattern: str) -> dict[int, str]:
    """The alternatives `(?P<g0>…)|(?P<g1>…)` of a compiled pattern by their number, in the order they are tried."""
    found = list(_BRANCH.finditer(pattern))
    ends = [token.start() - 2 for token in found[1:]] + [len(pattern) - 1]
    return {int(token[1]): _readable(pattern[token.end() : end]) for token, end in zip(found, ends, strict=True)}


def _readable(pattern: str) -> str:
    """The same pattern with `\\b` for the lookahead that transformers puts behind names."""
    return re.sub(r"(?<=[A-Za-z0-9])\(\?!\\w\)\Z", r"\\b", pattern)
