"""The nodes that move elements about and never change one: their axes, their shape, and a part of them.

Offsets and lengths are in elements, in C order. Nothing here reads a byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from surgery.nodes import Expr
from surgery.regions import Region, cover, extent_of, span_of, strides_of, whole
from surgery.tensors import Extent, TensorSpec

if TYPE_CHECKING:
    from surgery.nodes import Array


class Transpose(Expr):
    """Axes in another order: axis i of the result is axis `order[i]` of the child."""

    __slots__ = ("order",)
    allocates = False

    def __init__(self, child: Expr, order: tuple[int, ...]) -> None:
        self.children = (child,)
        self.order = order
        self.spec = TensorSpec(child.spec.dtype, tuple(child.spec.shape[axis] for axis in order))

    def needs(self, region: Region) -> tuple[Region, ...]:
        needed = [(0, 0)] * len(region)
        for axis, pair in zip(self.order, region, strict=True):
            needed[axis] = pair
        return (tuple(needed),)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        return inputs[0].transpose(self.order)

    def view(self) -> tuple[Extent, ...] | None:
        child = self.children[0]
        moved = [axis for axis in self.order if child.spec.shape[axis] != 1]
        return child.view() if moved == sorted(moved) else None


class Slice(Expr):
    """A contiguous region of a tensor, step 1: `shape` elements from `origin` on. The maker has checked that it lies inside."""

    __slots__ = ("origin",)
    allocates = False

    def __init__(self, child: Expr, origin: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self.children = (child,)
        self.origin = origin
        self.spec = TensorSpec(child.spec.dtype, shape)

    def needs(self, region: Region) -> tuple[Region, ...]:
        return (tuple((low + start, low + stop) for low, (start, stop) in zip(self.origin, region, strict=True)),)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        return inputs[0]

    def view(self) -> tuple[Extent, ...] | None:
        child, bits = self.children[0], self.spec.dtype.bits
        stored = child.view()
        if stored is None or self.spec.shape == child.spec.shape:
            return stored
        if not bits or not self.spec.size:
            return () if bits else None
        start, stop = span_of(child.spec.shape, self.needs(whole(self.spec.shape))[0])
        if stop - start != self.spec.size or start * bits % 8 or stop * bits % 8:
            return None
        return _cut_out(stored, start * bits // 8, stop * bits // 8)


def _cut_out(stored: tuple[Extent, ...], start: int, stop: int) -> tuple[Extent, ...] | None:
    """The stored ranges behind the bytes `start` to `stop` of a tensor; None where an encoded one would have to be cut."""
    cut, at = [], 0
    for extent in stored:
        nbytes = extent.spec.nbytes
        first, last = max(start - at, 0), min(stop - at, nbytes)
        at += nbytes
        if (first, last) == (0, nbytes):
            cut.append(extent)
        elif first < last and extent.codec is not None:
            return None
        elif first < last:
            flat = TensorSpec(extent.spec.dtype, ((last - first) * 8 // extent.spec.dtype.bits,))
            cut.append(
                extent._replace(
                    start=extent.start + first,
                    nbytes=last - first,
                    spec=flat,
                    checksum=None,
                    part_of=extent.part_of if extent.checksum is None else extent,
                )
            )
    return tuple(cut)


class Reshape(Expr):
    """The same elements in C order under another shape of as many elements; the maker has checked that."""

    __slots__ = ("groups",)

    def __init__(self, child: Expr, shape: tuple[int, ...]) -> None:
        self.children = (child,)
        self.spec = TensorSpec(child.spec.dtype, shape)
        self.groups = tuple(_groups(child.spec.shape, shape)) if self.spec.size else ()

    def needs(self, region: Region) -> tuple[Region, ...]:
        child = self.children[0].spec.shape
        if 0 in extent_of(region):
            return (((0, 0),) * len(child),)
        return (tuple(pair for group in self.groups for pair in group.box(region)),)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        from surgery.arrays import plain_type

        shape = extent_of(region)
        if 0 in shape:
            return inputs[0].reshape(-1)[:0].reshape(shape)
        boxes = [group.box(region) for group in self.groups]
        pitches = strides_of(tuple(prod(extent_of(box)) for box in boxes))  # of the groups, each of which the input holds as one run
        flat = np.ascontiguousarray(inputs[0]).reshape(-1)
        offset = sum(group.offset(region, box) * pitch for group, box, pitch in zip(self.groups, boxes, pitches, strict=True))
        steps = tuple(pitch * step * flat.itemsize for group, pitch in zip(self.groups, pitches, strict=True) for step in strides_of(group.new))
        plain = flat if flat.dtype.kind == "O" else flat.view(plain_type(flat.itemsize))  # numpy cannot stride over all types of ml_dtypes
        window = np.lib.stride_tricks.as_strided(plain[offset:], shape, steps, writeable=False)
        return np.ascontiguousarray(window).view(flat.dtype).reshape(shape)

    def view(self) -> tuple[Extent, ...] | None:
        return self.children[0].view()


class _Group(NamedTuple):
    """Neighbouring axes of both shapes that hold the same elements: `old` are sizes of the child's, `new` those of the node's from axis `at` on."""

    old: tuple[int, ...]
    new: tuple[int, ...]
    at: int

    def box(self, region: Region) -> Region:
        """The region of the child's axes that a region which is not empty depends on; it is one run of the group's elements."""
        return cover(self.old, *span_of(self.new, region[self.at : self.at + len(self.new)]))

    def offset(self, region: Region, box: Region) -> int:
        """How far behind the first element of the box the region begins."""
        return span_of(self.new, region[self.at : self.at + len(self.new)])[0] - span_of(self.old, box)[0]


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[_Group]:
    """The shapes of a tensor with elements, cut into groups as short as possible."""
    a = b = 0
    while a < len(old) or b < len(new):
        left, right = a + 1, b + 1
        while prod(old[a:left]) != prod(new[b:right]):
            if prod(old[a:left]) < prod(new[b:right]):
                left += 1
            else:
                right += 1
        yield _Group(tuple(old[a:left]), tuple(new[b:right]), b)
        a, b = left, right
