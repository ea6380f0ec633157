"""The key/value section of GGUF files. Serves the gguf format: values become the text of metadata, and text becomes values again.

The text of a value is JSON. A value that nobody changed keeps its very bytes; one that was edited keeps its type. Source: ggml's docs/gguf.md.
"""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

from surgery.formats.gguf_cursor import Cursor

FLOAT32, BOOL, STRING, ARRAY = 6, 7, 8, 9
UINT32, INT32, UINT64, INT64 = 4, 5, 10, 11
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", UINT32: "I", INT32: "i", FLOAT32: "f", BOOL: "B", UINT64: "Q", INT64: "q", 12: "d"}
"""Type → `struct`'s code for it."""
_FLOATS = (FLOAT32, 12)
_NAMES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "string", "array", "uint64", "int64", "float64")
_LEAST_STRING = 8
_LEAST_ARRAY = 12
_DEEPEST = 8
_COSTS = {FLOAT32: 2, 12: 2, ARRAY: 20}
"""How long an item takes to read, in integers or strings."""
_AT_ONCE = 1 << 14
_INTEGERS = (UINT32, INT32, UINT64, INT64)
"""In the order in which a new value tries them."""


class Items(NamedTuple):
    """An array: the type of its items, and those."""

    kind: int
    values: list[Any]


class Value(NamedTuple):
    """A value: its type, its bytes behind the type (little-endian), and the JSON that tells it."""

    kind: int
    data: bytes
    text: str


def read_value(cursor: Cursor) -> Value:
    """The next value. Raises CorruptFile and UnsupportedFeature as the cursor does."""
    kind = cursor.number("I")
    reading = _Reading(cursor)
    start = cursor.at
    if kind == ARRAY:
        reading.array(1)
    else:
        reading.run(kind, 1)
    return Value(kind, cursor.since(start) if cursor.order == "<" else bytes(reading.data), reading.text.decode())


class _Reading:
    """Reads one value. Its JSON is put together from runs of items, as all items at once would take many times their bytes.

    `data` is what a little-endian file would have, and is made where the file is not one itself.
    """

    def __init__(self, cursor: Cursor) -> None:
        self.data = bytearray()
        self.text = bytearray()
        self._cursor = cursor
        self._swaps = cursor.order == ">"

    def array(self, depth: int) -> None:
        """An array, perhaps of arrays."""
        cursor = self._cursor
        kind, count = cursor.number("I"), cursor.number("Q")
        if depth > _DEEPEST:
            raise cursor.unsupported(f"arrays more than {_DEEPEST} deep")
        if self._swaps:
            self.data += struct.pack("<IQ", kind, count)
        cursor.claim(count, _least_nbytes(kind), "array items", _COSTS.get(kind, 1))
        self.text += b"["
        if kind == ARRAY:
            for number in range(count):
                self._tell(", " if number else "")
                self.array(depth + 1)
        else:
            self.run(kind, count)
        self.text += b"]"

    def run(self, kind: int, count: int) -> None:
        """So many values of one type, which is not ARRAY."""
        done = 0
        while done < count:
            values = self._parsed(kind, min(_AT_ONCE, count - done))
            if self._swaps:
                self.data += _encoded_run(kind, values)
            self._tell((", " if done else "") + _json(_shortened(values) if kind == FLOAT32 else values)[1:-1])
            done += len(values)

    def _parsed(self, kind: int, count: int) -> list[Any]:
        """The next items, at least one."""
        cursor, start = self._cursor, self._cursor.at
        if kind == STRING:
            return cursor.texts(count)
        if kind not in _CODES:
            raise cursor.corrupt(f"there is no type {kind} of values", start - 4)
        found = cursor.numbers(_CODES[kind], count)
        if kind != BOOL:
            return list(found)
        if max(found) > 1:
            raise cursor.corrupt("a bool is neither 0 nor 1", start)
        return list(map(bool, found))

    def _tell(self, text: str) -> None:
        told = text.encode()
        self._cursor.told(len(told))
        self.text += told


def _least_nbytes(kind: int) -> int:
    """Of an item of this type; 1 where there is no such type."""
    return {STRING: _LEAST_STRING, ARRAY: _LEAST_ARRAY}.get(kind) or struct.calcsize(_CODES.get(kind, "B"))


def _shortened(values: list[float]) -> list[float]:
    """Each float32 as the number with the fewest digits that stands for it; what seven digits do not tell stays as it is."""
    short = list(map(float, ("%.7g " * len(values) % tuple(values)).split()))
    packing = f"<{len(values)}f"
    back = struct.unpack(packing, struct.pack(packing, *short))
    return [fewer if same == value else value for fewer, same, value in zip(short, back, values, strict=True)]


def _json(plain: Any) -> str:
    text = json.dumps(plain, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # surrogates stand for bytes that are not UTF-8; JSON can escape them
        return json.dumps(plain)
    return text


def _encoded(kind: int, parsed: Any) -> bytes:
    """The little-endian bytes of a value. Raises ValueError where a number does not fit."""
    if kind != ARRAY:
        return _encoded_run(kind, [parsed])
    return struct.pack("<IQ", parsed.kind, len(parsed.values)) + _encoded_run(parsed.kind, parsed.values)


def _encoded_run(kind: int, values: list[Any]) -> bytes:
    return b"".join(map(_string, values)) if kind == STRING else _packed(kind, values)


def _string(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _packed(kind: int, values: list[Any]) -> bytes:
    try:
        return struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
    except (struct.error, OverflowError):
        raise ValueError(f"a number is out of the range of {_NAMES[kind]}") from None


def value_of(text: str, before: Value | None) -> Value:
    """The value that a text of metadata stands for: of the type it had `before`, or for a new key of the first type that fits it.

    Text that is no JSON, or that JSON can tell and GGUF cannot (null, objects, mixed lists), is a string.

    Raises:
        ValueError: the text tells no value of the type it had before.
    """
    plain = _loaded(text)
    kind, parsed = _guessed(plain, text) if before is None else (before.kind, _like(plain, before, text))
    return Value(kind, _encoded(kind, parsed), text)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _like(plain: Any, before: Value, text: str) -> Any:
    """A parsed value of the type that another has. Raises ValueError where it is none."""
    if before.kind == STRING:
        return plain if isinstance(plain, str) else text
    if before.kind != ARRAY:
        return _of_kind(plain, before.kind)
    if type(plain) is not list:
        raise ValueError("it was an array")
    kind = int.from_bytes(before.data[:4], "little")
    if kind == ARRAY:
        raise ValueError("it was an array of arrays, which can only be kept or taken away")
    return Items(kind, [_of_kind(item, kind) for item in plain])


def _of_kind(plain: Any, kind: int) -> Any:
    wanted: tuple[type, ...] = (int, float) if kind in _FLOATS else ({STRING: str, BOOL: bool}.get(kind, int),)
    if type(plain) not in wanted:
        raise ValueError(f"it was of type {_NAMES[kind]}")
    return plain


def _guessed(plain: Any, text: str) -> tuple[int, Any]:
    """The type for a new value, with its parsed form."""
    several = type(plain) is list
    kind = _guessed_kind(plain if several else [plain])
    if kind is None:
        return STRING, text
    return (ARRAY, Items(kind, plain)) if several else (kind, plain)


def _guessed_kind(plain: list[Any]) -> int | None:
    """The first type that holds all of these."""
    types = {type(item) for item in plain}
    if types in ({int}, {float}, {int, float}):
        return next((kind for kind in (_FLOATS if float in types else _INTEGERS) if _holds(kind, plain)), None)
    return {bool: BOOL, str: STRING}.get(types.pop()) if len(types) == 1 else None


def _holds(kind: int, values: list[Any]) -> bool:
    try:
        _packed(kind, values)
    except ValueError:
        return False
    return True
