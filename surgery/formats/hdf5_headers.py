"""Object headers of HDF5: the messages of a group or dataset, in both versions. Knows the frame of a message, not its content.

Checksums of version 2 are not verified: that would take longer than everything else in Python, and each field is checked by itself.
Source of format facts: HDF5 File Format Specification 3.0, section IV.A.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from surgery.errors import UnsupportedFeature
from surgery.formats.hdf5_content import Content, Fields

DATASPACE, LINK_INFO, DATATYPE, OLD_FILL, FILL, LINK, EXTERNAL_FILES, LAYOUT, FILTERS, ATTRIBUTE = 1, 2, 3, 4, 5, 6, 7, 8, 11, 12
_CONTINUATION = 16
SYMBOL_TABLE, ATTRIBUTE_INFO = 17, 21

_SHARED = 2
_COMMITTED = (0, 2)
"""How a shared message says that it stands in another object header, by version 1 and later."""


class Message(NamedTuple):
    """A message of an object header; `start` is the address of its data."""

    kind: int
    data: bytes
    start: int


class Header(NamedTuple):
    """The messages of one object, in file order."""

    content: Content
    address: int
    messages: tuple[Message, ...]

    def find(self, kind: int, what: str) -> Fields | None:
        """The first message of a kind, to take fields from."""
        return next((self.fields(message, what) for message in self.messages if message.kind == kind), None)

    def fields(self, message: Message, what: str) -> Fields:
        """A message to take fields from."""
        return Fields(self.content, message.data, message.start, what)

    def has(self, kind: int) -> bool:
        """Whether there is a message of this kind."""
        return any(message.kind == kind for message in self.messages)


def read_header(content: Content, address: int) -> Header:
    """All messages of an object. Raises CorruptFile, and UnsupportedFeature for messages shared through a heap."""
    return Header(content, address, tuple(_resolved(content, message, flags) for message, flags in _messages(content, address)))


def _messages(content: Content, address: int) -> list[tuple[Message, int]]:
    """The messages as they stand, each with its flags; the signature tells the version."""
    return _version_2(content, address) if content.at(address, 4, "object header") == b"OHDR" else _version_1(content, address)


def _resolved(content: Content, message: Message, flags: int) -> Message:
    """A message itself, where its place holds only the address of the object that has it: committed datatypes."""
    if not flags & _SHARED:
        return message
    fields = Fields(content, message.data, message.start, "shared message")
    version, kind = fields.uint(1), fields.uint(1)
    if kind not in _COMMITTED or (kind == 0 and version > 1):
        raise UnsupportedFeature(f"{content.file.path} has messages shared through a heap", help="rewrite it with h5repack")
    fields.take(6 if version == 1 else 0)
    for other, its_flags in _messages(content, fields.uint(8)):
        if other.kind == message.kind and not its_flags & _SHARED:
            return other
    raise fields.fault("what it shares is not there")


def _version_1(content: Content, address: int) -> list[tuple[Message, int]]:
    prefix = content.fields(address, 16, "object header")
    version, _, count, _, nbytes = prefix.uint(1), prefix.uint(1), prefix.uint(2), prefix.uint(4), prefix.uint(4)
    if version != 1:
        raise prefix.fault(f"it is of version {version}")
    blocks = [(address + 16, nbytes)]
    found: list[tuple[Message, int]] = []
    for start, size in _growing(blocks):
        fields = content.fields(start, size, "object header")
        while fields.left >= 8 and count:
            kind, length, flags, _ = fields.uint(2), fields.uint(2), fields.uint(1), fields.uint(3)
            count -= 1
            _add(fields, kind, length, flags, found, blocks)
    return found


def _version_2(content: Content, address: int) -> list[tuple[Message, int]]:
    prefix = content.fields(address, min(34, content.nbytes - address), "object header", b"OHDR")
    version, flags = prefix.uint(1), prefix.uint(1)
    if version != 2:
        raise prefix.fault(f"it is of version {version}")
    prefix.take((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
    nbytes = prefix.uint(1 << (flags & 3))
    blocks = [(address + prefix.at, nbytes)]
    ordered = 2 if flags & 4 else 0
    found: list[tuple[Message, int]] = []
    for number, (start, size) in enumerate(_growing(blocks)):
        fields = content.fields(start, size - (4 if number else 0), "object header", b"OCHK" if number else b"")
        while fields.left >= 4 + ordered:
            kind, length, message_flags = fields.uint(1), fields.uint(2), fields.uint(1)
            fields.take(ordered)
            _add(fields, kind, length, message_flags, found, blocks)
    return found


def _growing(blocks: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The blocks of a header, those included that are found meanwhile; `Content` bounds how many can be."""
    yield from blocks


def _add(fields: Fields, kind: int, length: int, flags: int, found: list[tuple[Message, int]], blocks: list[tuple[int, int]]) -> None:
    start = fields.address + fields.at
    data = fields.take(length)
    if kind == _CONTINUATION:
        block = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:16], "little")
        if len(data) < 16 or block[1] < 8:
            raise fields.fault("its continuation is too short")
        blocks.append(block)
    elif kind:
        found.append((Message(kind, data, start), flags))
