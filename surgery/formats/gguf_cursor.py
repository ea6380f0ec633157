"""Reading the front of a GGUF file value by value. Serves the gguf format; knows neither keys nor tensors.

Nothing is taken in one piece before it was compared with the size of the file, and a front may ask for a limited number of bytes and items.
"""

from __future__ import annotations

import struct
from typing import Any

from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.base import ReadAt
from surgery.tensors import SourceFile

_FIRST_READ = 16 << 10
_MOST_BYTES = 24 << 20
"""Of everything before the data. The vocabulary of 262,144 tokens and its merges take some 20 MB."""
_MOST_ITEMS = 1_400_000
"""In all arrays of a file together."""
_MOST_ODD_BYTES = 1 << 20
"""Of strings that are not UTF-8, in all: tokens may be parts of characters, but their JSON is six times as long."""


class Cursor:
    """A place in the front of a file, which is fetched from its first byte on as far as it is asked for.

    `order` is `<` or `>`, for all numbers. Every method raises CorruptFile where the file ends too early.
    """

    def __init__(self, file: SourceFile, read: ReadAt) -> None:
        self.file = file
        self.at = 0
        self.order = "<"
        self._read = read
        self._data = bytearray()
        self._items_left = _MOST_ITEMS
        self._odd_left = _MOST_ODD_BYTES

    def take(self, nbytes: int) -> bytes:
        """The next bytes."""
        start, self.at = self.at, self._reach(nbytes)
        return bytes(self._data[start : self.at])

    def since(self, start: int) -> bytes:
        """The bytes from an earlier place up to here."""
        return bytes(self._data[start : self.at])

    def number(self, code: str) -> Any:
        """The next number, of one of `struct`'s types."""
        return self.numbers(code, 1)[0]

    def numbers(self, code: str, count: int) -> tuple[Any, ...]:
        """So many numbers of one type."""
        start, self.at = self.at, self._reach(struct.calcsize(f"<{code}") * count)
        return struct.unpack_from(f"{self.order}{count}{code}", self._data, start)

    def text(self, *, strict: bool = True) -> str:
        """The next string, a length and UTF-8; without `strict` other bytes become surrogates, with it they raise CorruptFile."""
        start = self._reach(8)
        nbytes = int.from_bytes(self._data[self.at : start], "big" if self.order == ">" else "little")
        self.at = start
        self.at = self._reach(nbytes)
        try:
            return self._data[start : self.at].decode()
        except UnicodeDecodeError as fault:
            if strict:
                raise self.corrupt("a name is not UTF-8", start, str(fault)) from None
        self._odd_left -= nbytes
        if self._odd_left < 0:
            raise self.unsupported(f"more than {_MOST_ODD_BYTES:,} bytes of text that is not UTF-8")
        return self._data[start : self.at].decode(errors="surrogateescape")

    def claim(self, count: int, least_nbytes: int, what: str) -> None:
        """Refuse a count of things of at least that many bytes each for which the rest of the file has no room."""
        if count * least_nbytes > self.file.nbytes - self.at:
            raise self.corrupt(f"it claims {count:,} {what}, for which it is too short", self.at)

    def claim_items(self, count: int, nbytes: int) -> None:
        """Refuse an array that the rest of the file has no room for, or that makes all arrays together longer than any vocabulary."""
        self.claim(count, nbytes, "array items")
        self._items_left -= count
        if self._items_left < 0:
            raise self.unsupported(f"arrays of more than {_MOST_ITEMS:,} items before its data")

    def corrupt(self, fact: str, start: int, *more: str) -> CorruptFile:
        """The error for what stands between `start` and here."""
        where = f"{self.file.path}, bytes {start:,} to {max(self.at, start):,}"
        return CorruptFile(f"{self.file.path} is not a sound GGUF file: {fact}", notes=[*more, where], help=COPY_AGAIN)

    def unsupported(self, what: str) -> UnsupportedFeature:
        """The error for something well-formed that is not read here."""
        notes = [f"{self.file.path}, before byte {self.at:,}"]
        return UnsupportedFeature(f"{self.file.path} has {what}", notes=notes, help="write the file anew with a current version of the gguf package")

    def _reach(self, nbytes: int) -> int:
        """Fetch the next bytes unless they are there, and tell where they end."""
        stop = self.at + nbytes
        if stop > len(self._data):
            self._fetch(stop)
        return stop

    def _fetch(self, stop: int) -> None:
        if stop > self.file.nbytes:
            raise self.corrupt("it ends too early", self.at, f"the next value would end at byte {stop:,} of {self.file.nbytes:,}")
        if stop > _MOST_BYTES:
            raise self.unsupported(f"more than {_MOST_BYTES:,} bytes before its data")
        have = len(self._data)
        self._data += self._read(have, min(max(stop, 2 * have, _FIRST_READ), self.file.nbytes))


COPY_AGAIN = "the source is damaged or still being written; copy it again"
