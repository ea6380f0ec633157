"""What a checkpoint has beside its tensors, from every format to every other: it is in the output, or the plan says that it is not."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import pytest
from matrix import DATA, WRITABLE, content, lost_types, path_of, planned, without

import surgery

WITH_METADATA = {
    "safetensors/plain.safetensors": 1,
    "gguf/plain.gguf": 16,
    "torch/nested.pt": 5,
    "flax/leaves.msgpack": 11,
    "hdf5/latest.h5": 21,
    "keras/small.keras": 3,
    "onnx/nested.onnx": 1,
}
"""Files that the formats' own libraries wrote, with the number of their entries."""

STRINGS = ["onnx/typed.onnx", "tfjs/model.json"]


def is_kept(text: str, found: str | None) -> bool:
    """GGUF's values are JSON: any text that is none of its values stands there in quotes."""
    return found in (text, json.dumps(text, ensure_ascii=False))


@pytest.mark.parametrize(("name", "target"), list(product(WITH_METADATA, WRITABLE)))
def test_metadata_is_kept_or_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, target: str) -> None:
    monkeypatch.chdir(tmp_path)
    with surgery.open(str(DATA / name)) as source:
        wanted, form = dict(source.metadata), source.format
    assert len(wanted) == WITH_METADATA[name]
    plan = planned([str(DATA / name)], path_of(target), target, *without(lost_types(content(str(DATA / name)), form, target), target))
    plan.run()
    with surgery.open(path_of(target)) as saved:
        kept = all(is_kept(text, saved.metadata.get(key)) for key, text in wanted.items())
    assert kept or "metadata" in str(plan)


@pytest.mark.parametrize(("name", "target"), list(product(STRINGS, WRITABLE)))
def test_strings_of_other_formats_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, target: str) -> None:
    monkeypatch.chdir(tmp_path)
    found = content(str(DATA / name))
    strings = sorted(key for key, (dtype, _, _) in found.items() if dtype == "string")
    with pytest.raises(surgery.PlanError) as refused:
        planned([str(DATA / name)], path_of(target), target, {"keep": {"where": {"dtype": "string"}}})
    assert refused.value.code == "dtype-not-storable"
    assert sorted(refused.value.data["keys"]) == strings
    assert refused.value.help.startswith("`drop` them")


@pytest.mark.parametrize("target", WRITABLE)
def test_tied_tensors_stay_tied_or_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.chdir(tmp_path)
    plan = planned([str(DATA / "torch/views.pt")], path_of(target), target, {"keep": {"keys": ["tied", "tied_too"]}})
    plan.run()
    with surgery.open(path_of(target)) as saved:
        places = {(expr.extent.file.path, expr.extent.start) for key in ("tied", "tied_too") for expr in [saved[key].expr]}
    assert (len(places) == 1) != ("1 tensor tied to others in the source, stored once more" in str(plan))


def test_a_checkpoint_of_another_kind_in_the_same_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DATA / "safetensors/sharded", "model")
    plan = planned([str(DATA / "torch/views.pt")], "model", "torch", {"keep": {"keys": ["tied"]}}, shard_size="1 KiB")
    plan.run()
    assert "model: model.safetensors.index.json in it is another checkpoint and stays" in str(plan)
    with surgery.open("model") as read:
        assert read.format == "safetensors"


def test_a_checkpoint_that_is_replaced_is_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DATA / "safetensors/sharded", "model")
    plan = planned([str(DATA / "torch/views.pt")], "model", "safetensors", {"keep": {"keys": ["tied"]}}, shard_size="1 KiB", overwrite="replace")
    assert "another checkpoint" not in str(plan)
