"""Make the files beside this one: `python make.py`, with flax 0.12.8, jax 0.10.2 and ml_dtypes 0.6.0 installed."""

from pathlib import Path

import ml_dtypes
import numpy as np
from flax import serialization

HERE = Path(__file__).parent
NUMPY = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()
OTHERS = """bfloat16 float8_e5m2 float8_e4m3fn float8_e4m3fnuz float8_e4m3b11fnuz float8_e5m2fnuz float8_e8m0fnu
float4_e2m1fn int2 uint2 int4 uint4""".split()


def write(name, tree):
    (HERE / name).write_bytes(serialization.msgpack_serialize(tree, in_place=True))


write("types.msgpack", {name: np.array([0, 1, 1], getattr(ml_dtypes, name, name)) for name in NUMPY + OTHERS})
params = {"Dense_0": {"kernel": np.arange(6, dtype="<f4").reshape(2, 3), "bias": np.zeros(3, "<f4")}, "größe": np.array(7, "<i8"), "none": np.zeros((0, 2), "<f2")}
write("plain.msgpack", {"params": params, "step": np.int32(5)})
write(
    "leaves.msgpack",
    {"a": np.ones(1, "<f4"), "empty": {}, "none": None, "yes": True, "step": -1000, "rate": 0.5, "name": "tiny", "z": 1 + 2j, "raw": b"\x01", 3: 1.0, "list": [1, np.ones(2, "i1")], "x/y": 0},
)
serialization.MAX_CHUNK_SIZE = 16
write("chunked.msgpack", {"params": params})
write("array.msgpack", np.arange(3, dtype="<i2"))
