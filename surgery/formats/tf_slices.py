"""Partitioned tensors: the slices of one tensor, each stored as a tensor of its own under a binary key.

Source: TensorFlow, core/framework/tensor_slice.cc, core/util/saved_tensor_slice_util.cc (key), core/lib/strings/ordered_code.cc.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.regions import Region

_MOST_COMPARISONS = 20_000_000
_SAVE_AGAIN = "the checkpoint was put together wrongly; save it again"
_ESCAPES = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}


class Slice(NamedTuple):
    """For each dimension a start and a length; the length is None where the whole dimension is meant."""

    extents: tuple[tuple[int, int | None], ...]

    def __str__(self) -> str:
        return ":".join("-" if length is None else f"{start},{length}" for start, length in self.extents)

    def region(self, shape: tuple[int, ...]) -> Region:
        """Half-open ranges in a tensor of this shape, one per dimension.

        Raises:
            CorruptFile: another rank, or a range outside the shape.
        """
        if len(self.extents) != len(shape):
            raise _corrupt(f"Mismatching ranks: shape = {_brackets(shape)}, slice = {self}")
        region = []
        for axis, ((start, length), size) in enumerate(zip(self.extents, shape, strict=True)):
            stop = size if length is None else start + length
            if not 0 <= start <= stop <= size:
                raise _corrupt(f"Extent in dimension {axis} out of bounds: shape = {_brackets(shape)}, slice = {self}")
            region.append((start, stop))
        return tuple(region)


def slice_key(name: bytes, piece: Slice) -> bytes:
    """The key of a slice's own entry; made from the extents exactly as they are listed."""
    escaped = b"".join(_ESCAPES.get(byte) or bytes([byte]) for byte in name)
    head = b"\x00" + escaped + b"\x00\x01" + _ordered_unsigned(len(piece.extents))
    return head + b"".join(_ordered(start) + _ordered(-1 if length is None else length) for start, length in piece.extents)


def check_tiling(name: str, shape: tuple[int, ...], pieces: Sequence[Slice]) -> None:
    """Check that the slices fill a tensor of this shape exactly once.

    Sweeps along the dimension that is cut most often, so that few slices have to be compared with each other.

    Raises:
        CorruptFile: a slice of another rank or out of bounds, slices that overlap, or that leave a hole.
        UnsupportedFeature: slices that would take minutes to compare.
    """
    regions = [piece.region(shape) for piece in pieces]
    axis = max(range(len(shape)), key=lambda each: len({region[each][0] for region in regions}), default=None)
    active: list[int] = []
    comparisons = 0
    for number in sorted(range(len(regions)), key=lambda each: () if axis is None else regions[each][axis]):
        region = regions[number]
        active = [other for other in active if axis is None or regions[other][axis][1] > region[axis][0]]
        comparisons += len(active)
        if comparisons > _MOST_COMPARISONS:
            raise UnsupportedFeature(f"`{name}` has more slices than can be checked", notes=[f"{len(pieces):,} slices"], help=_SAVE_AGAIN)
        for other in active:
            if _overlap(region, regions[other]):
                first, second = sorted((number, other))
                raise _corrupt(f"Overlapping slices: existing slice = {pieces[first]}, new slice = {pieces[second]}", name)
        active.append(number)
    if sum(map(_volume, regions)) != prod(shape):
        everything = ":".join("-" for _ in shape)
        raise _corrupt(f"Does not have sufficient slices for partitioned tensor {name} to restore in slice_spec: {everything}")


def _overlap(left: Region, right: Region) -> bool:
    return all(start < other_stop and other_start < stop for (start, stop), (other_start, other_stop) in zip(left, right, strict=True))


def _volume(region: Region) -> int:
    return prod(stop - start for start, stop in region)


def _ordered_unsigned(number: int) -> bytes:
    """Bytes that sort as the numbers do: a count, then that many big-endian bytes without leading zeros."""
    size = (number.bit_length() + 7) // 8
    return bytes([size]) + number.to_bytes(size, "big")


def _ordered(number: int) -> bytes:
    """Bytes that sort as signed numbers do: n bytes of two's complement whose first bits, exclusive-or'd with n ones, tell n."""
    size = next(size for size in range(1, 11) if -(1 << (7 * size - 1)) <= number < 1 << (7 * size - 1))
    ones = ((1 << size) - 1) << (7 * size)
    return ((number & ((1 << (8 * size)) - 1)) ^ ones).to_bytes(size, "big")


def _brackets(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _corrupt(title: str, name: str = "") -> CorruptFile:
    notes = [f"partitioned tensor {name}"] if name else []
    return CorruptFile(title, notes=notes, help=_SAVE_AGAIN, sentence=True)
