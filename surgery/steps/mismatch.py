"""Tensors with another shape or dtype than wanted, in TensorFlow's sentences: one error for all of a kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from surgery.dtypes import DType
from surgery.errors import MismatchError, listed, plural
from surgery.table import Entry
from surgery.tensors import TensorSpec
from surgery.where import Path

_TF_TEXT = {"float32": "float", "float64": "double", "float16": "half"}


class Misfit(NamedTuple):
    """A tensor that is not as wanted: both shapes, or both dtypes. `at` is the field that wants it; `note` and `help` go with the error."""

    key: str
    wanted: Sequence[int] | DType
    found: Sequence[int] | DType
    at: Path = ()
    note: str = ""
    help: str = ""

    @property
    def of_dtype(self) -> bool:
        """True for another dtype, False for another shape."""
        return isinstance(self.wanted, DType)

    @property
    def title(self) -> str:
        """TensorFlow's sentence."""
        if isinstance(self.wanted, DType) and isinstance(self.found, DType):
            return f"tensor_name = {self.key}; expected dtype {_tf_dtype(self.wanted)} does not equal original dtype {_tf_dtype(self.found)}"
        return f"Assign requires shapes of both tensors to match. lhs shape= {_tf_shape(self.wanted)} rhs shape= {_tf_shape(self.found)}"

    def data(self) -> dict[str, object]:
        """The facts for `--json`."""
        return {"key": self.key, "wanted": _plain(self.wanted), "found": _plain(self.found)}


def shape_misfit(key: str, spec: TensorSpec, wanted: Sequence[int], at: Path = (), note: str = "", help: str = "") -> Iterator[Misfit]:
    """The misfit of a tensor with another shape; -1 stands for any size."""
    if len(wanted) != len(spec.shape) or any(want not in (-1, size) for want, size in zip(wanted, spec.shape, strict=True)):
        yield Misfit(key, wanted, spec.shape, at, note, help)


def dtype_misfit(key: str, spec: TensorSpec, wanted: DType, at: Path = (), note: str = "", help: str = "") -> Iterator[Misfit]:
    """The misfit of a tensor with another dtype."""
    if spec.dtype != wanted:
        yield Misfit(key, wanted, spec.dtype, at, note, help)


def target_misfit(key: str, entry: Entry, wanted: TensorSpec) -> Iterator[Misfit]:
    """Where a tensor is not as a target spec wants it: its shape, or else its dtype."""
    spec = entry.spec
    came = f"`{key}` comes from {entry.root.key} in {entry.source}" if entry.source else f"`{key}` was made by steps[{entry.root.step}]"
    if spec.shape != wanted.shape:
        transposed = len(spec.shape) == 2 and spec.shape == wanted.shape[::-1]
        help = (
            "`transpose` it, and square ones that its rules rename: their shape fits either way"
            if transposed
            else "change its shape, or drop it and let `init_missing` make it"
        )
        yield from shape_misfit(key, spec, wanted.shape, (), came, help)
    else:
        yield from dtype_misfit(key, spec, wanted.dtype, (), came, f"`cast: {{keys: '{key}', dtype: {wanted.dtype.name}}}` before this step")


def mismatches(misfits: Iterable[Misfit]) -> Iterator[MismatchError]:
    """One error for all misfits of a kind and a field: the sentence is about the first, a note names others, `data` has all."""
    groups: dict[tuple[Path, bool], list[Misfit]] = {}
    for misfit in misfits:
        groups.setdefault((misfit.at, misfit.of_dtype), []).append(misfit)
    for (at, of_dtype), (first, *others) in groups.items():
        spelled = [f"{misfit.key} ({_plain(misfit.found)}; wanted {_plain(misfit.wanted)})" for misfit in others]
        error = partial(MismatchError, code="dtype-mismatch") if of_dtype else partial(MismatchError, code="shape-mismatch")
        yield error(
            first.title,
            sentence=True,
            at=at,
            notes=[first.note, f"{plural(len(others), 'more mismatch', 'more mismatches')}: {listed(spelled)}" if others else ""],
            help=first.help,
            data={**first.data(), "mismatches": [misfit.data() for misfit in (first, *others)]},
        )


def _tf_shape(shape: Sequence[int] | DType) -> str:
    """A shape as TensorFlow's messages write it: no blank behind the comma."""
    return str(_plain(shape)).replace(" ", "")


def _tf_dtype(dtype: DType) -> str:
    return _TF_TEXT.get(dtype.name, dtype.name)


def _plain(value: Sequence[int] | DType) -> list[int] | str:
    return value.name if isinstance(value, DType) else list(value)
