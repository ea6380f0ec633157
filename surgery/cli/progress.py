"""Progress on stderr: a bar on a terminal, a few plain lines elsewhere, nothing for work that is done at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from surgery.units import size_text

_WORTH_A_BAR = 256 << 20
_WORTH_LINES = 2 << 30


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A function to be called with the bytes done since the last call, from any thread."""
    if sys.stderr.isatty() and total >= _WORTH_A_BAR:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        columns = (TextColumn("writing"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("writing", total=total)
            yield lambda nbytes: bar.advance(task, nbytes)
    elif total >= _WORTH_LINES:
        yield _Lines(total).advance
    else:
        yield lambda nbytes: None


class _Lines:
    """A line for each tenth."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.lock = Lock()

    def advance(self, nbytes: int) -> None:
        with self.lock:
            before, self.done = self.done * 10 // self.total, self.done + nbytes
            after = self.done * 10 // self.total
            if after > before:
                print(f"{after * 10:3d} %  {size_text(self.done)} of {size_text(self.total)}", file=sys.stderr, flush=True)
