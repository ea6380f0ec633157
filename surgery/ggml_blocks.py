"""The numbers in ggml's quantised blocks, bit by bit as the gguf package finds them. Knows neither files nor tensors.

A block holds 32 to 256 numbers as small integers, and the scales that they share. Here are the types whose bits are the numbers; those
that look numbers up in large grids (IQ1, IQ2, IQ3) are left to the gguf package. All is little-endian; products and sums are rounded to float32
in the order of the reference. Source: `dequantize_blocks` in gguf-py/gguf/quants.py, and the `block_*` structures in ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from surgery.dtypes import DType

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_PREFIX = "gguf_"
_NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_DOUBLED_E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
_POWERS_OF_3 = (1, 3, 9, 27, 81)
_GRIDS = frozenset(f"{_PREFIX}{name}" for name in ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"))


def is_decodable(dtype: DType) -> bool:
    """Whether blocks of this type can become numbers, with the gguf package where `needs_package` says so."""
    return needs_package(dtype) or dtype.name.removeprefix(_PREFIX) in _DECODERS


def needs_package(dtype: DType) -> bool:
    """Whether only the gguf package can decode this type."""
    return dtype.name in _GRIDS


def decode(blocks: Array, dtype: DType) -> Array:
    """The float32 numbers of each row of `blocks`, which are the bytes of one block: [n, bytes of a block] becomes [n, `dtype.block`].

    Raises:
        KeyError: the type is not decodable.
        ImportError: it needs the gguf package, which is not installed.
    """
    import numpy as np

    name = dtype.name.removeprefix(_PREFIX)
    with np.errstate(over="ignore", invalid="ignore"):  # scales may be infinite or NaN, and so are the numbers then
        if not needs_package(dtype):
            return _DECODERS[name](blocks).reshape(len(blocks), dtype.block)
        package = import_module("gguf")
        numbers: Array = package.dequantize(blocks, package.GGMLQuantizationType[name.upper()])
        return numbers


def _cut(blocks: Array, *sizes: int) -> list[Array]:
    """The fields of all blocks, by their bytes; the last one takes the rest."""
    import numpy as np

    return np.split(blocks, np.cumsum(sizes), axis=1)


def _half(field: Array) -> Array:
    return field.view("<f2").astype("f4")


def _bits(field: Array, bits: int, run: int) -> Array:
    """Small integers from bytes that share them: of each `run` of bytes first all the lowest bits, then all the next, and so on."""
    import numpy as np

    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    packed = field.reshape(len(field), -1, 1, run)
    return ((packed >> shifts) & np.uint8((1 << bits) - 1)).reshape(len(field), -1)


def _integers(field: Array, bits: int, run: int) -> Array:
    """The same as float32, so that offsets and bits that lie elsewhere can be added without a thought of overflow."""
    return _bits(field, bits, run).astype("f4")


def _looked_up(values: Sequence[int], field: Array, run: int) -> Array:
    """Numbers for which four bits stand."""
    import numpy as np

    return np.array(values, np.float32)[_bits(field, 4, run)]


def _scaled(scales: Array, numbers: Array) -> Array:
    """Each scale times its share of the numbers."""
    return scales[:, :, None] * numbers.reshape(*scales.shape, -1)


def _q4_0(blocks: Array) -> Array:
    scale, low = _cut(blocks, 2)
    numbers: Array = _half(scale) * (_integers(low, 4, 16) - 8)
    return numbers


def _q4_1(blocks: Array) -> Array:
    scale, least, low = _cut(blocks, 2, 2)
    return _half(scale) * _integers(low, 4, 16) + _half(least)


def _q5_0(blocks: Array) -> Array:
    scale, high, low = _cut(blocks, 2, 4)
    numbers: Array = _half(scale) * (_integers(low, 4, 16) + 16 * _integers(high, 1, 1) - 16)
    return numbers


def _q5_1(blocks: Array) -> Array:
    scale, least, high, low = _cut(blocks, 2, 2, 4)
    numbers: Array = _half(scale) * (_integers(low, 4, 16) + 16 * _integers(high, 1, 1)) + _half(least)
    return numbers


def _q8_0(blocks: Array) -> Array:
    scale, integers = _cut(blocks, 2)
    numbers: Array = _half(scale) * integers.view("i1").astype("f4")
    return numbers


def _q2_k(blocks: Array) -> Array:
    shares, low, scale, least = _cut(blocks, 16, 64, 2)
    of_scale, of_least = _integers(shares, 4, 16).reshape(-1, 2, 16).swapaxes(0, 1)
    numbers: Array = _scaled(_half(scale) * of_scale, _integers(low, 2, 32)) - (_half(least) * of_least)[:, :, None]
    return numbers


def _q3_k(blocks: Array) -> Array:
    high, low, shares, scale = _cut(blocks, 32, 64, 12)
    of_scale = _integers(shares[:, :8], 4, 8) + 16 * _integers(shares[:, 8:], 2, 4) - 32
    return _scaled(_half(scale) * of_scale, _integers(low, 2, 32) + 4 * _integers(high, 1, 32) - 4)


def _six_bit_shares(field: Array) -> tuple[Array, Array]:
    """The shares of 8 parts in scale and in least value, of Q4_K and Q5_K: 12 bytes, of which the last four lack their high bits."""
    import numpy as np

    first, second, rest = np.split(field, 3, axis=1)
    of_scale = np.concatenate([first & 0x3F, (rest & 0x0F) | ((first >> 2) & 0x30)], axis=1)
    of_least = np.concatenate([second & 0x3F, (rest >> 4) | ((second >> 2) & 0x30)], axis=1)
    return of_scale.astype("f4"), of_least.astype("f4")


def _q4_k(blocks: Array) -> Array:
    scale, least, shares, low = _cut(blocks, 2, 2, 12)
    of_scale, of_least = _six_bit_shares(shares)
    numbers: Array = _scaled(_half(scale) * of_scale, _integers(low, 4, 32)) - (_half(least) * of_least)[:, :, None]
    return numbers


def _q5_k(blocks: Array) -> Array:
    scale, least, shares, high, low = _cut(blocks, 2, 2, 12, 32)
    of_scale, of_least = _six_bit_shares(shares)
    integers = _integers(low, 4, 32) + 16 * _integers(high, 1, 32)
    numbers: Array = _scaled(_half(scale) * of_scale, integers) - (_half(least) * of_least)[:, :, None]
    return numbers


def _q6_k(blocks: Array) -> Array:
    low, high, shares, scale = _cut(blocks, 128, 64, 16)
    numbers = _integers(low, 4, 64) + 16 * _integers(high, 2, 32) - 32
    return _scaled(_half(scale) * shares.view("i1").astype("f4"), numbers)


def _iq4_nl(blocks: Array) -> Array:
    scale, low = _cut(blocks, 2)
    return _half(scale) * _looked_up(_NONLINEAR, low, 16)


def _iq4_xs(blocks: Array) -> Array:
    scale, high, shares, low = _cut(blocks, 2, 2, 4)
    of_scale = _integers(shares, 4, 1) + 16 * _integers(high, 2, 1) - 32
    return _scaled(_half(scale) * of_scale, _looked_up(_NONLINEAR, low, 16))


def _tq1_0(blocks: Array) -> Array:
    """Five digits to the base of 3 in a byte, as a fraction of 243: times a power of 3, what overflows is what was before the digit."""
    import numpy as np

    first, second, third, scale = _cut(blocks, 32, 16, 4)
    powers = np.array(_POWERS_OF_3, np.uint8)[:, None]
    parts = [(part[:, None, :] * powers[:count]).reshape(len(blocks), -1) for part, count in ((first, 5), (second, 5), (third, 4))]
    digits = (np.concatenate(parts, axis=1).astype(np.uint16) * np.uint16(3)) >> np.uint16(8)
    numbers: Array = _half(scale) * (digits.astype("f4") - 1)
    return numbers


def _tq2_0(blocks: Array) -> Array:
    low, scale = _cut(blocks, 64)
    numbers: Array = _half(scale) * (_integers(low, 2, 32) - 1)
    return numbers


def _mxfp4(blocks: Array) -> Array:
    import numpy as np

    exponent, low = _cut(blocks, 1)
    return np.ldexp(np.float32(1), exponent.astype(np.int32) - 128) * _looked_up(_DOUBLED_E2M1, low, 16)


def _nvfp4(blocks: Array) -> Array:
    """The four scales are float8_e4m3fn without a sign, whose NaN is read as 0; they are halved, since the numbers are doubled."""
    import numpy as np

    scales, low = _cut(blocks, 4)
    exponent, fraction = (scales >> 3).astype(np.int32) & 15, (scales & 7).astype("f4")
    halved = np.where(exponent == 0, np.ldexp(fraction, -10), np.ldexp(8 + fraction, exponent - 11))
    halved[scales == 0x7F] = 0
    return _scaled(halved, _looked_up(_DOUBLED_E2M1, low, 8))


_DECODERS: dict[str, Callable[[Array], Array]] = {
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q5_0": _q5_0,
    "q5_1": _q5_1,
    "q8_0": _q8_0,
    "q2_k": _q2_k,
    "q3_k": _q3_k,
    "q4_k": _q4_k,
    "q5_k": _q5_k,
    "q6_k": _q6_k,
    "iq4_nl": _iq4_nl,
    "iq4_xs": _iq4_xs,
    "tq1_0": _tq1_0,
    "tq2_0": _tq2_0,
    "mxfp4": _mxfp4,
    "nvfp4": _nvfp4,
}
