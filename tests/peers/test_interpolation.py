"""Interpolated tables as torch makes them, for grids larger and smaller, in float32 and float64."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import load, run, save

import surgery

pytestmark = pytest.mark.peers

GRIDS = [
    ((14, 14), (24, 24)),
    ((24, 24), (14, 14)),
    ((7, 9), (20, 3)),
    ((1, 5), (4, 1)),
    ((16, 16), (37, 32)),
    ((13, 13), (23, 23)),
    ((100, 5), (7, 50)),
]
FLAGS = [*product(["linear", "cubic"], [False, True], [False, True]), ("nearest", False, False)]
MODES = {
    1: {"nearest": "nearest", "linear": "linear"},
    2: {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"},
    3: {"nearest": "nearest", "linear": "trilinear"},
}


def ours(folder: Path, table: Any, **options: Any) -> Any:
    np.savez(folder / "in.npz", w=table)
    run(load(folder / "in.npz"), {"interpolate": {"keys": "w", **options}}, save(folder / "out.safetensors", overwrite="replace"))
    with surgery.open(folder / "out.safetensors") as checkpoint:
        return checkpoint["w"].numpy()


def theirs(torch: Any, table: Any, size: tuple[int, ...], mode: str, **flags: bool) -> Any:
    name = MODES[len(size)][mode]
    return torch.nn.functional.interpolate(torch.from_numpy(table), size=size, mode=name, **({} if mode == "nearest" else flags)).numpy()


@pytest.mark.parametrize(("dtype", "near"), [(np.float32, 2e-6), (np.float64, 1e-13)])
@pytest.mark.parametrize(("mode", "align_corners", "antialias"), FLAGS)
def test_two_axes(tmp_path: Path, torch: Any, mode: str, align_corners: bool, antialias: bool, dtype: Any, near: float) -> None:
    flags = {"align_corners": align_corners, "antialias": antialias}
    for old, new in GRIDS:
        table = np.random.default_rng(1).standard_normal((1, 3, *old)).astype(dtype)
        found = ours(tmp_path, table, axes=[2, 3], size=list(new), mode=mode, **flags)
        np.testing.assert_allclose(found, theirs(torch, table, new, mode, **flags), rtol=0, atol=near)


@pytest.mark.parametrize(("mode", "align_corners"), [("linear", False), ("linear", True), ("nearest", False)])
@pytest.mark.parametrize(("old", "new"), [((77,), (248,)), ((512,), (77,)), ((3, 4, 5), (6, 2, 7))])
def test_one_axis_and_three(tmp_path: Path, torch: Any, mode: str, align_corners: bool, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    table = np.random.default_rng(2).standard_normal((1, 3, *old)).astype(np.float32)
    found = ours(tmp_path, table, axes=list(range(2, 2 + len(old))), size=list(new), mode=mode, align_corners=align_corners)
    np.testing.assert_allclose(found, theirs(torch, table, new, mode, align_corners=align_corners), rtol=0, atol=2e-6)


def test_nearest_chooses_the_same_element_for_every_length(torch: Any) -> None:
    from surgery.resampling import Method, taps

    for old, new in product(range(1, 60), repeat=2):
        chosen = theirs(torch, np.arange(old, dtype=np.float32)[None, None], (new,), "nearest")[0, 0]
        assert taps(Method("nearest"), old, new).sources[0].tolist() == chosen.tolist(), (old, new)


def test_a_float32_table_of_usual_size_is_near(tmp_path: Path, torch: Any) -> None:
    table = (np.random.default_rng(3).standard_normal((1, 768, 14, 14)) * 0.02).astype(np.float32)
    found = ours(tmp_path, table, axes=[2, 3], size=[24, 24], antialias=True)
    np.testing.assert_allclose(found, theirs(torch, table, (24, 24), "cubic", align_corners=False, antialias=True), rtol=0, atol=1e-7)
