"""Timing of whole processes: interleaved runs, medians, and the kernel's own figure of peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

PYTHON = sys.executable
SURGERY = str(Path(sys.executable).with_name("surgery"))


class Run(NamedTuple):
    """One run of a command: wall-clock seconds, processor seconds, and peak resident MiB of its largest process."""

    wall: float
    cpu: float
    peak_mib: float


class Case(NamedTuple):
    """A command to be measured; `after` puts things back before the next one, and is not timed."""

    name: str
    command: Sequence[str]
    after: Callable[[], None] = lambda: None


def run(command: Sequence[str], cwd: Path) -> Run:
    """Run a command to its end. Raises RuntimeError with its messages if it fails."""
    with open(os.devnull, "wb") as nothing:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, stdout=nothing, stderr=subprocess.PIPE)
        messages = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}:\n{messages.decode(errors='replace')}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def compare(title: str, cases: Sequence[Case], cwd: Path, runs: int) -> list[str]:
    """Run all cases in turn, `runs` times after one warm-up; a Markdown table with ratios to the last case, the baseline."""
    measured: dict[str, list[Run]] = {case.name: [] for case in cases}
    for turn in range(runs + 1):
        for case in cases:
            result = run(case.command, cwd)
            case.after()
            if turn:
                measured[case.name].append(result)
    base = cases[-1].name
    lines = [f"### {title}", "", f"| command | wall, median of {runs} | min | cpu | peak memory | wall / {base} |", "|---|---|---|---|---|---|"]
    for name, results in measured.items():
        ratios = [mine.wall / other.wall for mine, other in zip(results, measured[base], strict=True)]
        lines.append(
            f"| {name} | {_seconds(median(r.wall for r in results))} | {_seconds(min(r.wall for r in results))} "
            f"| {_seconds(median(r.cpu for r in results))} | {median(r.peak_mib for r in results):.0f} MiB | {median(ratios):.2f} |"
        )
    return [*lines, ""]


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
