"""`split` from every way a tensor can be stored to every way it can be written: the parts are those of `numpy.split`, bit for bit."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import surgery
from surgery.api import Plan, Source
from surgery.tasks import CopyRun, VerifyExtent

ARRAYS: dict[str, Any] = {
    "square": np.arange(36, dtype=np.float32).reshape(6, 6),
    "fortran": np.asfortranarray(np.arange(60, dtype=np.float64).reshape(6, 10)[:, :9]),
    "cube": np.arange(90, dtype=np.int64).reshape(3, 5, 6),
    "big": np.arange(9, dtype=">i4"),
    "flags": np.array([[True, False, True], [False, False, True], [True, True, True]]),
    "empty": np.zeros((3, 0, 3), np.float16),
    "large": np.arange(3 * 5_000 * 6, dtype=np.int32).reshape(3 * 5_000, 6),
}
SOURCES = {
    "stored.npz": "",
    "deflated.npz": "",
    "source.safetensors": "",
    "shards": ", format: safetensors, shard_size: 100kB",
    "bundle": ", format: tf",
    "bundle shards": ", format: tf, shard_size: 100kB",
}
TARGETS = {"out.npz": "", "out.safetensors": "", "out": ", format: safetensors, shard_size: 100kB", "out.ckpt": ", format: tf"}
SPLIT = "split: {match: $, axis: AXIS, parts: 3, to: [_0, _1, _2]}"


def planned(*steps: str, **how: Any) -> Plan:
    recipe = "surgery: 1\nsteps:\n" + "".join(f"  - {step}\n" for step in steps)
    return surgery.plan(Source(recipe, "r.yaml"), **how)


def source(folder: Path, kind: str) -> Path:
    """The arrays, stored in one of the ways that formats know."""
    np.savez(folder / "stored.npz", **ARRAYS)
    np.savez_compressed(folder / "deflated.npz", **ARRAYS)
    if not kind.endswith(".npz"):
        planned(f"load: {{path: {folder}/stored.npz}}", f"save: {{path: '{folder}/{kind}'{SOURCES[kind]}}}").run()
    return folder / kind


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("memory", [1 << 30, 1 << 16])
def test_parts_are_those_of_numpy(tmp_path: Path, kind: str, target: str, axis: int, memory: int) -> None:
    split, save = SPLIT.replace("AXIS", str(axis)), f"save: {{path: '{tmp_path}/{target}'{TARGETS[target]}}}"
    planned(f"load: {{path: '{source(tmp_path, kind)}'}}", split, save, memory=memory).run()
    with surgery.open(tmp_path / target) as written:
        assert len(written) == 3 * len(ARRAYS)
        for key, array in ARRAYS.items():
            for number, part in enumerate(np.split(array, 3, axis)):
                values = written[f"{key}_{number}"].numpy()
                assert values.shape == part.shape
                assert values.tobytes() == part.astype(part.dtype.newbyteorder("=")).tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("kind", ["m.safetensors", "m.ckpt"])
@pytest.mark.parametrize("axis", [0, 1])
def test_small_floats_keep_their_bits(tmp_path: Path, dtype: str, kind: str, axis: int) -> None:
    array = np.arange(-8, 8, dtype=np.float32).reshape(4, 4)
    np.savez(tmp_path / "a.npz", w=array)
    form = ", format: tf" if kind.endswith(".ckpt") else ""
    planned(f"load: {{path: {tmp_path}/a.npz}}", f"cast: {{dtype: {dtype}}}", f"save: {{path: {tmp_path}/{kind}{form}}}").run()
    split = f"split: {{keys: w, axis: {axis}, sizes: [1, 3], to: [a, b]}}"
    planned(f"load: {{path: {tmp_path}/{kind}}}", split, f"save: {{path: {tmp_path}/out-{kind}{form}}}").run()
    with surgery.open(tmp_path / f"out-{kind}") as written:
        for key, part in zip("ab", np.split(array, [1], axis), strict=True):
            assert written[key].numpy().tobytes() == part.astype(getattr(ml_dtypes, dtype)).tobytes()


def test_parts_along_the_first_axis_are_one_copy(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", ARRAYS["large"])
    plan = planned(f"load: {{path: {tmp_path}/w.npy}}", SPLIT.replace("AXIS", "0"), f"save: {{path: {tmp_path}/out.safetensors}}")
    (task,) = plan.physical.outputs[0].tasks
    assert isinstance(task, CopyRun)
    assert (task.nbytes, plan.physical.outputs[0].computed_bytes) == (ARRAYS["large"].nbytes, 0)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("target", ["out.safetensors", "out.npz"])
@pytest.mark.parametrize("kind", ["bundle", "stored.npz"])
def test_a_stored_checksum_is_verified_once_whatever_becomes_of_the_parts(tmp_path: Path, kind: str, target: str, axis: int) -> None:
    load, save = f"load: {{path: '{source(tmp_path, kind)}', keys: large}}", f"save: {{path: {tmp_path}/{target}}}"
    plan = planned(load, SPLIT.replace("AXIS", str(axis)), save)
    extents = [task.extent for task in plan.physical.outputs[0].tasks if isinstance(task, VerifyExtent)]
    assert [extent.nbytes for extent in extents] == [ARRAYS["large"].nbytes]
    assert plan.run().outputs[0].verified == 1


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("saved", ["$", "_0$"])
@pytest.mark.parametrize("target", ["out.safetensors", "out.npz", "out.ckpt"])
def test_damage_anywhere_in_a_tensor_is_found_when_one_part_is_written(tmp_path: Path, saved: str, axis: int, target: str) -> None:
    np.savez(tmp_path / "a.npz", w=ARRAYS["large"])
    planned(f"load: {{path: {tmp_path}/a.npz}}", f"save: {{path: {tmp_path}/m, format: tf}}").run()
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    save = f"save: {{path: {tmp_path}/{target}, match: {saved}{', format: tf' if target == 'out.ckpt' else ''}}}"
    plan = planned(f"load: {{path: {tmp_path}/m}}", SPLIT.replace("AXIS", str(axis)), save)
    with pytest.raises(surgery.SourceError, match="Checksum does not match"):
        plan.run()
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(("axis", "copied"), [(0, 160), (1, 0)])
def test_a_partitioned_variable_is_split_across_its_partitions(tmp_path: Path, axis: int, copied: int) -> None:
    """TensorFlow wrote the rows of `emb/table`, [10,4], in parts of 4, 3 and 3."""
    data = Path(__file__).parent.parent / "data" / "tf"
    load, split = f"load: {{path: {data}/partitioned/model, keys: emb/table}}", f"split: {{keys: emb/table, axis: {axis}, parts: 2, to: [a, b]}}"
    plan = planned(load, split, f"save: {{path: {tmp_path}/out.safetensors}}")
    assert plan.physical.outputs[0].copied_bytes == copied
    assert plan.run().outputs[0].verified > 0
    (expected,) = [
        one for one in json.loads((data / "expected.json").read_text())["bundles"]["partitioned/model"]["tensors"] if one["name"] == "emb/table"
    ]
    with surgery.open(tmp_path / "out.safetensors") as written:
        joined = np.concatenate([written["a"].numpy(), written["b"].numpy()], axis)
    assert sha256(joined.tobytes()).hexdigest() == expected["sha256"]
