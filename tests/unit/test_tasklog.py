"""The log of finished tasks: read back as it was written, line by line, and believed only where it belongs to this very plan."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from surgery.commit import LOG, Staging
from surgery.tasklog import TaskLog
from surgery.work import Outcome, Part

OUTCOMES = {
    0: Outcome((Part("a", 0, 8, 0xDEADBEEF), Part("größe/😀", 8, 4, 0)), ("a",), 4096, (), 77),
    1: Outcome(),
    7: Outcome(written=0),
    3: Outcome((Part("not utf-8 \udcff", 0, 1, 1),), ("not utf-8 \udcff", "new\nline")),
}


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[Staging]:
    with Staging.open(str(tmp_path), "m", resume=True) as staging:
        yield staging


def log_file(staging: Staging) -> Path:
    return Path(staging.path(LOG))


@pytest.fixture
def log(staging: Staging) -> TaskLog:
    """A log of plan `p` with all outcomes."""
    log = TaskLog(staging, "p")
    log.begin()
    for number, outcome in OUTCOMES.items():
        log.add(number, outcome)
    return log


def test_what_was_noted_down_is_found_again(log: TaskLog) -> None:
    assert log.finished() == OUTCOMES


def test_without_a_log_nothing_is_finished(staging: Staging) -> None:
    assert TaskLog(staging, "p").finished() == {}


def test_another_plan_finds_nothing(log: TaskLog, staging: Staging) -> None:
    assert TaskLog(staging, "q").finished() == {}


def test_what_was_read_is_not_kept_for_the_next_run(staging: Staging) -> None:
    """Checksums of sources are about this run: a resumed one reads them again if it wants to judge."""
    from surgery.dtypes import DTYPES
    from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec
    from surgery.verify import ReadPart

    extent = Extent(SourceFile("a", Fingerprint(4, 0, 0, 0)), 0, 4, TensorSpec(DTYPES["float32"], (1,)), 5)
    log = TaskLog(staging, "p")
    log.begin()
    log.add(0, Outcome(read=(ReadPart(extent, 0, 4, 5),)))
    assert log.finished() == {0: Outcome()}


@pytest.mark.parametrize("lost", range(2, 60, 7))
def test_a_torn_last_line_is_passed_over(log: TaskLog, staging: Staging, lost: int) -> None:
    data = log_file(staging).read_bytes()
    log_file(staging).write_bytes(data[:-lost])
    assert log.finished() == {number: outcome for number, outcome in OUTCOMES.items() if number != 3}


def test_a_log_goes_on_after_a_torn_line(log: TaskLog, staging: Staging) -> None:
    data = log_file(staging).read_bytes()
    log_file(staging).write_bytes(data[:-5])
    log.go_on()
    log.add(9, Outcome(written=5))
    assert log.finished() == {0: OUTCOMES[0], 1: OUTCOMES[1], 7: OUTCOMES[7], 9: Outcome(written=5)}


@pytest.mark.parametrize("at", [0, 9, 20])
def test_a_changed_head_makes_it_the_log_of_nothing(log: TaskLog, staging: Staging, at: int) -> None:
    data = bytearray(log_file(staging).read_bytes())
    data[at] ^= 1
    log_file(staging).write_bytes(data)
    assert log.finished() == {}


def test_lines_of_another_make_are_not_taken_for_tasks(staging: Staging) -> None:
    log = TaskLog(staging, "p")
    log.begin()
    for text in (b"[0,[],[],0]", b'{"number":1}', b"7"):
        staging.log(b"%08x %s\n" % (zlib.crc32(text), text))
    assert log.finished() == {}


def test_threads_do_not_tear_each_others_lines(staging: Staging) -> None:
    from concurrent.futures import ThreadPoolExecutor

    log = TaskLog(staging, "p")
    log.begin()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.add(number, Outcome((Part("key" * 50, number, 1, number),))), range(500)))
    assert log.finished() == {number: Outcome((Part("key" * 50, number, 1, number),)) for number in range(500)}
