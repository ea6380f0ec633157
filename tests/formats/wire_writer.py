"""The smallest protocol buffer writer: fields by number, for models and checkpoints that tests build by hand."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A number as 64-bit two's complement, in groups of 7 bits."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def field(number: int, value: int | bytes | str) -> bytes:
    """An integer as a varint, anything else with its length before it."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data
