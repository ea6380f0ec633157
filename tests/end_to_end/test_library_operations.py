"""Library recipes that change what a model is made of, against the tools that first did it (tests/data/conversions), and back again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_recipes import checkpoint, counted, run, specs, values

import surgery
from surgery.api import Source

DATA = Path(__file__).resolve().parents[1] / "data" / "conversions"
Arrays = Mapping[str, np.ndarray[Any, Any]]


def arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with surgery.open(path) as opened:
        return {key: tensor.numpy() for key, tensor in opened.items()}


def listed(found: Arrays) -> list[list[Any]]:
    """Key, dtype, shape and SHA-256 of each tensor, as expected.json has them, in the order of keys."""
    return [[key, str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()] for key, array in sorted(found.items())]


def expected(pair: str) -> list[list[Any]]:
    return sorted(json.loads((DATA / pair / "expected.json").read_text())["tensors"])


def assert_same(found: Arrays, wanted: Arrays) -> None:
    assert listed(found) == listed(wanted)


@pytest.mark.parametrize(
    ("pair", "there", "back"),
    [
        ("phi3_fused_to_split", "phi3/hf-to-torchtune", "phi3/torchtune-to-hf"),
        ("mixtral_experts_stack", "mixtral/stack-experts", "mixtral/unstack-experts"),
    ],
)
def test_a_pair_both_ways(pair: str, there: str, back: str, tmp_path: Path) -> None:
    source = DATA / pair / "source" / "model.safetensors"
    run(there, source=source, target=tmp_path / "there.safetensors")
    assert listed(arrays(tmp_path / "there.safetensors")) == expected(pair)
    run(back, source=tmp_path / "there.safetensors", target=tmp_path / "back.safetensors")
    assert_same(arrays(tmp_path / "back.safetensors"), arrays(source))


@pytest.mark.parametrize("name", ["compiled.pth", "dataparallel.pth", "dataparallel_of_compiled.pth.tar"])
def test_wrappers_of_torch_are_taken_off(name: str, tmp_path: Path) -> None:
    pair = "prefix_compile_dataparallel"
    run("tools/strip-wrappers", source=DATA / pair / "source" / name, target=tmp_path / "plain.safetensors")
    assert listed(arrays(tmp_path / "plain.safetensors")) == expected(pair)


def test_a_tied_vocabulary_grows_as_in_transformers(tmp_path: Path) -> None:
    pair = "resize_tied_gpt2_grow"
    run("vocab/resize", source=DATA / pair / "source" / "model.safetensors", target=tmp_path / "grown.safetensors", size=53, multiple_of=32)
    found, wanted = arrays(tmp_path / "grown.safetensors"), arrays(DATA / pair / "expected" / "model.safetensors")
    table = found.pop("transformer.wte.weight")
    old = wanted.pop("transformer.wte.weight")
    del wanted["lm_head.weight"]  # the tied head, which the source does not store
    assert_same(found, wanted)
    assert (table[:50] == old[:50]).all()
    assert np.abs(table[50:] - old[:50].mean(axis=0)).max() < 1e-4
    assert table.shape == old.shape


@pytest.mark.parametrize(
    ("case", "changed"),
    [("rslora", 4), ("saved_modules", 5), ("alpha_pattern", 6), ("dora", 4), ("fan_in_fan_out", 2), ("other_layers", 4)],
)
def test_adapters_are_merged_as_peft_does(case: str, changed: int, tmp_path: Path) -> None:
    folder = DATA / f"peft_{case}"
    run("lora/merge", source=folder / "source", base=folder / "base.safetensors", target=tmp_path / "merged.safetensors")
    found, wanted, before = (arrays(path) for path in (tmp_path / "merged.safetensors", folder / "expected.safetensors", folder / "base.safetensors"))
    assert {key: array.shape for key, array in found.items()} == {key: array.shape for key, array in wanted.items()}
    assert max(float(np.abs(found[key] - wanted[key]).max()) for key in wanted) <= 2e-6
    assert sum((found[key] != before[key]).any() for key in before) == changed


def test_an_adapter_of_llama_is_merged_as_peft_does(tmp_path: Path) -> None:
    folder = DATA / "lora_llama_merge"
    run("lora/merge", source=folder / "source" / "adapter", base=folder / "source" / "base", target=tmp_path / "merged.safetensors")
    found, wanted = arrays(tmp_path / "merged.safetensors"), arrays(folder / "expected" / "model.safetensors")
    targets = {key for key in wanted if key.endswith(("q_proj.weight", "v_proj.weight", "down_proj.weight"))}
    assert_same({key: found[key] for key in found if key not in targets}, {key: wanted[key] for key in wanted if key not in targets})
    assert max(float(np.abs(found[key] - wanted[key]).max()) for key in targets) <= 2e-6


@pytest.mark.parametrize(("recipe", "name"), [("fold/weight-norm", "weight_norm"), ("fold/batch-norm", "batch_norm")])
def test_norms_are_folded_as_torch_does(recipe: str, name: str, tmp_path: Path) -> None:
    run(recipe, source=DATA / "torch_layers" / f"{name}.safetensors", target=tmp_path / "folded.safetensors")
    found, wanted = arrays(tmp_path / "folded.safetensors"), arrays(DATA / "torch_layers" / f"{name}_folded.safetensors")
    assert {key: array.shape for key, array in found.items()} == {key: array.shape for key, array in wanted.items()}
    assert max(float(np.abs(found[key] - wanted[key]).max()) for key in wanted) <= 2e-6


@pytest.mark.parametrize(("recipe", "name"), [("torch/strip-optimizer", "trained"), ("torch/ema-pick", "averaged")])
def test_the_model_of_a_trainers_checkpoint(recipe: str, name: str, tmp_path: Path) -> None:
    run(recipe, source=DATA / "torch_layers" / "trainer.pth.tar", target=tmp_path / "model.safetensors")
    assert_same(arrays(tmp_path / "model.safetensors"), arrays(DATA / "torch_layers" / f"{name}.safetensors"))


@pytest.mark.parametrize("recipe", ["tools/strip-wrappers", "torch/strip-optimizer"])
@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model", "module", "net", "network", "params"])
def test_the_entry_that_holds_the_model_has_many_names(recipe: str, entry: str, tmp_path: Path) -> None:
    values = np.arange(3, dtype="f4")
    source = checkpoint(tmp_path / "trainer.msgpack", {f"{entry}/0.weight": values, "optimizer/0": values, "params_ema/0.weight": values}, "flax")
    run(recipe, source=source, target=tmp_path / "model.safetensors")
    assert_same(arrays(tmp_path / "model.safetensors"), {"0.weight": values})


@pytest.mark.parametrize(
    ("case", "recipe", "params"),
    [
        ("gpt_neox", "gpt-neox/{}-qkv", {"heads": 4}),
        ("bloom", "bloom/{}-qkv", {"heads": 4}),
        ("falcon_per_head", "falcon/{}-qkv", {"heads": 4, "kv_heads": 4, "new_decoder_architecture": False, "multi_query": False}),
        ("falcon_multi_query", "falcon/{}-qkv", {"heads": 4, "kv_heads": 4, "new_decoder_architecture": False, "multi_query": True}),
        ("falcon_grouped", "falcon/{}-qkv", {"heads": 4, "kv_heads": 2, "new_decoder_architecture": True, "multi_query": True}),
        ("megatron", "megatron/{}-qkv", {"heads": 4, "groups": 4, "fused": "query_key_value", "q": "q_proj", "k": "k_proj", "v": "v_proj"}),
        ("falcon_grouped", "qkv/{}-grouped", {"heads": 4, "kv_heads": 2}),
    ],
)
def test_fused_projections_are_split_as_the_models_do_and_fused_again(case: str, recipe: str, params: dict[str, Any], tmp_path: Path) -> None:
    stored = np.load(DATA / "attention.npz")
    fused = {"h.11.attn.query_key_value.weight": stored[f"{case}/fused"], "h.11.attn.query_key_value.bias": stored[f"{case}/fused_bias"]}
    source = checkpoint(tmp_path / "fused.safetensors", fused, "safetensors")
    run(recipe.format("split"), source=source, target=tmp_path / "split.safetensors", **params)
    wanted = {
        f"h.11.attn.{letter}_proj.{kind}": stored[f"{case}/{letter}{tail}"] for letter in "qkv" for kind, tail in (("weight", ""), ("bias", "_bias"))
    }
    assert_same(arrays(tmp_path / "split.safetensors"), wanted)
    run(recipe.format("fuse"), source=tmp_path / "split.safetensors", target=tmp_path / "again.safetensors", **params)
    assert_same(arrays(tmp_path / "again.safetensors"), fused)


def test_an_object_graph_loses_what_training_needs(tmp_path: Path) -> None:
    run("tf/strip-optimizer-object", source=DATA.parent / "tf" / "object_slots", target=tmp_path / "weights")
    assert specs(tmp_path / "weights") == {
        "_CHECKPOINTABLE_OBJECT_GRAPH": "str[]",
        "net_b/.ATTRIBUTES/VARIABLE_VALUE": "f32[2]",
        "net_w/.ATTRIBUTES/VARIABLE_VALUE": "f32[3,2]",
    }


def test_float8_in_blocks_with_ragged_edges_is_dequantised(tmp_path: Path) -> None:
    weight = 2.0 ** (np.arange(130 * 129).reshape(130, 129) % 5) * np.where(np.arange(129) % 2, 1, -1)
    scales = np.array([[0.5, 3], [7, 0.25]], dtype="float32")
    plain = {"l.0.q.weight": weight.astype("float32"), "l.0.q.weight_scale_inv": scales, "norm.weight": counted(3)}
    steps = [
        {"load": {"path": str(checkpoint(tmp_path / "plain.safetensors", plain, "safetensors"))}},
        {"cast": {"keys": "l.0.q.weight", "dtype": "float8_e4m3fn"}},
        {"save": {"path": str(tmp_path / "small.safetensors")}},
    ]
    surgery.plan(Source(json.dumps({"surgery": 1, "steps": steps}), "made-by-test")).run()
    run("deepseek/dequantize", source=tmp_path / "small.safetensors", target=tmp_path / "wide.safetensors", dtype="float32")
    found = arrays(tmp_path / "wide.safetensors")
    assert sorted(found) == ["l.0.q.weight", "norm.weight"]
    assert (found["l.0.q.weight"] == weight * scales.repeat(128, 0).repeat(128, 1)[:130, :129]).all()


def test_a_distributed_checkpoint_of_torch_becomes_the_model_in_shards(tmp_path: Path) -> None:
    saved = DATA.parent / "torch_dcp"
    run("torch/dcp-to-safetensors", source=saved / "nested", target=tmp_path / "model", shard_size="200B")
    wanted = json.loads((saved / "expected.json").read_text())["nested"]
    found = {key: [str(array.dtype), list(array.shape), array.tobytes().hex()] for key, array in arrays(tmp_path / "model").items()}
    assert found == {key.removeprefix("model."): value for key, value in wanted.items() if key.startswith("model.")}
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) == 2


def test_norms_that_differ_between_the_files_of_a_llama_are_refused(tmp_path: Path) -> None:
    matrices = ["tok_embeddings", "output", *(f"layers.0.{part}" for part in ("attention.wq", "attention.wk", "attention.wv", "attention.wo"))]
    matrices += [f"layers.0.feed_forward.{part}" for part in ("w1", "w2", "w3")]
    for rank in range(2):
        shared = {f"{norm}.weight": counted(2, start=0) for norm in ("layers.0.attention_norm", "layers.0.ffn_norm")}
        file = {**{f"{name}.weight": counted(2, 2) for name in matrices}, **shared, "norm.weight": counted(2, start=rank)}
        checkpoint(tmp_path / f"consolidated.0{rank}.pth", file, "torch")
    with pytest.raises(surgery.SurgeryError) as caught:
        run("llama/meta-to-hf", source=tmp_path, target=tmp_path / "model.safetensors", heads=1, kv_heads=1, dim=2)
    assert caught.value.code == "assert"
    assert "norm.weight" in str(caught.value)
    assert not (tmp_path / "model.safetensors").exists()


def test_heads_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "fused.safetensors", {"h.0.query_key_value.weight": counted(110, 2)}, "safetensors")
    with pytest.raises(surgery.PlanError) as caught:
        run("qkv/split-grouped", source=source, target=tmp_path / "split.safetensors", heads=7, kv_heads=2)
    assert caught.value.code == "indivisible"


@pytest.mark.parametrize("stored", ["shared.weight", "lm_head.weight"])
def test_four_way_ties_are_dropped_and_restored(stored: str, tmp_path: Path) -> None:
    keys = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]
    source = checkpoint(tmp_path / "one.safetensors", {stored: counted(3, 2), "norm": counted(2)}, "safetensors")
    run("tied/duplicate", source=source, target=tmp_path / "four.safetensors", keys=keys)
    assert specs(tmp_path / "four.safetensors") == {**dict.fromkeys(keys, "f32[3,2]"), "norm": "f32[2]"}
    run("tied/drop", source=tmp_path / "four.safetensors", target=tmp_path / "back.safetensors", keys=[stored, *keys])
    assert_same(arrays(tmp_path / "back.safetensors"), arrays(source))


def test_a_tie_whose_values_differ_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "two.safetensors", {"model.embed_tokens.weight": counted(2), "lm_head.weight": counted(2, start=1)}, "safetensors")
    with pytest.raises(surgery.SurgeryError, match="lm_head"):
        run("tied/drop", source=source, target=tmp_path / "one.safetensors")
    assert not (tmp_path / "one.safetensors").exists()


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    weights = {f"l.0.mlp.experts.{expert}.{name}_proj.weight": counted(2, 2) for expert in (0, 1, 2) for name in ("gate", "up", "down")}
    del weights["l.0.mlp.experts.1.down_proj.weight"]
    source = checkpoint(tmp_path / "moe.safetensors", weights, "safetensors")
    with pytest.raises(surgery.PlanError, match=r"experts\.1\.down_proj"):
        run("qwen-moe/stack-experts", source=source, target=tmp_path / "stacked.safetensors")


def test_twelve_experts_are_stacked_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    weights = {f"l.0.mlp.experts.{expert}.{name}_proj.weight": counted(1, 1, start=expert) for expert in range(12) for name in ("gate", "up", "down")}
    source = checkpoint(tmp_path / "moe.safetensors", weights, "safetensors")
    run("qwen-moe/stack-experts", source=source, target=tmp_path / "stacked.safetensors")
    assert values(tmp_path / "stacked.safetensors", "l.0.mlp.experts.down_proj") == [[[expert]] for expert in range(12)]
    run("qwen-moe/unstack-experts", source=tmp_path / "stacked.safetensors", target=tmp_path / "back.safetensors")
    assert_same(arrays(tmp_path / "back.safetensors"), arrays(source))


def test_a_difference_applied_to_its_base_is_the_model(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base.safetensors", {"w": counted(3), "n": counted(2, dtype="int64")}, "safetensors")
    tuned = checkpoint(tmp_path / "tuned.safetensors", {"w": counted(3, start=7), "n": counted(2, dtype="int64")}, "safetensors")
    run("merge/subtract", source=tuned, base=base, target=tmp_path / "difference.safetensors")
    assert values(tmp_path / "difference.safetensors", "w") == [7, 7, 7]
    run("merge/add", source=base, difference=tmp_path / "difference.safetensors", target=tmp_path / "again.safetensors")
    assert_same(arrays(tmp_path / "again.safetensors"), arrays(tuned))


def test_the_mean_of_three_checkpoints(tmp_path: Path) -> None:
    for number in range(3):
        checkpoint(
            tmp_path / f"run-{number}.safetensors",
            {"w": counted(2, start=3 * number), "steps": counted(1, start=number, dtype="int64")},
            "safetensors",
        )
    run("merge/average", source=tmp_path / "run-*.safetensors", target=tmp_path / "mean.safetensors")
    assert (values(tmp_path / "mean.safetensors", "w"), values(tmp_path / "mean.safetensors", "steps")) == ([3, 4], [0])
