"""A disk that remembers what was asked of it: all that a plan was made from, for the manifest."""

from __future__ import annotations

from surgery.formats.base import Disk, ReadAt
from surgery.manifest import Evidence, Stamp
from surgery.tensors import SourceFile


class Witness:
    """Another disk, whose first answer about each path is kept: whoever asks later may be told something newer.

    `known` are answers from before.
    """

    def __init__(self, disk: Disk, known: Evidence = Evidence({})) -> None:  # noqa: B008
        self._disk = disk
        self._files: dict[str, Stamp | None] = dict(known.files)
        self._folders: dict[str, list[str]] = {folder: list(names) for folder, names in known.folders.items()}

    @property
    def evidence(self) -> Evidence:
        """What was answered so far. That something is a folder does not count: what is looked for in it does."""
        return Evidence(self._files, self._folders)

    def is_file(self, path: str) -> bool:
        """As the disk says; a file that is not there is remembered."""
        found = self._disk.is_file(path)
        if not found:
            self._files.setdefault(path, None)
        return found

    def is_folder(self, path: str) -> bool:
        """As the disk says."""
        return self._disk.is_folder(path)

    def names(self, folder: str) -> list[str]:
        """As the disk says, and remembered."""
        return self._folders.setdefault(folder, self._disk.names(folder))

    def open(self, path: str, checksum_fault: str = "") -> tuple[SourceFile, ReadAt]:
        """As the disk says; the file's stamp is remembered."""
        file, read = self._disk.open(path, checksum_fault)
        self._files.setdefault(path, Stamp.of(file.fingerprint))
        return file, read
