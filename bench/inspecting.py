"""`surgery inspect` on 10 GB that are one hole, in every format that is written here."""

from __future__ import annotations

import json

from bench.measure import SURGERY, Case, Setting, compare, run
from bench.models import write_model
from bench.tables import Findings, at_most, comparison_table
from surgery import formats
from surgery.formats.base import read_only

_SHAPE = (16_384, 15_259)  # 1 GB
_LAYERS = 10
_PATHS = {"tf": "large.ckpt", "keras": "large.weights.h5"}


def inspecting(setting: Setting) -> Findings:
    """A table of all formats, and whether the slowest and the largest keep to the goals."""
    folder = setting.folder
    rows, columns = _SHAPE
    shapes = {f"layers/{layer}/weight": (round(rows * setting.size), columns) for layer in range(_LAYERS)}
    write_model(folder / "large.safetensors", shapes, "F32", sparse=True)
    writable = [name for name in formats.NAMES if formats.by_name(name).layout is not read_only and formats.missing_extra(name) is None]
    cases = []
    for name in writable:
        path = _PATHS.get(name, f"large{next(iter(formats.suffixes(name)), '')}")
        if name != "safetensors":
            steps = [{"load": {"path": "large.safetensors"}}, {"save": {"path": path, "format": name}}]
            (folder / "convert.json").write_text(json.dumps({"surgery": 1, "steps": steps}))
            run([SURGERY, "run", "convert.json"], folder)
        cases.append(Case(name, [SURGERY, "inspect", path]))
    listed = compare(f"Inspecting {_LAYERS * setting.size:g} GB", cases, folder, setting.runs)
    goals = [
        at_most("inspect, slowest format", 1, max(map(listed.wall, listed.results)), "s"),
        at_most("inspect, peak of the largest", 200, max(map(listed.peak_mib, listed.results)) * 1.048576, "MB"),
    ]
    return Findings(comparison_table(listed, writable[0]), goals)
