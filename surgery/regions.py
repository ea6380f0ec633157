"""Regions of tensors: one half-open `(start, stop)` pair per axis."""

from __future__ import annotations

from math import prod

Region = tuple[tuple[int, int], ...]


def whole(shape: tuple[int, ...]) -> Region:
    """The region that covers a tensor of this shape."""
    return tuple((0, size) for size in shape)


def extent_of(region: Region) -> tuple[int, ...]:
    """The shape of a region."""
    return tuple(stop - start for start, stop in region)


def runs_of(shape: tuple[int, ...], region: Region) -> tuple[int, list[int]]:
    """A region of a C-order array as contiguous runs: elements per run, and the element offset of each."""
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    split = len(shape)
    while split > 0 and region[split - 1] == (0, shape[split - 1]):
        split -= 1
    if split == 0:
        return prod(shape), [0]
    axis = split - 1
    length = (region[axis][1] - region[axis][0]) * strides[axis]
    starts = [region[axis][0] * strides[axis]]
    for outer in range(axis - 1, -1, -1):
        low, high = region[outer]
        starts = [index * strides[outer] + rest for index in range(low, high) for rest in starts]
    return length, starts
