"""Cutting a computed tensor into regions that fit the memory and read well. Pure.

Strips are the rule: parts that stay in the processor's cache, and are contiguous in the output. Where a strip would read its source in
small bits (a transposed tensor), the tensor is taken whole if it fits the budget, and in tiles if it does not. A tensor that lies in
encoded chunks is cut along them, so that none is decoded twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import inf, prod
from typing import NamedTuple

from surgery.chunked import Chunked
from surgery.expr import Expr, Stored, is_encoded
from surgery.regions import Region, extent_of, runs, whole
from surgery.tensors import Codec, StreamCodec

STRIP = 4 << 20
"""Bytes of all arrays of one strip; measured: more leaves the cache, less costs calls."""
_LARGEST_PART = 64 << 20
"""Bytes of all arrays of the strips that make up one task; enough work for a thread, small enough for several of them."""
_GOOD_RUN = 256 << 10
"""From here on it does not matter how long the pieces are that are read."""
_OBJECT_BYTES = 48
"""A string in an object array: the pointer and the head of the object."""


class Part(NamedTuple):
    """A region of a tensor for one task, to be computed in blocks of `block_bytes`, at the cost of `working_bytes`.

    `contiguous`: it is one run of the tensor in C order, and so is every block of it.
    """

    region: Region
    block_bytes: int
    working_bytes: int
    contiguous: bool


def parts(expr: Expr, budget: int) -> Iterator[Part]:
    """Cut a tensor with elements into parts, in C order where they are contiguous, each at a cost of at most `budget` where that is possible.

    An encoded tensor is never cut, since every part would decode it again, and neither is a single element.
    """
    everything = whole(expr.spec.shape)
    grain = _grain(expr, everything)
    if grain and not is_encoded(expr):
        yield from _along_chunks(expr, grain, min(budget, _LARGEST_PART))
        return
    element = working_bytes(expr, tuple((0, 1) for _ in everything)) if expr.spec.size else 0
    if element > max(budget, _GOOD_RUN):  # too much already, and elements one by one would cost it again and again
        budget = 2 * element
    arrays = 1 if expr.allocates else 2  # what was not made anew is put in order before it is written
    strip = min(STRIP, budget // arrays)
    first = everything if is_encoded(expr) else next(blocks(expr, everything, strip))
    too_small = working_bytes(expr, first) > strip and expr.spec.size > 1  # one element already costs more: a product, whose rows are long
    if 2 * shortest_run(expr, first) >= min(_GOOD_RUN, shortest_run(expr, everything)) and not is_encoded(expr) and not too_small:
        for region in blocks(expr, everything, max(_LARGEST_PART, strip)):
            yield Part(region, strip, min(_cost(expr, region), max(arrays * strip, _cost(expr, first))), True)
    elif is_encoded(expr) or _cost(expr, everything) <= budget:
        yield Part(everything, _cost(expr, everything), _cost(expr, everything), True)
    else:
        for tile in _tiles(expr, everything, budget):
            yield Part(tile, _cost(expr, tile), _cost(expr, tile), False)


def _along_chunks(expr: Expr, grain: tuple[int, ...], budget: int) -> Iterator[Part]:
    """Boxes of whole chunks, as many at once as the budget allows, and the last axes first so that they are contiguous where that is possible."""
    sizes = list(expr.spec.shape)
    for axis, step in enumerate(grain):
        if _cost(expr, whole(tuple(sizes))) > budget:
            sizes[axis] = min(step, sizes[axis])
            sizes[axis] = min(expr.spec.shape[axis], sizes[axis] * max(1, budget // _cost(expr, whole(tuple(sizes)))))
    for box in _boxes(whole(expr.spec.shape), sizes):
        cost = _cost(expr, box)
        yield Part(box, cost, cost, runs(expr.spec.shape, box)[0] == prod(extent_of(box)))


def _grain(expr: Expr, region: Region) -> tuple[int, ...]:
    """For each axis how many elements lie in one encoded chunk, the longest of all leaves; nothing where there is no such leaf."""
    if isinstance(expr, Chunked):
        return expr.chunk if expr.encoded else ()
    found = [1] * len(region)
    below = [(position, grain) for position, child in enumerate(expr.children) if (grain := _grain(child, whole(child.spec.shape)))]
    for axis in range(len(region)):
        narrow = expr.needs(_narrowed(region, axis))
        for position, grain in below:
            sizes, narrowed = expr.children[position].spec.shape, extent_of(narrow[position])
            along = [-(-step // part) for step, size, part in zip(grain, sizes, narrowed, strict=True) if 0 < part < size]
            found[axis] = max(found[axis], *along, 1)
    return tuple(found) if below else ()


def _cost(expr: Expr, region: Region) -> int:
    """Memory for a region and for what is put in order of it, strip by strip, while it is written."""
    out = prod(extent_of(region)) * expr.spec.dtype.itemsize
    return working_bytes(expr, region) + (0 if expr.allocates else min(out, STRIP))


def blocks(expr: Expr, region: Region, budget: int) -> Iterator[Region]:
    """Cut a region into regions that, one after the other, are it in C order and, where that is possible, cost at most `budget` bytes."""
    yield from _cut(expr, region, 0, budget)


def _cut(expr: Expr, region: Region, axis: int, budget: int) -> Iterator[Region]:
    cost = working_bytes(expr, region)
    if cost <= budget or axis == len(region):
        yield region
        return
    start, stop = region[axis]
    rows = stop - start
    if rows <= 1:
        yield from _cut(expr, region, axis + 1, budget)
        return
    step = min(rows - 1, max(1, rows * budget // cost))
    for low in range(start, stop, step):  # rows may differ in cost, so each slab is looked at anew; only single rows are cut across
        yield from _cut(expr, (*region[:axis], (low, min(low + step, stop)), *region[axis + 1 :]), axis, budget)


def _tiles(expr: Expr, region: Region, budget: int) -> Iterator[Region]:
    """Boxes that read and write in runs as long as the budget allows: square where two axes pull in different ways."""
    sizes = list(extent_of(region))
    written = max(axis for axis, size in enumerate(sizes) if size > 1)
    read = min((axis for axis, size in enumerate(sizes) if size > 1), key=lambda axis: shortest_run(expr, _narrowed(region, axis)))
    for axis in range(len(sizes)):
        if axis not in (read, written) and _cost(expr, whole(tuple(sizes))) > budget:
            sizes[axis] = _longest(expr, sizes, axis, budget)
    while _cost(expr, whole(tuple(sizes))) > budget and max(sizes[read], sizes[written]) > 1:
        longer = max(read, written, key=lambda axis: sizes[axis])
        sizes[longer] = -(-sizes[longer] // 2)
    yield from _boxes(region, sizes)


def _longest(expr: Expr, sizes: Sequence[int], axis: int, budget: int) -> int:
    """How long a box of these sizes may be along an axis, at least 1: what it costs need not grow in step with it."""
    low, high = 1, sizes[axis]
    while low < high:
        middle = (low + high + 1) // 2
        fits = _cost(expr, whole((*sizes[:axis], middle, *sizes[axis + 1 :]))) <= budget
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _boxes(region: Region, sizes: Sequence[int]) -> Iterator[Region]:
    """A region cut into boxes of these sizes, in C order; those at its end are smaller."""
    ranges = [range(start, stop, step) for (start, stop), step in zip(region, sizes, strict=True)]
    for corner in product(*ranges):
        yield tuple((low, min(low + step, stop)) for low, step, (_, stop) in zip(corner, sizes, region, strict=True))


def _narrowed(region: Region, axis: int) -> Region:
    start, _ = region[axis]
    return (*region[:axis], (start, start + 1), *region[axis + 1 :])


def shortest_run(expr: Expr, region: Region) -> float:
    """Bytes of the shortest piece that has to be read for a region of `expr`; infinite where nothing is."""
    if isinstance(expr, Stored):
        return runs(expr.spec.shape, region)[0] * expr.spec.dtype.itemsize if prod(extent_of(region)) else inf
    return min((shortest_run(child, need) for child, need in expr.examples(region)), default=inf)


def working_bytes(expr: Expr, region: Region) -> int:
    """An upper bound of the memory that `evaluate` holds for this region: each node's array, all at once, and encoded tensors whole.

    Not counted: temporaries of fixed size (a span that is read, a piece of a cast or fill), and the whole of an `orthogonal` fill.
    """
    size = prod(extent_of(region))
    if size and isinstance(expr, Stored) and expr.extent.codec is not None:
        return _decoding_bytes(expr.extent.codec, expr)
    own = size * max(expr.spec.dtype.itemsize, 1) if expr.allocates else 0
    if size and isinstance(expr, Chunked):
        own += expr.decoding_bytes
    inputs = (working_bytes(child, need) for child, need in expr.examples(region))
    return own + (2 * max(inputs, default=0) if expr.streams else sum(inputs))  # what is made of one input lies beside it


def _decoding_bytes(codec: Codec, stored: Stored) -> int:
    """What a tensor costs that is decoded whole; elements that vary in length lie beside the bytes that they were cut from."""
    if isinstance(codec, StreamCodec):
        return stored.spec.nbytes
    return 2 * stored.extent.nbytes + stored.spec.size * _OBJECT_BYTES
