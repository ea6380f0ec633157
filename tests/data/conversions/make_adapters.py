"""Adapters merged by PEFT itself: `python make_adapters.py` writes a folder for each, with source/, base/ and expected.safetensors.

Made with torch 2.13.0, transformers 5.23.0 and peft 0.21.2. One alpha, rank or kind of layer for each thing that `lora/merge` knows.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent


class Net(nn.Module):
    """One layer of each other kind that can have an adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.conv = nn.Conv2d(3, 4, (2, 3), bias=True)
        self.conv1 = nn.Conv1d(3, 4, 3)
        self.out = nn.Linear(6, 5)
        self.head = nn.Linear(5, 2)


def llama() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=12, attention_bias=True
        )
    )


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2))


CASES = {
    "peft_rslora": (llama, {"r": 4, "lora_alpha": 6, "use_rslora": True, "rank_pattern": {"v_proj": 2}, "target_modules": ["q_proj", "v_proj"]}),
    "peft_saved_modules": (llama, {"r": 2, "lora_alpha": 3, "bias": "lora_only", "target_modules": ["o_proj"], "modules_to_save": ["lm_head"]}),
    "peft_alpha_pattern": (
        llama,
        {"r": 2, "lora_alpha": 3, "alpha_pattern": {"layers.1.self_attn.q_proj": 5, "v_proj": 8}, "target_modules": ["q_proj", "v_proj", "k_proj"]},
    ),
    "peft_dora": (llama, {"r": 2, "lora_alpha": 4, "use_dora": True, "target_modules": ["q_proj", "down_proj"]}),
    "peft_fan_in_fan_out": (gpt2, {"r": 2, "lora_alpha": 3, "fan_in_fan_out": True, "target_modules": ["c_attn", "c_fc"]}),
    "peft_other_layers": (Net, {"r": 2, "lora_alpha": 3, "target_modules": ["table", "conv", "conv1", "out"]}),
}


def randomised(model: nn.Module, only: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if only in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + (1 if "magnitude" in name else 0))


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}


def main() -> None:
    for name, (make, options) in CASES.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        base = make()
        randomised(base, "", 1)
        save_file(tensors(base), folder / "base.safetensors")
        model = get_peft_model(base, LoraConfig(**options))
        for number, kind in enumerate(("lora_", "modules_to_save", "bias")):
            if kind != "bias" or options.get("bias"):
                randomised(model, kind, number + 2)
        model.save_pretrained(folder / "source")
        (folder / "source" / "README.md").unlink()
        fresh = make()
        fresh.load_state_dict(load_file(folder / "base.safetensors"))
        merged = PeftModel.from_pretrained(fresh, folder / "source").merge_and_unload()
        save_file(tensors(merged), folder / "expected.safetensors")


if __name__ == "__main__":
    main()
