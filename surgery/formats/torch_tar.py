"""The container of PyTorch before 0.1.10: a tar file with storages, tensors and a pickle. Serves the `torch` format.

Always little-endian. Knows one file at a time. Source of format facts: torch 2.13, `torch/serialization.py` (`legacy_load`), and POSIX.1-1988
for `ustar` headers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile
from surgery.formats.base import ReadAt
from surgery.formats.pickle_machine import Global
from surgery.formats.tape import Tape
from surgery.formats.torch_objects import Storage, Tensor, TorchBuilder, storage_type
from surgery.formats.torch_pickle import Content, content_of, unpickled
from surgery.formats.torch_views import AXES_LIMIT, Place
from surgery.tensors import SourceFile

_BLOCK = 512
_PARTS = ("storages", "tensors", "pickle")
_MOST_MEMBERS = 64


def is_tar(file: SourceFile, read: ReadAt) -> bool:
    """Whether a file is a tar archive of PyTorch, by the magic number and name of its first members."""
    if file.nbytes < 2 * _BLOCK or read(257, 262) != b"ustar":
        return False
    return set(_PARTS) <= {name for name, _, _ in _members(file, read)}


def _members(file: SourceFile, read: ReadAt) -> Iterator[tuple[str, int, int]]:
    """Name, start and stop of each member; ends where the archive does, or contradicts itself."""
    at = 0
    for _ in range(_MOST_MEMBERS):
        if at + _BLOCK > file.nbytes:
            return
        header = read(at, at + _BLOCK)
        digits = header[124:136].strip(b" \0")
        if header[257:262] != b"ustar" or not digits.isdigit() or set(digits) & set(b"89"):
            return
        start, nbytes = at + _BLOCK, int(digits, 8)
        if start + nbytes > file.nbytes:
            return
        yield header[:100].rstrip(b"\0").decode("utf-8", "replace").removeprefix("./"), start, start + nbytes
        at = start + -(-nbytes // _BLOCK) * _BLOCK


def read_tar(file: SourceFile, read: ReadAt, fragment: str) -> Content:
    """The tensors of a tar file.

    Raises:
        CorruptFile: members that cannot be read, or contradict themselves or each other.
        NotFoundError: there is nothing under `fragment`.
    """
    parts = {name: Tape(read, start, stop) for name, start, stop in _members(file, read) if name in _PARTS}
    storages, places = _Reader(file, parts["storages"]).storages()
    tensors = _Reader(file, parts["tensors"]).tensors(storages)
    value = unpickled(file, parts["pickle"], _Named({**storages, **tensors}))

    def place_of(storage: Storage) -> Place:
        return places[storage.key]

    return content_of(value, file, fragment, place_of)


class _Named(TorchBuilder):
    """Knows tensors and storages by their numbers, which pickles of protocol 0 have as text."""

    def __init__(self, objects: Mapping[int, Storage | Tensor]) -> None:
        self.objects = objects

    def persistent(self, name: object) -> object:
        if type(name) is tuple and name:
            return name[0]  # a class, with its source text
        number = int(name) if type(name) is str and name.isascii() and name.isdigit() and len(name) < 20 else name
        if type(number) is not int or number not in self.objects:
            raise ValueError("a persistent name that is neither storage nor tensor")
        return self.objects[number]


class _Reader:
    """Goes through one member, in which pickles and numbers alternate."""

    def __init__(self, file: SourceFile, tape: Tape) -> None:
        self.file = file
        self.tape = tape

    def storages(self) -> tuple[dict[int, Storage], dict[str, Place]]:
        """The storages by number, views of others included, and by key where they lie."""
        storages: dict[int, Storage] = {}
        places: dict[str, Place] = {}
        for _ in range(self._count()):
            number, _, kind = self._described()
            storage = storage_type(kind, str(number)) if type(kind) is Global else None
            if storage is None or not storage.dtype:
                raise self._corrupt("has a storage of an unknown type")
            nbytes = self._numbers("<q")[0] * storage.dtype.itemsize
            if not 0 <= nbytes <= self.tape.stop - self.tape.at:
                raise self._corrupt(f"ends within its storage {number}")
            storages[number] = storage
            places[storage.key] = Place(self.file, self.tape.at, nbytes)
            self.tape.skip(nbytes, is_text=False)
        for view in self._list():
            self._add_view(view, storages, places)
        return storages, places

    def _add_view(self, view: object, storages: dict[int, Storage], places: dict[str, Place]) -> None:
        """A storage that is a part of another: its number, that of the other, offset and size in elements."""
        if type(view) is not tuple or len(view) != 4 or not all(type(field) is int for field in view) or view[1] not in storages:
            raise self._corrupt("has a view of no storage")
        number, root, offset, size = view
        storage = storages[root]._replace(key=str(number))
        place, width = places[storages[root].key], storage.width
        if offset < 0 or size < 0 or (offset + size) * width > place.nbytes:
            raise self._corrupt(f"has a view that is no part of its storage {root}")
        storages[number] = storage
        places[storage.key] = place._replace(start=place.start + offset * width, nbytes=size * width)

    def tensors(self, storages: dict[int, Storage]) -> dict[int, Tensor]:
        """The tensors by number: axes, shape, strides and offset stand behind the number of the storage."""
        tensors: dict[int, Tensor] = {}
        for _ in range(self._count()):
            number, root, _ = self._described()
            if type(root) is not int or root not in storages:
                raise self._corrupt(f"has a tensor {number} without storage")
            (axes,) = self._numbers("<i4x")
            if not 0 <= axes <= AXES_LIMIT:
                raise self._corrupt(f"has a tensor of {axes:,} axes")
            numbers = self._numbers(f"<{2 * axes + 1}q")
            if min(numbers) < 0:
                raise self._corrupt(f"has a tensor {number} with a negative size, stride or offset")
            dtype = storages[root].dtype or DTYPES["uint8"]
            tensors[number] = Tensor(storages[root], dtype, numbers[-1], numbers[:axes], numbers[axes:-1])
        return tensors

    def _next(self) -> object:
        return unpickled(self.file, self.tape, TorchBuilder())

    def _count(self) -> int:
        count = self._next()
        if type(count) is not int or not 0 <= count <= self.tape.stop - self.tape.at:
            raise self._corrupt("does not tell a count")
        return count

    def _described(self) -> tuple[int, object, object]:
        fields = self._next()
        if type(fields) is not tuple or len(fields) != 3 or type(fields[0]) is not int:
            raise self._corrupt("does not describe a storage or tensor by number, place and type")
        return fields

    def _list(self) -> list[object]:
        found = self._next()
        if type(found) is not list:
            raise self._corrupt("has no list of views")
        return found

    def _numbers(self, form: str) -> tuple[int, ...]:
        nbytes = struct.calcsize(form)
        if nbytes > self.tape.stop - self.tape.at:
            raise self._corrupt("ends within a number")
        return struct.unpack(form, self.tape.take(nbytes))

    def _corrupt(self, what: str) -> CorruptFile:
        where = f"{self.file.path}, bytes {self.tape.at:,} to {self.tape.stop:,} of {self.file.nbytes:,}"
        return CorruptFile(f"{self.file.path} {what}", notes=[where], help="the source is damaged or still being written; copy it again")
