"""Stored checksums, looked at when bytes pass through the process. Serves apply and `open`."""

from __future__ import annotations

from surgery.checksums import EXTEND
from surgery.errors import CorruptFile
from surgery.expr import Expr, Read, Stored
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


def verified_read(key: str, expr: Expr, read: Read) -> Read:
    """A `read` that verifies stored checksums of tensors that are read whole."""
    stored = {(leaf.extent.file, leaf.extent.start, leaf.extent.stop): leaf.extent for leaf in expr.leaves() if isinstance(leaf, Stored)}

    def checked(file: SourceFile, start: int, stop: int) -> bytes | memoryview:
        data = read(file, start, stop)
        extent = stored.get((file, start, stop))
        if extent is not None and extent.checksum is not None:
            computed = stored_checksum(key, extent, data)
            if computed != extent.checksum:
                raise checksum_fault(key, file, start, extent.nbytes, extent.checksum, computed)
        return data

    return checked


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
