"""The node that reduces axes, and the order in which it adds: one that shapes alone determine, so that no result depends on blocks or threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, ClassVar

from surgery.dtypes import numpy_dtype
from surgery.nodes import Expr
from surgery.regions import Region, extent_of
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from surgery.nodes import Array

_PORTION = 1 << 20
"""About as many elements are reduced at once."""
_SHORTEST_RUN = 1 << 16
"""Elements of a portion that are neighbours in the child, so that it reads well."""
_FEWEST = 1 << 10
"""Elements of a portion that become one, where its neighbours do not."""


class Reduce(Expr):
    """`sum`, `mean`, `max` or `min` along axes, in float64 and rounded once. The child comes in portions, so that its size does not matter.

    Halves are added element by element until one is left, then portions one after the other: an order that shapes alone determine.
    The maker has checked the axes, and that `max` and `min` have elements to choose from.
    """

    __slots__ = ("axes", "function", "keepdims", "rows")
    streams: ClassVar[bool] = True

    def __init__(self, function: str, child: Expr, axes: tuple[int, ...], keepdims: bool) -> None:
        shape = child.spec.shape
        self.function = function
        self.children = (child,)
        self.axes = axes
        self.keepdims = keepdims
        kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
        self.spec = TensorSpec(child.spec.dtype, tuple(size for axis, size in enumerate(kept) if keepdims or axis not in axes))
        self.rows = _rows(shape, axes)

    def needs(self, region: Region) -> tuple[Region, ...]:
        shape = self.children[0].spec.shape
        if 0 in extent_of(region):
            return (((0, 0),) * len(shape),)
        pairs = iter(region)
        full = []
        for axis, size in enumerate(shape):
            pair = next(pairs) if self.keepdims or axis not in self.axes else (0, 1)
            full.append((0, size) if axis in self.axes else pair)
        return (tuple(full),)

    def inputs(self, region: Region) -> Iterator[tuple[Expr, Region]]:
        """The child in portions along the first of the axes."""
        (need,) = self.needs(region)
        if not self.axes or 0 in extent_of(need):
            yield self.children[0], need
            return
        axis = self.axes[0]
        for low in range(0, need[axis][1], self.rows):
            yield self.children[0], (*need[:axis], (low, min(low + self.rows, need[axis][1])), *need[axis + 1 :])

    def compute(self, region: Region, inputs: Iterable[Array]) -> Array:
        import numpy as np

        if 0 in extent_of(region):
            return np.empty(extent_of(region), numpy_dtype(self.spec.dtype))
        combine = {"max": np.maximum, "min": np.minimum}.get(self.function, np.add)
        with np.errstate(all="ignore"):
            total: Array | None = None
            for portion in inputs:
                part = folded(portion, self.axes, combine)
                total = part if total is None else combine(total, part)
            assert total is not None
            if self.function == "mean":
                total = total / prod(self.children[0].spec.shape[axis] for axis in self.axes)
            total = np.where(np.isnan(total), np.nan, total + 0.0)  # which zero, and which NaN, would depend on the processor
            return total.astype(numpy_dtype(self.spec.dtype)).reshape(extent_of(region))


def _rows(shape: tuple[int, ...], axes: Sequence[int]) -> int:
    """How much of the first of the axes makes a portion."""
    if not axes:
        return 1
    inner = max(1, prod(shape[axis] for axis in axes[1:]))
    kept = max(1, prod(size for axis, size in enumerate(shape) if axis not in axes))
    alone = all(axis in axes for axis in range(axes[0], len(shape)))
    return max(1, _PORTION // (inner * kept), (_SHORTEST_RUN if alone else _FEWEST) // inner)


def folded(values: Array, axes: Sequence[int], combine: np.ufunc) -> Array:
    """The axes of an array reduced to length 1 (0 elements: to zeros), in float64: halves are combined until one element is left."""
    import numpy as np

    for axis in reversed(axes):
        if values.shape[axis] == 0:
            values = np.zeros((*values.shape[:axis], 1, *values.shape[axis + 1 :]))
        while (size := values.shape[axis]) > 1:
            rest, before = size // 2, (slice(None),) * axis
            folded = values[(*before, slice(0, size - rest))].astype(np.float64)
            front = folded[(*before, slice(0, rest))]
            combine(front, values[(*before, slice(size - rest, size))], out=front)
            values = folded
    return values.astype(np.float64, copy=False)
