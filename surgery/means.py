"""The node for a mean along an axis, however large the tensor is. Serves new rows that shall be like the old ones. Opens nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce
from math import prod
from typing import TYPE_CHECKING, ClassVar

from surgery.dtypes import DTYPES, numpy_dtype
from surgery.expr import is_encoded
from surgery.nodes import Expr
from surgery.reductions import folded
from surgery.regions import Region, extent_of, whole
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    from surgery.nodes import Array

_PORTION = 1 << 17
"""About as many elements are added up at once: enough to read well, few enough for the cache."""
_MOST_KEPT = 1 << 20
"""A mean of at most so many elements is kept, since to make it takes all of the tensor."""


class Mean(Expr):
    """The mean along an axis, `count` times over: each place along it has the same. In float32, of float64 in float64; added up in float64.

    Within a portion halves are added until one element is left, then portion is added to portion: an order that the shape alone determines.
    The maker has checked that the child is of a real float type, and has elements along the axis.
    """

    __slots__ = ("_kept", "axis", "rows")
    streams: ClassVar[bool] = True

    def __init__(self, child: Expr, axis: int, count: int) -> None:
        shape = child.spec.shape
        across = prod(shape[:axis] + shape[axis + 1 :])
        wide = child.spec.dtype.name == "float64"
        self.children = (child,)
        self.axis = axis
        self.rows = shape[axis] if is_encoded(child) else max(1, _PORTION // max(1, across))
        self.spec = TensorSpec(DTYPES["float64" if wide else "float32"], (*shape[:axis], count, *shape[axis + 1 :]))
        self._kept: Array | None = None

    def _made(self, region: Region) -> Region:
        """The region of the mean, one element long along the axis, that is worked out when `region` is asked for."""
        shape = self.children[0].spec.shape
        across = whole(shape) if prod(shape) <= _MOST_KEPT * shape[self.axis] else region
        return (*across[: self.axis], (0, 1), *across[self.axis + 1 :])

    def needs(self, region: Region) -> tuple[Region, ...]:
        shape = self.children[0].spec.shape
        if 0 in extent_of(region):
            return (((0, 0),) * len(shape),)
        made = self._made(region)
        return ((*made[: self.axis], (0, shape[self.axis]), *made[self.axis + 1 :]),)

    def inputs(self, region: Region) -> Iterator[tuple[Expr, Region]]:
        """The child in portions along the axis."""
        (need,) = self.needs(region)
        for low in range(0, need[self.axis][1], self.rows):
            high = min(low + self.rows, need[self.axis][1])
            yield self.children[0], (*need[: self.axis], (low, high), *need[self.axis + 1 :])

    def compute(self, region: Region, inputs: Iterable[Array]) -> Array:
        import numpy as np

        if 0 in extent_of(region):
            return np.empty(extent_of(region), numpy_dtype(self.spec.dtype))
        made = self._made(region)
        mean = self._kept if self._kept is not None else self._mean(inputs)
        if extent_of(made) == self._whole_mean():
            self._kept = mean
        window = ((low - base, high - base) for (low, high), (base, _) in zip(region, made, strict=True))
        cut = tuple(slice(0, 1) if axis == self.axis else slice(*pair) for axis, pair in enumerate(window))
        return np.broadcast_to(mean[cut], extent_of(region))

    def _whole_mean(self) -> tuple[int, ...]:
        return (*self.spec.shape[: self.axis], 1, *self.spec.shape[self.axis + 1 :])

    def _mean(self, portions: Iterable[Array]) -> Array:
        import numpy as np

        with np.errstate(all="ignore"):
            total: Array = reduce(np.add, (folded(portion, (self.axis,), np.add) for portion in portions))
            total = total / self.children[0].spec.shape[self.axis]
            total = total + 0.0  # a zero that is negative comes of the order, too
            total[np.isnan(total)] = np.nan  # which of the many would depend on the processor
            return total.astype(numpy_dtype(self.spec.dtype))
