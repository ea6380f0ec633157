"""Files made to take memory, time or other people's files: each costs less than 200 MiB and, on any machine, little time.

A test file has one function for each trick, which writes the files into a folder and returns the path to open.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from measured import Measurer

MOST_BYTES = 200 << 20
MOST_SECONDS = 5
"""Of the processor; the aim is one second, which a busy machine with slow cores may miss."""

Make = Callable[[Path], Path]


class Tricks:
    """The tricks of a test file by the names of their functions: `@tricks(says)` adds one, of which the outcome has to say that."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Make, str]] = {}

    def __call__(self, says: str) -> Callable[[Make], Make]:
        def kept(make: Make) -> Make:
            self._made[make.__name__] = make, says
            return make

        return kept

    @property
    def names(self) -> list[str]:
        """All that have been added."""
        return list(self._made)

    def check(self, name: str, folder: Path, measurer: Measurer) -> None:
        """Open what a trick makes: told what is wrong with it, in little time and memory, and nothing in it has run."""
        make, says = self._made[name]
        cost = measurer.open(make(folder))
        assert says in cost.outcome
        assert not cost.outcome.startswith(("BUG", "ended"))
        assert cost.memory_bytes < MOST_BYTES
        assert cost.cpu_seconds < MOST_SECONDS
        assert not Path("ran").exists()
