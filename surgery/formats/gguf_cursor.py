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
_MOST_BYTES = 20 << 20
"""Of everything before the data. The largest vocabularies, 262,144 tokens and 514,000 merges, take some 17 MB."""
_MOST_WORK = 1_600_000
"""Items of all arrays together, other things by what they cost in items. With scores and types, those vocabularies have 1,562,000."""
_MOST_STRING_BYTES = 1 << 20
_ENOUGH_BYTES = 1 << 20
"""Of strings that are held at once."""
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
        self._work_left = _MOST_WORK
        self._odd_left = _MOST_ODD_BYTES
        self._told_left = _MOST_BYTES

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
        (nbytes,) = self.numbers("Q", 1)
        if nbytes > _MOST_STRING_BYTES and nbytes <= self.file.nbytes - self.at:
            raise self.unsupported(f"a text of {nbytes:,} bytes among its key/values")
        start, self.at = self.at, self._reach(nbytes)
        try:
            return self._data[start : self.at].decode()
        except UnicodeDecodeError as fault:
            if strict:
                raise self.corrupt("a name is not UTF-8", start, str(fault)) from None
        return self._odd_text(start)

    def texts(self, most: int) -> list[str]:
        """So many strings, or fewer where they are long, read as `text` does without `strict`."""
        found = []
        length = struct.Struct(f"{self.order}Q").unpack_from
        data, at = self._data, self.at
        have, enough = len(data), at + _ENOUGH_BYTES
        for _ in range(most):  # a vocabulary has half a million: no calls here that can be spared
            if at > enough:
                break
            start = at + 8
            stop = start + length(data, at)[0] if start <= have else have + 1
            if stop > have or stop - start > _MOST_STRING_BYTES:
                self.at = at
                found.append(self.text(strict=False))
                have, at = len(data), self.at
                continue
            try:
                found.append(data[start:stop].decode())
            except UnicodeDecodeError:
                self.at = stop
                found.append(self._odd_text(start))
            at = stop
        self.at = at
        return found

    def _odd_text(self, start: int) -> str:
        self._odd_left -= self.at - start
        if self._odd_left < 0:
            raise self.unsupported(f"more than {_MOST_ODD_BYTES:,} bytes of text that is not UTF-8")
        return self._data[start : self.at].decode(errors="surrogateescape")

    def claim(self, count: int, least_nbytes: int, what: str, cost: int = 1) -> None:
        """Refuse a count of things of at least that many bytes each for which the rest of the file has no room, or which are beyond all measure.

        `cost` is how long one of them takes to read, in items of an array.
        """
        if count * least_nbytes > self.file.nbytes - self.at:
            raise self.corrupt(f"it claims {count:,} {what}, for which it is too short", self.at)
        self._work_left -= count * cost
        if self._work_left < 0:
            raise self.unsupported(f"{count:,} {what}, in all more than are read here")

    def told(self, nbytes: int) -> None:
        """Refuse values that take more text to tell than a front may have bytes: control characters are six times as long in JSON."""
        self._told_left -= nbytes
        if self._told_left < 0:
            raise self.unsupported(f"key/values of more than {_MOST_BYTES:,} bytes as text")

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
        self._data += self._read(have, min(max(stop, 2 * have, _FIRST_READ), self.file.nbytes, _MOST_BYTES))


COPY_AGAIN = "the source is damaged or still being written; copy it again"
