"""PyTorch's zip container, as `torch.save` writes it since 1.6, and TorchScript archives: a pickle, and one member for each storage.

Reads the directory and the pickle; storages are byte ranges. Knows one file at a time. Source of format facts: torch 2.13,
`torch/serialization.py` (`_save`, `_load`) and `caffe2/serialize/inline_container.cc`.
"""

from __future__ import annotations

from collections.abc import Callable

from surgery.errors import CorruptFile, SourceError, UnsupportedFeature, plural
from surgery.formats import zips
from surgery.formats.base import ReadAt
from surgery.formats.torch_objects import Storage, TorchBuilder
from surgery.formats.torch_pickle import PICKLE_LIMIT, Content, content_of, pickle_fault
from surgery.formats.torch_views import Place
from surgery.formats.unpickle import PickleFault, unpickle
from surgery.tensors import SourceFile

CONSTANTS = "constants"
_PICKLE = "/data.pkl"
_SMALL = 64


def root_of(file: SourceFile, read: ReadAt) -> str | None:
    """The folder inside an archive that holds a checkpoint; None where it is no such archive."""
    try:
        names = [member.name for member in zips.members(file, read)]
    except SourceError:
        return None
    return next((name.removesuffix(_PICKLE) for name in names if name.endswith(_PICKLE) and name.count("/") == 1), None)


def read_archive(file: SourceFile, read: ReadAt, fragment: str) -> Content:
    """The tensors of an archive; of a TorchScript archive those of its modules, or its constants where `fragment` asks for them.

    Raises:
        CorruptFile: an archive or pickle that contradicts itself or the file's size.
        UnsupportedFeature: compressed members.
        NotFoundError: there is nothing under `fragment`.
    """
    archive = _Archive(file._replace(checksum_kind="crc32"), read)
    scripted = f"{CONSTANTS}.pkl" in archive.members
    wants_constants = scripted and fragment.partition(".")[0] == CONSTANTS
    name, folder = (f"{CONSTANTS}.pkl", f"{CONSTANTS}/") if wants_constants else ("data.pkl", "data/")
    value = archive.unpickled(name)
    inner = fragment.partition(".")[2] if wants_constants else fragment
    content = content_of(value, file.path, inner, archive.places(folder))
    if not scripted:
        return content
    constants = sum(member.startswith(f"{CONSTANTS}/") for member in archive.members)
    told = f"a TorchScript archive: its code is not read, the tensors of its modules are; `PATH#{CONSTANTS}` has {plural(constants, 'constant')}"
    return content._replace(notes=(told, *content.notes))


class _Archive:
    """The members of one archive, by their names below its only folder."""

    def __init__(self, file: SourceFile, read: ReadAt) -> None:
        self.file = file
        self.read = read
        members = zips.members(file, read)
        root = next((member.name.removesuffix(_PICKLE) for member in members if member.name.endswith(_PICKLE) and member.name.count("/") == 1), None)
        if root is None:
            raise CorruptFile(
                f"{file.path} is a zip archive without a data.pkl",
                notes=[f"{file.path}, {file.nbytes:,} bytes"],
                help="it is no checkpoint of PyTorch",
            )
        self.members = {member.name.removeprefix(f"{root}/"): member for member in members if member.name.startswith(f"{root}/")}
        order = self.small("byteorder", b"little")
        if order not in (b"little", b"big"):
            member = self.members["byteorder"]
            raise zips.corrupt(file, "does not say its byte order", member.start, member.limit, repr(order))
        self.big_endian = order == b"big"

    def range_of(self, name: str) -> tuple[int, int]:
        """Where a stored member's bytes lie."""
        member = self.members[name]
        if member.method != zips.STORED:
            raise UnsupportedFeature(f"`{member.name}` in {self.file.path} is compressed", help="save it with torch.save, which stores its members")
        if member.nbytes != member.stored_nbytes:
            raise zips.corrupt(self.file, f"says two sizes of `{member.name}`", member.start, member.limit)
        start = zips.content_start(self.file, self.read, member)
        return start, start + member.nbytes

    def small(self, name: str, default: bytes) -> bytes:
        """The content of a member that holds a word, or its beginning."""
        if name not in self.members:
            return default
        start, stop = self.range_of(name)
        return self.read(start, min(stop, start + _SMALL))

    def unpickled(self, name: str) -> object:
        start, stop = self.range_of(name)
        if stop - start > PICKLE_LIMIT:
            raise UnsupportedFeature(
                f"`{name}` in {self.file.path} has {stop - start:,} bytes", notes=[f"{PICKLE_LIMIT:,} at most"], help="save less in one file"
            )
        try:
            return unpickle(self.read(start, stop), TorchBuilder()).value
        except PickleFault as fault:
            raise pickle_fault(self.file, fault, start) from None

    def places(self, folder: str) -> Callable[[Storage], Place]:
        """Where the storages of a pickle lie; each is looked up once."""
        known: dict[str, Place] = {}

        def place_of(storage: Storage) -> Place:
            if storage.key not in known:
                known[storage.key] = self._place(folder, storage)
            return known[storage.key]

        return place_of

    def _place(self, folder: str, storage: Storage) -> Place:
        name = f"{folder}{storage.key}"
        if name not in self.members:
            fact = f"{self.file.path}, {self.file.nbytes:,} bytes"
            raise CorruptFile(f"{self.file.path} has no storage `{storage.key[:80]}`", notes=[fact], help="the source is damaged; copy it again")
        start, stop = self.range_of(name)
        crc32 = self.members[name].crc32  # torch.serialization.set_crc32_options(False) leaves 0 in its place
        return Place(self.file, start, stop - start, crc32 or None, self.big_endian)
