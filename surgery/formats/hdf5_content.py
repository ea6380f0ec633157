"""The bytes of an HDF5 file, in bounds: where it begins, and how fields are taken from it. Knows no structure but the superblock.

Addresses in HDF5 count from its superblock, which may stand behind a user block or inside a zip archive. What is parsed is counted, so
that structures that point at each other cannot keep a reader busy. Source of format facts: HDF5 File Format Specification 3.0, section II.A.
"""

from __future__ import annotations

from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.base import ReadAt
from surgery.tensors import SourceFile

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = (1 << 64) - 1
"""The address of what is not in the file."""

_LEAST_USER_BLOCK = 512
_PAGE = 4096
_OPEN_FOR_WRITING = 1 | 4
_PARSED_AT_LEAST = 1 << 20
_PARSED_AT_MOST = 1 << 28


def find(file: SourceFile, read: ReadAt, start: int = 0, stop: int | None = None) -> int | None:
    """Where the superblock stands: at the start, or behind a user block of 512, 1024, 2048, … bytes; None where it is no HDF5 file."""
    limit = (file.nbytes if stop is None else stop) - len(SIGNATURE)
    size = 0
    while start + size <= limit:
        at = start + size
        if read(at, at + len(SIGNATURE)) == SIGNATURE:
            return at
        size = 2 * size or _LEAST_USER_BLOCK
    return None


class Content:
    """Bytes of one HDF5 file by address; `base` is the absolute offset of address 0, `limit` where the content ends.

    `is_open` says that whoever wrote the file did not close it, as far as the superblock tells. `heaps` keeps the texts of varying length
    that were read, by the address of their heap: many attributes share one.
    """

    def __init__(self, file: SourceFile, read: ReadAt, base: int, limit: int) -> None:
        self.file = file
        self.base = base
        self.nbytes = limit - base
        self.is_open = False
        self._read = read
        self._pages: dict[int, bytes] = {}
        self.heaps: dict[int, dict[int, bytes]] = {}
        self._left = min(max(4 * self.nbytes, _PARSED_AT_LEAST), _PARSED_AT_MOST)

    def at(self, address: int, nbytes: int, what: str) -> bytes:
        """The bytes of a structure. Raises CorruptFile where they lie outside the file, or all structures together are larger than it."""
        if address + nbytes > self.nbytes:
            raise self.fault(f"has {what} outside of it", address, nbytes)
        self._left -= nbytes + 8
        if self._left < 0:
            raise self.fault("has structures that contain each other, or too many of them", address, nbytes)
        first, last = address // _PAGE, (address + nbytes - 1) // _PAGE
        if first == last:
            return self._page(first)[address - first * _PAGE : address - first * _PAGE + nbytes]
        return self._read(self.base + address, self.base + address + nbytes)

    def _page(self, number: int) -> bytes:
        if number not in self._pages:
            start = number * _PAGE
            self._pages[number] = self._read(self.base + start, self.base + min(start + _PAGE, self.nbytes))
        return self._pages[number]

    def fields(self, address: int, nbytes: int, what: str, signature: bytes = b"") -> Fields:
        """A structure to take fields from, behind its signature. Raises CorruptFile where that is another."""
        data = self.at(address, nbytes, what)
        if not data.startswith(signature):
            raise self.fault(f"has no {what} where it should be", address, nbytes, f"it begins with {data[:4]!r}")
        return Fields(self, data, address, what, len(signature))

    def fault(self, what: str, address: int, nbytes: int, fact: str = "") -> CorruptFile:
        """The error for bytes that contradict the format; `what` continues the file's name."""
        start = self.base + address
        where = f"{self.file.path}, bytes {start:,} to {start + nbytes:,} of {self.file.nbytes:,}"
        return CorruptFile(f"{self.file.path} {what}", notes=[fact, where], help="the source is damaged or still being written; copy it again")


class Fields:
    """Little-endian fields of a structure, one after the other. Raises CorruptFile where it ends too early."""

    __slots__ = ("_content", "address", "at", "data", "what")

    def __init__(self, content: Content, data: bytes, address: int, what: str, at: int = 0) -> None:
        self._content = content
        self.data = data
        self.address = address
        self.what = what
        self.at = at

    def take(self, nbytes: int) -> bytes:
        """The next bytes."""
        stop = self.at + nbytes
        if stop > len(self.data):
            raise self.fault(f"it needs {stop:,} bytes and has {len(self.data):,}")
        taken = self.data[self.at : stop]
        self.at = stop
        return taken

    def uint(self, nbytes: int) -> int:
        """The next unsigned integer."""
        return int.from_bytes(self.take(nbytes), "little")

    def text(self) -> bytes:
        """The next bytes up to a NUL, which is passed over."""
        stop = self.data.find(b"\0", self.at)
        if stop < 0:
            raise self.fault("a name in it has no end")
        taken = self.data[self.at : stop]
        self.at = stop + 1
        return taken

    @property
    def left(self) -> int:
        """Bytes behind the fields taken so far."""
        return len(self.data) - self.at

    def fault(self, fact: str) -> CorruptFile:
        """The error for a structure that contradicts the format."""
        return self._content.fault(f"has a broken {self.what}", self.address, len(self.data), fact)


def superblock(content: Content) -> int:
    """The address of the root group's object header.

    Raises:
        CorruptFile: the file is shorter than it says.
        UnsupportedFeature: a later version, or addresses that are not of 8 bytes.
    """
    fields = content.fields(0, min(96, content.nbytes), "superblock", SIGNATURE)
    version = fields.uint(1)
    if version > 3:
        raise UnsupportedFeature(f"{content.file.path} is HDF5 with a superblock of version {version}", help="save it as HDF5 1.14 or older")
    fields.take(4 if version < 2 else 0)
    widths = fields.uint(1), fields.uint(1)
    if widths != (8, 8):
        fact = f"addresses of {widths[0]} and sizes of {widths[1]} bytes, not 8"
        raise UnsupportedFeature(f"{content.file.path} is HDF5 of another width", notes=[fact], help="rewrite it with h5repack")
    if version == 3:
        content.is_open = bool(fields.uint(1) & _OPEN_FOR_WRITING)
    else:
        fields.take({0: 9, 1: 13}.get(version, 1))
    base = fields.uint(8)
    fields.take(8)
    end = fields.uint(8)
    if end - base > content.nbytes:
        raise content.fault("ends too early", 0, content.nbytes, f"it should have {end - base:,} bytes and has {content.nbytes:,}")
    fields.take(16 if version < 2 else 0)
    return fields.uint(8)
