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
    start = cursor.at
    parsed = _parse(cursor, kind)
    data = cursor.since(start) if cursor.order == "<" else _encoded(kind, parsed)
    return Value(kind, data, _json(_plain(kind, parsed)))


def _parse(cursor: Cursor, kind: int) -> Any:
    """A number, bool or str, or `Items`."""
    if kind == STRING:
        return cursor.text(strict=False)
    return _parse_items(cursor) if kind == ARRAY else _parse_numbers(cursor, kind, 1)[0]


def _parse_items(cursor: Cursor) -> Items:
    kind, count = cursor.number("I"), cursor.number("Q")
    if kind == ARRAY:
        raise cursor.unsupported("an array of arrays among its key/values, which ggml does not read either")
    cursor.claim_items(count, _LEAST_STRING if kind == STRING else struct.calcsize(_CODES.get(kind, "B")))
    if kind == STRING:
        return Items(kind, [cursor.text(strict=False) for _ in range(count)])
    return Items(kind, list(_parse_numbers(cursor, kind, count)))


def _parse_numbers(cursor: Cursor, kind: int, count: int) -> tuple[Any, ...]:
    start = cursor.at
    if kind not in _CODES:
        raise cursor.corrupt(f"there is no type {kind} of values", start - 4)
    found = cursor.numbers(_CODES[kind], count)
    if kind != BOOL:
        return found
    if found and max(found) > 1:
        raise cursor.corrupt("a bool is neither 0 nor 1", start)
    return tuple(map(bool, found))


def _plain(kind: int, parsed: Any) -> Any:
    """What JSON has for it; a float32 becomes the shortest number that stands for it."""
    if isinstance(parsed, Items):
        return _shortened(parsed.values) if parsed.kind == FLOAT32 else parsed.values
    return _shortened([parsed])[0] if kind == FLOAT32 else parsed


def _shortened(values: list[float]) -> list[float]:
    short = [float(f"{value:.7g}") for value in values]
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
    if kind == STRING:
        data: bytes = parsed.encode(errors="surrogateescape")
        return struct.pack("<Q", len(data)) + data
    if kind != ARRAY:
        return _packed(kind, [parsed])
    head = struct.pack("<IQ", parsed.kind, len(parsed.values))
    if parsed.kind == STRING:
        return head + b"".join(_encoded(STRING, item) for item in parsed.values)
    return head + _packed(parsed.kind, parsed.values)


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
