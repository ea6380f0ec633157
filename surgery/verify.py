"""Stored checksums, looked at when bytes pass through the process. Serves apply and `open`."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import NamedTuple

from surgery.checksums import EXTEND
from surgery.errors import CorruptFile
from surgery.expr import Expr, Read, checksummed
from surgery.tensors import Extent, SourceFile


def checksum_fault(key: str, file: SourceFile, start: int, nbytes: int, stored: int, computed: int) -> CorruptFile:
    """The error for bytes that are not those the checksum was taken of, in the source format's own words."""
    sentence = file.checksum_fault or "{nbytes} bytes: Checksum does not match: stored {stored} vs. calculated {computed}"
    return CorruptFile(
        sentence.format(nbytes=nbytes, stored=stored, computed=computed),
        code="checksum",
        sentence=bool(file.checksum_fault),
        notes=[_place_of(key, file, start, nbytes)],
        help="the source is damaged or still being written; copy it again. Nothing was written to the target",
        data={"key": key, "file": file.path, "start": start, "stop": start + nbytes},
    )


def compare(key: str, file: SourceFile, start: int, nbytes: int, stored: int, computed: int) -> None:
    """Raise CorruptFile where a stored checksum is not that of the bytes."""
    if stored != computed:
        raise checksum_fault(key, file, start, nbytes, stored, computed)


class ReadPart(NamedTuple):
    """The checksum of `nbytes` of a stored tensor from `rel_start` on, as they passed by."""

    extent: Extent
    rel_start: int
    nbytes: int
    checksum: int


class CheckedReader:
    """A `Read` for one tensor that checksums what passes by.

    A tensor that is read at once is verified at once; of others `parts` tells what was read, neighbours joined.
    """

    def __init__(self, key: str, expr: Expr, read: Read) -> None:
        self.parts: list[ReadPart] = []
        self._key = key
        self._read = read
        extents = checksummed(expr)
        self._places = {file: _Places(sorted((extent for extent in extents if extent.file == file), key=attrgetter("start")))
            for file in {extent.file for extent in extents}}  # fmt: skip

    def read(self, file: SourceFile, start: int, stop: int) -> bytes | memoryview:
        """Raises CorruptFile, and what the reader below raises."""
        data = self._read(file, start, stop)
        extent = self._places[file].around(start, stop) if file in self._places else None
        if extent is None:
            return data
        if (start, stop) == (extent.start, extent.stop):
            compare(self._key, file, start, extent.nbytes, extent.checksum or 0, stored_checksum(self._key, extent, data))
            self.parts.append(ReadPart(extent, 0, extent.nbytes, extent.checksum or 0))
        elif extent.codec is None:
            self._extend(extent, start - extent.start, data)
        return data

    def _extend(self, extent: Extent, rel_start: int, data: bytes | memoryview) -> None:
        extend = EXTEND[extent.file.checksum_kind]
        for at, part in enumerate(self.parts):
            if part.extent is extent and part.rel_start + part.nbytes == rel_start:
                self.parts[at] = part._replace(nbytes=part.nbytes + len(data), checksum=extend(data, part.checksum))
                return
        self.parts.append(ReadPart(extent, rel_start, len(data), extend(data, 0)))


class _Places:
    """Extents of one file, sorted, that do not overlap."""

    def __init__(self, extents: list[Extent]) -> None:
        self._extents = extents
        self._starts = [extent.start for extent in extents]

    def around(self, start: int, stop: int) -> Extent | None:
        """The extent that a range lies in."""
        at = bisect_right(self._starts, start) - 1
        return self._extents[at] if at >= 0 and stop <= self._extents[at].stop else None


def stored_checksum(key: str, extent: Extent, stored: bytes | memoryview) -> int:
    """The checksum of a stored tensor's bytes, taken as its format takes it. Raises CorruptFile where its encoding is damaged."""
    if extent.codec is None:
        return EXTEND[extent.file.checksum_kind](stored, 0)
    try:
        return extent.codec.checksum(bytes(stored), extent.spec)
    except CorruptFile as fault:
        fault.notes = (_place_of(key, extent.file, extent.start, extent.nbytes), *fault.notes)
        raise


def _place_of(key: str, file: SourceFile, start: int, nbytes: int) -> str:
    return f"key {key}, {file.path}, bytes {start:,} to {start + nbytes:,}"
