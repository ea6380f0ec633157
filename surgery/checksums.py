"""CRC-32 and CRC-32C of bytes and of joined pieces, so that tasks can each checksum their own part.

Both are the reflected, inverted kind: CRC-32 as in zlib and zip, CRC-32C (Castagnoli) as in TensorFlow and iSCSI
(RFC 3720, appendix B.4). TensorFlow's masking is the business of its format.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Data = bytes | bytearray | memoryview | np.ndarray[Any, np.dtype[Any]]

_CRC32 = 0xEDB88320
_CRC32C = 0x82F63B78
_FEW_BYTES = 1 << 16
_ONE = 0x80000000
_X_TO_8 = 0x00800000
"""Polynomials over GF(2) are reflected: the highest bit is the coefficient of x^0."""


def crc32(data: Data, crc: int = 0) -> int:
    """The CRC-32 of everything so far, given `crc` of what came before `data`; arrays count as their C-order bytes."""
    import zlib

    return zlib.crc32(data if isinstance(data, bytes | bytearray | memoryview) else _as_bytes(data).data, crc)


def crc32c(data: Data, crc: int = 0) -> int:
    """The plain (unmasked) CRC-32C of everything so far, given `crc` of what came before `data`; arrays count as their C-order bytes."""
    import google_crc32c

    # It takes bytes and arrays only; for a few bytes a copy is cheaper than an array, and than the import of numpy.
    few = isinstance(data, bytes | bytearray | memoryview) and len(data) <= _FEW_BYTES
    return int(google_crc32c.extend(crc, bytes(data) if few or isinstance(data, bytes) else _as_bytes(data)))


def crc32_combine(first: int, second: int, second_nbytes: int) -> int:
    """The CRC-32 of two pieces joined, from the CRC-32 of each and the length of the second in bytes."""
    return _times(first, _x_to_bytes(second_nbytes, _CRC32), _CRC32) ^ second


def crc32c_combine(first: int, second: int, second_nbytes: int) -> int:
    """The CRC-32C of two pieces joined, from the unmasked CRC-32C of each and the length of the second in bytes."""
    return _times(first, _x_to_bytes(second_nbytes, _CRC32C), _CRC32C) ^ second


def _as_bytes(data: Data) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One-dimensional uint8 over the same memory: google_crc32c takes no memoryview, zlib no bfloat16."""
    import numpy as np

    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


def _times(first: int, second: int, polynomial: int) -> int:
    """The product of two reflected polynomials modulo `polynomial`."""
    product = 0
    while first:
        if first & _ONE:
            product ^= second
        first = (first << 1) & 0xFFFFFFFF
        second = (second >> 1) ^ polynomial if second & 1 else second >> 1
    return product


@lru_cache(maxsize=4096)
def _x_to_bytes(nbytes: int, polynomial: int) -> int:
    """x^(8 nbytes): multiplying by it appends that many zero bytes."""
    power, place = _ONE, 0
    while nbytes:
        if digit := nbytes & 0xFF:
            power = _times(power, _digit_power(digit, place, polynomial), polynomial)
        nbytes >>= 8
        place += 1
    return power


@lru_cache(maxsize=8192)
def _digit_power(digit: int, place: int, polynomial: int) -> int:
    """x^(8 digit 256^place), one factor for each base-256 digit of a length."""
    power = _ONE
    for bit in range(digit.bit_length()):
        if digit >> bit & 1:
            power = _times(power, _squared(8 * place + bit, polynomial), polynomial)
    return power


@lru_cache(maxsize=256)
def _squared(times: int, polynomial: int) -> int:
    """x^8, squared so many times."""
    if times == 0:
        return _X_TO_8
    root = _squared(times - 1, polynomial)
    return _times(root, root, polynomial)


EXTEND = {"crc32": crc32, "crc32c": crc32c}
"""Kind → the function `(data, checksum so far) -> checksum`."""

COMBINE = {"crc32": crc32_combine, "crc32c": crc32c_combine}
"""Kind → the function that joins the checksums of two pieces."""
