"""The smallest thing that can carry out a `Layout`: one tensor after the other, all in memory, every range checked."""

from __future__ import annotations

import os
import zlib
from itertools import pairwise
from pathlib import Path

from disk import FolderDisk

from surgery.errors import CorruptFile
from surgery.expr import Expr, Stored, evaluate
from surgery.formats.base import Layout
from surgery.regions import whole
from surgery.tensors import Extent, SourceFile, TensorSpec


class RawFile:
    """Makes stored tensors out of bytes, in a file that has no format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_bytes(b"")

    def tensor(self, spec: TensorSpec, data: bytes, *, offset: int | None = None) -> Stored:
        """A tensor whose bytes are put at `offset`, by default at the end of the file."""
        size = self.path.stat().st_size
        start = size if offset is None else offset
        assert start >= size
        with self.path.open("ab") as file:
            file.write(bytes(start - size) + data)
        source, _ = FolderDisk().open(str(self.path))
        return Stored(Extent(source, start, len(data), spec))


def content(expr: Expr, disk: FolderDisk) -> bytes:
    """The bytes of a tensor in C order, little-endian; checks what checksum the source keeps. Raises SourceError."""

    def read(file: SourceFile, start: int, stop: int) -> bytes:
        _, read_at = disk.open(file.path)
        return read_at(start, stop)

    for leaf in expr.leaves():
        if isinstance(leaf, Stored) and leaf.extent.checksum is not None:
            extent = leaf.extent
            stored = read(extent.file, extent.start, extent.stop)
            computed = zlib.crc32(stored) if extent.file.checksum_kind == "crc32" else _crc32c(stored, extent)
            if computed != extent.checksum:
                raise CorruptFile(f"checksum of {extent.file.path} does not match", help="copy it again")
    if expr.spec.dtype.computable:
        return evaluate(expr, whole(expr.spec.shape), read).tobytes()
    ranges = expr.view()
    assert ranges is not None
    return b"".join(read(extent.file, extent.start, extent.stop) for extent in ranges)


def execute(layout: Layout, disk: FolderDisk) -> None:
    """Write the files of a layout. Fails where two tensors, or a tensor and a patch, claim one byte."""
    os.makedirs(layout.folder, exist_ok=True)
    images = {file.name: bytearray(file.size or 0) for file in layout.files}
    sizes = {file.name: file.size for file in layout.files}
    claimed: dict[str, list[tuple[int, int]]] = {file.name: [] for file in layout.files}
    checksums: dict[str, int] = {}
    for file in layout.files:
        for placement in file.placements:
            data = content(placement.expr, disk)
            images[file.name][placement.start : placement.start + len(data)] = data
            claimed[file.name].append((placement.start, placement.start + len(data)))
            ranges = placement.expr.view() or ()
            if layout.checksum == "crc32c":
                checksums[placement.key] = _crc32c(data, ranges[0] if ranges and not placement.expr.spec.dtype.computable else None)
            elif layout.checksum == "crc32":
                checksums[placement.key] = zlib.crc32(data)
    for patch in (*layout.patches, *(layout.seal(checksums) if layout.seal else ())):
        stop = patch.start + len(patch.data)
        assert all(stop <= low or patch.start >= high or low == high for low, high in claimed[patch.file])
        images[patch.file][patch.start : stop] = patch.data
    for name, ranges_of_file in claimed.items():
        filled = sorted(pair for pair in ranges_of_file if pair[0] < pair[1])
        assert all(before[1] <= after[0] for before, after in pairwise(filled))
        assert sizes[name] in (None, len(images[name]))
        Path(layout.folder, name).write_bytes(images[name])
    for update in layout.updates:
        path = Path(layout.folder, update.name)
        path.write_bytes(update.rewrite(path.read_bytes() if path.exists() else None))


def _crc32c(data: bytes, extent: Extent | None) -> int:
    if extent is not None and extent.codec is not None:
        return extent.codec.checksum(data, extent.spec)
    import google_crc32c

    return int(google_crc32c.value(data))
