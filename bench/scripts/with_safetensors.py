"""What people write with the safetensors library: `with_safetensors.py numpy|torch OPERATION`, in a folder beside `models`."""

import sys
from importlib import import_module
from pathlib import Path

from safetensors import safe_open

LLAMA = "../models/llama-bf16/model.safetensors"
LLAMA_F32 = "../models/llama-f32/model.safetensors"
GPT = "../models/gpt/model.safetensors"
SHARDED = Path("../models/llama-sharded")

library, operation = sys.argv[1:]
safetensors = import_module(f"safetensors.{library}")
load_file, save_file = safetensors.load_file, safetensors.save_file

if library == "torch":
    import torch

    def bfloat16(tensor):
        return tensor.to(torch.bfloat16)

    def transposed(tensor):
        return tensor.T.contiguous()

    def thirds(tensor):
        return [part.contiguous() for part in tensor.chunk(3, dim=-1)]

else:
    import ml_dtypes
    import numpy as np

    def bfloat16(tensor):
        return tensor.astype(ml_dtypes.bfloat16)

    def transposed(tensor):
        return np.ascontiguousarray(tensor.T)

    def thirds(tensor):
        return [np.ascontiguousarray(part) for part in np.split(tensor, 3, axis=-1)]


def rename():
    save_file({key.replace("model.", "encoder.", 1): tensor for key, tensor in load_file(LLAMA).items()}, "out.safetensors")


def drop_half():
    dropped = tuple(f"model.layers.{layer}." for layer in range(6, 12))
    with safe_open(LLAMA, "pt" if library == "torch" else "np") as source:
        save_file({key: source.get_tensor(key) for key in source.keys() if not key.startswith(dropped)}, "out.safetensors")  # noqa: SIM118


def cast():
    save_file({key: bfloat16(tensor) for key, tensor in load_file(LLAMA_F32).items()}, "out.safetensors")


def transpose():
    tensors = load_file(LLAMA_F32)
    save_file({key: transposed(tensor) if key.endswith("_proj.weight") else tensor for key, tensor in tensors.items()}, "out.safetensors")


def split_qkv():
    out = {}
    for key, tensor in load_file(GPT).items():
        if ".c_attn." in key:
            out |= {key.replace("c_attn", letter): part for letter, part in zip("qkv", thirds(tensor), strict=True)}
        else:
            out[key] = tensor
    save_file(out, "out.safetensors")


def merge():
    first = {f"first.{key}": tensor for key, tensor in load_file(LLAMA).items()}
    second = {f"second.{key}": tensor for key, tensor in load_file(GPT).items()}
    save_file(first | second, "out.safetensors")


def reshard():
    shards = sorted(SHARDED.glob("*.safetensors"))
    limit = sum(shard.stat().st_size for shard in shards) / 3
    Path("out").mkdir()
    part, nbytes, number = {}, 0, 1
    for shard in shards:
        for key, tensor in load_file(shard).items():
            if part and nbytes + tensor.nbytes > limit:
                save_file(part, f"out/model-{number:05}.safetensors")
                part, nbytes, number = {}, 0, number + 1
            part[key] = tensor
            nbytes += tensor.nbytes
    save_file(part, f"out/model-{number:05}.safetensors")


globals()[operation]()
