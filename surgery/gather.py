"""The node that picks elements along an axis by their index: rows that follow their tokens, every other one, those of a list.

However many are picked, they are read in ranges from the first to the last, and never one by one where they lie close together.
Nothing here reads a byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from surgery.dtypes import numpy_dtype
from surgery.expr import Expr, Slice, is_encoded
from surgery.regions import Region, extent_of, whole
from surgery.tensors import Extent, TensorSpec

if TYPE_CHECKING:
    from surgery.nodes import Array

_MOST_READ = 256 << 10
"""Bytes of the child that elements are picked out of at once, unless one of them is more."""
_SMALL_GAP = 64 << 10
"""Elements that lie closer together than this are read as one range: to read another costs more than to read so many bytes."""
_EXAMPLES = 32
"""So many of the ranges are looked at to tell what they cost."""
_MANY_COPIES = 1 << 12
_SHORTEST_COPY = 16 << 10
"""So many runs of neighbours that have fewer bytes are gathered instead of copied one by one, where values of the type can be held in memory."""


class _Pick(NamedTuple):
    """A range of an axis that is read at once, which of its elements are wanted (in order, perhaps several times), and for which places."""

    range: tuple[int, int]
    indices: Array
    places: Array


class Take(Expr):
    """Elements along an axis by their index, in any order and as often as wanted; the maker has checked that they are in range."""

    __slots__ = ("axis", "indices")
    streams: ClassVar[bool] = True

    def __init__(self, child: Expr, axis: int, indices: Sequence[int]) -> None:
        shape = child.spec.shape
        self.children = (child,)
        self.axis = axis
        self.indices = indices
        self.spec = TensorSpec(child.spec.dtype, (*shape[:axis], len(indices), *shape[axis + 1 :]))

    def _picks(self, region: Region) -> Iterator[_Pick]:
        """What is read for a region: ranges of the child's axis in their order, each short, and with little between what is wanted of it."""
        import numpy as np

        child, (start, stop) = self.children[0], region[self.axis]
        if 0 in extent_of(region):
            return
        wanted = np.asarray(self.indices[start:stop])
        order = wanted.argsort(kind="stable")
        ranked = wanted[order]
        cut = np.zeros(len(ranked) + 1, bool)
        cut[[0, -1]] = True
        if not is_encoded(child):
            row = prod(extent_of(region)) // len(wanted) * max(1, child.spec.dtype.itemsize)
            rows = max(1, _MOST_READ // row)
            cut[1:-1] = (np.diff(ranked) * row > _SMALL_GAP) | (np.diff(ranked // rows) > 0) | (np.arange(1, len(ranked)) % rows == 0)
        for first, last in pairwise(np.flatnonzero(cut).tolist()):
            yield _Pick((int(ranked[first]), int(ranked[last - 1]) + 1), ranked[first:last], order[first:last])

    def needs(self, region: Region) -> tuple[Region, ...]:
        wanted = () if 0 in extent_of(region) else self.indices[slice(*region[self.axis])]
        return (_with(region, self.axis, (min(wanted, default=0), max(wanted, default=-1) + 1)),)

    def inputs(self, region: Region) -> Iterator[tuple[Expr, Region]]:
        """The child once for each range of indices that lie close together."""
        for pick in self._picks(region):
            yield self.children[0], _with(region, self.axis, pick.range)

    def examples(self, region: Region) -> Iterator[tuple[Expr, Region]]:
        picks = list(self._picks(region))
        for pick in picks[:: -(-len(picks) // _EXAMPLES) or 1] + picks[-1:]:
            yield self.children[0], _with(region, self.axis, pick.range)

    def compute(self, region: Region, inputs: Iterable[Array]) -> Array:
        import numpy as np

        out = np.empty(extent_of(region), numpy_dtype(self.spec.dtype))
        rows = np.moveaxis(out, self.axis, 0)
        for pick, values in zip(self._picks(region), inputs, strict=True):
            rows[pick.places] = np.moveaxis(values, self.axis, 0)[pick.indices - pick.range[0]]
        return out

    def view(self) -> tuple[Extent, ...] | None:
        child = self.children[0]
        if prod(self.spec.shape[: self.axis]) != 1 or child.view() is None:
            return None
        pieces: list[Extent] = []
        shortest = _SHORTEST_COPY if self.spec.dtype.itemsize else 0
        for number, (low, high) in enumerate(_consecutive(self.indices)):
            shape = _with(whole(child.spec.shape), self.axis, (low, high))
            stored = Slice(child, tuple(start for start, _ in shape), extent_of(shape)).view()
            if stored is None or (number == _MANY_COPIES and sum(piece.nbytes for piece in pieces) < number * shortest):
                return None
            pieces += stored
        return tuple(pieces)


def _consecutive(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The half-open runs of neighbours that a row of indices consists of."""
    starts = [0, *(at for at, (before, index) in enumerate(pairwise(indices), 1) if index != before + 1), len(indices)]
    for start, stop in pairwise(starts):
        if start < stop:
            yield indices[start], indices[stop - 1] + 1


def _with(region: Region, axis: int, pair: tuple[int, int]) -> Region:
    return (*region[:axis], pair, *region[axis + 1 :])
