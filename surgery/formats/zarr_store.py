"""Where the values of a zarr hierarchy lie: under their keys in a folder. Serves zarr and Orbax; a database of Orbax has the same two questions.

Also the one way in which JSON that somebody else wrote is read here: with its size and number of values bounded first.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.base import Disk, ReadAt
from surgery.formats.wire import COPY_AGAIN
from surgery.tensors import SourceFile

MOST_NAMES = 1 << 18
_MOST_JSON_BYTES = 64 << 20
_MOST_JSON_VALUES = 2_500_000
"""So many objects, lists, members and items take less memory than a process may use here."""


class Value(NamedTuple):
    """The bytes behind a key: a range of a file, or `inline` bytes that an index holds, which lies in that file."""

    file: SourceFile
    read: ReadAt
    start: int
    nbytes: int
    inline: bytes | None = None

    def content(self, start: int, stop: int) -> bytes:
        """Bytes of the value. Raises CorruptFile where the file ends too early."""
        return self.inline[start:stop] if self.inline is not None else self.read(self.start + start, self.start + stop)

    def __str__(self) -> str:
        place = f"bytes {self.start:,} to {self.start + self.nbytes:,} of {self.file.nbytes:,}"
        return f"{self.file.path}, {place}" if self.inline is None else f"{self.file.path}, in the index"


class Store(Protocol):
    """What the readers ask of a hierarchy; keys are joined with `/`."""

    label: str

    def find(self, key: str) -> Value | None:
        """The value under a key, if there is one."""
        ...

    def names(self, key: str) -> list[str]:
        """The names directly below a key, sorted, of values and of folders."""
        ...


class FolderStore:
    """Values as files of a folder."""

    def __init__(self, folder: str, disk: Disk) -> None:
        self.label = folder
        self._disk = disk

    def find(self, key: str) -> Value | None:
        path = posixpath.join(self.label, key)
        if not self._disk.is_file(path):
            return None
        file, read = self._disk.open(path)
        return Value(file, read, 0, file.nbytes)

    def names(self, key: str) -> list[str]:
        folder = posixpath.join(self.label, key)
        return self._disk.names(folder) if self._disk.is_folder(folder) else []


def below(store: Store, key: str, depth: int) -> Iterator[tuple[str, ...]]:
    """The names that are `depth` levels below a key, each with the levels above it. Raises UnsupportedFeature for more than 262,144."""
    level: list[tuple[str, ...]] = [()]
    for _ in range(depth):
        level = [(*above, name) for above in level for name in store.names(posixpath.join(key, *above))]
        if len(level) > MOST_NAMES:
            raise UnsupportedFeature(f"`{key}` in {store.label} has more than {MOST_NAMES:,} chunks", help="write it again with larger chunks")
    yield from level


def read_object(value: Value) -> dict[str, Any]:
    """The JSON object that a value is.

    Raises:
        CorruptFile: it is none.
        UnsupportedFeature: it has more bytes or values than metadata has.
    """
    if value.nbytes > _MOST_JSON_BYTES:
        raise UnsupportedFeature(f"the metadata in {value.file.path} is too large", notes=[str(value)], help="give the path of an array")
    data = value.content(0, value.nbytes)
    if sum(map(data.count, (b",", b"[", b"{", b":"))) > _MOST_JSON_VALUES:
        raise UnsupportedFeature(f"the metadata in {value.file.path} has too many values", notes=[str(value)], help="give the path of an array")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise CorruptFile(f"{value.file.path} is no JSON", notes=[str(fault)[:200], str(value)], help=COPY_AGAIN) from None
    if not isinstance(found, dict):
        raise CorruptFile(f"{value.file.path} is no JSON object", notes=[str(value)], help=COPY_AGAIN)
    return found
