"""What people write for steps on values: `value_steps.py numpy|torch STEP`, in a folder beside `models`."""

import json
import sys
from importlib import import_module

library, step = sys.argv[1:]
safetensors = import_module(f"safetensors.{library}")
LAYERS, EXPERTS, SCALE = 16, 8, 2.0


def load(name):
    return safetensors.load_file(f"../models/{name}.safetensors")


def save(tensors):
    safetensors.save_file(tensors, "out.safetensors")


if library == "torch":
    import torch

    concat, stack, solid = torch.cat, torch.stack, torch.Tensor.contiguous

    def wide(tensor):
        return tensor.float()

    def narrow(tensor):
        return tensor.to(torch.bfloat16)

    def permuted(tensor, *order):
        return tensor.permute(*order)

    def repeated(tensor, times):
        return tensor.repeat_interleave(times, 0).repeat_interleave(times, 1)

else:
    import ml_dtypes
    import numpy as np

    concat, stack, solid = np.concatenate, np.stack, np.ascontiguousarray

    def wide(tensor):
        return tensor.astype(np.float32)

    def narrow(tensor):
        return tensor.astype(ml_dtypes.bfloat16)

    def permuted(tensor, *order):
        return tensor.transpose(*order)

    def repeated(tensor, times):
        return tensor.repeat(times, 0).repeat(times, 1)


def run_concat():
    tensors = load("concat")
    save({"c": concat([tensors["a"], tensors["b"]], 0)})


def run_stack():
    tensors = load("stack")
    save({"experts.w": stack([tensors[f"experts.{number}.w"] for number in range(EXPERTS)], 0)})


def run_unstack():
    experts = load("unstack")["experts.w"]
    save({f"experts.{number}.w": solid(experts[number]) for number in range(EXPERTS)})


def run_rearrange():
    tensor = load("rearrange")["w"]
    rows, columns = tensor.shape
    save({"w": solid(permuted(tensor.reshape(32, rows // 64, 2, columns), 0, 2, 1, 3).reshape(rows, columns))})


def run_gather():
    with open("../models/rows.json") as file:
        save({"w": load("gather")["w"][json.load(file)]})


def run_resize():
    tensor = load("resize")["w"]
    mean = tensor.mean(0)[None]
    save({"w": concat([tensor, mean.expand(1000, -1) if library == "torch" else mean.repeat(1000, 0)], 0)})


def run_average():
    save({"w": (load("average1")["w"] + load("average2")["w"]) / 2})


def run_lora():
    tensors, merged = load("lora"), {}
    for layer in range(LAYERS):
        w, a, b = (wide(tensors[f"{layer}.{name}"]) for name in "wab")
        merged[f"{layer}.w"] = narrow(w + SCALE * (b @ a))
    save(merged)


def run_dequantize():
    weight, scales = wide(load("quantised")["w"]), load("scales")["w_scale"]
    weight *= repeated(scales, 128)
    save({"w": narrow(weight)})


globals()[f"run_{step}"]()
