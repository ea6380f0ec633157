"""Protocol buffers by their wire format: a walk over fields that reads only what it looks at, so that large values stay byte ranges.

Serves formats whose messages hold whole models. Knows no schema; what a field means is told by who walks. Nothing is allocated
for a length before it was compared with the message around it, and a file can ask for a limited number of fields and texts only.
Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.base import ReadAt
from surgery.formats.tf_varint import read_varint

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
COPY_AGAIN = "the file is damaged or still being written; copy it again"

_FIXED = {FIXED64: 8, FIXED32: 4}
_HEAD_BYTES = 20
"""A tag and a length, or a tag and a number, at their longest."""
_CHUNK = 16 << 10
_MOST_FIELDS = 1_000_000
"""So many take two seconds; a graph of 10,000 nodes has about 150,000."""
_MOST_TEXT_BYTES = 64 << 20


class Field(NamedTuple):
    """One field: its number, its wire type, the number it holds (0 for BYTES), and where its value lies."""

    number: int
    kind: int
    value: int
    start: int
    stop: int


class Message:
    """A file (or bytes) to walk over; small reads near each other become one. `path` is for messages."""

    def __init__(self, read: ReadAt, nbytes: int, path: str) -> None:
        self.nbytes = nbytes
        self.path = path
        self._read = read
        self._chunk = b""
        self._chunk_start = 0
        self._fields_left = _MOST_FIELDS
        self._text_left = _MOST_TEXT_BYTES

    @classmethod
    def of_bytes(cls, data: bytes, path: str) -> Message:
        """A message that is in memory already."""
        return cls(lambda start, stop: data[start:stop], len(data), path)

    def fields(self, start: int = 0, stop: int | None = None) -> Iterator[Field]:
        """The fields of the message that lies at `start` to `stop`, in the order of their bytes, unknown ones included.

        Raises:
            CorruptFile: a field that does not end within the message, or of a wire type that is not in use.
            UnsupportedFeature: more fields than a file of this kind has.
        """
        at, stop = start, self.nbytes if stop is None else stop
        while at < stop:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise UnsupportedFeature(f"{self.path} has more than {_MOST_FIELDS:,} fields", help="no model that is known has as many")
            field = self._field(at, stop)
            yield field
            at = field.stop

    def _field(self, start: int, stop: int) -> Field:
        head, base = self._head(start, min(start + _HEAD_BYTES, stop))
        limit = min(stop - base, len(head))
        try:
            tag, at = read_varint(head, start - base, limit)
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                value, after = read_varint(head, at, limit)
                return Field(number, kind, value & 0xFFFFFFFFFFFFFFFF, base + at, base + after)
            nbytes = _FIXED.get(kind)
            if kind == BYTES:
                nbytes, at = read_varint(head, at, limit)
        except ValueError:
            raise self.corrupt("a field does not end", start, stop) from None
        if nbytes is None or not number:
            raise self.corrupt(f"field {number} has wire type {kind}", start, stop)
        if nbytes > stop - base - at:
            raise self.corrupt(f"field {number} claims {nbytes:,} bytes", start, stop)
        value = int.from_bytes(head[at : at + nbytes], "little") if kind != BYTES else 0
        return Field(number, kind, value, base + at, base + at + nbytes)

    def _head(self, start: int, stop: int) -> tuple[bytes, int]:
        """Bytes that include `start` to `stop`, and the offset of the first of them."""
        if not self._chunk_start <= start <= stop <= self._chunk_start + len(self._chunk):
            self._chunk = self._read(start, min(start + _CHUNK, self.nbytes))
            self._chunk_start = start
        return self._chunk, self._chunk_start

    def data(self, field: Field) -> bytes:
        """The bytes of a field that is small by its meaning. Raises UnsupportedFeature where a file has too many of them."""
        self._text_left -= field.stop - field.start
        if self._text_left < 0:
            raise UnsupportedFeature(f"{self.path} has more than {_MOST_TEXT_BYTES:,} bytes of text", help="no model that is known has as many")
        if field.stop - field.start <= _CHUNK:
            head, base = self._head(field.start, field.stop)
            return head[field.start - base : field.stop - base]
        return self._read(field.start, field.stop)

    def whole(self, field: Field) -> bytes:
        """The stored bytes of a field, however many: for messages that are in memory."""
        return self._read(field.start, field.stop)

    def text(self, field: Field) -> str:
        """The text of a field. Raises CorruptFile where it is none in UTF-8, and what `data` raises."""
        try:
            return self.data(field).decode()
        except UnicodeDecodeError as fault:
            raise self.corrupt(f"a text is not UTF-8: {fault.reason}", field.start, field.stop) from None

    def numbers(self, field: Field) -> list[int]:
        """One number, or a packed run of varints, as 64-bit two's complement. Raises CorruptFile, and what `data` raises."""
        if field.kind != BYTES:
            return [_signed(field.value)]
        data, at, found = self.data(field), 0, []
        try:
            while at < len(data):
                number, at = read_varint(data, at, len(data))
                found.append(_signed(number))
        except ValueError:
            raise self.corrupt("a number does not end", field.start, field.stop) from None
        return found

    def corrupt(self, fact: str, start: int, stop: int) -> CorruptFile:
        """The error for bytes `start` to `stop` that contradict the format."""
        return CorruptFile(f"{self.path} is damaged", notes=[fact, f"{self.path}, bytes {start:,} to {stop:,}"], help=COPY_AGAIN)


def _signed(number: int) -> int:
    number &= 0xFFFFFFFFFFFFFFFF
    return number - (1 << 64) if number >> 63 else number
