"""Small files of data that steps name beside checkpoints. Bytes come from probe; nothing here opens a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from surgery.errors import SourceError

Parse = Callable[[bytes, str], Any]
"""What makes a value of the bytes of a file; the path is for messages. Raises SourceError."""
MOST_BYTES = 64 << 20


def bad_data(path: str, fault: str, help: str) -> SourceError:
    """The error for a file that does not hold what a step asks of it."""
    return SourceError(f"`{path}` {fault}", code="bad-data", help=help)


def text_of(data: bytes, path: str) -> str:
    """A file's text. Raises SourceError where it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad_data(path, f"is not UTF-8 text: byte {error.start:,}", "name a text or JSON file") from None


def json_of(data: bytes, path: str) -> Any:
    """A file's JSON. Raises SourceError where it is none, or where a name stands twice in one object."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            raise bad_data(path, f"has {json.dumps(twice, ensure_ascii=False)} twice in one object", "write each name once")
        return members

    try:
        return json.loads(text_of(data, path), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise bad_data(path, f"is no JSON: {error}", "correct the file") from None


def indices(data: bytes, path: str) -> tuple[int, ...]:
    """A JSON list of integers. Raises SourceError where it is none, or empty."""
    found = json_of(data, path)
    if not isinstance(found, list) or not found or not all(isinstance(index, int) and not isinstance(index, bool) for index in found):
        raise bad_data(path, "is no JSON list of integers", "write it as `[5, 6, 0]`")
    return tuple(found)
