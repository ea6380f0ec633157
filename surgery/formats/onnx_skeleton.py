"""An ONNX model without the bytes of its tensors: all that a copy of it needs besides these. Serves index, which keeps it, and layout."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from surgery.expr import Expr, Stored
from surgery.formats.base import ReadAt
from surgery.formats.onnx_tensors import is_listed
from surgery.formats.wire import Message
from surgery.tensors import SourceFile

MOST_BYTES = 64 << 20
"""The largest graphs that are known have some ten megabytes."""


class Hole(NamedTuple):
    """Bytes `start` to `stop` of the model's file, which are those of the tensor `key`."""

    start: int
    stop: int
    key: str


class Skeleton:
    """The bytes of a file but for its holes, by their offsets in the file."""

    def __init__(self, path: str, nbytes: int, holes: list[Hole], kept: list[bytes]) -> None:
        self.path = path
        self.nbytes = nbytes
        self._holes = holes
        self._kept = kept
        self._starts = [0, *(hole.stop for hole in holes)]

    def message(self) -> Message:
        """The model, to be walked over; in the holes are zeros."""
        return Message(self._read, self.nbytes, self.path)

    def pieces(self, start: int, stop: int) -> Iterator[bytes | Hole]:
        """What lies at `start` to `stop`, in order; holes are whole there."""
        number = bisect_right(self._starts, start) - 1
        while start < stop:
            base, kept = self._starts[number], self._kept[number]
            end = min(stop, base + len(kept))
            if start < end:
                yield kept[start - base : end - base]
            if end < stop:
                yield self._holes[number]
                end = self._holes[number].stop
            start, number = end, number + 1

    def _read(self, start: int, stop: int) -> bytes:
        number = bisect_right(self._starts, start) - 1
        found = b""
        while start < stop:
            base, kept = self._starts[number], self._kept[number]
            behind = self._holes[number].stop if number < len(self._holes) else self.nbytes
            end = min(stop, behind)
            found += kept[start - base : end - base].ljust(end - start, b"\0")
            start, number = end, number + 1
        return found


def skeleton_of(file: SourceFile, read: ReadAt, tensors: Mapping[str, Expr]) -> Skeleton | None:
    """The model in `file` without its tensors' bytes; None where it has more than MOST_BYTES besides. Values in lists stay in it."""
    holes = sorted(_holes(file, tensors))
    edges = [0, *(edge for hole in holes for edge in hole[:2]), file.nbytes]
    gaps = list(zip(edges[::2], edges[1::2], strict=True))
    if sum(stop - start for start, stop in gaps) > MOST_BYTES:
        return None
    return Skeleton(file.path, file.nbytes, holes, [read(start, stop) for start, stop in gaps])


def _holes(file: SourceFile, tensors: Mapping[str, Expr]) -> Iterator[Hole]:
    for key, expr in tensors.items():
        if isinstance(expr, Stored) and expr.extent.file is file and expr.extent.nbytes and not is_listed(expr):
            yield Hole(expr.extent.start, expr.extent.stop, key)
