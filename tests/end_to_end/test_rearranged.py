"""`reshape`, `rearrange` and `slice` from and to files: the values are those of numpy and einops, whatever the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import einops
import numpy as np
import pytest

import surgery
from surgery.api import Plan, Source
from surgery.tasks import CopyRun

CUBE = np.arange(24 * 6 * 10, dtype=np.float32).reshape(24, 6, 10)


def planned(*steps: str, **how: Any) -> Plan:
    recipe = "surgery: 1\nsteps:\n" + "".join(f"  - {step}\n" for step in steps)
    return surgery.plan(Source(recipe, "r.yaml"), **how)


def result(folder: Path, step: str, memory: int = 1 << 30) -> np.ndarray:
    np.savez(folder / "m.npz", w=CUBE)
    planned(f"load: {{path: {folder}/m.npz}}", step, f"save: {{path: {folder}/out.npz}}", memory=memory).run()
    with np.load(folder / "out.npz") as written:
        array: np.ndarray = written["w"]
    return array


@pytest.mark.parametrize("memory", [1 << 30, 1 << 10])
@pytest.mark.parametrize(
    ("pattern", "axes"),
    [
        ("(h d two) i o -> (h two d) i o", {"h": 3, "two": 2}),
        ("(h two d) i o -> (h d two) i o", {"h": 3, "two": 2}),
        ("a b c -> c (a b)", {}),
        ("a (b c) d -> (c d) a b", {"b": 3}),
        ("a ... -> ... a", {}),
        ("(g q) ... -> q (g ...)", {"g": 4}),
        ("a b c -> (c b a)", {}),
        ("a b c -> 1 a () b c", {}),
    ],
)
def test_values_are_those_of_einops(tmp_path: Path, pattern: str, axes: dict[str, int], memory: int) -> None:
    step = f"rearrange: {{keys: w, pattern: '{pattern}', axes: {{{', '.join(f'{name}: {size}' for name, size in axes.items())}}}}}"
    np.testing.assert_array_equal(result(tmp_path, step, memory), einops.rearrange(CUBE, pattern, **axes))


def test_a_reshaped_tensor_is_a_copy_of_bytes(tmp_path: Path) -> None:
    np.testing.assert_array_equal(result(tmp_path, "reshape: {keys: w, shape: [12, -1]}"), CUBE.reshape(12, -1))
    plan = planned(f"load: {{path: {tmp_path}/m.npz}}", "reshape: {keys: w, shape: [-1]}", f"save: {{path: {tmp_path}/o.safetensors}}")
    assert {type(task) for task in plan.physical.outputs[0].tasks} == {CopyRun}


@pytest.mark.parametrize("memory", [1 << 30, 1 << 10])
@pytest.mark.parametrize(
    ("words", "index"),
    [
        ("axis: 0, start: 3, stop: -2", np.s_[3:-2]),
        ("axis: 0, step: -5", np.s_[::-5]),
        ("axis: 1, start: 5, stop: 0, step: -2", np.s_[:, 5:0:-2]),
        ("axis: -1, indices: [9, 0, 0, -3]", np.s_[..., [9, 0, 0, -3]]),
        ("axis: 0, indices: [23, 0, 1, 2, 20, 5]", np.s_[[23, 0, 1, 2, 20, 5]]),
    ],
)
def test_slices_are_those_of_numpy(tmp_path: Path, words: str, index: Any, memory: int) -> None:
    np.testing.assert_array_equal(result(tmp_path, f"slice: {{keys: w, {words}}}", memory), CUBE[index])


def test_rows_in_another_order_are_copied_from_where_they_lie(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", w=CUBE)
    plan = planned(f"load: {{path: {tmp_path}/m.npz}}", "slice: {keys: w, indices: [5, 6, 0]}", f"save: {{path: {tmp_path}/o.safetensors}}")
    assert plan.physical.outputs[0].copied_bytes == CUBE[:3].nbytes
