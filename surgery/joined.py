"""The node for a tensor whose bytes are cut at places that no axis knows: the parts lie in several files. Opens nothing."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from surgery.dtypes import DTYPES, numpy_dtype
from surgery.nodes import Expr
from surgery.regions import Region, extent_of, span_of, strides_of
from surgery.stored import Stored
from surgery.tensors import Extent, SourceFile, TensorSpec

if TYPE_CHECKING:
    from surgery.nodes import Array

Range = tuple[SourceFile, int, int]
"""A file, and start and length of a byte range in it."""


class Joined(Expr):
    """A tensor whose bytes, little-endian in C order, are the given ranges one after the other.

    The ranges have as many bytes together as the tensor; the maker has checked that.
    """

    __slots__ = ("starts",)

    def __init__(self, spec: TensorSpec, ranges: tuple[Range, ...]) -> None:
        self.spec = spec
        byte = DTYPES["uint8"]
        self.children = tuple(Stored(Extent(file, start, nbytes, TensorSpec(byte, (nbytes,)))) for file, start, nbytes in ranges)
        self.starts = tuple(accumulate((nbytes for _, _, nbytes in ranges), initial=0))

    def _span(self, region: Region) -> tuple[int, int]:
        """The bytes from the first to behind the last element of a region."""
        if 0 in extent_of(region):
            return 0, 0
        start, stop = span_of(self.spec.shape, region)
        return start * self.spec.dtype.itemsize, stop * self.spec.dtype.itemsize

    def needs(self, region: Region) -> tuple[Region, ...]:
        first, last = self._span(region)
        clipped = ((max(first, start), min(last, stop), start) for start, stop in pairwise(self.starts))
        return tuple(((low - start, max(low, high) - start),) if low < high else ((0, 0),) for low, high, start in clipped)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        dtype = numpy_dtype(self.spec.dtype)
        span = np.concatenate(inputs)
        strides = tuple(stride * dtype.itemsize for stride in strides_of(self.spec.shape))
        if not span.size:
            return np.empty(extent_of(region), dtype)
        return np.ascontiguousarray(np.ndarray(extent_of(region), dtype, span.data, strides=strides)).reshape(extent_of(region))

    def view(self) -> tuple[Extent, ...] | None:
        return tuple(child.extent for child in self.children if isinstance(child, Stored) and child.extent.nbytes)
