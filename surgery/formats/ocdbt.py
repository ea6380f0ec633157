"""OCDBT, the database of keys and values that TensorStore keeps in files, as Orbax uses it: a manifest, B-tree nodes, and values between them.

Reads the newest version of a database. Values are byte ranges of its data files; small ones lie inside of a node. Every node has a CRC-32C, which
is checked. Nodes that are compressed need numcodecs, an optional package. Numbered manifests are refused. Writing is in `ocdbt_writer`.
Source: TensorStore, tensorstore/kvstore/ocdbt/format, and what `tensorstore.ocdbt.dump` (0.1.86) tells of a database.
"""

from __future__ import annotations

import posixpath
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from surgery.checksums import crc32c
from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.base import Disk, ReadAt
from surgery.formats.inside import is_inside
from surgery.formats.tf_varint import read_varint
from surgery.formats.wire import COPY_AGAIN
from surgery.formats.zarr_codecs import need_packages, unpacked, zstd_room
from surgery.formats.zarr_store import Value
from surgery.tensors import SourceFile

MANIFEST = "manifest.ocdbt"
MANIFEST_MAGIC, NODE_MAGIC = 0x0CDB3A2A, 0x0CDB20DE
_PLAIN, _ZSTD = 0, 1
_LEAST_BYTES = 18
_MOST_NODE_BYTES = 32 << 20
_MOST_DECODED_BYTES = 256 << 20
_MOST_KEY_BYTES = 64 << 20
_MOST_KEYS = 300_000
"""In all nodes together; each takes about 3 µs and 300 bytes."""
_LONGEST_KEY = 0xFFFF
_DEPTH_LIMIT = 32
NO_ROOT = (1 << 64) - 1
"""Start and length of a root without keys, which lies in a file without a name."""


class DataFile(NamedTuple):
    """A file of the database. Files that its nodes name are relative to `base`."""

    base: str
    name: str

    @property
    def path(self) -> str:
        """The path relative to the database."""
        return self.base + self.name


class _Reference(NamedTuple):
    file: DataFile
    start: int
    nbytes: int


class Database:
    """The values of a database under their keys; the keys of a folder's children begin with its own and `/`."""

    def __init__(self, label: str, values: dict[str, Value], files: tuple[SourceFile, ...]) -> None:
        self.label = label
        self.files = files
        self._values = values
        self._keys = sorted(values)

    def find(self, key: str) -> Value | None:
        """The value under a key, if there is one."""
        return self._values.get(key)

    def beginning(self, prefix: str) -> list[str]:
        """The keys that begin with a prefix, sorted."""
        start = bisect_left(self._keys, prefix)
        stop = bisect_left(self._keys, prefix + "\U0010ffff", start)
        return self._keys[start:stop]

    def names(self, key: str) -> list[str]:
        """The names directly below a key, sorted."""
        prefix = f"{key}/" if key else ""
        return sorted({each[len(prefix) :].partition("/")[0] for each in self.beginning(prefix)})


def read_database(folder: str, disk: Disk) -> Database:
    """All keys of the database in a folder, with where their values lie; reads its manifest and nodes only.

    Raises:
        CorruptFile: damage to the manifest or a node, values or nodes outside of their file.
        UnsupportedFeature: a later version of the format, numbered manifests, more keys than a checkpoint has.
    """
    reader = _Reader(folder, disk)
    root = reader.root()
    if root is not None:
        reader.node(root, b"", 0)
    return Database(folder, reader.values, tuple(file for file, _ in reader.files.values()))


class _Fields:
    """The body of a manifest or node, read from its start."""

    def __init__(self, data: bytes, fault: Callable[[str], CorruptFile]) -> None:
        self.fault = fault
        self._data = data
        self._at = 0

    def take(self, nbytes: int) -> bytes:
        if nbytes > len(self._data) - self._at:
            raise self.fault(f"it ends within a field of {nbytes:,} bytes")
        self._at += nbytes
        return self._data[self._at - nbytes : self._at]

    def varint(self) -> int:
        try:
            number, self._at = read_varint(self._data, self._at, len(self._data))
        except ValueError as fault:
            raise self.fault(str(fault)) from None
        return number

    def varints(self, count: int) -> list[int]:
        return [self.varint() for _ in range(count)]

    def count(self) -> int:
        """How many items follow, of which each takes at least a byte."""
        number = self.varint()
        if number > len(self._data) - self._at:
            raise self.fault(f"it lists {number:,} items in {len(self._data) - self._at:,} bytes")
        return number

    def done(self) -> None:
        if self._at != len(self._data):
            raise self.fault(f"{len(self._data) - self._at:,} bytes are left over")


class _Reader:
    """A walk over one database, with what it may still use up."""

    def __init__(self, folder: str, disk: Disk) -> None:
        self.values: dict[str, Value] = {}
        self.files: dict[str, tuple[SourceFile, ReadAt]] = {}
        self._folder = folder
        self._disk = disk
        self._seen: set[tuple[str, int]] = set()
        self._decoded = 0
        self._keys_listed = 0
        self._key_bytes = 0

    def root(self) -> _Reference | None:
        """The root of the newest version; None where that has no keys."""
        file, _ = self._open(MANIFEST)
        fields = self._body(_Reference(DataFile("", MANIFEST), 0, file.nbytes), MANIFEST_MAGIC)
        fields.take(16)
        if fields.varint():
            raise UnsupportedFeature(f"{self._folder} has numbered manifests", help="save it again with Orbax's defaults")
        fields.varints(2)
        fields.take(1)
        if fields.varint() == _ZSTD:
            fields.take(4)
        paths = self._paths(fields, "")
        count = fields.count()
        if count == 0:
            return None
        fields.varints(count)
        fields.take(count)
        places, keys = _references(fields, paths, count)
        return places[-1] if keys[-1] else None

    def node(self, place: _Reference, prefix: bytes, depth: int) -> None:
        """Collect what is below a node, whose keys all begin with `prefix`."""
        if depth > _DEPTH_LIMIT or (place.file.path, place.start) in self._seen:
            raise self._fault(place, "the tree contains itself, or is too deep")
        self._seen.add((place.file.path, place.start))
        fields = self._body(place, NODE_MAGIC)
        height = fields.take(1)[0]
        paths = self._paths(fields, place.file.base)
        count = fields.count()
        keys, shared = self._keys(fields, prefix, count, interior=height > 0)
        if height == 0:
            self._leaf(fields, place, paths, keys)
            return
        places, _ = _references(fields, paths, count)
        fields.done()
        for key, nbytes, child in zip(keys, shared, places, strict=True):
            self.node(child, key[: len(prefix) + nbytes], depth + 1)

    def _leaf(self, fields: _Fields, place: _Reference, paths: list[DataFile], keys: list[bytes]) -> None:
        sizes, kinds = fields.varints(len(keys)), fields.take(len(keys))
        outside = [number for number, kind in enumerate(kinds) if kind]
        files, starts = fields.varints(len(outside)), fields.varints(len(outside))
        places = {number: (file, start) for number, file, start in zip(outside, files, starts, strict=True)}
        for number, (raw, nbytes) in enumerate(zip(keys, sizes, strict=True)):
            key = raw.decode("utf-8", "surrogateescape")
            if key in self.values:
                raise fields.fault(f"the key `{key[:200]}` occurs twice")
            if number not in places:
                file, read = self._open(place.file.path)
                self.values[key] = Value(file, read, place.start, nbytes, fields.take(nbytes))
                continue
            which, start = places[number]
            if which >= len(paths) or not paths[which].path:
                raise fields.fault(f"`{key[:200]}` lies in file {which} of {len(paths)}")
            file, read = self._open(paths[which].path)
            if start + nbytes > file.nbytes:
                raise fields.fault(f"`{key[:200]}` lies at {start:,} of {paths[which].path}, {nbytes:,} bytes long; that has {file.nbytes:,}")
            self.values[key] = Value(file, read, start, nbytes)
        fields.done()

    def _keys(self, fields: _Fields, prefix: bytes, count: int, *, interior: bool) -> tuple[list[bytes], list[int]]:
        """The keys of a node, each with how much of it is common to all below, as interior nodes tell."""
        self._keys_listed += count
        if self._keys_listed > _MOST_KEYS:
            raise UnsupportedFeature(f"{self._folder} has more than {_MOST_KEYS:,} keys", help="give the folder of an item in it")
        same = [0, *fields.varints(count - 1)] if count else []
        suffixes = fields.varints(count)
        shared = fields.varints(count) if interior else [0] * count
        keys: list[bytes] = []
        last = b""
        for begin, nbytes, common in zip(same, suffixes, shared, strict=True):
            if begin > len(last) or len(prefix) + begin + nbytes > _LONGEST_KEY or common > begin + nbytes:
                raise fields.fault("it has a key that cannot be")
            last = last[:begin] + fields.take(nbytes)
            self._key_bytes += len(prefix) + len(last)
            if self._key_bytes > _MOST_KEY_BYTES:
                raise UnsupportedFeature(f"{self._folder} has too many or too long keys", help="give the folder of an item in it")
            keys.append(prefix + last)
        return keys, shared

    def _paths(self, fields: _Fields, base: str) -> list[DataFile]:
        """The table of data files; `base` is what the paths of the node's own file are relative to."""
        count = fields.count()
        same = [0, *fields.varints(count - 1)] if count else []
        suffixes, bases = fields.varints(count), fields.varints(count)
        files: list[DataFile] = []
        last = b""
        for begin, nbytes, split in zip(same, suffixes, bases, strict=True):
            last = last[:begin] + fields.take(nbytes)
            self._key_bytes += len(last)
            path = last.decode("utf-8", "surrogateescape")
            if split > len(path) or self._key_bytes > _MOST_KEY_BYTES or (path and not is_inside(base + path)):
                raise fields.fault(f"the data file {path[:200]!r} is not one of this database")
            files.append(DataFile(base + path[:split], path[split:]))
        return files

    def _body(self, place: _Reference, magic: int) -> _Fields:
        """The body of a node, checked and decompressed."""
        file, read = self._open(place.file.path)
        if place.nbytes < _LEAST_BYTES or place.start + place.nbytes > file.nbytes:
            raise self._fault(place, "it lies outside of the file")
        self._decoded += place.nbytes
        if place.nbytes > _MOST_NODE_BYTES or self._decoded > _MOST_DECODED_BYTES:
            raise UnsupportedFeature(f"{self._folder} has too large an index", notes=[_where(file, place)], help="save it again with Orbax")
        data = read(place.start, place.start + place.nbytes)
        if int.from_bytes(data[:4], "big") != magic or int.from_bytes(data[4:12], "little") != len(data):
            raise self._fault(place, "it does not begin as it should")
        if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise self._fault(place, "its CRC-32C does not match")
        if data[12]:
            raise UnsupportedFeature(f"{file.path} is of version {data[12]} of OCDBT", help="save it again with an older TensorStore")
        return _Fields(self._decompressed(data[13], data[14:-4], place), lambda fact: self._fault(place, fact))

    def _decompressed(self, method: int, data: bytes, place: _Reference) -> bytes:
        if method == _PLAIN:
            return data
        if method != _ZSTD:
            raise self._fault(place, f"it is compressed by method {method}")
        need_packages(("zstd",), "orbax")
        try:
            room = zstd_room(data)
        except ValueError as fault:
            raise self._fault(place, str(fault)) from None
        self._decoded += room
        if room > _MOST_NODE_BYTES or self._decoded > _MOST_DECODED_BYTES:
            raise UnsupportedFeature(f"{self._folder} has too large an index", notes=[f"{room:,} bytes"], help="save it again with Orbax")
        return unpacked("zstd", data, room, place.file.path)

    def _open(self, path: str) -> tuple[SourceFile, ReadAt]:
        if path not in self.files:
            self.files[path] = self._disk.open(posixpath.join(self._folder, path))
        return self.files[path]

    def _fault(self, place: _Reference, fact: str) -> CorruptFile:
        file, _ = self._open(place.file.path)
        return CorruptFile(f"{file.path} has a damaged index", notes=[fact, _where(file, place)], help=COPY_AGAIN)


def _where(file: SourceFile, place: _Reference) -> str:
    return f"{file.path}, bytes {place.start:,} to {place.start + place.nbytes:,} of {file.nbytes:,}"


def _references(fields: _Fields, paths: list[DataFile], count: int) -> tuple[list[_Reference], list[int]]:
    """Columns of references to nodes, and how many keys are below each."""
    files, starts, sizes, keys = (fields.varints(count) for _ in range(4))
    fields.varints(2 * count)  # statistics: bytes of the tree, and of values outside of it
    found = []
    for number, start, nbytes, below in zip(files, starts, sizes, keys, strict=True):
        if below and (number >= len(paths) or not paths[number].path):
            raise fields.fault(f"a node lies in file {number} of {len(paths)}")
        found.append(_Reference(paths[number] if below else DataFile("", ""), start, nbytes))
    return found, keys
