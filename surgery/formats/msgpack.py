"""MessagePack, as much as checkpoints use: heads of items read one by one, so that large values stay byte ranges, and items written.

Serves the flax format; knows no arrays. No length is used before it was compared with the range that it lies in, and nothing is built
recursively here. (The `msgpack` package tells no offsets, so it would have to read all bytes.) Source: msgpack/spec.md.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.base import ReadAt
from surgery.tensors import SourceFile

COPY_AGAIN = "the source is damaged or still being written; copy it again"
_WINDOW = 4 << 10
_MOST_ITEMS = 300_000
"""Of a file. An array is 6 items and one more for each of its axes; the largest states of optimizers have some thousand arrays."""
_MOST_TEXT_BYTES = 4 << 20
_HEAD_NBYTES = 9
_NUMBERS = {0xCA: "f", 0xCB: "d", 0xCC: "B", 0xCD: "H", 0xCE: "I", 0xCF: "Q", 0xD0: "b", 0xD1: "h", 0xD2: "i", 0xD3: "q"}
_SIMPLE = {0xC0: None, 0xC2: False, 0xC3: True}
_SIZED = {
    0xC4: ("bin", 1),
    0xC5: ("bin", 2),
    0xC6: ("bin", 4),
    0xC7: ("ext", 1),
    0xC8: ("ext", 2),
    0xC9: ("ext", 4),
    0xD9: ("str", 1),
    0xDA: ("str", 2),
    0xDB: ("str", 4),
    0xDC: ("array", 2),
    0xDD: ("array", 4),
    0xDE: ("map", 2),
    0xDF: ("map", 4),
}
"""First byte → kind, and how many bytes tell the length."""
_FIXED = ((0xA0, 0x1F, "str"), (0x90, 0x0F, "array"), (0x80, 0x0F, "map"))
_FIXED_EXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


class Item(NamedTuple):
    """The head of an item. `value` is a number, bool or None ("plain"), a count ("array", "map"), or the type of an "ext".

    The content of "str", "bin" and "ext" lies at `start` to `stop`; that of the others follows item by item.
    """

    kind: str
    value: Any
    start: int
    stop: int


class _Window:
    """Small reads that lie near each other become one. Also counts the items that are left to be read."""

    def __init__(self, read: ReadAt, nbytes: int) -> None:
        self._read = read
        self.items_left = _MOST_ITEMS
        self._nbytes = nbytes
        self._data = b""
        self._start = 0

    def bytes(self, start: int, stop: int) -> bytes:
        if not self._start <= start <= stop <= self._start + len(self._data):
            self._start, self._data = start, self._read(start, min(max(stop, start + _WINDOW), self._nbytes))
        return self._data[start - self._start : stop - self._start]


class Reader:
    """A place in a range of a file, read item by item. All methods raise CorruptFile for what cannot be in that range.

    `item` raises UnsupportedFeature for files of more items than any state has.
    """

    def __init__(self, file: SourceFile, read: ReadAt) -> None:
        self.file = file
        self.at = 0
        self.stop = file.nbytes
        self._window = _Window(read, file.nbytes)

    def within(self, item: Item) -> Reader:
        """A reader of the content of an item."""
        inner = Reader.__new__(Reader)
        inner.file, inner.at, inner.stop, inner._window = self.file, item.start, item.stop, self._window
        return inner

    def content(self, item: Item) -> bytes:
        """All bytes of a "str", "bin" or "ext"."""
        return self._window.bytes(item.start, item.stop)

    def text(self, item: Item) -> str:
        """The text of a "str". Raises UnsupportedFeature where it is as long as no text is."""
        if item.stop - item.start > _MOST_TEXT_BYTES:
            raise self.unsupported(f"a text of {item.stop - item.start:,} bytes", item.start)
        try:
            return self.content(item).decode()
        except UnicodeDecodeError as fault:
            raise self.corrupt("a text is not UTF-8", item.start, str(fault)) from None

    def item(self) -> Item:
        """The next head; goes on behind the content of "str", "bin" and "ext", and behind the head of all others."""
        start = self.at
        self._window.items_left -= 1
        if self._window.items_left < 0:
            raise self.unsupported(f"more than {_MOST_ITEMS:,} items", start)
        head = self._window.bytes(start, min(start + _HEAD_NBYTES, self.stop))
        try:
            item = _read_head(head, start)
        except (IndexError, struct.error):
            raise self.corrupt("it ends within an item", start) from None
        except ValueError as fault:
            raise self.corrupt(str(fault), start) from None
        least = item.stop + (item.value * (2 if item.kind == "map" else 1) if item.kind in ("array", "map") else 0)
        if least > self.stop:
            raise self.corrupt(f"an item would end at byte {least:,} or later, of {self.stop:,}", start)
        self.at = item.stop
        return item

    def unsupported(self, what: str, start: int) -> UnsupportedFeature:
        """The error for something well-formed at `start` that is not read here."""
        return UnsupportedFeature(f"{self.file.path} has {what}", notes=[f"{self.file.path}, byte {start:,}"], help="save the parameters alone")

    def corrupt(self, fact: str, start: int, *more: str) -> CorruptFile:
        """The error for what begins at `start`."""
        where = f"{self.file.path}, bytes {start:,} to {max(self.at, min(start + 1, self.stop)):,}"
        return CorruptFile(f"{self.file.path} is not sound msgpack: {fact}", notes=[*more, where], help=COPY_AGAIN)


def _read_head(head: bytes, start: int) -> Item:
    """Raises IndexError or struct.error where the head is cut off, ValueError for the byte that is no head."""
    first = head[0]
    if first < 0x80 or first >= 0xE0:
        return Item("plain", first if first < 0x80 else first - 0x100, start, start + 1)
    for low, most, kind in _FIXED:
        if low <= first <= low + most:
            return _sized(kind, first - low, start + 1)
    if first in _SIMPLE:
        return Item("plain", _SIMPLE[first], start, start + 1)
    if code := _NUMBERS.get(first):
        (number,) = struct.unpack_from(f">{code}", head, 1)
        return Item("plain", number, start, start + 1 + struct.calcsize(f">{code}"))
    if nbytes := _FIXED_EXT.get(first):
        return Item("ext", head[1], start + 2, start + 2 + nbytes)
    if first not in _SIZED:
        raise ValueError(f"no item begins with the byte {first:#x}")
    kind, width = _SIZED[first]
    (length,) = struct.unpack_from({1: ">B", 2: ">H", 4: ">I"}[width], head, 1)
    if kind == "ext":
        return Item("ext", head[1 + width], start + 2 + width, start + 2 + width + length)
    return _sized(kind, length, start + 1 + width)


def _sized(kind: str, length: int, start: int) -> Item:
    return Item(kind, length, start, start if kind in ("array", "map") else start + length)


def pack(value: Any) -> bytes:
    """An item of None, bool, int, float, text, bytes, list or dict, in the shortest form. Raises ValueError for integers over 64 bits."""
    if isinstance(value, list):
        return head("array", len(value)) + b"".join(map(pack, value))
    if isinstance(value, dict):
        return head("map", len(value)) + b"".join(pack(key) + pack(item) for key, item in value.items())
    if isinstance(value, str):
        data = value.encode()
        return head("str", len(data)) + data
    if isinstance(value, bytes):
        return head("bin", len(value)) + value
    if isinstance(value, float):
        return struct.pack(">Bd", 0xCB, value)
    if value is None or isinstance(value, bool):
        return bytes([0xC0 if value is None else 0xC2 + value])
    return _pack_int(value)


def _pack_int(value: int) -> bytes:
    if -32 <= value < 128:
        return struct.pack("b" if value < 0 else "B", value)
    for code in (0xCC, 0xCD, 0xCE, 0xCF) if value > 0 else (0xD0, 0xD1, 0xD2, 0xD3):
        try:
            return struct.pack(f">B{_NUMBERS[code]}", code, value)
        except struct.error:
            continue
    raise ValueError("msgpack has no integers of more than 64 bits")


def head(kind: str, length: int, ext: int = 0) -> bytes:
    """The head of a "str", "bin", "array", "map" or "ext" of that many bytes or items, in the shortest form."""
    for low, most, fixed in _FIXED:
        if fixed == kind and length <= most:
            return bytes([low + length])
    if kind == "ext" and length in _FIXED_EXT.values():
        return bytes([next(first for first, nbytes in _FIXED_EXT.items() if nbytes == length), ext])
    first, width = next((first, width) for first, (sized, width) in _SIZED.items() if sized == kind and length < 1 << 8 * width)
    return bytes([first]) + length.to_bytes(width, "big") + (bytes([ext]) if kind == "ext" else b"")
