"""Independent work in threads, within a budget of memory, and work that signals wait for. Serves apply; knows nothing of what the work is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Lock
from typing import NamedTuple


class Job(NamedTuple):
    """A piece of work and the bytes of memory that it takes while it lasts."""

    do: Callable[[], None]
    nbytes: int = 0


def run_all(work: Sequence[Job], *, threads: int, memory: int) -> None:
    """Do all jobs, in this order as far as there are threads and memory; the first fault stops what has not begun, and is raised."""
    if len(work) <= 1:  # a small run does not wait for the import
        for job in work:
            job.do()
        return
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    budget = _Budget(memory)

    def do(job: Job) -> None:
        with budget.taken(job.nbytes):
            job.do()

    pool = ThreadPoolExecutor(max(threads, 1))
    try:
        futures = [pool.submit(do, job) for job in work]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future in done:
                future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM until the end of the `with`, where what was begun has somebody who will clean it up."""
    from signal import SIG_BLOCK, SIG_SETMASK, SIGINT, SIGTERM, pthread_sigmask

    before = pthread_sigmask(SIG_BLOCK, {SIGINT, SIGTERM})
    try:
        yield
    finally:
        pthread_sigmask(SIG_SETMASK, before)


class _Budget:
    """Admits work while there is room; what is larger than all of it, when nothing else is going on."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._taken = 0
        self._entrance = Lock()
        self._changed = Condition()

    @contextmanager
    def taken(self, nbytes: int) -> Iterator[None]:
        """Room for `nbytes`. Who came first is admitted first, so that a large piece is not overtaken for ever."""
        with self._entrance, self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + nbytes <= self._nbytes)
            self._taken += nbytes
        try:
            yield
        finally:
            with self._changed:
                self._taken -= nbytes
                self._changed.notify_all()
