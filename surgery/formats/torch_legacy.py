"""The container that `torch.save` wrote before 1.6: five pickles one after the other, then the storages. Serves the `torch` format.

Always little-endian. Knows one file at a time. Source of format facts: torch 2.13, `torch/serialization.py` (`_legacy_save`,
`_legacy_load`) and `torch/csrc/serialization.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping

from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.base import ReadAt
from surgery.formats.tape import Tape
from surgery.formats.torch_objects import Storage, TorchBuilder
from surgery.formats.torch_pickle import Content, content_of, unpickled
from surgery.formats.torch_views import Place
from surgery.tensors import SourceFile

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
HEAD_BYTES = 32


def is_stream(head: bytes) -> bool:
    """Whether a file that begins so is of this container: the magic number is its first pickle, in any protocol that has opcodes for it."""
    return head[:1] == b"\x80" and _MAGIC in head


def read_stream(file: SourceFile, read: ReadAt, fragment: str) -> Content:
    """The tensors of a legacy file. Reads its pickles and, for each storage, its length.

    Raises:
        CorruptFile: pickles that cannot be read, storages that contradict the file's size.
        UnsupportedFeature: another version of the container.
        NotFoundError: there is nothing under `fragment`.
    """
    tape = Tape(read, 0, file.nbytes)

    def following(builder: TorchBuilder) -> object:
        return unpickled(file, tape, builder)

    magic, protocol = following(TorchBuilder()), following(TorchBuilder())
    if magic != MAGIC_NUMBER or protocol != PROTOCOL_VERSION:
        raise UnsupportedFeature(
            f"{file.path} is of another version of PyTorch's old format",
            notes=[f"{PROTOCOL_VERSION} is the only version known"],
            help="save it anew with PyTorch",
        )
    following(TorchBuilder())  # byte order and widths of the machine, which the storages do not follow
    seen = _Recorder()
    value = following(seen)
    keys = following(TorchBuilder())
    if type(keys) is not list or not all(type(key) is str for key in keys) or len(set(keys)) != len(keys):
        raise _corrupt(file, "does not list its storages", tape.at, tape.at)
    places = _places(file, read, keys, tape.at, seen.storages)

    def place_of(storage: Storage) -> Place:
        if storage.key not in places:
            raise _corrupt(file, f"has no storage `{storage.key[:80]}`", tape.at, file.nbytes)
        return places[storage.key]

    return content_of(value, file, fragment, place_of)


class _Recorder(TorchBuilder):
    """Remembers the storages, whose element types tell how long they are."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}

    def persistent(self, name: object) -> object:
        found = super().persistent(name)
        if isinstance(found, Storage):
            self.storages.setdefault(found.key, found)
        return found


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
