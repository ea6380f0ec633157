"""Renaming 5 GB where the file system shares blocks: what the bytes cost once the plan is made, and the new blocks."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from bench.filesystems import CannotMount, mounted, used_bytes
from bench.measure import Case, Comparison, Setting, compare, run
from bench.models import llama, write_model
from bench.operations import CP, NEVER, SURGERY_RUN, copies, surgery
from bench.tables import Findings, Goal, at_least, at_most, comparison_table, seconds

SIZE = 3.8
"""Of 5 GB in bfloat16."""
_COPIES = 2.4
"""What the image holds of them: the source, one output, and room for the file system's own."""


def sharing(setting: Setting) -> Findings:
    """XFS and btrfs, one after the other."""
    lines: list[str] = []
    goals: list[Goal] = []
    for kind in ("xfs", "btrfs"):
        found = _on(kind, setting)
        lines += found.lines
        goals += found.goals
    return Findings(lines, goals)


def _on(kind: str, setting: Setting) -> Findings:
    title = f"Renaming {5 * setting.size:g} GB on {kind}"
    try:
        with mounted(kind, setting.folder, int(5e9 * setting.size * _COPIES) + (1 << 29)) as folder:
            return _measured(title, folder, setting)
    except CannotMount as reason:
        return Findings([f"### {title}", "", f"Skipped: {reason}", ""], _goals(title, None, None))


def _measured(title: str, folder: Path, setting: Setting) -> Findings:
    work, source = folder / "work", "llama-bf16/model.safetensors"
    work.mkdir()
    write_model(folder / "models" / source, llama(SIZE * setting.size), "BF16")
    command = surgery("rename.yaml")
    compared = compare(title, [Case(SURGERY_RUN, command), *copies(source)], work, setting.runs, [folder / "models" / source])
    before = used_bytes(folder)
    run(command, work)
    share = (used_bytes(folder) - before) / (folder / "models" / source).stat().st_size * 100
    applied = [json.loads(result.stdout)["seconds"] for result in compared.results[SURGERY_RUN]]
    facts = f"The apply phase takes {seconds(median(applied))}, new blocks {share:.3f} % of the source's."
    return Findings([*comparison_table(compared, CP), facts, ""], _goals(title, _times_faster(compared, applied), share))


def _times_faster(compared: Comparison, applied: list[float]) -> float:
    return median(copy.wall / phase for copy, phase in zip(compared.results[NEVER], applied, strict=True))


def _goals(title: str, faster: float | None, share: float | None) -> list[Goal]:
    return [
        at_least(f"{title}: apply phase, times faster than {NEVER}", 50, faster),
        at_most(f"{title}: new blocks", 1, share, "%"),
    ]
