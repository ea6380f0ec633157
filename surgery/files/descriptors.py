"""Open files shared by threads, without ever keeping thousands of them open."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from surgery.files.faults import name_of, storage

Key = TypeVar("Key", bound=Hashable)


class Descriptors(Generic[Key]):
    """Open files shared by threads: at most `limit` that nobody uses stay open, the longest idle is closed first."""

    def __init__(self, open: Callable[[Key], int], limit: int = 64) -> None:
        self._open = open
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: dict[Key, int] = {}
        self._lent: dict[Key, tuple[int, int]] = {}  # descriptor, borrowers

    @contextmanager
    def lend(self, key: Key) -> Iterator[int]:
        """A descriptor that stays open inside the `with`. Raises what `open` raises."""
        with self._lock:
            descriptor, borrowers = self._lent[key] if key in self._lent else (self._idle_or_new(key), 0)
            self._lent[key] = (descriptor, borrowers + 1)
        try:
            yield descriptor
        finally:
            with self._lock:
                self._take_back(key)

    def _idle_or_new(self, key: Key) -> int:
        return self._idle.pop(key) if key in self._idle else self._open(key)

    def _take_back(self, key: Key) -> None:
        descriptor, borrowers = self._lent.pop(key)
        if borrowers > 1:
            self._lent[key] = (descriptor, borrowers - 1)
            return
        self._idle[key] = descriptor
        if len(self._idle) > self._limit:
            _close(self._idle.pop(next(iter(self._idle))))

    def close(self) -> None:
        """Close what nobody uses."""
        with self._lock:
            while self._idle:
                _close(self._idle.popitem()[1])


def _close(descriptor: int) -> None:
    with storage(name_of(descriptor), "close"):  # network file systems tell here that the disk is full
        os.close(descriptor)
