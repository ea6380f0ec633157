"""Peak memory over the size of the model: 1, 2 and 4 GB of values, and files of 10 and 100 GB that are one hole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from bench.measure import Run, Setting, run
from bench.models import Shapes, llama, write_model
from bench.operations import surgery
from bench.tables import Findings, Goal, at_most, seconds

_FULL_GB, _SPARSE_GB = (1, 2, 4), (10, 100)
_LLAMA_GB = {"BF16": 1.3, "F32": 2.6}
_SPARSE_CODE = "F32"
_SPARSE_SHAPE = (16_384, 15_259)  # 1 GB
_LIMIT_MB = 200


class Measured(NamedTuple):
    """One run on a model, and the bytes that its output takes on the disk."""

    model: str
    run: Run
    taken: int


def memory(setting: Setting) -> Findings:
    """A table of peaks, and whether they are constant."""
    (setting.folder / "work").mkdir(exist_ok=True)
    rows: list[str] = []
    goals: list[Goal] = []
    for operation, code in (("rename", "BF16"), ("cast", "F32")):
        full = [_full(setting, operation, code, gigabytes) for gigabytes in _FULL_GB]
        sparse, note = _sparse(setting, operation)
        rows += [_row(operation, one) for one in [*full, *sparse]]
        rows += [f"| {operation} | {note} | | | |"] if note else []
        goals += [
            at_most(f"{operation}: peak at {_FULL_GB[-1]} GB / at {_FULL_GB[0]} GB", 1.1, full[-1].run.peak_mib / full[0].run.peak_mib),
            at_most(f"{operation}: peak at {_SPARSE_GB[-1]} GB, sparse", _LIMIT_MB, None if note else sparse[-1].run.peak_mib * 1.048576, "MB"),
        ]
    head = ["### Peak memory", "", "| operation | model | wall | peak memory | output on disk |", "|---|---|---|---|---|"]
    return Findings([*head, *rows, ""], goals)


def _row(operation: str, one: Measured) -> str:
    return f"| {operation} | {one.model} | {seconds(one.run.wall)} | {one.run.peak_mib:.0f} MiB | {one.taken / 1e9:.2f} GB |"


def _full(setting: Setting, operation: str, code: str, gigabytes: float) -> Measured:
    gigabytes *= setting.size
    return _measure(setting.folder, f"{gigabytes:g} GB", operation, llama(gigabytes / _LLAMA_GB[code]), code)


def _sparse(setting: Setting, operation: str) -> tuple[list[Measured], str]:
    """Runs on growing files of holes, until one might fill the disk; and why it was not tried."""
    done: list[Measured] = []
    taken_of_each_gb = 0.0
    for gigabytes in (gb * setting.size for gb in _SPARSE_GB):
        expected, free = taken_of_each_gb * gigabytes, shutil.disk_usage(setting.folder).free
        if expected * 1.1 > free:
            return done, f"skipped: sparse {gigabytes:g} GB would take {expected / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free"
        rows, columns = _SPARSE_SHAPE
        shapes = {f"model.layers.{layer}.weight": (round(rows * setting.size), columns) for layer in range(round(gigabytes / setting.size))}
        done.append(_measure(setting.folder, f"sparse {gigabytes:g} GB", operation, shapes, _SPARSE_CODE, sparse=True))
        taken_of_each_gb = done[-1].taken / gigabytes
    return done, ""


def _measure(folder: Path, model: str, operation: str, shapes: Shapes, code: str, *, sparse: bool = False) -> Measured:
    source, out = folder / "models" / "memory", folder / "work" / "out.safetensors"
    try:
        write_model(source / "model.safetensors", shapes, code, sparse=sparse)
        result = run(surgery(f"{operation}.yaml", model=source.name), out.parent)
        return Measured(model, result, out.stat().st_blocks * 512)
    finally:
        shutil.rmtree(source)
        shutil.rmtree(out.parent)
        out.parent.mkdir()
