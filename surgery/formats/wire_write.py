"""Protocol buffers, written field by field: the counterpart of `wire`. Knows no schema.

Bytes depend on the arguments alone, which `SerializeToString` does not promise. Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A number as 64-bit two's complement, in groups of 7 bits, the lowest first."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def head(number: int, nbytes: int) -> bytes:
    """What stands before the `nbytes` bytes of a text, a message or raw data."""
    return varint(number << 3 | 2) + varint(nbytes)


def field(number: int, value: int | bytes | str) -> bytes:
    """A whole field: an integer as a varint, anything else with its length before it. Raises UnicodeEncodeError for text that is not UTF-8."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return head(number, len(data)) + data
