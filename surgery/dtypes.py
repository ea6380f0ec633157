"""The one table of element types; formats translate their own names into these.

Pure data: numpy and ml_dtypes are imported only when an array is really wanted. Sub-byte types come in two forms,
because formats differ: one element per byte (TensorFlow, ml_dtypes) and bit-packed (safetensors); they are distinct
dtypes here, since the bytes are.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class DType(NamedTuple):
    """An element type. `bits` is the stored width of an element, 0 where elements vary in length."""

    name: str
    short: str
    kind: str  # bool, int, uint, float, complex, quantized, string, opaque
    bits: int
    numpy: str = ""  # name in numpy or ml_dtypes; "" where there is none
    block: int = 1  # numbers that an element stands for; more than one in quantised blocks

    def __str__(self) -> str:
        return self.name

    @property
    def itemsize(self) -> int:
        """Bytes of an element; 0 for types whose elements vary in length, and for bit-packed ones."""
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        """True for real floating types of every width."""
        return self.kind == "float"

    @property
    def computable(self) -> bool:
        """True where values can be computed with: everything numpy and ml_dtypes hold, quantized integers excepted."""
        return self.kind in ("bool", "int", "uint", "float", "complex")


_GGUF_BLOCKS = {
    "q1_0": (128, 18),
    "q2_k": (256, 84),
    "q3_k": (256, 110),
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "q4_k": (256, 144),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "q5_k": (256, 176),
    "q6_k": (256, 210),
    "q8_0": (32, 34),
    "q8_1": (32, 40),
    "q8_k": (256, 292),
    "iq1_m": (256, 56),
    "iq1_s": (256, 50),
    "iq2_s": (256, 82),
    "iq2_xs": (256, 74),
    "iq2_xxs": (256, 66),
    "iq3_s": (256, 110),
    "iq3_xxs": (256, 98),
    "iq4_nl": (32, 18),
    "iq4_xs": (256, 136),
    "mxfp4": (32, 17),
    "nvfp4": (64, 36),
    "tq1_0": (256, 54),
    "tq2_0": (256, 66),
}
"""ggml's quantised types, each with the numbers and the bytes of a block. An element is a block, whose numbers share their scales.

Source: `GGML_QUANT_SIZES` of the gguf package 0.19.
"""


def _table() -> dict[str, DType]:
    rows = [
        DType("bool", "bool", "bool", 8, "bool"),
        DType("string", "str", "string", 0, "object"),
        DType("variant", "variant", "opaque", 0),
        DType("float4_e2m1fn", "f4_e2m1fn", "float", 8, "float4_e2m1fn"),
        DType("float4_e2m1fn_packed", "f4_e2m1fn_packed", "opaque", 4),
        DType("float6_e2m3fn_packed", "f6_e2m3fn_packed", "opaque", 6),
        DType("float6_e3m2fn_packed", "f6_e3m2fn_packed", "opaque", 6),
    ]
    for bits in (8, 16, 32, 64):
        rows += [DType(f"int{bits}", f"i{bits}", "int", bits, f"int{bits}")]
        rows += [DType(f"uint{bits}", f"u{bits}", "uint", bits, f"uint{bits}")]
    for bits in (2, 4):
        rows += [DType(f"int{bits}", f"i{bits}", "int", 8, f"int{bits}")]
        rows += [DType(f"uint{bits}", f"u{bits}", "uint", 8, f"uint{bits}")]
    for bits in (16, 32, 64):
        rows += [DType(f"float{bits}", f"f{bits}", "float", bits, f"float{bits}")]
    rows += [DType("bfloat16", "bf16", "float", 16, "bfloat16")]
    for name in ("e5m2", "e4m3fn", "e4m3fnuz", "e4m3b11fnuz", "e5m2fnuz", "e8m0fnu"):
        rows += [DType(f"float8_{name}", f"f8_{name}", "float", 8, f"float8_{name}")]
    for bits in (64, 128):
        rows += [DType(f"complex{bits}", f"c{bits}", "complex", bits, f"complex{bits}")]
    for name, base in (("qint8", "int8"), ("quint8", "uint8"), ("qint16", "int16"), ("quint16", "uint16"), ("qint32", "int32")):
        rows += [DType(name, name, "quantized", int(base.lstrip("uint")), base)]
    rows += [DType(f"gguf_{name}", name, "opaque", 8 * nbytes, f"V{nbytes}", block) for name, (block, nbytes) in _GGUF_BLOCKS.items()]
    return {row.name: row for row in rows}


DTYPES: dict[str, DType] = _table()
"""Name → dtype, every type any format here can hold."""


@cache
def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """The little-endian numpy (or ml_dtypes) type of `dtype`; quantized types appear as plain integers, quantised blocks as bytes (`V18`).

    Raises:
        TypeError: the type has no array form (`variant`, bit-packed types).
    """
    import numpy

    if not dtype.numpy:
        raise TypeError(f"{dtype.name} has no array form")
    try:
        plain = numpy.dtype(dtype.numpy)
    except TypeError:
        import ml_dtypes

        small: np.dtype[Any] = numpy.dtype(getattr(ml_dtypes, dtype.numpy))
        return small
    return plain.newbyteorder("<") if plain.itemsize > 1 and plain.kind != "O" else plain
