"""PyTorch's zip container, as `torch.save` writes it since 1.6, and TorchScript archives: a pickle, and one member for each storage.

Reads the directory and the pickle; storages are byte ranges. Knows one file at a time. Source of format facts: torch 2.13,
`torch/serialization.py` (`_save`, `_load`) and `caffe2/serialize/inline_container.cc`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, SourceError, UnsupportedFeature, plural
from surgery.formats import zips
from surgery.formats.base import ReadAt
from surgery.formats.deflate import MOST_INFLATION, Deflated
from surgery.formats.tape import Tape
from surgery.formats.torch_objects import Storage, TorchBuilder
from surgery.formats.torch_pickle import Content, content_of, unpickled
from surgery.formats.torch_views import Place
from surgery.tensors import SourceFile, TensorSpec

CONSTANTS = "constants"
_PICKLE = "/data.pkl"
_PROGRAM_PARTS = ("/archive_format", "serialized_exported_program.json")
"""Of the archives that torch.export.save writes, today and before 2.7."""
_SMALL = 64
_MOST_INFLATED_PICKLE = 64 << 20
_MOST_VERIFIED_PICKLE = 64 << 20
"""A pickle with more bytes has arrays in it, which are not read while tensors are listed."""
_VERIFIED_AT_ONCE = 1 << 20


def is_archive(file: SourceFile, read: ReadAt) -> bool:
    """Whether a zip archive is one of PyTorch: a checkpoint, or a program, which `Archive` refuses."""
    try:
        members = zips.members(file, read)
    except SourceError:
        return False
    return _root_of(members) is not None or _is_program(members)


def _root_of(members: Iterable[zips.Member]) -> str | None:
    """The folder inside an archive that holds a checkpoint."""
    names = (member.name for member in members)
    return next((name.removesuffix(_PICKLE) for name in names if name.endswith(_PICKLE) and name.count("/") == 1), None)


def _is_program(members: Iterable[zips.Member]) -> bool:
    return any(member.name.endswith(_PROGRAM_PARTS) for member in members)


def read_archive(file: SourceFile, read: ReadAt, fragment: str) -> Content:
    """The tensors of an archive; of a TorchScript archive those of its modules, or its constants where `fragment` asks for them.

    Raises:
        CorruptFile: an archive or pickle that contradicts itself or the file's size.
        UnsupportedFeature: members compressed by another method than deflate.
        NotFoundError: there is nothing under `fragment`.
    """
    archive = Archive(file, read, 0, file.nbytes)
    scripted = f"{CONSTANTS}.pkl" in archive.members
    wants_constants = scripted and fragment.partition(".")[0] == CONSTANTS
    name, folder = (f"{CONSTANTS}.pkl", f"{CONSTANTS}/") if wants_constants else ("data.pkl", "data/")
    value = archive.unpickled(name)
    inner = fragment.partition(".")[2] if wants_constants else fragment
    content = content_of(value, archive.file, inner, archive.places(folder))
    if not scripted:
        return content
    constants = sum(member.startswith(f"{CONSTANTS}/") for member in archive.members)
    told = f"a TorchScript archive: its code is not read, the tensors of its modules are; `PATH#{CONSTANTS}` has {plural(constants, 'constant')}"
    return content._replace(notes=(told, *content.notes))


class Archive:
    """The members of an archive that is bytes `start` to `stop` of a file, by their names below its only folder."""

    def __init__(self, file: SourceFile, read: ReadAt, start: int, stop: int) -> None:
        self.file = file._replace(checksum_kind="crc32")
        self.read = read
        self._start = start
        self._alone = self.file._replace(fingerprint=file.fingerprint._replace(nbytes=stop - start))
        members = zips.members(self._alone, self._read_alone)
        root = _root_of(members)
        if root is None and _is_program(members):
            raise UnsupportedFeature(f"{file.path} is a program of torch.export", help="save the `state_dict` of the program with torch.save")
        if root is None:
            raise CorruptFile(
                f"{file.path} is a zip archive without a data.pkl",
                notes=[f"{file.path}, {file.nbytes:,} bytes"],
                help="it is no checkpoint of PyTorch",
            )
        self.members = {member.name.removeprefix(f"{root}/"): member for member in members if member.name.startswith(f"{root}/")}
        self.big_endian = False
        order = self.small("byteorder", b"little")
        if order not in (b"little", b"big"):
            member = self.members["byteorder"]
            raise zips.corrupt(file, "does not say its byte order", member.start, member.limit, repr(order))
        self.big_endian = order == b"big"

    def _read_alone(self, start: int, stop: int) -> bytes:
        """Bytes by their offsets in the archive."""
        return self.read(self._start + start, self._start + stop)

    def place(self, name: str) -> Place:
        """Where a member's bytes lie, and how they are compressed if they are."""
        member = self.members[name]
        if member.method not in (zips.STORED, zips.DEFLATED):
            raise UnsupportedFeature(f"`{member.name}` in {self.file.path} is compressed by method {member.method}", help="save it with torch.save")
        is_stored = member.method == zips.STORED
        if member.nbytes != member.stored_nbytes if is_stored else member.nbytes > member.stored_nbytes * MOST_INFLATION:
            raise zips.corrupt(self.file, f"says two sizes of `{member.name}`", member.start, member.limit)
        start = self._start + zips.content_start(self._alone, self._read_alone, member)
        if is_stored:  # torch.serialization.set_crc32_options(False) leaves 0 in the place of the CRC-32
            return Place(self.file, start, member.nbytes, member.crc32 or None, self.big_endian)
        codec = Deflated(f"`{member.name}` in {self.file.path}", 0, member.nbytes, member.crc32, self.big_endian)
        return Place(self.file, start, member.nbytes, codec=codec, stored_nbytes=member.stored_nbytes)

    def small(self, name: str, default: bytes) -> bytes:
        """The content of a member that holds a word, or its beginning."""
        if name not in self.members:
            return default
        return self.tape(name).take(min(self.members[name].nbytes, _SMALL))

    def tape(self, name: str) -> Tape:
        """The content of a member, to be read from its beginning; held in memory where it is compressed."""
        place = self.place(name)
        if place.codec is None:
            return Tape(self.read, place.start, place.stop)
        if place.nbytes > _MOST_INFLATED_PICKLE:
            facts = [f"{place.nbytes:,} bytes, {_MOST_INFLATED_PICKLE:,} at most"]
            raise UnsupportedFeature(f"`{name}` in {self.file.path} is compressed and large", notes=facts, help="save it with torch.save")
        content = place.codec.decode(self.read(place.start, place.stop), TensorSpec(DTYPES["uint8"], (place.nbytes,))).tobytes()
        return Tape(lambda start, stop: content[start:stop], 0, len(content), held=len(content))

    def unpickled(self, name: str) -> object:
        """What a member's pickle says. Raises CorruptFile where there is none, or its CRC-32 does not match."""
        value = unpickled(self.file, self.tape(name), TorchBuilder())
        self._verify(name)
        return value

    def _verify(self, name: str) -> None:
        """Compare the CRC-32 of a stored pickle: a changed bit may be one of a key. Deflated ones were verified when they were read."""
        place, member = self.place(name), self.members[name]
        if place.crc32 is None or place.nbytes > _MOST_VERIFIED_PICKLE:
            return
        computed = 0
        for start in range(place.start, place.stop, _VERIFIED_AT_ONCE):
            computed = zlib.crc32(self.read(start, min(start + _VERIFIED_AT_ONCE, place.stop)), computed)
        if computed != place.crc32:
            raise zips.corrupt(
                self.file,
                f"has a damaged member `{member.name}`",
                place.start,
                place.stop,
                f"CRC-32 stored {place.crc32:08x}, computed {computed:08x}",
            )

    def places(self, folder: str) -> Callable[[Storage], Place]:
        """Where the storages of a pickle lie; each is looked up once."""
        known: dict[str, Place] = {}

        def place_of(storage: Storage) -> Place:
            name = f"{folder}{storage.key}"
            if name not in self.members:
                fact = f"{self.file.path}, {self.file.nbytes:,} bytes"
                raise CorruptFile(f"{self.file.path} has no storage `{storage.key[:80]}`", notes=[fact], help="the source is damaged; copy it again")
            if name not in known:
                known[name] = self.place(name)
            return known[name]

        return place_of
