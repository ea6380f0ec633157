"""The library's recipes for model families on what other projects' own converters made of the same checkpoints, there and back.

Each folder of `tests/data/conversions` holds a source, and `expected.json` with the name, dtype, shape and SHA-256 of every tensor that
the original converter gives. Its README tells which converter that is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import surgery

ROOT = Path(__file__).resolve().parents[2]
PAIRS = ROOT / "tests" / "data" / "conversions"
RECIPES = ROOT / "surgery" / "recipes"

Facts = Mapping[str, tuple[str, list[int], str]]
"""Key → dtype, shape, and the SHA-256 of the little-endian bytes in C order."""


class Pair(NamedTuple):
    """A conversion and its reverse. `lost` are the endings of source keys that the reverse cannot bring back."""

    folder: str
    source: str
    there: str
    target: str
    back: str
    returned: str
    params: Mapping[str, Any] = {}
    back_params: Mapping[str, Any] = {}
    lost: tuple[str, ...] = ()


GQA = {"heads": 4, "kv_heads": 2}
ADAM = ("adam_m", "adam_v", "global_step")

CONVERSIONS = [
    Pair("bert_hf_to_google_tf", "model.safetensors", "bert/hf-to-tf", "bert.ckpt", "bert/tf-to-hf", "back.safetensors", back_params={"prefix": ""}),
    Pair(
        "bert_pretraining_tf_to_hf",
        "model.ckpt",
        "bert/tf-to-hf",
        "model.safetensors",
        "bert/hf-to-tf",
        "back.ckpt",
        {"copies": ["cls.predictions.decoder.weight"]},
        lost=ADAM,
    ),
    Pair("gpt2_openai_tf_to_hf", "model.ckpt", "gpt2/tf-to-hf", "model.safetensors", "gpt2/hf-to-tf", "back.ckpt"),
    Pair("flax_gpt2_to_pytorch", "flax_model.msgpack", "gpt2/flax-to-hf", "model.safetensors", "gpt2/hf-to-flax", "back.msgpack"),
    Pair("flax_bert_to_pytorch", "flax_model.msgpack", "flax/to-pytorch", "model.safetensors", "flax/from-pytorch", "back.msgpack"),
    Pair("flax_vit_to_pytorch", "flax_model.msgpack", "flax/to-pytorch", "model.safetensors", "flax/from-pytorch", "back.msgpack"),
    Pair("t5x_v1_0_to_hf", "checkpoint.msgpack", "t5/t5x-to-hf", "model.safetensors", "t5/hf-to-t5x", "back.msgpack", lost=("step", "x")),
    Pair(
        "t5x_v1_1_optimizer_to_hf",
        "checkpoint.msgpack",
        "t5/t5x-to-hf",
        "model.safetensors",
        "t5/hf-to-t5x",
        "back.msgpack",
        {},
        {"root": "optimizer/target/"},
        ("step", "x", "version"),
    ),
    Pair(
        "mesh_t5_v1_0_to_hf",
        "model.ckpt-5",
        "t5/mesh-tf-to-hf",
        "model.safetensors",
        "t5/hf-to-mesh-tf",
        "back.ckpt",
        back_params={"norm": "rms_norm", "final_norm": "rms_norm"},
        lost=("_slot_vr", "_slot_vc", "global_step"),
    ),
    Pair("vit_jax_npz_to_timm", "vit.npz", "vit/jax-to-timm", "model.safetensors", "vit/timm-to-jax", "back.npz", {}, {"heads": 3}),
    Pair(
        "vit_jax_npz_to_hf",
        "vit.npz",
        "vit/jax-to-hf",
        "model.safetensors",
        "vit/hf-to-jax",
        "back.npz",
        {},
        {"heads": 2, "root": "opt/target/"},
        ("opt/state/step",),
    ),
]
WITHOUT_A_WAY_BACK = [
    Pair("llama_meta_to_hf", "", "llama/meta-to-hf", "model.safetensors", "", ""),
    Pair("llama2_two_files_to_hf", "", "llama/meta-to-hf", "model.safetensors", "", ""),
    Pair("llama3_two_files_to_hf", "", "llama/meta-to-hf", "model.safetensors", "", ""),
    Pair("megatron_gpt2_two_ranks_to_hf", "", "megatron/gpt2-to-hf", "model.safetensors", "", "", {"heads": 2, "copies": ["lm_head.weight"]}),
    Pair("gguf_llama_to_hf", "model.gguf", "llama/gguf-to-hf", "model.safetensors", "", ""),
    Pair("mesh_t5_v1_1_to_hf", "model.ckpt-5", "t5/mesh-tf-to-hf", "model.safetensors", "", ""),
    Pair("t5x_scanned_to_hf", "checkpoint.msgpack", "t5/t5x-to-hf", "model.safetensors", "", ""),
    Pair("vit_big_vision_scanned_to_timm", "vit.npz", "vit/jax-to-timm", "model.safetensors", "", ""),
]


def run(recipe: str, source: Path, target: Path, **params: Any) -> None:
    surgery.plan(RECIPES / f"{recipe}.yaml", {"source": str(source), "target": str(target), **params}).run()


def facts(path: Path, format: str | None = None) -> Facts:
    with surgery.open(path, format=format) as checkpoint:
        return {key: _facts(tensor.numpy()) for key, tensor in checkpoint.items()}


def _facts(values: Any) -> tuple[str, list[int], str]:
    array = np.asarray(values)
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return array.dtype.name, list(array.shape), hashlib.sha256(little.tobytes()).hexdigest()


def expected(folder: str, file: str = "expected.json") -> Facts:
    rows = json.loads((PAIRS / folder / file).read_text())["tensors"]
    return {key: (dtype, shape, digest) for key, dtype, shape, digest in rows}


@pytest.mark.parametrize("pair", [*CONVERSIONS, *WITHOUT_A_WAY_BACK], ids=lambda pair: pair.folder)
def test_every_tensor_is_what_the_original_converter_made(pair: Pair, tmp_path: Path) -> None:
    run(pair.there, PAIRS / pair.folder / "source" / pair.source, tmp_path / pair.target, **pair.params)
    assert facts(tmp_path / pair.target) == expected(pair.folder)


@pytest.mark.parametrize("pair", CONVERSIONS, ids=lambda pair: pair.folder)
def test_the_way_back_gives_the_source(pair: Pair, tmp_path: Path) -> None:
    source = PAIRS / pair.folder / "source" / pair.source
    run(pair.there, source, tmp_path / pair.target, **pair.params)
    run(pair.back, tmp_path / pair.target, tmp_path / pair.returned, **pair.back_params)
    format = "flax" if source.suffix == ".msgpack" else None
    assert facts(tmp_path / pair.returned, format) == {key: fact for key, fact in facts(source, format).items() if not key.endswith(pair.lost)}


def test_the_way_back_of_one_llama_file_gives_the_source(tmp_path: Path) -> None:
    folder = PAIRS / "llama_meta_to_hf" / "source"
    run("llama/meta-to-hf", folder, tmp_path / "model.safetensors")
    run("llama/hf-to-meta", tmp_path / "model.safetensors", tmp_path / "back.pth", **GQA)
    assert facts(tmp_path / "back.pth") == {key: fact for key, fact in facts(folder / "consolidated.00.pth").items() if key != "rope.freqs"}


def test_embeddings_that_do_not_give_the_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(surgery.MismatchError) as caught:
        run("llama/meta-to-hf", PAIRS / "llama3_two_files_to_hf" / "source", tmp_path / "model.safetensors", dim=10)
    assert "tok_embeddings.weight" in str(caught.value)


def test_llama_goes_to_gguf_and_back(tmp_path: Path) -> None:
    run("llama/gguf-to-hf", PAIRS / "gguf_llama_to_hf" / "source" / "model.gguf", tmp_path / "model.safetensors")
    run("llama/hf-to-gguf", tmp_path / "model.safetensors", tmp_path / "back.gguf", **GQA)
    run("llama/gguf-to-hf", tmp_path / "back.gguf", tmp_path / "again.safetensors")
    assert facts(tmp_path / "back.gguf")["blk.1.attn_v.weight"] == expected("gguf_llama_to_hf")["model.layers.1.self_attn.v_proj.weight"]
    assert facts(tmp_path / "again.safetensors") == expected("gguf_llama_to_hf")


@pytest.mark.parametrize(("format", "name"), [("tf", "pnet.ckpt"), ("flax", "pnet.msgpack"), ("npz", "pnet.npz")])
def test_a_plain_model_changes_its_names_alone(format: str, name: str, tmp_path: Path) -> None:
    want = expected("facenet_pnet")
    run("tools/dots-to-slashes", PAIRS / "facenet_pnet" / "source" / "weights.safetensors", tmp_path / name, format=format)
    assert facts(tmp_path / name) == {key.replace(".", "/"): fact for key, fact in want.items()}
    run("tools/slashes-to-dots", tmp_path / name, tmp_path / "back.safetensors")
    assert facts(tmp_path / "back.safetensors") == want


def test_timm_and_transformers_lay_out_the_same_vit(tmp_path: Path) -> None:
    run("vit/jax-to-timm", PAIRS / "vit_jax_npz_to_hf" / "source" / "vit.npz", tmp_path / "timm.safetensors")
    run("vit/timm-to-hf", tmp_path / "timm.safetensors", tmp_path / "hf.safetensors")
    assert facts(tmp_path / "hf.safetensors") == expected("vit_jax_npz_to_hf")
    run("vit/hf-to-timm", tmp_path / "hf.safetensors", tmp_path / "back.safetensors")
    assert facts(tmp_path / "back.safetensors") == facts(tmp_path / "timm.safetensors")


def test_a_head_that_is_not_tied_is_not_dropped(tmp_path: Path) -> None:
    arrays = {"wte.weight": np.zeros((2, 2)), "lm_head.weight": np.ones((2, 2)), "ln_f.weight": np.ones(2), "h.0.attn.c_attn.weight": np.ones((2, 6))}
    np.savez(tmp_path / "gpt2.npz", **arrays)
    with pytest.raises(surgery.SurgeryError, match=r"lm_head\.weight"):
        run("gpt2/hf-to-flax", tmp_path / "gpt2.npz", tmp_path / "flax_model.msgpack")
    assert not (tmp_path / "flax_model.msgpack").exists()


def test_heads_that_do_not_divide_the_rows_are_refused(tmp_path: Path) -> None:
    source = PAIRS / "vit_jax_npz_to_timm" / "source" / "vit.npz"
    run("vit/jax-to-timm", source, tmp_path / "model.safetensors")
    with pytest.raises(surgery.PlanError) as caught:
        run("vit/timm-to-jax", tmp_path / "model.safetensors", tmp_path / "back.npz", heads=7)
    assert caught.value.code == "indivisible"
