"""Fused and split attention weights, the split done by the models' own code: `python make_attention.py NAME…` adds cases to attention.npz.

Made with torch 2.13.0 and transformers 5.23.0; `megatron` (checkpoint version 2) with transformers 4.44.2, which still reads it. Every
case has NAME/fused, NAME/fused_bias, and NAME/q, NAME/k, NAME/v with their biases.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

HERE = Path(__file__).parent
WIDTH, HEADS, SIZE = 3, 4, 5
Split = tuple[torch.Tensor, ...]


def falcon(fused: torch.Tensor, **config: object) -> Split:
    from transformers.models.falcon.modeling_falcon import FalconAttention

    own = SimpleNamespace(num_heads=HEADS, head_dim=SIZE, **config)
    q, k, v = FalconAttention._split_heads(own, fused)
    repeats = HEADS // own.num_kv_heads if own.new_decoder_architecture else 1  # it repeats each key for its queries
    return q, k[:, :, ::repeats], v[:, :, ::repeats]


def bloom(fused: torch.Tensor) -> Split:
    from transformers.models.bloom.modeling_bloom import BloomAttention

    return tuple(part.transpose(1, 2) for part in BloomAttention._reshape(SimpleNamespace(num_heads=HEADS, head_dim=SIZE), fused))


def gpt_neox(fused: torch.Tensor) -> Split:
    """What its forward pass hands to attention; at a rotation of nothing."""
    from transformers.models.gpt_neox import modeling_gpt_neox as module

    seen: list[torch.Tensor] = []

    def attention(own: object, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: object, **__: object) -> Split:
        seen.extend(part.transpose(1, 2) for part in (q, k, v))
        return v.transpose(1, 2), v

    module.eager_attention_forward = attention
    config = module.GPTNeoXConfig(hidden_size=HEADS * SIZE, num_attention_heads=HEADS, attn_implementation="eager")
    layer = module.GPTNeoXAttention(config)
    layer.query_key_value = torch.nn.Identity()
    cos = torch.ones(1, 1, 1)
    layer(fused, attention_mask=None, position_embeddings=(cos, 0 * cos))
    return tuple(seen)


def megatron(fused: torch.Tensor) -> Split:
    from transformers.models.megatron_gpt2.convert_megatron_gpt2_checkpoint import fix_query_key_value_ordering

    ordered = fix_query_key_value_ordering(fused[0].T.contiguous(), 2.0, 3, HEADS, SIZE)
    return tuple(part.T.reshape(1, -1, HEADS, SIZE) for part in ordered.chunk(3))


CASES = {
    "falcon_grouped": (lambda fused: falcon(fused, new_decoder_architecture=True, multi_query=True, num_kv_heads=2), HEADS + 4),
    "falcon_multi_query": (lambda fused: falcon(fused, new_decoder_architecture=False, multi_query=True, num_kv_heads=HEADS), HEADS + 2),
    "falcon_per_head": (lambda fused: falcon(fused, new_decoder_architecture=False, multi_query=False, num_kv_heads=HEADS), 3 * HEADS),
    "bloom": (bloom, 3 * HEADS),
    "gpt_neox": (gpt_neox, 3 * HEADS),
    "megatron": (megatron, 3 * HEADS),
}


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    path = HERE / "attention.npz"
    arrays = dict(np.load(path)) if path.exists() else {}
    for name, (split, heads) in CASES.items():
        weight, bias = (torch.randn(heads * SIZE, width, generator=generator) for width in (WIDTH, 1))
        if name not in sys.argv[1:]:
            continue
        parts = split(torch.cat([weight, bias], 1).T[None].contiguous())
        arrays |= {f"{name}/fused": weight.numpy(), f"{name}/fused_bias": bias[:, 0].numpy()}
        for letter, part in zip("qkv", parts, strict=True):
            rows = part.reshape(WIDTH + 1, -1).T.contiguous().numpy()
            arrays |= {f"{name}/{letter}": rows[:, :WIDTH], f"{name}/{letter}_bias": rows[:, WIDTH]}
    np.savez(path, **arrays)


if __name__ == "__main__":
    main()
