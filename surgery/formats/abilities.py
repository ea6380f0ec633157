"""What can be done with each format, asked from its module: there is no second list that could say something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from surgery import formats
from surgery.dtypes import DTYPES, DType
from surgery.errors import PlanError
from surgery.expr import Stored
from surgery.formats.base import Bundle, Format, read_only
from surgery.formats.tf_codecs import CODECS
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

OWN_ONLY = frozenset(CODECS)
"""Types that are written only as a checkpoint of the same format stores them."""

_SHAPE = (8,)
_NOWHERE = SourceFile("", Fingerprint(1 << 20, 0, 0, 0))


class Ability(NamedTuple):
    """`missing` is the extra to install before the format can be used, None where nothing is missing."""

    name: str
    summary: str
    suffixes: tuple[str, ...]
    options: tuple[str, ...]
    writes: bool
    missing: str | None


def abilities() -> Iterator[Ability]:
    """All formats, in the order of the registry."""
    for name in formats.NAMES:
        module = formats.by_name(name)
        yield Ability(
            name, module.SUMMARY, formats.suffixes(name), tuple(sorted(module.OPTIONS)), module.layout is not read_only, formats.missing_extra(name)
        )


def install(extra: str) -> str:
    """The command that brings an extra."""
    return f"pip install 'model-surgery[{extra}]'"


def types_written(name: str) -> frozenset[str]:
    """Names of the element types that a format's `layout` takes; none for a format that is only read.

    Strings and variants are asked about in the one form in which they are ever written: as TensorFlow stores them.
    """
    module = formats.by_name(name)
    if module.layout is read_only:
        return frozenset()
    path = f"model{next(iter(formats.suffixes(name)), '')}"
    return frozenset(dtype.name for dtype in DTYPES.values() if _refusal(module, path, dtype) != "dtype-not-storable")


def needs_model(name: str) -> bool:
    """Whether a format is written only as a copy of a model of its own, with other tensors."""
    module = formats.by_name(name)
    return module.layout is not read_only and _refusal(module, f"model{next(iter(formats.suffixes(name)), '')}", DTYPES["float32"]) == "model-needed"


def types_read(name: str) -> frozenset[str]:
    """Names of the element types that tensors of a format may have: those that it `READS`, if its module says so, else those that it writes."""
    declared: frozenset[str] | None = getattr(formats.by_name(name), "READS", None)
    return types_written(name) if declared is None else declared


def _refusal(module: Format, path: str, dtype: DType) -> str:
    """The code of what is wrong with an output of one such tensor; empty where nothing is."""
    spec = TensorSpec(dtype, _SHAPE)
    tensor = Stored(Extent(_NOWHERE, 0, spec.nbytes, spec, codec=CODECS.get(dtype.name)))
    try:
        module.layout(Bundle(path, {"layer/weight": tensor}, {}, {}, {}, {}))
    except PlanError as refused:
        return refused.code
    return ""
