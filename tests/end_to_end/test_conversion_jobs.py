"""Jobs of docs/conversions.md that no other project's converter does as a whole: on small checkpoints, or on files of the format's own library."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from test_library_operations import DATA, arrays, assert_same
from test_recipes import checkpoint, counted, run

import surgery


def test_thirty_two_layers_become_the_forty_eight_of_solar(tmp_path: Path) -> None:
    model = {f"model.layers.{layer}.mlp.weight": counted(1, start=layer) for layer in range(32)}
    source = checkpoint(tmp_path / "model.safetensors", {**model, "lm_head.weight": counted(2)}, "safetensors")
    run("depth/up-scale", source=source, target=tmp_path / "deeper.safetensors")
    found = arrays(tmp_path / "deeper.safetensors")
    assert found.pop("lm_head.weight").tolist() == [0, 1]
    assert {key: array.tolist() for key, array in found.items()} == {
        f"model.layers.{layer}.mlp.weight": [came_from] for layer, came_from in enumerate([*range(24), *range(8, 32)])
    }


def test_the_weights_of_an_object_graph_get_plain_names(tmp_path: Path) -> None:
    run("tf/object-to-safetensors", source=DATA.parent / "tf" / "object_slots", target=tmp_path / "model.safetensors")
    found = arrays(tmp_path / "model.safetensors")
    with surgery.open(DATA.parent / "tf" / "object_slots") as stored:
        assert found["net_w"].tolist() == stored["net_w/.ATTRIBUTES/VARIABLE_VALUE"].numpy().tolist()
    assert not [key for key in found if ".ATTRIBUTES" in key or "/" in key]


def test_a_trainers_checkpoint_gives_the_model_under_its_own_names(tmp_path: Path) -> None:
    source = Path(shutil.copy(DATA / "torch_layers" / "trainer.pth.tar", tmp_path / "last.ckpt"))
    run("tools/strip-wrappers", source=source, target=tmp_path / "model.safetensors", root=["state_dict_ema"])
    assert_same(arrays(tmp_path / "model.safetensors"), arrays(DATA / "torch_layers" / "averaged.safetensors"))


def test_an_archive_of_numpy_becomes_safetensors_scalars_too(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "params.npz", **{"net/w": counted(2, 3), "net/none": counted(0, 2), "step": np.array(7)})
    run("tools/slashes-to-dots", source=tmp_path / "params.npz", target=tmp_path / "model.safetensors")
    assert_same(arrays(tmp_path / "model.safetensors"), {"net.w": counted(2, 3), "net.none": counted(0, 2), "step": np.array(7)})
