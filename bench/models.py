"""Models to operate on, shaped like real ones. Written without numpy: a child's peak memory is never below that of the process that starts it."""

from __future__ import annotations

import json
import os
import random
from array import array
from collections.abc import Mapping
from math import prod, sqrt
from pathlib import Path

Shapes = Mapping[str, tuple[int, ...]]

LAYERS = 12
_CODES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}
_BLOCK_VALUES = 1 << 20
_HEADS = 32


def llama(size: float, layers: int = LAYERS) -> Shapes:
    """Llama's keys; 0.65 billion values at size 1 with 12 layers. Matrices grow with `size`, their number does not."""
    hidden = _width(2048, size)
    wide, narrow, vocabulary = hidden * 11 // 4, hidden // 8, _width(32_000, size)
    attention = {"q_proj": (hidden, hidden), "k_proj": (narrow, hidden), "v_proj": (narrow, hidden), "o_proj": (hidden, hidden)}
    mlp = {"gate_proj": (wide, hidden), "up_proj": (wide, hidden), "down_proj": (hidden, wide)}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.self_attn.{name}.weight": shape for name, shape in attention.items()}
        shapes |= {f"{prefix}.mlp.{name}.weight": shape for name, shape in mlp.items()}
        shapes |= {f"{prefix}.{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def gpt(size: float) -> Shapes:
    """GPT-2's keys, with query, key and value in one tensor; 0.6 billion values at size 1."""
    hidden = _width(2048, size)
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(LAYERS):
        shapes |= {
            f"h.{layer}.attn.c_attn.weight": (hidden, 3 * hidden),
            f"h.{layer}.attn.c_attn.bias": (3 * hidden,),
            f"h.{layer}.attn.c_proj.weight": (hidden, hidden),
            f"h.{layer}.mlp.c_fc.weight": (hidden, 4 * hidden),
            f"h.{layer}.mlp.c_proj.weight": (4 * hidden, hidden),
        }
    return shapes


def bert(size: float) -> Shapes:
    """The keys of TensorFlow's BERT; 0.15 billion values at size 1."""
    hidden = _width(1024, size)
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(LAYERS):
        prefix = f"bert/encoder/layer_{layer}"
        shapes |= {f"{prefix}/attention/self/{name}/kernel": (hidden, hidden) for name in ("query", "key", "value")}
        shapes |= {
            f"{prefix}/attention/output/dense/kernel": (hidden, hidden),
            f"{prefix}/intermediate/dense/kernel": (hidden, 4 * hidden),
            f"{prefix}/output/dense/kernel": (4 * hidden, hidden),
            f"{prefix}/output/LayerNorm/gamma": (hidden,),
        }
    return shapes


def _width(full: int, size: float) -> int:
    """A side of a matrix that has `size` times the values, divisible by what heads need."""
    return max(1, round(full * sqrt(size) / (2 * _HEADS))) * 2 * _HEADS


def write_model(path: Path, shapes: Shapes, code: str, *, sparse: bool = False) -> None:
    """A safetensors file, its folder included: normal random values, the same million again and again, or one hole.

    `code` is safetensors' name of the element type, F32, BF16 or F8_E4M3.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header: dict[str, dict[str, object]] = {}
    start = 0
    for key, shape in shapes.items():
        stop = start + prod(shape) * _CODES[code]
        header[key] = {"dtype": code, "shape": shape, "data_offsets": (start, stop)}
        start = stop
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if sparse:
            file.truncate(8 + len(text) + start)
        else:
            block = _random_values(code)
            for done in range(0, start, len(block)):
                file.write(block[: start - done])
        file.flush()
        os.fsync(file.fileno())


def _random_values(code: str) -> bytes:
    numbers = random.Random(7)
    block = array("f", (numbers.gauss() for _ in range(_BLOCK_VALUES))).tobytes()
    if code == "F32":
        return block
    if code == "F8_E4M3":
        return bytes(byte & 0xBF for byte in numbers.randbytes(_BLOCK_VALUES))  # below 2, and never NaN
    upper = bytearray(len(block) // 2)  # a bfloat16 is the upper half of a float32
    upper[0::2], upper[1::2] = block[2::4], block[3::4]
    return bytes(upper)


def write_llama_config(folder: Path, shapes: Shapes) -> None:
    """The config.json that mergekit wants beside the weights."""
    vocabulary, hidden = shapes["model.embed_tokens.weight"]
    layers = sum(key.endswith("input_layernorm.weight") for key in shapes)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": shapes["model.layers.0.mlp.up_proj.weight"][0],
        "num_hidden_layers": layers,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS // 8,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
