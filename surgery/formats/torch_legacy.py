"""The container that `torch.save` wrote before 1.6: five pickles one after the other, then the storages. Serves the `torch` format.

Always little-endian. Knows one file at a time. Source of format facts: torch 2.13, `torch/serialization.py` (`_legacy_save`,
`_legacy_load`) and `torch/csrc/serialization.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping

from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.base import ReadAt
from surgery.formats.torch_objects import Storage, TorchBuilder
from surgery.formats.torch_pickle import PICKLE_LIMIT, Content, content_of, pickle_fault
from surgery.formats.torch_views import Place
from surgery.formats.unpickle import PickleEnds, PickleFault, Unpickled, unpickle
from surgery.tensors import SourceFile

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_FIRST_READ = 32 << 10


def read_stream(file: SourceFile, read: ReadAt, fragment: str) -> Content:
    """The tensors of a legacy file. Reads its pickles and, for each storage, its length.

    Raises:
        CorruptFile: pickles that cannot be read, storages that contradict the file's size.
        UnsupportedFeature: another version of the container.
        NotFoundError: there is nothing under `fragment`.
    """
    pickles = _Pickles(file, read)
    magic, protocol = pickles.next(), pickles.next()
    if magic != MAGIC_NUMBER or protocol != PROTOCOL_VERSION:
        raise UnsupportedFeature(
            f"{file.path} is of another version of PyTorch's old format",
            notes=[f"{PROTOCOL_VERSION} is the only version known"],
            help="save it anew with PyTorch",
        )
    pickles.next()  # byte order and widths of the machine, which the storages do not follow
    seen = _Recorder()
    value = pickles.next(seen)
    keys = pickles.next()
    if type(keys) is not list or not all(type(key) is str for key in keys) or len(set(keys)) != len(keys):
        raise _corrupt(file, "does not list its storages", pickles.at, pickles.at)
    places = _places(file, read, keys, pickles.at, seen.storages)

    def place_of(storage: Storage) -> Place:
        if storage.key not in places:
            raise _corrupt(file, f"has no storage `{storage.key[:80]}`", pickles.at, file.nbytes)
        return places[storage.key]

    return content_of(value, file.path, fragment, place_of)


class _Recorder(TorchBuilder):
    """Remembers the storages, whose element types tell how long they are."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}

    def persistent(self, name: object) -> object:
        found = super().persistent(name)
        if isinstance(found, Storage):
            self.storages.setdefault(found.key, found)
        return found


class _Pickles:
    """The pickles at the front of a file, one after the other; reads more of the file as they go on."""

    def __init__(self, file: SourceFile, read: ReadAt) -> None:
        self.file = file
        self.read = read
        self.code = read(0, min(file.nbytes, _FIRST_READ))
        self.at = 0

    def next(self, builder: TorchBuilder | None = None) -> object:
        try:
            value, self.at = self._unpickled(builder or TorchBuilder())
        except PickleFault as fault:
            raise pickle_fault(self.file, fault, 0) from None
        return value

    def _unpickled(self, builder: TorchBuilder) -> Unpickled:
        while True:
            try:
                return unpickle(self.code, builder, self.at)
            except PickleEnds as fault:
                have, limit = len(self.code), min(self.file.nbytes, PICKLE_LIMIT)
                if fault.stop > limit or have == limit:
                    raise
                self.code += self.read(have, min(max(2 * have, fault.stop), limit))


def _places(file: SourceFile, read: ReadAt, keys: list[str], start: int, storages: Mapping[str, Storage]) -> dict[str, Place]:
    """Where each storage lies: a count of elements, then those, one storage after the other."""
    places: dict[str, Place] = {}
    for key in keys:
        if start + 8 > file.nbytes:
            raise _corrupt(file, f"ends before its storage `{key[:80]}`", start, file.nbytes)
        count = int.from_bytes(read(start, start + 8), "little", signed=True)
        storage = storages.get(key)
        width = storage.width if storage else 0
        if not width:
            raise UnsupportedFeature(f"the storage `{key[:80]}` in {file.path} has elements of an unknown width", help="save it anew with PyTorch")
        start += 8
        if count < 0 or start + count * width > file.nbytes:
            raise _corrupt(file, f"ends within its storage `{key[:80]}`", start, file.nbytes, f"{count:,} elements of {width} bytes")
        places[key] = Place(file, start, count * width)
        start += count * width
    if start != file.nbytes:
        raise _corrupt(file, "goes on behind its last storage", start, file.nbytes)
    return places


def _corrupt(file: SourceFile, what: str, start: int, stop: int, fact: str = "") -> CorruptFile:
    where = f"{file.path}, bytes {start:,} to {stop:,} of {file.nbytes:,}"
    return CorruptFile(f"{file.path} {what}", notes=[fact, where], help="the source is damaged or still being written; copy it again")
