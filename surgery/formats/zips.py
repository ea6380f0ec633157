"""The zip container, for formats that are zip archives: where each member lies, and the records around stored members.

Stricter than the standard library's zipfile: members may not overlap, the directory must end where the end record begins, and
no size is believed before it was compared with the file's. Single-disk archives, stored or deflated members, zip64 included.
Written records equal those of zipfile, byte for byte. Source of format facts: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.base import ReadAt
from surgery.tensors import SourceFile

STORED = 0
DEFLATED = 8

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s4B4H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_END_SEARCHED = _END.size + 0xFFFF
_SATURATED = 0xFFFFFFFF
_UTF8 = 0x800
_ENCRYPTED = 0x2041
_MIDNIGHT_1980 = (0, 0x21)
_UNIX_0600 = 0o600 << 16
LEAST_PADDING = 4
"""Bytes of the field that pads a local header, as PyTorch has it."""
_ZIP64_FROM = (1 << 31) - 1
"""Sizes and offsets above this go into zip64 fields: zipfile's limit, half of what the format allows."""


class Member(NamedTuple):
    """A file in an archive as the directory tells it; bytes `start` to `limit` of the archive are its alone.

    `stored_nbytes` is the size in the archive, `nbytes` the size of the content, `crc32` that of the content.
    """

    name: str
    method: int
    crc32: int
    stored_nbytes: int
    nbytes: int
    start: int
    limit: int


class Record(NamedTuple):
    """A stored member to be written: its local header begins at `start`, and has `padding` more bytes than it needs (0 or LEAST_PADDING at least)."""

    name: str
    nbytes: int
    start: int
    padding: int = 0


def members(file: SourceFile, read: ReadAt) -> tuple[Member, ...]:
    """List the members in the order of the directory.

    Raises:
        CorruptFile: not a zip archive, a directory that contradicts itself or the file's size, overlapping members, two of one name.
        UnsupportedFeature: encryption, several disks.
    """
    start, stop, count = _directory(file, read)
    found = list(_entries(file, read(start, stop)))
    if len(found) != count:
        raise corrupt(file, "does not list as many members as it says", start, stop, f"{count:,} announced, {len(found):,} listed")
    name, times = Counter(member.name for member in found).most_common(1)[0] if found else ("", 1)
    if times > 1:
        raise corrupt(file, f"holds `{name}` twice", start, stop)
    limits = {}
    limit = start
    for member in sorted(found, key=lambda member: member.start, reverse=True):
        if member.start + _LOCAL.size + member.stored_nbytes > limit:
            raise corrupt(file, f"holds `{member.name}`, which runs into what follows", member.start, limit)
        limits[member.name] = limit
        limit = member.start
    return tuple(member._replace(limit=limits[member.name]) for member in found)


def content_start(file: SourceFile, read: ReadAt, member: Member) -> int:
    """Where the member's bytes begin: behind its local header. Raises CorruptFile where that contradicts the directory."""
    name_stop = member.start + _LOCAL.size + len(member.name.encode())
    head = read(member.start, min(name_stop, file.nbytes))  # name and all in one range: there may be 100,000 members
    fields = _LOCAL.unpack_from(head)
    method, name_nbytes, extra_nbytes = fields[3], fields[9], fields[10]
    name_start = member.start + _LOCAL.size
    start: int = name_start + name_nbytes + extra_nbytes
    if fields[0] != b"PK\3\4" or method != member.method or start + member.stored_nbytes > member.limit:
        raise corrupt(file, f"has a local header for `{member.name}` that contradicts the directory", member.start, member.limit)
    name = head[_LOCAL.size :] if len(head) == _LOCAL.size + name_nbytes else read(name_start, name_start + name_nbytes)
    if _name(name, fields[2]) != member.name:
        raise corrupt(file, f"calls `{member.name}` by another name in its local header", member.start, start)
    return start


def _directory(file: SourceFile, read: ReadAt) -> tuple[int, int, int]:
    """Start and stop of the central directory, and how many members it announces."""
    for searched_nbytes in (_END.size, _END_SEARCHED):  # few archives have a comment
        searched = max(file.nbytes - searched_nbytes, 0)
        tail = read(searched, file.nbytes)
        at = tail.rfind(b"PK\5\6")
        while at >= 0 and at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little") != len(tail):
            at = tail.rfind(b"PK\5\6", 0, at)
        if at >= 0:
            break
    else:
        raise corrupt(file, "has no zip directory at its end", searched, file.nbytes)
    end = searched + at
    _, disk, first_disk, _, count, nbytes, start, _ = _END.unpack_from(tail, at)
    if end >= _LOCATOR64.size:
        signature, _, end64, _ = _LOCATOR64.unpack(read(end - _LOCATOR64.size, end))
        if signature == b"PK\6\7":
            if end64 + _END64.size + _LOCATOR64.size != end:
                raise corrupt(file, "has a zip64 end record in the wrong place", end - _LOCATOR64.size, end)
            end = end64
            signature, _, _, _, disk, first_disk, _, count, nbytes, start = _END64.unpack(read(end, end + _END64.size))
            if signature != b"PK\6\6":
                raise corrupt(file, "has no zip64 end record where it should be", end, end + _END64.size)
    if disk or first_disk:
        raise UnsupportedFeature(f"{file.path} is one of several disks of a zip archive", help="join the parts into one archive")
    if start + nbytes != end:
        raise corrupt(file, "has a zip directory that does not end at the end record", start, end, f"directory of {nbytes:,} bytes at {start:,}")
    return start, end, count


def _entries(file: SourceFile, directory: bytes) -> Iterator[Member]:
    at = 0
    while at < len(directory):
        if len(directory) - at < _CENTRAL.size or directory[at : at + 4] != b"PK\1\2":
            raise corrupt(file, "has a broken zip directory", file.nbytes - len(directory), file.nbytes, f"entry at its byte {at:,}")
        fields = _CENTRAL.unpack_from(directory, at)
        flags, method, crc32, sizes, lengths = fields[5], fields[6], fields[9], fields[10:12], fields[12:15]
        name_at = at + _CENTRAL.size
        extra_at = name_at + lengths[0]
        at = extra_at + lengths[1] + lengths[2]
        name = _name(directory[name_at:extra_at], flags)
        wide = _widened(directory[extra_at : extra_at + lengths[1]], (sizes[1], sizes[0], fields[18]))
        if at > len(directory) or name is None or wide is None:
            raise corrupt(file, "has a broken zip directory", file.nbytes - len(directory), file.nbytes, f"entry ends at its byte {at:,}")
        if flags & _ENCRYPTED:
            raise UnsupportedFeature(f"`{name}` in {file.path} is encrypted", help="unpack it and save it without a password")
        yield Member(name, method, crc32, wide[1], wide[0], wide[2], 0)


def _name(raw: bytes, flags: int) -> str | None:
    """A member's name; None where it is not the UTF-8 it claims to be."""
    try:
        return raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError:
        return None


def _widened(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """Size, stored size and offset with the saturated ones taken from the zip64 field; None where they are not in it."""
    wide = b""
    while len(extra) >= 4:
        kind, nbytes = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = extra[4 : 4 + nbytes]
        extra = extra[4 + nbytes :]
    missing = [position for position, value in enumerate(values) if value == _SATURATED]
    if len(wide) < 8 * len(missing):
        return None
    full = list(values)
    for number, position in enumerate(missing):
        full[position] = int.from_bytes(wide[8 * number : 8 * number + 8], "little")
    return full[0], full[1], full[2]


def corrupt(file: SourceFile, what: str, start: int, stop: int, fact: str = "") -> CorruptFile:
    """The error for bytes `start` to `stop` of an archive that contradict the format; `what` continues the file's name."""
    where = f"{file.path}, bytes {start:,} to {stop:,} of {file.nbytes:,}"
    return CorruptFile(f"{file.path} {what}", notes=[fact, where], help="the source is damaged or still being written; copy it again")


def local_header(record: Record, crc32: int = 0) -> bytes:
    """What stands before a stored member's content; always with zip64 sizes, as numpy writes it. Its length does not depend on `crc32`."""
    name, flags = _encoded(record.name)
    extra = struct.pack("<2H2Q", 1, 16, record.nbytes, record.nbytes)
    if record.padding:
        extra += struct.pack("<2sH", b"FB", record.padding - LEAST_PADDING).ljust(record.padding, b"Z")
    fixed = _LOCAL.pack(b"PK\3\4", 45, flags, STORED, *_MIDNIGHT_1980, crc32, _SATURATED, _SATURATED, len(name), len(extra))
    return fixed + name + extra


def directory(records: Sequence[Record], crc32s: Sequence[int], start: int) -> bytes:
    """The central directory and end record of stored members, to stand at `start`. Its length does not depend on `crc32s`."""
    entries = b"".join(_central(record, crc32) for record, crc32 in zip(records, crc32s, strict=True))
    count, nbytes = len(records), len(entries)
    end64 = b""
    if count > 0xFFFF or nbytes > _ZIP64_FROM or start > _ZIP64_FROM:
        end64 = _END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, count, count, nbytes, start) + _LOCATOR64.pack(b"PK\6\7", 0, start + nbytes, 1)
    small = min(count, 0xFFFF)
    end = _END.pack(b"PK\5\6", 0, 0, small, small, min(nbytes, _SATURATED), min(start, _SATURATED), 0)
    return entries + end64 + end


def _central(record: Record, crc32: int) -> bytes:
    name, flags = _encoded(record.name)
    wide: list[int] = []
    nbytes, start = record.nbytes, record.start
    if nbytes > _ZIP64_FROM:
        wide += [nbytes, nbytes]
        nbytes = _SATURATED
    if start > _ZIP64_FROM:
        wide.append(start)
        start = _SATURATED
    extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    fixed = _CENTRAL.pack(
        b"PK\1\2", 45, 3, 45, 0, flags, STORED, *_MIDNIGHT_1980, crc32, nbytes, nbytes, len(name), len(extra), 0, 0, 0, _UNIX_0600, start
    )
    return fixed + name + extra


def _encoded(name: str) -> tuple[bytes, int]:
    raw = name.encode()
    return raw, 0 if name.isascii() else _UTF8
