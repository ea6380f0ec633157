"""Checkpoints that are all header: the keys of a mixture of experts with scales and optimizer slots, over data that is one hole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from math import prod
from pathlib import Path
from typing import NamedTuple

LAYERS = 61
_KEYS_PER_SHARD = 20_000
_KEYS_PER_EXPERT = 12
_SLOTS = ("exp_avg", "exp_avg_sq")
_ATTENTION = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
_BYTES = {"F8_E4M3": 1, "BF16": 2, "F32": 4}


class Row(NamedTuple):
    """A tensor of a header; `code` is safetensors' name of the element type."""

    key: str
    code: str
    shape: tuple[int, ...]


def write_mixture(folder: Path, keys: int) -> None:
    """A sharded checkpoint of `keys` tensors in a folder of its own: a few hundred bytes each, none of them stored."""
    folder.mkdir()
    rows = islice(_rows(-(-keys // (LAYERS * _KEYS_PER_EXPERT))), keys)
    shards = -(-keys // _KEYS_PER_SHARD)
    weight_map: dict[str, str] = {}
    for number in range(1, shards + 1):
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        shard = list(islice(rows, _KEYS_PER_SHARD))
        _write_shard(folder / name, shard)
        weight_map |= dict.fromkeys((row.key for row in shard), name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _rows(experts: int) -> Iterator[Row]:
    for layer in range(LAYERS):
        yield from _with_norm(f"model.layers.{layer}.input_layernorm.weight")
        for name in _ATTENTION:
            yield from _with_slots(f"model.layers.{layer}.self_attn.{name}.weight", (16, 24))
        for expert in range(experts):
            for name in ("gate_proj", "up_proj", "down_proj"):
                yield from _with_slots(f"model.layers.{layer}.mlp.experts.{expert}.{name}.weight", (24, 8) if name == "down_proj" else (8, 24))


def _with_norm(key: str) -> Iterator[Row]:
    yield Row(key, "BF16", (24,))
    for slot in _SLOTS:
        yield Row(f"optimizer.{slot}.{key}", "F32", (24,))


def _with_slots(key: str, shape: tuple[int, int]) -> Iterator[Row]:
    yield Row(key, "F8_E4M3", shape)
    yield Row(f"{key}_scale_inv", "F32", (1, 1))
    for slot in _SLOTS:
        yield Row(f"optimizer.{slot}.{key}", "F32", shape)


def _write_shard(path: Path, rows: list[Row]) -> None:
    header: dict[str, dict[str, object]] = {}
    start = 0
    for key, code, shape in rows:
        stop = start + prod(shape) * _BYTES[code]
        header[key] = {"dtype": code, "shape": shape, "data_offsets": (start, stop)}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start)
