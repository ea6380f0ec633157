"""What was measured, as Markdown: a table for each comparison, the table of ratios, and the goals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.measure import Comparison


class Goal(NamedTuple):
    """A figure that was promised; `measured` is None where it could not be."""

    what: str
    aim: str
    measured: float | None
    met: bool

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or that it is not known."""
        return "not measured" if self.measured is None else "met" if self.met else "missed"


class Findings(NamedTuple):
    """What a benchmark prints, and the goals that it judges."""

    lines: Sequence[str]
    goals: Sequence[Goal] = ()


def at_most(what: str, limit: float, measured: float | None, unit: str = "×") -> Goal:
    """A goal that is met by small figures."""
    return Goal(what, f"≤ {limit:g} {unit}", measured, measured is not None and measured <= limit)


def at_least(what: str, limit: float, measured: float | None, unit: str = "×") -> Goal:
    """A goal that is met by great figures."""
    return Goal(what, f"≥ {limit:g} {unit}", measured, measured is not None and measured >= limit)


def inverse(ratio: float | None) -> float | None:
    """How many times faster, of a ratio of times."""
    return None if ratio is None else 1 / ratio


def comparison_table(comparison: Comparison, base: str) -> list[str]:
    """Wall and processor time, memory and ratio of every case, and what was skipped."""
    runs = len(next(iter(comparison.results.values()), ()))
    columns = ("command", f"wall, median of {runs}", "min", "cpu", "peak memory", f"wall / {base}")
    lines = [f"### {comparison.title}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, results in comparison.results.items():
        lines.append(
            f"| {name} | {seconds(comparison.wall(name))} | {seconds(min(run.wall for run in results))} "
            f"| {seconds(comparison.cpu(name))} | {comparison.peak_mib(name):.0f} MiB | {ratio_text(comparison.ratio(name, base))} |"
        )
    skipped = [f"Skipped: {name}: {reason}" for name, reason in comparison.skipped.items()]
    return [*lines, "", *skipped, *([""] if skipped else [])]


def ratio_table(comparisons: Sequence[Comparison], base: str) -> list[str]:
    """All operations beside all commands: wall time as a multiple of `base`, and peak memory."""
    names = list(dict.fromkeys(name for comparison in comparisons for name in comparison.results))
    lines = ["### Ratios", "", f"Wall time / `{base}`, and peak memory in MiB.", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for comparison in comparisons:
        cells = [_cell(comparison, name, base) for name in names]
        lines.append(f"| {comparison.title} | {' | '.join(cells)} |")
    return [*lines, ""]


def goal_table(goals: Sequence[Goal]) -> list[str]:
    """Every goal with what was measured, and whether it is met."""
    rows = [f"| {goal.what} | {goal.aim} | {'–' if goal.measured is None else f'{goal.measured:.3g}'} | {goal.verdict} |" for goal in goals]
    return ["### Goals", "", "| what | goal | measured | |", "|---|---|---|---|", *rows, ""]


def _cell(comparison: Comparison, name: str, base: str) -> str:
    if name not in comparison.results:
        return ""
    return f"{ratio_text(comparison.ratio(name, base))}, {comparison.peak_mib(name):.0f}"


def ratio_text(ratio: float | None) -> str:
    """A ratio with its sign, or a dash."""
    return "–" if ratio is None else f"{ratio:.2f} ×"


def seconds(value: float) -> str:
    """A time in ms below one second."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
