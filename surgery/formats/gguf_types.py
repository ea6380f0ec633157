"""The element types of GGUF files: ggml's numbers for them, and how many elements share a block.

A quantised type stores fixed blocks of 32 to 256 elements along the last axis, each with its own scales. Here one *block* is one element of an
opaque dtype, so a tensor of that dtype counts blocks along its last axis: bytes per element stay a whole number, and whatever is done along other
axes needs no knowledge of blocks. Source: `enum ggml_type` in ggml.h; block sizes from `GGML_QUANT_SIZES` of the gguf package 0.19.
"""

from __future__ import annotations

from typing import NamedTuple

from surgery.dtypes import DTYPES, DType


class TypeOfTensor(NamedTuple):
    """An element type as a file has it; `block` elements of the model lie in one element of `dtype`."""

    dtype: DType
    block: int


_PLAIN = {0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16"}
_BLOCKS = {
    2: ("q4_0", 32),
    3: ("q4_1", 32),
    6: ("q5_0", 32),
    7: ("q5_1", 32),
    8: ("q8_0", 32),
    9: ("q8_1", 32),
    10: ("q2_k", 256),
    11: ("q3_k", 256),
    12: ("q4_k", 256),
    13: ("q5_k", 256),
    14: ("q6_k", 256),
    15: ("q8_k", 256),
    16: ("iq2_xxs", 256),
    17: ("iq2_xs", 256),
    18: ("iq3_xxs", 256),
    19: ("iq1_s", 256),
    20: ("iq4_nl", 32),
    21: ("iq3_s", 256),
    22: ("iq2_s", 256),
    23: ("iq4_xs", 256),
    29: ("iq1_m", 256),
    34: ("tq1_0", 256),
    35: ("tq2_0", 256),
    39: ("mxfp4", 32),
    40: ("nvfp4", 64),
    41: ("q1_0", 128),
}

TYPES = {code: TypeOfTensor(DTYPES[name], 1) for code, name in _PLAIN.items()} | {
    code: TypeOfTensor(DTYPES[f"gguf_{name}"], block) for code, (name, block) in _BLOCKS.items()
}
"""ggml's number → type. Numbers between these belonged to types that ggml has taken out again."""

CODE_OF = {found.dtype: code for code, found in TYPES.items()}
