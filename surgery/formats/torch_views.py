"""From a tensor of PyTorch, which is a window into a storage with strides, to an expression over the storage's bytes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from surgery.dtypes import DType, numpy_dtype
from surgery.expr import Expr, Stored, Transpose
from surgery.formats.torch_objects import Tensor
from surgery.regions import Region, extent_of, strides_of
from surgery.tensors import Codec, Extent, SourceFile, TensorSpec

if TYPE_CHECKING:
    from surgery.expr import Array

AXES_LIMIT = 64
_MOST_REPEATED_BYTES = 1 << 30
"""The most bytes of a tensor that shows elements of its storage more than once (`expand`): the file's size says nothing about it."""


class Place(NamedTuple):
    """Where a storage's `nbytes` bytes lie; `crc32` is that of all of them, None where it is not known.

    With a codec it is `stored_nbytes` bytes of the file that they are made of.
    """

    file: SourceFile
    start: int
    nbytes: int
    crc32: int | None = None
    big_endian: bool = False
    codec: Codec | None = None
    stored_nbytes: int = 0

    @property
    def stop(self) -> int:
        """Where its bytes in the file end."""
        return self.start + (self.nbytes if self.codec is None else self.stored_nbytes)


class Strided(Expr):
    """Elements of a flat tensor at `offset` and steps of `strides`, in elements. The maker has checked that all of them are in it."""

    __slots__ = ("offset", "strides")

    def __init__(self, child: Expr, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.children = (child,)
        self.offset = offset
        self.strides = strides
        self.spec = TensorSpec(child.spec.dtype, shape)

    def needs(self, region: Region) -> tuple[Region, ...]:
        if 0 in extent_of(region):
            return (((0, 0),),)
        first = self.offset + sum(start * stride for (start, _), stride in zip(region, self.strides, strict=True))
        last = self.offset + sum((stop - 1) * stride for (_, stop), stride in zip(region, self.strides, strict=True))
        return (((first, last + 1),),)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        flat = np.ascontiguousarray(inputs[0])
        dtype, shape = numpy_dtype(self.spec.dtype), extent_of(region)
        if 0 in shape:
            return np.empty(shape, dtype)
        strides = tuple(stride * dtype.itemsize for stride in self.strides)
        return np.ndarray(shape, dtype, flat, strides=strides).copy()


def view_of(tensor: Tensor, place: Place) -> Expr:
    """The expression for a tensor in its storage: stored bytes, a transposition of such, or `Strided`.

    Raises:
        ValueError: the tensor does not lie inside its storage, has more than 64 axes, or repeats elements to more than 1 GiB,
            or has elements that a compressed storage is no whole number of.
    """
    dtype, shape = tensor.dtype, tensor.shape
    if len(shape) > AXES_LIMIT:
        raise ValueError(f"{len(shape)} axes; numpy has at most {AXES_LIMIT}")
    if place.codec is not None and place.nbytes % dtype.itemsize:
        raise ValueError(f"elements of {dtype.itemsize} bytes in a compressed storage of {place.nbytes:,}")
    if 0 in shape:
        if prod(size or 1 for size in shape) * dtype.bits >= 1 << 63:
            raise ValueError(f"a shape of {list(shape)}")
        return Stored(Extent(place.file, place.start, 0, TensorSpec(dtype, shape)))
    size, there = prod(shape), place.nbytes // dtype.itemsize
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, tensor.strides, strict=True))
    if last >= there:
        raise ValueError(f"its element {last:,} is beyond its storage, which has {there:,}")
    if size > there and size * dtype.itemsize > _MOST_REPEATED_BYTES:
        raise ValueError(f"{there:,} elements repeated to {size:,}")
    order = sorted((axis for axis in range(len(shape)) if shape[axis] != 1), key=lambda axis: -tensor.strides[axis])
    packed = tuple(shape[axis] for axis in order)
    is_packed = tuple(tensor.strides[axis] for axis in order) == strides_of(packed)
    if is_packed and (place.codec is None or size * dtype.itemsize == place.nbytes):
        return _transposed(tensor, place, order)
    return Strided(_stored(place, dtype, 0, (there,)), tensor.offset, shape, tensor.strides)


def _transposed(tensor: Tensor, place: Place, order: list[int]) -> Expr:
    """A tensor whose elements lie side by side, with the axes other than of length 1 in this order."""
    if order == sorted(order):
        return _stored(place, tensor.dtype, tensor.offset, tensor.shape)
    ones = [axis for axis, size in enumerate(tensor.shape) if size == 1]
    stored_axes = ones + order
    stored = _stored(place, tensor.dtype, tensor.offset, tuple(tensor.shape[axis] for axis in stored_axes))
    return Transpose(stored, tuple(map(stored_axes.index, range(len(stored_axes)))))


def _stored(place: Place, dtype: DType, offset: int, shape: tuple[int, ...]) -> Stored:
    """Neighbouring elements of a storage, with the storage's checksum if they are all of it, else as a part of that; of one with a codec all."""
    spec = TensorSpec(dtype, shape)
    everything = Extent(place.file, place.start, place.stop - place.start, spec, place.crc32, place.codec, place.big_endian)
    if spec.nbytes == place.nbytes or place.codec is not None:
        return Stored(everything)
    whole = everything._replace(spec=TensorSpec(dtype, (place.nbytes // dtype.itemsize,)))
    return Stored(
        everything._replace(
            start=place.start + offset * dtype.itemsize,
            nbytes=spec.nbytes,
            checksum=None,
            part_of=whole if place.crc32 is not None and whole.spec.nbytes == place.nbytes else None,
        )
    )
