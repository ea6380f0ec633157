"""Storage for format tests: plain files through `os`, with a count of the bytes that were read."""

from __future__ import annotations

import os

from surgery.errors import CorruptFile, SourceError
from surgery.formats.base import ReadAt
from surgery.tensors import Fingerprint, SourceFile


class FolderDisk:
    """The `Disk` of `surgery.formats.base` over the local file system.

    `bytes_read` counts what the readers handed out since the disk was made.
    """

    def __init__(self) -> None:
        self.bytes_read = 0

    def is_file(self, path: str) -> bool:
        return os.path.isfile(path)

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def names(self, folder: str) -> list[str]:
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def open(self, path: str, checksum_fault: str = "") -> tuple[SourceFile, ReadAt]:
        try:
            facts = os.stat(path)
        except OSError as fault:
            raise SourceError(f"cannot open {path}", notes=[str(fault)], help="check the path") from fault

        def read(start: int, stop: int) -> bytes:
            if not 0 <= start <= stop <= facts.st_size:
                raise CorruptFile(f"{path} ends too early", notes=[f"wanted bytes {start} to {stop} of {facts.st_size}"])
            with open(path, "rb") as file:
                file.seek(start)
                stored = file.read(stop - start)
            self.bytes_read += len(stored)
            return stored

        return SourceFile(path, Fingerprint(facts.st_size, facts.st_mtime_ns, facts.st_dev, facts.st_ino), checksum_fault), read
