"""The element types of GGUF files: ggml's numbers for them.

A quantised type stores fixed blocks of 32 to 256 elements along the last axis, each with its own scales. Here one *block* is one element of an
opaque dtype, so a tensor of that dtype counts blocks along its last axis: bytes per element stay a whole number, and whatever is done along other
axes needs no knowledge of blocks. `dtype.block` tells how many numbers are in one. Source: `enum ggml_type` in ggml.h.
"""

from __future__ import annotations

from surgery.dtypes import DTYPES

_PLAIN = {0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16"}
_BLOCKS = {
    2: "q4_0",
    3: "q4_1",
    6: "q5_0",
    7: "q5_1",
    8: "q8_0",
    9: "q8_1",
    10: "q2_k",
    11: "q3_k",
    12: "q4_k",
    13: "q5_k",
    14: "q6_k",
    15: "q8_k",
    16: "iq2_xxs",
    17: "iq2_xs",
    18: "iq3_xxs",
    19: "iq1_s",
    20: "iq4_nl",
    21: "iq3_s",
    22: "iq2_s",
    23: "iq4_xs",
    29: "iq1_m",
    34: "tq1_0",
    35: "tq2_0",
    39: "mxfp4",
    40: "nvfp4",
    41: "q1_0",
}

TYPES = {code: DTYPES[name] for code, name in _PLAIN.items()} | {code: DTYPES[f"gguf_{name}"] for code, name in _BLOCKS.items()}
"""ggml's number → type. Numbers between these belonged to types that ggml has taken out again."""

CODE_OF = {dtype: code for code, dtype in TYPES.items()}
