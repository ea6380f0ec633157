"""Make the files beside this one: `python make.py`, with safetensors 0.8.0 and numpy 2.4.6 installed."""

import json
from pathlib import Path

import numpy as np
from safetensors import deserialize
from safetensors.numpy import save_file

HERE = Path(__file__).parent
CODES = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip


def plain() -> None:
    tensors = {
        "layer.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "layer.0.bias": np.array([0.5, -0.5], np.float64),
        "größe": np.array([7], np.int64),
        "flag\n": np.array(True),
        "none": np.zeros((0, 4), np.float16),
    }
    save_file(tensors, HERE / "plain.safetensors", {"format": "np"})


def all_dtypes() -> None:
    """The header is written here, since numpy lacks most types; the library then has to accept it."""
    header, data = {}, b""
    for number, (code, bits) in enumerate(CODES.items()):
        nbytes = 8 * bits // 8
        header[code.lower()] = {"dtype": code, "shape": [2, 4], "data_offsets": [len(data), len(data) + nbytes]}
        data += bytes([number % 2 if code == "BOOL" else number]) * nbytes
    text = json.dumps(header).encode()
    stored = len(text).to_bytes(8, "little") + text + data
    assert len(deserialize(stored)) == len(CODES)
    (HERE / "all_dtypes.safetensors").write_bytes(stored)


def sharded() -> None:
    folder = HERE / "sharded"
    folder.mkdir(exist_ok=True)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save_file({"b": np.arange(4, dtype=np.float32), "a": np.ones(2, np.float32)}, folder / names[0], {"format": "pt"})
    save_file({"c": np.array([3], np.int32)}, folder / names[1], {"format": "pt"})
    index = {"metadata": {"total_size": 28}, "weight_map": {"a": names[0], "b": names[0], "c": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    (folder / "config.json").write_text("{}\n")
    (folder / "tokenizer_config.json").write_text("{}\n")
    (folder / "notes.txt").write_text("not a companion\n")


plain()
all_dtypes()
sharded()
