"""Regions of tensors: one half-open `(start, stop)` pair per axis. Offsets and lengths are in elements, in C order. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

Region = tuple[tuple[int, int], ...]


def whole(shape: tuple[int, ...]) -> Region:
    """The region that covers a tensor of this shape."""
    return tuple((0, size) for size in shape)


def extent_of(region: Region) -> tuple[int, ...]:
    """The shape of a region."""
    return tuple(stop - start for start, stop in region)


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """For each axis, how far apart neighbours along it lie."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def span_of(shape: tuple[int, ...], region: Region) -> tuple[int, int]:
    """The range from the first to behind the last element of a region that is not empty. As long as the region: it is one run."""
    strides = strides_of(shape)
    first = sum(start * stride for (start, _), stride in zip(region, strides, strict=True))
    last = sum((stop - 1) * stride for (_, stop), stride in zip(region, strides, strict=True))
    return first, last + 1


def cover(shape: tuple[int, ...], start: int, stop: int) -> Region:
    """The smallest box that holds the elements `start` to `stop` of a tensor, and is one run of it itself. Not for empty ranges."""
    box: list[tuple[int, int]] = []
    for axis, stride in enumerate(strides_of(shape)):
        low, high = start // stride, (stop - 1) // stride
        box.append((low, high + 1))
        if low != high:
            return (*box, *whole(shape[axis + 1 :]))
        start, stop = start - low * stride, stop - low * stride
    return tuple(box)


def runs(shape: tuple[int, ...], region: Region) -> tuple[int, Iterator[int]]:
    """The length of the contiguous runs that a region consists of, and where each begins, in C order."""
    partial = len(shape)
    while partial and region[partial - 1] == (0, shape[partial - 1]):
        partial -= 1
    inner = max(partial - 1, 0)  # the innermost axis that is not covered whole still lies side by side
    strides = strides_of(shape)
    first = sum(start * stride for (start, _), stride in zip(region[inner:], strides[inner:], strict=True))
    rows = product(*(range(start * stride, stop * stride, stride) for (start, stop), stride in zip(region[:inner], strides[:inner], strict=True)))
    return prod(extent_of(region[inner:])), (first + sum(row) for row in rows)


def spans(shape: tuple[int, ...], region: Region, longest: int, gap: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Cut a region that is not empty into parts that are each worth reading as one span; for each its span and its extent.

    A span is at most `longest`, with no hole of `gap` or more inside. The parts are contiguous within the region and come in
    C order, so that their elements one after the other are the region's.
    """
    axis = next((axis for axis, (start, stop) in enumerate(region) if stop - start > 1), None)
    if axis is None:
        yield *span_of(shape, region), extent_of(region)
        return
    start, stop = region[axis]
    before, behind, stride = region[:axis], region[axis + 1 :], strides_of(shape)[axis]
    row = (*before, (start, start + 1), *behind)
    extent = extent_of(row)
    first, last = span_of(shape, row)
    rows = longest // stride if stride - (last - first) < gap else 0  # holes further inside are no larger than those between rows
    if rows:
        for low in range(0, stop - start, rows):
            high = min(low + rows, stop - start)
            yield first + low * stride, last + (high - 1) * stride, (*extent[:axis], high - low, *extent[axis + 1 :])
    elif last - first == prod(extent) <= longest:
        for offset in range(0, (stop - start) * stride, stride):
            yield first + offset, last + offset, extent
    else:
        for index in range(start, stop):
            yield from spans(shape, (*before, (index, index + 1), *behind), longest, gap)
