"""`pad`, `resize`, `slice` with a file, from and to files: old rows bit for bit, new rows as asked, whatever the budget and the jobs."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import surgery
from surgery.api import Plan, Source

GROWN = Path(__file__).parent.parent / "data" / "conversions" / "resize_tied_gpt2_grow"
TABLE = np.random.default_rng(2).standard_normal((50, 24)).astype(np.float32)


def planned(*steps: str, **how: Any) -> Plan:
    recipe = "surgery: 1\nsteps:\n" + "".join(f"  - {step}\n" for step in steps)
    return surgery.plan(Source(recipe, "r.yaml"), force=True, **how)


def result(folder: Path, step: str, table: Any = TABLE, memory: int = 1 << 30, jobs: int = 2) -> np.ndarray:
    np.savez(folder / "m.npz", w=table)
    planned(f"load: {{path: {folder}/m.npz}}", step, f"save: {{path: {folder}/out.npz}}", memory=memory, jobs=jobs).run()
    with np.load(folder / "out.npz") as written:
        array: np.ndarray = written["w"]
    return array


@pytest.mark.parametrize("memory", [1 << 30, 1 << 10])
@pytest.mark.parametrize("axis", [0, 1])
def test_padding_is_that_of_numpy(tmp_path: Path, memory: int, axis: int) -> None:
    found = result(tmp_path, f"pad: {{keys: w, axis: {axis}, before: 3, after: 4, fill: {{constant: 0.5}}}}", memory=memory)
    around = [(3, 4) if at == axis else (0, 0) for at in range(2)]
    np.testing.assert_array_equal(found, np.pad(TABLE, around, constant_values=0.5))


def test_random_rows_before_and_behind_differ(tmp_path: Path) -> None:
    found = result(tmp_path, "pad: {keys: w, before: 2, after: 2, fill: {normal: {std: 1.0}}, seed: 4}")
    assert len({row.tobytes() for row in found}) == 54


@pytest.mark.parametrize(("memory", "jobs"), [(1 << 30, 1), (1 << 30, 4), (1 << 14, 1)])
def test_a_table_grows_by_its_mean(tmp_path: Path, memory: int, jobs: int) -> None:
    table = np.random.default_rng(1).standard_normal((3000, 130)).astype(np.float32)
    found = result(tmp_path, "resize: {keys: w, size: 3001, multiple_of: 64, fill: mean}", table, memory, jobs)
    assert found.shape == (3008, 130)
    np.testing.assert_array_equal(found[:3000], table)
    assert {row.tobytes() for row in found[3000:]} == {table.astype(np.float64).mean(0).astype(np.float32).tobytes()}


def test_a_mean_is_rounded_to_nearest_even_on_the_way_down(tmp_path: Path) -> None:
    table = np.random.default_rng(3).standard_normal((100, 40)).astype(np.float32)
    steps = "cast: {dtype: bfloat16}", "resize: {keys: w, size: 101, fill: mean}", "cast: {dtype: float32}"
    np.savez(tmp_path / "m.npz", w=table)
    planned(f"load: {{path: {tmp_path}/m.npz}}", *steps, f"save: {{path: {tmp_path}/out.npz}}").run()
    with np.load(tmp_path / "out.npz") as written:
        small = table.astype(ml_dtypes.bfloat16)
        mean = small.astype(np.float64).mean(0).astype(np.float32).astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(written["w"], np.vstack([small, mean]).astype(np.float32))


def test_what_is_cut_off_is_a_copy_of_bytes(tmp_path: Path) -> None:
    np.testing.assert_array_equal(result(tmp_path, "resize: {keys: w, size: 40, allow_trim: true}"), TABLE[:40])
    plan = planned(f"load: {{path: {tmp_path}/m.npz}}", "resize: {keys: w, size: 40, allow_trim: true}", f"save: {{path: {tmp_path}/o.safetensors}}")
    assert plan.physical.outputs[0].copied_bytes == TABLE[:40].nbytes


def test_a_tied_vocabulary_grows_as_transformers_grows_it(tmp_path: Path) -> None:
    expected = json.loads((GROWN / "expected.json").read_text())
    step = "resize: {keys: transformer.wte.weight, size: 53, multiple_of: 32, fill: mean}"
    tie = "copy: {keys: {transformer.wte.weight: lm_head.weight}}"
    planned(f"load: {{path: {GROWN}/source/model.safetensors}}", step, tie, f"save: {{path: {tmp_path}/o.safetensors}}").run()
    with surgery.open(GROWN / "source" / "model.safetensors") as old, surgery.open(tmp_path / "o.safetensors") as new:
        assert set(new) == {key for key, *_ in expected["tensors"]}
        for key, dtype, shape, sha256 in expected["tensors"]:
            values = new[key].numpy()
            assert (values.dtype.name, list(values.shape)) == (dtype, shape)
            if shape[0] != 64:
                assert hashlib.sha256(values.tobytes()).hexdigest() == sha256, key
        table, tied = new["transformer.wte.weight"].numpy(), new["lm_head.weight"].numpy()
        before = old["transformer.wte.weight"].numpy()
    assert tied.tobytes() == table.tobytes()
    assert table[:50].tobytes() == before.tobytes()
    np.testing.assert_allclose(table[50:], np.tile(before.mean(0), (14, 1)), atol=1e-7)


@pytest.mark.parametrize("memory", [1 << 30, 1 << 10])
def test_rows_follow_their_tokens(tmp_path: Path, memory: int) -> None:
    old = [f"t{number}" for number in range(48)]
    new = ["new a", *reversed(old[:20]), "new b", *old[30:40]]
    (tmp_path / "old.txt").write_text("\n".join(old) + "\n")
    (tmp_path / "new.json").write_text(json.dumps({token: number for number, token in enumerate(new)}))
    vocabularies = f"old_vocab: {tmp_path}/old.txt, new_vocab: {tmp_path}/new.json"
    found = result(tmp_path, f"resize: {{keys: w, {vocabularies}, multiple_of: 20, fill: mean}}", memory=memory)
    mean = TABLE.astype(np.float64).mean(0).astype(np.float32)
    rows = [TABLE[old.index(token)] if token in old else mean for token in new]
    np.testing.assert_array_equal(found, np.stack([*rows, *[mean] * 8]))


def test_a_missing_vocabulary_is_told(tmp_path: Path) -> None:
    with pytest.raises(surgery.SurgeryError) as caught:
        result(tmp_path, f"resize: {{keys: w, old_vocab: {tmp_path}/old.txt, new_vocab: {tmp_path}/new.txt}}")
    assert [caught.value.code, *(other.code for other in caught.value.others)] == ["no-such-file", "no-such-file"]
    assert str(caught.value.where) == "r.yaml:4:34"


def test_a_file_too_large_for_a_vocabulary_is_not_read(tmp_path: Path) -> None:
    for name in ("old.txt", "new.txt"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 1 << 40)
    with pytest.raises(surgery.SurgeryError, match=r"is too large: 1.0 TiB"):
        result(tmp_path, f"resize: {{keys: w, old_vocab: {tmp_path}/old.txt, new_vocab: {tmp_path}/new.txt}}")


def test_rows_out_of_a_file_are_those_of_numpy(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[5, -1, 0, 5]")
    np.testing.assert_array_equal(result(tmp_path, f"slice: {{keys: w, indices: {tmp_path}/rows.json}}"), TABLE[[5, -1, 0, 5]])


def test_a_run_is_not_up_to_date_when_a_vocabulary_has_changed(tmp_path: Path, surgery: Any, recipe: Any) -> None:
    np.savez(tmp_path / "m.npz", w=TABLE[:3])
    for name, text in (("old.txt", "a\nb\nc"), ("new.txt", "b\n")):
        (tmp_path / name).write_text(text)
    steps = {"resize": {"keys": "w", "old_vocab": f"{tmp_path}/old.txt", "new_vocab": f"{tmp_path}/new.txt"}}
    path = recipe({"load": {"path": f"{tmp_path}/m.npz"}}, steps, {"save": {"path": "out.npz", "overwrite": "replace"}})
    said = [surgery("run", path).out, surgery("run", path).out]
    (tmp_path / "new.txt").write_text("c\nb\n")
    said.append(surgery("run", path).out)
    assert ["up to date" in text for text in said] == [False, True, False]
    with np.load("out.npz") as written:
        np.testing.assert_array_equal(written["w"], TABLE[[2, 1]])


def test_a_damaged_table_is_noticed_although_it_is_read_twice(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", w=TABLE)
    planned(f"load: {{path: {tmp_path}/m.npz}}", f"save: {{path: {tmp_path}/m.ckpt, format: tf}}").run()
    steps = f"load: {{path: {tmp_path}/m.ckpt}}", "resize: {keys: w, size: 60, fill: mean}", f"save: {{path: {tmp_path}/o.npz}}"
    planned(*steps).run()
    data = bytearray((tmp_path / "m.ckpt.data-00000-of-00001").read_bytes())
    data[100] ^= 1
    (tmp_path / "m.ckpt.data-00000-of-00001").write_bytes(data)
    with pytest.raises(surgery.SurgeryError, match="Checksum does not match"):
        planned(*steps).run()
