"""Progress on stderr: one line that is written anew on a terminal, a few plain lines elsewhere, nothing for work that is done at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic

from surgery.units import size_text

_WORTH_A_BAR = 256 << 20
_WORTH_LINES = 2 << 30
_WIDTH = 30
_CLEAR = "\r\x1b[K"


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A function to be called with the bytes done since the last call, from any thread."""
    if sys.stderr.isatty() and total >= _WORTH_A_BAR:
        try:
            yield _Progress(total, _bar, steps=200).advance
        finally:
            print(_CLEAR, end="", file=sys.stderr, flush=True)
    elif total >= _WORTH_LINES:
        yield _Progress(total, _line, steps=10).advance
    else:
        yield lambda nbytes: None


class _Progress:
    """Shows what `text(done, total, seconds)` returns, each time another of `steps` equal parts is done."""

    def __init__(self, total: int, text: Callable[[int, int, float], str], steps: int) -> None:
        self.total = total
        self.text = text
        self.steps = steps
        self.done = 0
        self.begun = monotonic()
        self.lock = Lock()

    def advance(self, nbytes: int) -> None:
        with self.lock:
            before, self.done = self.done * self.steps // self.total, self.done + nbytes
            if self.done * self.steps // self.total > before:
                print(self.text(self.done, self.total, monotonic() - self.begun), end="", file=sys.stderr, flush=True)


def _line(done: int, total: int, seconds: float) -> str:
    return f"{done * 100 // total:3d} %  {size_text(done)} of {size_text(total)}\n"


def _bar(done: int, total: int, seconds: float) -> str:
    bar = ("━" * (_WIDTH * done // total)).ljust(_WIDTH, "╌")
    speed = done / seconds if seconds else 0.0
    left = f", {(total - done) / speed:.0f} s left" if speed else ""
    return f"{_CLEAR}writing {bar} {size_text(done)} of {size_text(total)}, {size_text(int(speed))}/s{left}"
