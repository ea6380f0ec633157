"""Every way a tensor can be stored, to every way it can be written: the values survive, and each output opens again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import surgery
from surgery.api import Source

ARRAYS: dict[str, Any] = {
    "zeros": np.zeros((40, 50), np.float32),
    "ramp": np.arange(3000, dtype=np.int64).reshape(3, 1000),
    "fortran": np.asfortranarray(np.arange(24, dtype=np.float64).reshape(4, 6)),
    "big": np.arange(5, dtype=">i4"),
    "scalar": np.float32(1.5),
    "empty": np.zeros((0, 3), np.int8),
    "flags": np.array([True, False, True]),
    "tail": np.arange(7, dtype=np.uint8),
}


def run(folder: Path, *steps: str, verify: bool = False) -> None:
    recipe = "surgery: 1\nsteps:\n" + "".join(f"  - {step}\n" for step in steps)
    surgery.plan(Source(recipe, "r.yaml"), force=True).run(verify=verify)


def source(folder: Path, kind: str) -> str:
    """The arrays, stored in one of the ways that formats know."""
    np.savez(folder / "stored.npz", **ARRAYS)
    np.savez_compressed(folder / "deflated.npz", **ARRAYS)
    if kind in ("stored.npz", "deflated.npz"):
        return str(folder / kind)
    path = str(folder / ("source.safetensors" if kind == "safetensors" else "source"))
    options = {
        "safetensors": "",
        "shards": ", format: safetensors, shard_size: 10kB",
        "tf": ", format: tf",
        "tf shards": ", format: tf, shard_size: 10kB",
    }
    run(folder, f"load: {{path: {folder}/stored.npz}}", f"save: {{path: {path}{options[kind]}}}")
    return path


@pytest.mark.parametrize("kind", ["stored.npz", "deflated.npz", "safetensors", "shards", "tf", "tf shards"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.npz", ""),
        ("out.safetensors", ""),
        ("out", ", format: safetensors, shard_size: 9kB"),
        ("out", ", format: tf"),
        ("out", ", format: tf, shard_size: 9kB"),
    ],
)
@pytest.mark.parametrize("verify", [False, True])
def test_values_survive(tmp_path: Path, kind: str, name: str, options: str, verify: bool) -> None:
    run(
        tmp_path,
        f"load: {{path: {source(tmp_path, kind)}}}",
        "rename: {match: ^, to: x/}",
        f"save: {{path: {tmp_path}/{name}{options}}}",
        verify=verify,
    )
    with surgery.open(tmp_path / name) as written:
        assert sorted(written) == sorted(f"x/{key}" for key in ARRAYS)
        for key, array in ARRAYS.items():
            values = written[f"x/{key}"].numpy()
            assert values.dtype == np.asarray(array).dtype.newbyteorder("=")
            assert np.array_equal(values, array)


def test_a_lazy_tensor_is_an_array_to_numpy(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS)
    with surgery.open(tmp_path / "a.npz") as checkpoint:
        assert np.array_equal(np.asarray(checkpoint["ramp"]), ARRAYS["ramp"])
        assert np.asarray(checkpoint["ramp"], dtype=np.float32).dtype == np.float32


def test_metadata_that_a_bundle_cannot_hold_is_noted(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS)
    steps = [f"load: {{path: {tmp_path}/a.npz}}", f"save: {{path: {tmp_path}/m, format: tf, metadata: {{a: b}}}}"]
    plan = surgery.plan(Source("surgery: 1\nsteps:\n" + "".join(f"  - {step}\n" for step in steps), "r.yaml"))
    assert f"{tmp_path}/m: metadata is left out: a TensorFlow bundle has no place for it" in plan.physical.notes
