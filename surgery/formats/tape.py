"""The bytes of a pickle, taken one after the other in windows, without those of long values. Serves `unpickle` and who calls it."""

from __future__ import annotations

from typing import NamedTuple

from surgery.formats.base import ReadAt

_MOST_LINE_BYTES = 1 << 20
_HELD_BYTES = 4096
_WINDOW_BYTES = 32 << 10


class PickleFault(Exception):
    """Bytes `start` to `stop` of a file are no pickle, or want too much."""

    def __init__(self, reason: str, start: int, stop: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.start = start
        self.stop = stop


class Span(NamedTuple):
    """Bytes too many to be held: where they lie. With `is_text` they are the UTF-8 of their Latin-1, as protocol 2 spells bytes."""

    start: int
    nbytes: int
    is_text: bool = False


class Tape:
    """Bytes `start` to `stop` of a file, taken one after the other and read in windows; pickles may follow each other on it.

    Values of more than `held` bytes become a `Span`.
    """

    def __init__(self, read: ReadAt, start: int, stop: int, held: int = _HELD_BYTES) -> None:
        self.read = read
        self.stop = stop
        self.held = held
        self._window = b""
        self._window_start = start
        self._at = 0

    @property
    def at(self) -> int:
        """The offset in the file of the next byte."""
        return self._window_start + self._at

    def take(self, nbytes: int) -> bytes:
        """The next bytes. Raises PickleFault where there are not as many."""
        stop = self._at + nbytes
        if stop > len(self._window):
            self._refill(nbytes)
            stop = nbytes
        taken = self._window[self._at : stop]
        self._at = stop
        return taken

    def byte(self) -> int:
        """The next byte. Raises PickleFault where there is none."""
        at = self._at
        if at < len(self._window):
            self._at = at + 1
            return self._window[at]
        return self.take(1)[0]

    def line(self) -> bytes:
        """The bytes up to the end of the line. Raises PickleFault where it does not end."""
        for wanted in (0, _WINDOW_BYTES, _MOST_LINE_BYTES):
            if wanted:
                self._refill(min(wanted, self.stop - self.at))
            end = self._window.find(b"\n", self._at)
            if end >= 0:
                taken = self._window[self._at : end]
                self._at = end + 1
                return taken
        raise PickleFault("a line that does not end", self.at, self.stop)

    def skip(self, nbytes: int, is_text: bool) -> Span:
        """Pass over bytes without reading them. Raises PickleFault where there are not as many."""
        start = self.at
        if start + nbytes > self.stop:
            raise PickleFault("the pickle ends within a value", start, self.stop)
        self._window, self._window_start, self._at = self._window[self._at + nbytes :], start + nbytes, 0
        return Span(start, nbytes, is_text)

    def _refill(self, nbytes: int) -> None:
        """Have at least `nbytes` from here on."""
        start = self.at
        if start + nbytes > self.stop:
            raise PickleFault("the pickle ends within a value" if start < self.stop else "the pickle does not end", start, self.stop)
        stop = min(self.stop, start + max(nbytes, _WINDOW_BYTES))
        self._window, self._window_start, self._at = self.read(start, stop), start, 0
