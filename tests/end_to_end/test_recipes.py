"""Each recipe of `recipes/` on a small checkpoint: exact keys, shapes and dtypes, and values where a step computes some."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import surgery
from surgery.__main__ import main
from surgery.api import Source
from surgery.library import find, own_names, path_of
from surgery.report import result_text
from surgery.selftest import run_tests

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def counted(*shape: int, start: int = 0, dtype: str = "float32") -> np.ndarray[Any, Any]:
    """Values start, start + 1, … so that a moved or turned element shows."""
    return np.arange(start, start + int(np.prod(shape, dtype=int)), dtype=dtype).reshape(shape)


def checkpoint(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], format: str, **save: Any) -> Path:
    """A checkpoint with these tensors, by way of an archive that numpy wrote."""
    archive = path.with_name(path.name + ".archive.npz")
    np.savez(archive, **arrays)
    steps = [{"load": {"path": str(archive)}}, {"save": {"path": str(path), "format": format, **save}}]
    surgery.plan(Source(json.dumps({"surgery": 1, "steps": steps}), "made-by-test")).run()
    return path


def run(recipe: str, **params: Any) -> None:
    surgery.plan(RECIPES / f"{recipe}.yaml", {name: str(value) if isinstance(value, Path) else value for name, value in params.items()}).run()


def specs(path: Path) -> dict[str, str]:
    """Key → `f32[2,3]`."""
    with surgery.open(path) as opened:
        return {key: str(tensor.spec) for key, tensor in opened.items()}


def values(path: Path, key: str) -> Any:
    with surgery.open(path) as opened:
        return opened[key].numpy().tolist()


@pytest.mark.parametrize("name", own_names())
def test_recipe_has_no_fault_and_tells_what_it_is_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    assert main(["lint", name]) == 0
    assert capsys.readouterr().out.endswith("steps, no faults\n")
    document = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    assert document["name"] == name
    assert document["description"]
    for parameter, schema in document.get("params", {}).items():
        assert schema.get("description") or "default" in schema, parameter
        assert None not in schema.values(), f"put the description of `{parameter}` in quotes: a comma ends it"
    if "inverse" in document:
        assert path_of(document["inverse"]), "its inverse is no recipe of the library"


@pytest.mark.parametrize("name", own_names())
def test_recipe_passes_its_own_tests(name: str) -> None:
    results = list(run_tests(find(name)))
    assert [result_text(result) for result in results if not result.passed] == []


def test_each_recipe_is_run_by_a_test() -> None:
    texts = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    untested = [name for name in own_names() if f'"{name}"' not in texts and "\ntests:" not in (RECIPES / f"{name}.yaml").read_text()]
    assert untested == []


def test_bert_tf_to_hf_turns_kernels_and_leaves_embeddings(tmp_path: Path) -> None:
    layer = "bert/encoder/layer_11"
    source = checkpoint(
        tmp_path / "bert_model.ckpt",
        {
            "bert/embeddings/word_embeddings": counted(5, 2),
            "bert/embeddings/LayerNorm/gamma": counted(2),
            "bert/embeddings/LayerNorm/beta": counted(2, start=5),
            f"{layer}/attention/self/query/kernel": counted(2, 2),
            f"{layer}/attention/self/query/bias": counted(2),
            f"{layer}/attention/self/query/kernel/adam_m": counted(2, 2),
            f"{layer}/attention/self/query/kernel/adam_v": counted(2, 2),
            f"{layer}/output/dense/kernel": counted(3, 2),
            "bert/pooler/dense/kernel": counted(2, 2),
            "cls/predictions/output_bias": counted(5),
            "cls/predictions/transform/dense/kernel": counted(2, 2),
            "cls/seq_relationship/output_weights": counted(2, 2),
            "cls/seq_relationship/output_bias": counted(2),
            "global_step": counted(1, dtype="int64"),
        },
        "tf",
    )
    target = tmp_path / "model.safetensors"
    run("bert/tf-to-hf", source=source, target=target)
    assert specs(target) == {
        "bert.embeddings.LayerNorm.bias": "f32[2]",
        "bert.embeddings.LayerNorm.weight": "f32[2]",
        "bert.embeddings.word_embeddings.weight": "f32[5,2]",
        "bert.encoder.layer.11.attention.self.query.bias": "f32[2]",
        "bert.encoder.layer.11.attention.self.query.weight": "f32[2,2]",
        "bert.encoder.layer.11.output.dense.weight": "f32[2,3]",
        "bert.pooler.dense.weight": "f32[2,2]",
        "cls.predictions.bias": "f32[5]",
        "cls.predictions.transform.dense.weight": "f32[2,2]",
        "cls.seq_relationship.bias": "f32[2]",
        "cls.seq_relationship.weight": "f32[2,2]",
    }
    assert values(target, "bert.encoder.layer.11.attention.self.query.weight") == [[0, 2], [1, 3]]
    assert values(target, "bert.encoder.layer.11.output.dense.weight") == [[0, 2, 4], [1, 3, 5]]
    assert values(target, "bert.embeddings.word_embeddings.weight") == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert values(target, "cls.seq_relationship.weight") == [[0, 1], [2, 3]]
    assert values(target, "bert.embeddings.LayerNorm.bias") == [5, 6]


def test_strip_wrappers_takes_each_off_once_and_keeps_a_module_of_ones_own(tmp_path: Path) -> None:
    wrapped = {"module._orig_mod.encoder.w": counted(2), "module._orig_mod.module.w": counted(3), "module._orig_mod._extra_state": counted(1)}
    source = checkpoint(tmp_path / "wrapped.safetensors", wrapped, "safetensors")
    run("tools/strip-wrappers", source=source, target=tmp_path / "clean.safetensors")
    assert specs(tmp_path / "clean.safetensors") == {"encoder.w": "f32[2]", "module.w": "f32[3]"}


def test_strip_wrappers_anywhere_takes_them_out_of_the_middle(tmp_path: Path) -> None:
    wrapped = {"layers.0._fsdp_wrapped_module._orig_mod.w": counted(4), "encoder.module.w": counted(5), "my_orig_mod.w": counted(6)}
    source = checkpoint(tmp_path / "wrapped.safetensors", wrapped, "safetensors")
    run("tools/strip-wrappers-anywhere", source=source, target=tmp_path / "clean.safetensors")
    assert specs(tmp_path / "clean.safetensors") == {"layers.0.w": "f32[4]", "encoder.module.w": "f32[5]", "my_orig_mod.w": "f32[6]"}


def test_strip_wrappers_refuses_two_tensors_that_would_have_one_name(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "both.safetensors", {"w": counted(2), "module.w": counted(2)}, "safetensors")
    with pytest.raises(surgery.KeyCollisionError) as caught:
        run("tools/strip-wrappers", source=source, target=tmp_path / "clean.safetensors")
    assert caught.value.collisions == {"w": ["w", "module.w"]}
    assert not (tmp_path / "clean.safetensors").exists()


def test_strip_optimizer_tf1_keeps_a_layer_that_is_called_adam(tmp_path: Path) -> None:
    source = checkpoint(
        tmp_path / "trained.ckpt",
        {
            "Adam/kernel": counted(2),
            "net/w": counted(3),
            "net/w/Adam": counted(3),
            "net/w/Adam_1": counted(3),
            "net/b/Momentum": counted(1),
            "beta1_power": counted(1),
            "optimizer/beta2_power_1": counted(1),
            "global_step": counted(1, dtype="int64"),
        },
        "tf",
    )
    run("tools/strip-optimizer-tf1", source=source, target=tmp_path / "weights.ckpt")
    assert specs(tmp_path / "weights.ckpt") == {"Adam/kernel": "f32[2]", "global_step": "i64[1]", "net/w": "f32[3]"}


def test_ema_pick_tf_takes_the_average_where_there_is_one(tmp_path: Path) -> None:
    source = checkpoint(
        tmp_path / "trained.ckpt",
        {"net/w": counted(2), "net/w/ExponentialMovingAverage": counted(2, start=10), "net/mean": counted(2, start=5)},
        "tf",
    )
    run("tools/ema-pick-tf", source=source, target=tmp_path / "averaged.ckpt")
    assert specs(tmp_path / "averaged.ckpt") == {"net/mean": "f32[2]", "net/w": "f32[2]"}
    assert values(tmp_path / "averaged.ckpt", "net/w") == [10, 11]
    assert values(tmp_path / "averaged.ckpt", "net/mean") == [5, 6]


def test_gpt2_conv1d_to_linear_turns_weights_and_drops_masks_only(tmp_path: Path) -> None:
    source = checkpoint(
        tmp_path / "gpt2.safetensors",
        {
            "h.0.attn.bias": counted(1, 1, 4, 4),
            "h.0.attn.c_attn.weight": counted(2, 6),
            "h.0.attn.c_attn.bias": counted(6),
            "h.0.attn.c_proj.weight": counted(2, 2),
            "h.0.mlp.c_fc.weight": counted(2, 8),
            "h.0.mlp.c_proj.weight": counted(8, 2),
            "wte.weight": counted(7, 2),
        },
        "safetensors",
    )
    target = tmp_path / "linear.safetensors"
    run("gpt2/conv1d-to-linear", source=source, target=target)
    assert specs(target) == {
        "h.0.attn.c_attn.weight": "f32[6,2]",
        "h.0.attn.c_attn.bias": "f32[6]",
        "h.0.attn.c_proj.weight": "f32[2,2]",
        "h.0.mlp.c_fc.weight": "f32[8,2]",
        "h.0.mlp.c_proj.weight": "f32[2,8]",
        "wte.weight": "f32[7,2]",
    }
    assert values(target, "h.0.attn.c_attn.weight") == [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]]
    assert values(target, "h.0.attn.c_proj.weight") == [[0, 2], [1, 3]]


def test_gpt2_split_qkv_makes_three_tensors_of_one_and_leaves_masks(tmp_path: Path) -> None:
    source = checkpoint(
        tmp_path / "gpt2.safetensors",
        {
            "h.0.attn.bias": counted(1, 1, 4, 4),
            "h.0.attn.c_attn.weight": counted(2, 6),
            "h.0.attn.c_attn.bias": counted(6),
            "h.0.attn.c_proj.weight": counted(2, 2),
        },
        "safetensors",
    )
    target = tmp_path / "split.safetensors"
    run("gpt2/split-qkv", source=source, target=target)
    assert specs(target) == {
        "h.0.attn.bias": "f32[1,1,4,4]",
        "h.0.attn.q_proj.weight": "f32[2,2]",
        "h.0.attn.k_proj.weight": "f32[2,2]",
        "h.0.attn.v_proj.weight": "f32[2,2]",
        "h.0.attn.q_proj.bias": "f32[2]",
        "h.0.attn.k_proj.bias": "f32[2]",
        "h.0.attn.v_proj.bias": "f32[2]",
        "h.0.attn.c_proj.weight": "f32[2,2]",
    }
    assert values(target, "h.0.attn.q_proj.weight") == [[0, 1], [6, 7]]
    assert values(target, "h.0.attn.v_proj.weight") == [[4, 5], [10, 11]]
    assert values(target, "h.0.attn.k_proj.bias") == [2, 3]


def test_gpt2_split_qkv_takes_rows_of_linear_weights(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "linear.safetensors", {"h.0.attn.c_attn.weight": counted(6, 1), "h.0.attn.c_attn.bias": counted(6)}, "safetensors")
    target = tmp_path / "split.safetensors"
    run("gpt2/split-qkv", source=source, target=target, axis=0)
    assert values(target, "h.0.attn.k_proj.weight") == [[2], [3]]
    assert values(target, "h.0.attn.k_proj.bias") == [2, 3]


def test_merge_two_under_scopes_fills_what_neither_has(tmp_path: Path) -> None:
    step = counted(1, dtype="int64")
    encoder = checkpoint(tmp_path / "a.ckpt", {"layer_0/kernel": counted(2, 2), "global_step": step}, "tf")
    decoder = checkpoint(tmp_path / "b.ckpt", {"layer_0/kernel": counted(2, 2, start=4), "global_step": step}, "tf")
    like = tmp_path / "model.yaml"
    like.write_text(
        "variables:\n"
        "  encoder/layer_0/kernel: {shape: [2, 2]}\n"
        "  decoder/layer_0/kernel: {shape: [2, 2]}\n"
        "  decoder/cross/kernel: {shape: [8, 8]}\n"
        "  decoder/cross/bias: {shape: [2]}\n"
        "  decoder/norm/gamma: {shape: [2]}\n"
    )
    target = tmp_path / "merged.ckpt"
    run("tools/merge-under-scopes", encoder=encoder, decoder=decoder, like=like, target=target, format="tf")
    assert specs(target) == {
        "decoder/cross/bias": "f32[2]",
        "decoder/cross/kernel": "f32[8,8]",
        "decoder/layer_0/kernel": "f32[2,2]",
        "decoder/norm/gamma": "f32[2]",
        "encoder/layer_0/kernel": "f32[2,2]",
    }
    assert values(target, "encoder/layer_0/kernel") == [[0, 1], [2, 3]]
    assert values(target, "decoder/layer_0/kernel") == [[4, 5], [6, 7]]
    assert values(target, "decoder/cross/bias") == [0, 0]
    assert values(target, "decoder/norm/gamma") == [1, 1]
    made = np.array(values(target, "decoder/cross/kernel"))
    assert len(np.unique(made)) == 64
    assert 0 < np.abs(made).max() <= 0.04  # cut at two standard deviations


def test_cast_bf16_except_norms_leaves_norms_and_integers(tmp_path: Path) -> None:
    source = checkpoint(
        tmp_path / "full.safetensors",
        {
            "layers.0.mlp.weight": np.array([1.0, 1.00390625, -3.14159274], "float32"),
            "layers.0.input_layernorm.weight": np.array([1.00390625], "float32"),
            "layers.0.mlp.router.weight": counted(2),
            "rotary_emb.inv_freq": counted(2),
            "position_ids": counted(3, dtype="int64"),
        },
        "safetensors",
    )
    target = tmp_path / "half.safetensors"
    run("tools/cast-bf16-except-norms", source=source, target=target)
    assert specs(target) == {
        "position_ids": "i64[3]",
        "layers.0.input_layernorm.weight": "f32[1]",
        "layers.0.mlp.router.weight": "f32[2]",
        "rotary_emb.inv_freq": "f32[2]",
        "layers.0.mlp.weight": "bf16[3]",
    }
    assert values(target, "layers.0.mlp.weight") == [1.0, 1.0, -3.140625]  # 1 + 2⁻⁸ lies between two values, and goes to the even one
    assert values(target, "layers.0.input_layernorm.weight") == [1.00390625]


def test_reshard_writes_shards_an_index_and_the_companions(tmp_path: Path) -> None:
    arrays = {f"w{number}": counted(4, start=number) for number in range(4)}  # 16 bytes each
    source = checkpoint(tmp_path / "whole", arrays, "safetensors", shard_size=1000)
    (source / "config.json").write_text('{"layers": 4}\n')
    target = tmp_path / "parts"
    run("tools/reshard", source=source, target=target, shard_size="32B")
    assert sorted(path.name for path in target.iterdir()) == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "surgery.json",
    ]
    assert json.loads((target / "model.safetensors.index.json").read_text()) == {
        "metadata": {"total_size": 64},
        "weight_map": {
            "w0": "model-00001-of-00002.safetensors",
            "w1": "model-00001-of-00002.safetensors",
            "w2": "model-00002-of-00002.safetensors",
            "w3": "model-00002-of-00002.safetensors",
        },
    }
    assert values(target, "w3") == [3, 4, 5, 6]
    assert (target / "config.json").read_text() == '{"layers": 4}\n'


def test_extract_part_takes_the_prefix_literally(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "pipe.safetensors", {"text.w": counted(2), "textual": counted(3), "unet.text.w": counted(4)}, "safetensors")
    run("tools/extract-part", source=source, part="text.", target=tmp_path / "part.safetensors")
    assert specs(tmp_path / "part.safetensors") == {"w": "f32[2]"}


def test_flax_npz_to_safetensors_turns_dense_and_convolution_kernels(tmp_path: Path) -> None:
    source = tmp_path / "vit.npz"
    np.savez(
        source,
        **{
            "params/embedding/kernel": counted(1, 2, 1, 3),
            "params/head/kernel": counted(2, 3),
            "params/head/bias": counted(3),
            "params/norm/scale": counted(2),
        },
    )
    target = tmp_path / "vit.safetensors"
    run("flax/npz-to-safetensors", source=source, target=target)
    assert specs(target) == {"embedding.weight": "f32[3,1,1,2]", "head.weight": "f32[3,2]", "head.bias": "f32[3]", "norm.weight": "f32[2]"}
    assert values(target, "embedding.weight") == [[[[0, 3]]], [[[1, 4]]], [[[2, 5]]]]
    assert values(target, "head.weight") == [[0, 3], [1, 4], [2, 5]]
