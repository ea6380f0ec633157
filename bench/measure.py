"""Timing of whole processes: interleaved runs, medians, and the kernel's own figure of peak memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import IO, NamedTuple

PYTHON = sys.executable
SURGERY = str(Path(sys.executable).with_name("surgery"))


class Setting(NamedTuple):
    """Where a benchmark may write, how many runs of each command count, and the scale of its models (1 is what the goals are about).

    `only` are the operations that are wanted; empty for all.
    """

    folder: Path
    runs: int
    size: float
    only: Sequence[str] = ()


class Run(NamedTuple):
    """One run of a command: wall-clock seconds, processor seconds, peak resident MiB of its largest process, and what it printed."""

    wall: float
    cpu: float
    peak_mib: float
    stdout: str = ""


class Case(NamedTuple):
    """A command to be measured. `before` makes what it uses up, and is not timed; `lacking` says why it cannot run here."""

    name: str
    command: Sequence[str]
    before: Callable[[], object] = lambda: None
    lacking: str = ""


class Comparison(NamedTuple):
    """What was measured of the cases of one title, turn by turn, and why others were not."""

    title: str
    results: dict[str, list[Run]]
    skipped: dict[str, str]

    def ratio(self, name: str, base: str) -> float | None:
        """How many times the wall time of `base` a case takes: the median over the turns; None where one of them did not run."""
        if name not in self.results or base not in self.results:
            return None
        return median(mine.wall / other.wall for mine, other in zip(self.results[name], self.results[base], strict=True))

    def fastest(self, names: Sequence[str]) -> str:
        """Which of the cases has the least median; the first one where none ran."""
        ran = [name for name in names if name in self.results]
        return min(ran, key=self.wall) if ran else names[0]

    def wall(self, name: str) -> float:
        """The median of the wall time in seconds."""
        return median(run.wall for run in self.results[name])

    def cpu(self, name: str) -> float:
        """The median of the processor time in seconds."""
        return median(run.cpu for run in self.results[name])

    def peak_mib(self, name: str) -> float:
        """The median of the peak memory."""
        return median(run.peak_mib for run in self.results[name])


def run(command: Sequence[str], cwd: Path) -> Run:
    """Run a command to its end. Raises RuntimeError with its messages if it fails."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as messages:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=messages, start_new_session=True)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # whatever it started as well: nothing may go on writing here
            process.wait()
            raise
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}:\n{_content(messages)}")
        return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, _content(output))


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def compare(title: str, cases: Sequence[Case], cwd: Path, runs: int, sources: Sequence[Path] = ()) -> Comparison:
    """Run all cases in turn, `runs` times after one warm-up, each time beginning with another one.

    `sources` are read before each, so that all find them in memory: some systems drop what has not been used for a minute.
    Whatever a case leaves in `cwd` is removed after it, and written back before the next is timed. A case that fails in the
    warm-up is skipped, and its message is the reason.
    """
    skipped = {case.name: case.lacking for case in cases if case.lacking}
    able = [case for case in cases if not case.lacking]
    results: dict[str, list[Run]] = {case.name: [] for case in able}
    present = set(os.listdir(cwd))
    for turn in range(runs + 1):
        first = turn % max(len(able), 1)
        for case in [*able[first:], *able[:first]]:
            try:
                case.before()
                _read(sources)
                result = run(case.command, cwd)
            except RuntimeError as error:
                if turn:
                    raise
                skipped[case.name] = _reason(str(error))
                continue
            finally:
                _remove_all_but(present, cwd)
            if turn:
                results[case.name].append(result)
        able = [case for case in able if case.name not in skipped]
    return Comparison(title, {name: runs for name, runs in results.items() if name not in skipped}, skipped)


def _read(sources: Sequence[Path]) -> None:
    buffer = bytearray(1 << 20)
    for source in sources:
        with open(source, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _remove_all_but(names: set[str], folder: Path) -> None:
    for name in set(os.listdir(folder)) - names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    os.sync()


def _reason(message: str) -> str:
    """The line of a failed command's messages that says most: an error's first line, else the last one."""
    lines = [line.strip() for line in message.splitlines() if line.strip(" │╭╮╰╯─")]
    return next((line for line in lines if line.startswith("error[")), lines[-1].strip(" │"))
