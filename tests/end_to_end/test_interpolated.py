"""`interpolate` from and to files: the values of torch and timm (`tests/data/interpolate`), whatever the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import surgery
from surgery.api import Source

with np.load(Path(__file__).parent.parent / "data" / "interpolate" / "results.npz") as stored:
    RESULTS = dict(stored)
GRIDS = [name for name in RESULTS if name.count(" ") == 4]


def result(folder: Path, table: Any, *steps: str, memory: int = 1 << 30) -> np.ndarray:
    np.savez(folder / "m.npz", w=table)
    lines = f"load: {{path: {folder}/m.npz}}", *steps, f"save: {{path: {folder}/out.npz}}"
    recipe = "surgery: 1\nsteps:\n" + "".join(f"  - {line}\n" for line in lines)
    surgery.plan(Source(recipe, "r.yaml"), memory=memory, force=True).run()
    with np.load(folder / "out.npz") as written:
        array: np.ndarray = written["w"]
    return array


@pytest.mark.parametrize("name", GRIDS)
def test_values_are_those_of_torch(tmp_path: Path, name: str) -> None:
    old, new, mode, corners, antialias = name.split()
    size = f"[{new.replace('x', ', ')}]"
    flags = f", align_corners: {corners.lower()}, antialias: {antialias.lower()}" if mode != "nearest" else ""
    table = RESULTS[f"in {old}"]
    np.testing.assert_allclose(
        result(tmp_path, table, f"interpolate: {{keys: w, axes: [-2, -1], size: {size}, mode: {mode}{flags}}}"), RESULTS[name], rtol=0, atol=1e-6
    )


def test_no_combination_is_left_out() -> None:
    assert len(GRIDS) == 3 * 9


@pytest.mark.parametrize("memory", [1 << 30, 1 << 9])
def test_positions_behind_a_class_token_are_those_of_timm(tmp_path: Path, memory: int) -> None:
    step = "interpolate: {keys: w, axis: 1, prefix: 1, size: [6, 6], antialias: true}"
    found = result(tmp_path, RESULTS["pos_embed"], step, memory=memory)
    np.testing.assert_allclose(found, RESULTS["pos_embed 6x6"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found[:, :1], RESULTS["pos_embed"][:, :1])


def test_small_floats_are_worked_out_in_float32(tmp_path: Path) -> None:
    casts = "cast: {dtype: bfloat16}", "cast: {dtype: float32}"
    step = "interpolate: {keys: w, axis: 1, prefix: 1, grid: [4, 4], size: [3, 3], antialias: true}"
    np.testing.assert_array_equal(result(tmp_path, RESULTS["pos_embed"], casts[0], step, casts[1]), RESULTS["pos_embed 3x3 bfloat16"])


def test_relative_positions_are_those_of_timm(tmp_path: Path) -> None:
    found = result(tmp_path, RESULTS["bias_table"], "interpolate: {keys: w, axis: 0, size: [11, 11]}")
    np.testing.assert_allclose(found, RESULTS["bias_table 11x11"], rtol=0, atol=1e-6)


def test_what_lies_around_a_grid_stays(tmp_path: Path) -> None:
    table = np.arange(21, dtype=np.float32).reshape(7, 3)
    found = result(tmp_path, table, "interpolate: {keys: w, axis: 0, prefix: 1, suffix: 2, size: [6], mode: linear, align_corners: true}")
    np.testing.assert_array_equal(found[[0, 1, 6, 7, 8]], table[[0, 1, 4, 5, 6]])


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_blocks_do_not_change_a_value(tmp_path: Path, mode: str) -> None:
    table = np.random.default_rng(0).standard_normal((40, 30, 20)).astype(np.float32)
    step = f"interpolate: {{keys: w, axes: [0, 2], size: [23, 41], mode: {mode}}}"
    assert result(tmp_path, table, step).tobytes() == result(tmp_path, table, step, memory=1 << 12).tobytes()


def test_a_line_of_positions_is_stretched_evenly(tmp_path: Path) -> None:
    table = np.array([[0.0], [2.0], [4.0]])
    found = result(tmp_path, table, "interpolate: {keys: w, axes: [0], size: [5], mode: linear, align_corners: true}")
    np.testing.assert_array_equal(found, [[0.0], [1.0], [2.0], [3.0], [4.0]])
