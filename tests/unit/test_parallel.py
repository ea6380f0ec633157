"""Jobs in threads: their order, the first fault, and a budget that is never exceeded but by what does not fit in alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.parallel import Job, run_all

PATIENCE = 20.0  # seconds until a thread that should have been let in counts as stuck


class Meter:
    """Counts the bytes of jobs that are at work at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now: list[int] = []
        self.seen: list[tuple[int, ...]] = []

    def job(self, nbytes: int) -> Job:
        def do() -> None:
            with self._lock:
                self.now.append(nbytes)
                self.seen.append(tuple(self.now))
            threading.Event().wait(0.0005)
            with self._lock:
                self.now.remove(nbytes)

        return Job(do, nbytes)


def finishes(work: Callable[[], None]) -> None:
    """Fail, and do not hang, where threads wait for each other."""
    faults: list[BaseException] = []

    def do() -> None:
        try:
            work()
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "stuck"
    assert faults == []


def test_one_thread_keeps_the_order() -> None:
    done: list[int] = []
    run_all([Job(partial(done.append, number)) for number in range(50)], threads=1, memory=0)
    assert done == list(range(50))


def test_threads_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE)

    def meet() -> None:
        meeting.wait()

    run_all([Job(meet, 5)] * 3, threads=3, memory=15)


def test_no_work_is_done_at_once() -> None:
    run_all([], threads=4, memory=0)


def test_a_count_of_no_threads_is_one() -> None:
    done: list[int] = []
    run_all([Job(lambda: done.append(1))], threads=0, memory=0)
    assert done == [1]


def test_the_first_fault_is_raised_and_stops_what_has_not_begun() -> None:
    done: list[str] = []

    def fail() -> None:
        raise ValueError("first")

    def follow() -> None:
        threading.Event().wait(0.05)
        done.append("after")

    with pytest.raises(ValueError, match="first"):
        run_all([Job(lambda: done.append("before")), Job(fail), *[Job(follow)] * 100], threads=1, memory=0)
    assert done[0] == "before"
    assert len(done) < 20


def test_what_a_failed_job_took_is_given_back() -> None:
    released = threading.Event()

    def fail() -> None:
        released.wait(PATIENCE)
        raise ValueError("first")

    def run() -> None:
        with pytest.raises(ValueError, match="first"):
            run_all([Job(fail, 10), Job(released.set, 0), Job(lambda: None, 10)], threads=3, memory=10)

    finishes(run)


@given(sizes=st.lists(st.integers(0, 30), max_size=25), threads=st.integers(1, 7), memory=st.integers(0, 20))
def test_the_budget_is_kept_and_a_job_that_is_larger_runs_alone(sizes: list[int], threads: int, memory: int) -> None:
    meter = Meter()
    finishes(lambda: run_all([meter.job(nbytes) for nbytes in sizes], threads=threads, memory=memory))
    assert sorted(together[-1] for together in meter.seen) == sorted(sizes)
    for together in meter.seen:
        taken = [nbytes for nbytes in together if nbytes]
        assert sum(taken) <= memory or len(taken) == 1
        assert len(together) <= threads


class Arriving(list[Job]):
    """Jobs that come one after the other, each when the one before it has had the time to reach the entrance."""

    def __init__(self, jobs: list[Job]) -> None:
        super().__init__(jobs)
        self.are_here = threading.Event()

    def __iter__(self) -> Iterator[Job]:
        for job in super().__iter__():
            yield job
            threading.Event().wait(0.2)
        self.are_here.set()


def test_small_jobs_do_not_overtake_a_large_one_that_waits() -> None:
    entered: list[str] = []

    def begin() -> None:
        jobs.are_here.wait(PATIENCE)
        entered.append("first")

    small = Job(lambda: entered.append("small"), 1)
    jobs = Arriving([Job(begin, 6), Job(lambda: entered.append("large"), 10), small, small])
    finishes(lambda: run_all(jobs, threads=7, memory=10))
    assert entered == ["first", "large", "small", "small"]
