"""Zarr, versions 2 and 3: groups are scopes, arrays are tensors. Only read.

Chunks that are not compressed are byte ranges. gzip, zlib and bz2 are read as they are; zstd, blosc and lz4 need numcodecs, an optional package.
Both byte orders, orders C and F, transpositions, shards, both ways of naming chunks, fill values. Refused: filters, text, dates, records.
Sources: Zarr specification 2 and 3.1.
"""

from __future__ import annotations

import json
import posixpath
from typing import Any

from surgery.errors import CorruptFile, UnsupportedFeature, plural
from surgery.expr import Expr
from surgery.formats.base import Disk, Indexed
from surgery.formats.base import read_only as layout
from surgery.formats.wire import COPY_AGAIN
from surgery.formats.zarr_arrays import find_array
from surgery.formats.zarr_metadata import V2_CODES
from surgery.formats.zarr_store import FolderStore, Store, read_object
from surgery.tensors import SourceFile

__all__ = ["NAME", "OPTIONS", "READS", "SUMMARY", "index", "layout", "locate"]

NAME = "zarr"
SUMMARY = "zarr group or array, versions 2 and 3"
OPTIONS: frozenset[str] = frozenset()
READS = frozenset(dtype.name for dtype in V2_CODES)

_ARRAYS = (".zarray", "zarr.json")
_MARKS = (".zgroup", ".zmetadata", *_ARRAYS)
_OF_GROUPS = ("zarr.json", ".zgroup", ".zmetadata")
_DEPTH_LIMIT = 64
_MOST_NODES = 1 << 17


def locate(path: str, disk: Disk) -> str | None:
    """Recognise the folder of a group or an array by the metadata in it."""
    folder = path.rstrip("/") or "/"
    return folder if disk.is_folder(path) and any(disk.is_file(posixpath.join(folder, mark)) for mark in _MARKS) else None


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the arrays below a folder in the order of their names; a single array is called after its folder. Attributes of the top are metadata.

    Raises:
        CorruptFile: metadata or chunks that contradict each other.
        UnsupportedFeature: an array that cannot be read here; more than 64 levels of groups, or a group in itself.
    """
    walk = _Walk(FolderStore(location, disk))
    attributes = walk.node("", posixpath.basename(location) or "array")
    notes = (f"attributes of {plural(walk.others, 'array or group', 'arrays and groups')} are left out",) if walk.others else ()
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in attributes.items()}
    return Indexed(NAME, location, walk.tensors, metadata, tuple(dict.fromkeys(walk.files)), notes=notes)


class _Walk:
    """A walk over groups that collects arrays, and the files that it looked at."""

    def __init__(self, store: Store) -> None:
        self.tensors: dict[str, Expr] = {}
        self.files: list[SourceFile] = []
        self.others = 0
        self._store = store
        self._above: list[tuple[int, int]] = []
        self._nodes = 0

    def node(self, path: str, key: str) -> dict[str, Any]:
        """Collect what is at a path and below it; returns the attributes that it has itself."""
        self._nodes += 1
        if self._nodes > _MOST_NODES or path.count("/") >= _DEPTH_LIMIT:
            limits = f"more than {_MOST_NODES:,} nodes or {_DEPTH_LIMIT} levels"
            raise UnsupportedFeature(f"{self._store.label} has {limits}", help="give the path of a group in it")
        found = find_array(self._store, path, key, NAME)
        if found is None:
            self._above.append(self._identity(path))
            attributes = self._group(path)
            self._above.pop()
            return attributes
        self.tensors[key] = found.expr
        self.files += found.files
        return found.attributes | self._beside(path)

    def _identity(self, path: str) -> tuple[int, int]:
        """Device and inode of a group's metadata. Raises UnsupportedFeature where a group above has the same: a link leads up again."""
        value = next((value for mark in _OF_GROUPS if (value := self._store.find(posixpath.join(path, mark)))), None)
        identity = (value.file.fingerprint.device, value.file.fingerprint.inode) if value else (0, 0)
        if identity[1] and identity in self._above:
            raise UnsupportedFeature(f"the group `{path}` in {self._store.label} is one above it once more", help="remove the link that leads there")
        return identity

    def _group(self, path: str) -> dict[str, Any]:
        value = self._store.find(posixpath.join(path, "zarr.json"))
        fields = read_object(value) if value else {}
        if value:
            self.files.append(value.file)
        for name in self._store.names(path):
            below = posixpath.join(path, name)
            if any(mark in self._store.names(below) for mark in _MARKS):
                self.others += bool(self.node(below, below))
        attributes = fields.get("attributes", {})
        if not isinstance(attributes, dict):
            raise CorruptFile(f"the attributes of `{path}` in {self._store.label} are no JSON object", help=COPY_AGAIN)
        return attributes | self._beside(path)

    def _beside(self, path: str) -> dict[str, Any]:
        """The attributes of version 2, which are a file of their own."""
        value = self._store.find(posixpath.join(path, ".zattrs"))
        if value is None:
            return {}
        self.files.append(value.file)
        return read_object(value)
