"""Recipes made of transformers' conversion mapping do to tensors what transformers does: every model type, both ways."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import conversion_mapping as peer
import pytest

import surgery
from surgery.errors import RecipeError
from surgery.importers import transformers_mapping, transforms

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]  # transformers' own warnings are not our faults

DOCS = Path(__file__).parents[2] / "docs"
TINY = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32}
MODELS = {
    "mixtral": TINY | {"num_local_experts": 12},
    "qwen2_moe": TINY | {"num_experts": 3, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "num_experts_per_tok": 2},
    "olmoe": TINY | {"num_experts": 3, "num_experts_per_tok": 2},
    "jamba": TINY | {"num_experts": 3, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "lfm2_moe": TINY | {"num_experts": 3, "moe_intermediate_size": 8, "num_dense_layers": 1, "layer_types": ["full_attention", "conv"]},
    "minimax": TINY | {"num_local_experts": 3},
    "nomic_bert": TINY,
}
"""Tiny configurations of causal or masked models that are built in a moment."""

TEXT = TINY | {"model_type": "llama"}
LAYER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 8, "patch_size": 4}
NESTED = {
    "LlavaForConditionalGeneration": {"text_config": TEXT, "vision_config": LAYER | {"model_type": "clip_vision_model"}, "image_token_index": 5},
    "PaliGemmaForConditionalGeneration": {
        "text_config": TINY | {"model_type": "gemma", "head_dim": 4},
        "vision_config": LAYER | {"model_type": "siglip_vision_model"},
        "image_token_index": 5,
        "projection_dim": 16,
    },
    "ViTForImageClassification": LAYER,
    "DeiTForImageClassification": LAYER,
    "Dinov2ForImageClassification": {name: value for name, value in LAYER.items() if name != "intermediate_size"} | {"use_swiglu_ffn": True},
    "MixtralForCausalLM": MODELS["mixtral"],
    "Qwen2AudioForConditionalGeneration": {
        "text_config": TINY | {"model_type": "qwen2"},
        "audio_config": {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "max_source_positions": 8},
    },
}
"""Models with models inside of them, or whose entries are for one inside."""
HUB = dict.fromkeys(["LlavaForConditionalGeneration", "PaliGemmaForConditionalGeneration"], (r"^vision_tower\.", "vision_tower.vision_model."))
"""Names as on the hub that transformers knows and does not write for a new model."""


@pytest.fixture(scope="module")
def mapping(torch: Any) -> Mapping[str, Any]:
    pytest.importorskip("transformers.conversion_mapping", reason="transformers 5 is not installed")
    return transforms._mapping()[0]


def by_recipe(model_type: str, source: Path, reverse: bool, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the imported recipe makes of a checkpoint."""
    from safetensors.torch import load_file

    draft = transformers_mapping.read(model_type, reverse)
    recipe, target = source.with_suffix(".yaml"), source.with_name("target.safetensors")
    recipe.write_text(draft.text("surgery import"))
    surgery.plan(
        recipe, params={"source": str(source), "target": str(target)} | {name: values[name] for name in draft.params if name in values}, force=True
    ).run()
    return load_file(target)


def written(tensors: Mapping[str, Any], path: Path) -> Path:
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Keys that are not in both, or have other shapes or values."""
    both = set(found) & set(expected)
    return sorted(set(found) ^ set(expected)) + [
        key for key in both if found[key].shape != expected[key].shape or (found[key] != expected[key]).any()
    ]


def expressed(entries: Any) -> list[Any]:
    return [entry for entry in entries if not any(getattr(operation, "check_dims", False) for operation in getattr(entry, "operations", ()))]


def test_every_type_is_loaded_as_transformers_loads_it(mapping: Mapping[str, Any], tmp_path: Path) -> None:
    wrong, untried, entries = {}, 0, 0
    for model_type, own in mapping.items():
        used = expressed(own)
        common = list(mapping["legacy"]) if model_type != "legacy" else []
        tensors, without = peer.checkpoint(used + common)
        untried += sum(any(entry is one for one in used) for entry in without)
        entries += len(used)
        source = written(tensors, tmp_path / "source.safetensors")
        values = peer.params(used, list(transformers_mapping.read(model_type, False).params))
        wrong[model_type] = differences(by_recipe(model_type, source, False, values), peer.loaded(used + common, tensors))
    assert {model_type: keys for model_type, keys in wrong.items() if keys} == {}
    assert untried <= entries // 100


def test_every_type_is_saved_as_transformers_saves_it(mapping: Mapping[str, Any], tmp_path: Path) -> None:
    wrong = {}
    for model_type, own in mapping.items():
        used = expressed(own)
        tensors = peer.loaded(used, peer.checkpoint(used)[0])
        source = written(tensors, tmp_path / "source.safetensors")
        values = peer.params(used, list(transformers_mapping.read(model_type, True).params))
        wrong[model_type] = differences(by_recipe(model_type, source, True, values), peer.saved(used, tensors))
    assert {model_type: keys for model_type, keys in wrong.items() if keys} == {}


def test_nearly_all_entries_are_expressed(mapping: Mapping[str, Any]) -> None:
    for reverse in (False, True):
        drafts = [transformers_mapping.read(model_type, reverse) for model_type in mapping]
        assert sum(len(draft.unexpressed) for draft in drafts) <= 0.05 * sum(draft.rules for draft in drafts)


def test_the_page_of_the_docs_has_the_numbers_of_its_version(mapping: Mapping[str, Any]) -> None:
    import transformers

    page = DOCS / "importing.md"
    if f"transformers {transformers.__version__}:" not in page.read_text():
        pytest.skip(f"the page is of another version than {transformers.__version__}")
    spec = importlib.util.spec_from_file_location("make_importing", DOCS / "make_importing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert page.read_text() == module.page(), "run `python docs/make_importing.py`"


@pytest.mark.parametrize("model_type", MODELS)
def test_a_saved_model_becomes_its_own_state_dict_and_goes_back(mapping: Mapping[str, Any], torch: Any, tmp_path: Path, model_type: str) -> None:
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    config = transformers.AutoConfig.for_model(model_type, **MODELS[model_type])
    auto = transformers.AutoModelForMaskedLM if model_type == "nomic_bert" else transformers.AutoModelForCausalLM
    model = auto.from_config(config)
    with torch.no_grad():
        for value in model.parameters():
            value.uniform_()
    model.save_pretrained(tmp_path)
    hub = load_file(tmp_path / "model.safetensors")
    expected = type(model).from_pretrained(tmp_path).state_dict()
    assert set(hub) - set(expected), "saved under its own names"
    own = by_recipe(model_type, tmp_path / "model.safetensors", False, {})
    tied = set(expected) - set(own)
    assert {key for key in tied if "lm_head" not in key and "decoder" not in key} == set()  # one of two tied tensors is not saved
    assert differences(own, {key: value for key, value in expected.items() if key not in tied}) == []
    assert differences(by_recipe(model_type, written(own, tmp_path / "own.safetensors"), True, {}), hub) == []


@pytest.mark.parametrize("architecture", NESTED)
def test_a_config_gives_the_entries_of_models_inside_too(mapping: Mapping[str, Any], torch: Any, tmp_path: Path, architecture: str) -> None:
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    kind = getattr(transformers, architecture)
    model = kind(kind.config_class(**NESTED[architecture]))
    with torch.no_grad():
        for value in model.parameters():
            value.uniform_()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    hub = {re.sub(*HUB[architecture], key) if architecture in HUB else key: value for key, value in load_file(file).items()}
    safetensors_torch = pytest.importorskip("safetensors.torch")
    safetensors_torch.save_file(hub, file, {"format": "pt"})
    expected = kind.from_pretrained(tmp_path).state_dict()
    assert set(hub) - set(expected), "saved under its own names"
    own = by_recipe(str(tmp_path / "config.json"), file, False, {})
    assert {key for key in set(expected) - set(own) if "lm_head" not in key} == set()  # one of two tied tensors is not saved
    assert differences(own, {key: expected[key] for key in own}) == []
    assert differences(by_recipe(str(tmp_path / "config.json"), written(own, tmp_path / "own.safetensors"), True, {}), hub) == []


def test_what_is_no_model_is_told(mapping: Mapping[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mixtral"}')
    with pytest.raises(RecipeError, match="makes no model of"):
        transforms.of_config(str(tmp_path / "config.json"), False)
    with pytest.raises(RecipeError, match="converts nothing for `mixtrall`"):
        transforms.installed("mixtrall", False)
