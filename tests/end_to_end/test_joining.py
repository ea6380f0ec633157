"""`concat`, `stack` and `unstack` from and to files: the values are those of numpy, and what lies in runs is copied, not computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import surgery
from surgery.api import Plan, Source
from surgery.tasks import CopyRun

PARTS = [np.arange(24, dtype=np.float32).reshape(2, 3, 4) + 100 * number for number in range(12)]
SOURCES = {"m.npz": "", "m.safetensors": "", "m.pt": "", "m.ckpt": ", format: tf"}


def planned(*steps: str, **how: Any) -> Plan:
    recipe = "surgery: 1\nsteps:\n" + "".join(f"  - {step}\n" for step in steps)
    return surgery.plan(Source(recipe, "r.yaml"), **how)


def source(folder: Path, kind: str) -> Path:
    """Twelve parts in an order that is not theirs."""
    np.savez(folder / "m.npz", **{f"e.{number}.w": PARTS[number] for number in (7, 10, 11, 0, 9, 1, 2, 4, 3, 8, 5, 6)})
    if kind != "m.npz":
        planned(f"load: {{path: {folder}/m.npz}}", f"save: {{path: {folder}/{kind}{SOURCES[kind]}}}").run()
    return folder / kind


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("memory", [1 << 30, 1 << 10])
def test_joined_tensors_are_those_of_numpy(tmp_path: Path, kind: str, axis: int, memory: int) -> None:
    load, match = f"load: {{path: {source(tmp_path, kind)}}}", "match: 'e\\.(?P<i>\\d+)\\.', axis: " + str(axis)
    save = f"save: {{path: {tmp_path}/out.safetensors}}"
    planned(load, f"concat: {{{match}, to: side., keep_inputs: true}}", f"stack: {{{match}, to: pile.}}", save, memory=memory).run()
    with surgery.open(tmp_path / "out.safetensors") as written:
        assert set(written) == {"side.w", "pile.w"}
        np.testing.assert_array_equal(written["side.w"].numpy(), np.concatenate(PARTS, axis))
        np.testing.assert_array_equal(written["pile.w"].numpy(), np.stack(PARTS, axis))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("memory", [1 << 30, 1 << 10])
def test_what_is_stacked_comes_back(tmp_path: Path, axis: int, memory: int) -> None:
    load = f"load: {{path: {source(tmp_path, 'm.npz')}}}"
    stack = f"stack: {{match: 'e\\.(?P<i>\\d+)\\.', to: e., axis: {axis}}}"
    planned(load, stack, f"save: {{path: {tmp_path}/pile.npz}}").run()
    unstack = f"unstack: {{match: '^e\\.', to: 'e.{{i}}.', axis: {axis}}}"
    planned(f"load: {{path: {tmp_path}/pile.npz}}", unstack, f"save: {{path: {tmp_path}/out.npz}}", memory=memory).run()
    with np.load(tmp_path / "out.npz") as written:
        assert list(written) == [f"e.{number}.w" for number in range(12)]
        for number, part in enumerate(PARTS):
            np.testing.assert_array_equal(written[f"e.{number}.w"], part)


@pytest.mark.parametrize(
    "step",
    ["concat: {match: 'e\\.(\\d+)\\.', to: e.}", "stack: {match: 'e\\.(\\d+)\\.', to: e.}", "unstack: {match: 'e\\.3\\.', to: 'f.{i}.'}"],
)
def test_along_the_first_axis_bytes_are_copied(tmp_path: Path, step: str) -> None:
    load = f"load: {{path: {source(tmp_path, 'm.safetensors')}}}"
    plan = planned(load, step, f"save: {{path: {tmp_path}/out.safetensors}}")
    assert {type(task) for task in plan.physical.outputs[0].tasks} == {CopyRun}


def test_tied_tensors_that_differ_stop_the_run_before_anything_is_written(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", wte=np.ones((4, 2), "f4"), head=np.array([[1, 1], [1, 1], [1, 2], [1, 1]], "f4"))
    plan = planned(f"load: {{path: {tmp_path}/m.npz}}", "tie: {keys: [wte, head]}", f"save: {{path: {tmp_path}/out.npz}}")
    with pytest.raises(surgery.ApplyError, match=r"`head` differs from `wte`: value 2\.0 at \[2, 1\]"):
        plan.run()
    assert not (tmp_path / "out.npz").exists()


def test_tied_tensors_that_are_equal_become_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", wte=np.ones((4, 2), "f4"), head=np.ones((4, 2), "f4"))
    planned(f"load: {{path: {tmp_path}/m.npz}}", "tie: {keys: [wte, head]}", f"save: {{path: {tmp_path}/out.npz}}").run()
    with np.load(tmp_path / "out.npz") as written:
        assert list(written) == ["wte"]
