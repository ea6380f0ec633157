"""The journal of a commit: what is still to be done, as a file that is whole or counts as none.

Serves `commit` alone. Does nothing of what it says.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from contextlib import suppress
from os.path import join
from typing import NamedTuple

from surgery import files

SUFFIX = ".surgery"
JOURNAL = ".journal.surgery"


class EditOf(NamedTuple):
    """A file that gets another beginning where it lies, if it is still the one with this inode and size; then it was changed at `mtime_ns`."""

    name: str
    inode: int
    nbytes: int
    mtime_ns: int


class Journal(NamedTuple):
    """What a commit does, by plain names; `files` has the index last. The new beginnings of `edits` are staged under the names of the files."""

    files: list[str]
    remove: list[str]
    replaces_index: list[str]
    edits: list[EditOf]

    @property
    def names(self) -> list[str]:
        """Every name that the commit is about."""
        return [*self.files, *self.remove, *self.replaces_index, *(edit.name for edit in self.edits)]

    @property
    def last(self) -> str:
        """The file that a reader looks at first."""
        return self.files[-1] if self.files else self.edits[-1].name

    def encode(self, folder: Sequence[int]) -> bytes:
        """One line of JSON (ASCII; names that are not UTF-8 as lone surrogates), one line with its CRC-32.

        `folder` is the identity of the staging folder that it is written in.
        """
        text = json.dumps({**self._asdict(), "folder": list(folder)}).encode("ascii")
        return b"%s\n%08x\n" % (text, zlib.crc32(text))

    @classmethod
    def read(cls, staged: str) -> tuple[Journal, bool] | None:
        """The journal of a staging folder, and whether it was written in this very folder.

        None where there is none, or one that is torn or names anything but plain names.
        """
        path = join(staged, JOURNAL)
        data = files.read_file(path) if files.is_regular(path) else None
        text, _, check = (data or b"").partition(b"\n")
        if check != b"%08x\n" % zlib.crc32(text):
            return None
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            fields = json.loads(text)
            folder = fields.pop("folder")
            edits = [EditOf(*edit) for edit in fields.pop("edits", [])]
            journal = cls(**fields, edits=edits)
            whole = all(type(number) is int for edit in edits for number in edit[1:]) and all(isinstance(group, list) for group in journal)
            if whole and (journal.files or edits) and all(map(is_plain, journal.names)):
                return journal, folder == files.identity(staged)
        return None


def is_plain(name: object) -> bool:
    """Whether a file can be committed under this name: no separators, and nothing that staging folders are known by."""
    reserved = isinstance(name, str) and name.startswith(".") and name.endswith(SUFFIX)
    return isinstance(name, str) and name not in ("", ".", "..") and not reserved and not {"/", "\0"} & set(name)
