"""Integers of varying length, as protocol buffers, tables, snappy and string tensors store them."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A non-negative integer in groups of 7 bits, low group first; bit 7 says that more follow."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, at: int, stop: int, most_bytes: int = 10) -> tuple[int, int]:
    """The varint at `at` and the offset behind it; over-long forms are accepted.

    Raises:
        ValueError: it runs past `stop` or has more than `most_bytes` bytes.
    """
    number = shift = 0
    for position in range(at, min(stop, at + most_bytes)):
        byte = data[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position + 1
        shift += 7
    raise ValueError("varint does not end")
