"""Steps that work on values, on half a GB to two GB, each beside what a user would write with numpy and with torch."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import NamedTuple

from bench.measure import Case, Comparison, Setting, compare
from bench.models import write_model
from bench.operations import CP, NUMPY, SURGERY_RUN, TORCH, copies, surgery
from bench.peers import script
from bench.tables import Findings, Goal, at_most, comparison_table, ratio_table

_COPYING = ("concat", "stack", "unstack")
_LAYERS, _EXPERTS, _RANK = 16, 8, 16


class _Step(NamedTuple):
    """A step, and the files that it reads: their names, element types and shapes."""

    title: str
    sources: Mapping[str, tuple[str, Mapping[str, tuple[int, ...]]]]


def values(setting: Setting) -> Findings:
    """All steps, the table of their ratios, and the goals for them."""
    models, work = setting.folder / "models", setting.folder / "work"
    work.mkdir(exist_ok=True)
    compared = []
    for step in _steps(setting.size):
        if not setting.only or step.title in setting.only:
            paths = _write(models, step)
            cases = [Case(SURGERY_RUN, surgery(f"{step.title}.yaml")), *_scripts(step.title), *copies(*step.sources)]
            compared.append(compare(step.title, cases, work, setting.runs, paths))
            for path in paths:
                path.unlink()
    tables = [line for comparison in compared for line in comparison_table(comparison, CP)]
    return Findings([*tables, *ratio_table(compared, CP)], [_goal(comparison) for comparison in compared])


def _steps(size: float) -> Iterator[_Step]:
    side = max(1, round(8192 * sqrt(size) / 128)) * 128
    half = side // 2
    yield _Step("concat", {"concat.safetensors": ("F32", {"a": (2 * side, side), "b": (2 * side, side)})})
    yield _Step("stack", {"stack.safetensors": ("BF16", {f"experts.{number}.w": (side, side) for number in range(_EXPERTS)})})
    yield _Step("unstack", {"unstack.safetensors": ("BF16", {"experts.w": (_EXPERTS, side, side)})})
    yield _Step("rearrange", {"rearrange.safetensors": ("F32", {"w": (4 * side, side)})})
    yield _Step("gather", {"gather.safetensors": ("F32", {"w": (16 * side, half // 2)})})
    yield _Step("resize", {"resize.safetensors": ("F32", {"w": (16 * side, half)})})
    yield _Step("average", {f"average{number}.safetensors": ("F32", {"w": (4 * side, side)}) for number in (1, 2)})
    shapes = {name: shape for n in range(_LAYERS) for name, shape in ((f"{n}.w", (half, half)), (f"{n}.a", (_RANK, half)), (f"{n}.b", (half, _RANK)))}
    yield _Step("lora", {"lora.safetensors": ("BF16", shapes)})
    scales = {"w_scale": (4 * side // 128, 2 * side // 128)}
    yield _Step("dequantize", {"quantised.safetensors": ("F8_E4M3", {"w": (4 * side, 2 * side)}), "scales.safetensors": ("F32", scales)})


def _write(models: Path, step: _Step) -> Sequence[Path]:
    for name, (code, shapes) in step.sources.items():
        write_model(models / name, shapes, code)
    if step.title == "gather":
        rows = list(range(step.sources["gather.safetensors"][1]["w"][0]))
        random.Random(7).shuffle(rows)
        (models / "rows.json").write_text(json.dumps(rows))
    return [models / name for name in step.sources]


def _scripts(step: str) -> list[Case]:
    return [
        script(NUMPY, "value_steps.py", f"numpy {step}", "safetensors", "ml_dtypes"),
        script(TORCH, "value_steps.py", f"torch {step}", "safetensors", "torch"),
    ]


def _goal(compared: Comparison) -> Goal:
    if compared.title in _COPYING:
        return at_most(f"{compared.title} / {CP}", 1.3, compared.ratio(SURGERY_RUN, CP))
    best = compared.fastest((NUMPY, TORCH))
    return at_most(f"{compared.title} / {best}", 1, compared.ratio(SURGERY_RUN, best))
