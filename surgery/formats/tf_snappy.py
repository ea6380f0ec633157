"""Decompression of raw snappy blocks, which tables may hold though TensorFlow's checkpoint writer makes none.

Source: snappy, format_description.txt.
"""

from __future__ import annotations

from surgery.formats.tf_varint import read_varint

MOST_OUTPUT_BYTES = 64 << 20
_MOST_ELEMENTS = 1 << 20
"""So many take about a second."""
_MOST_EXPANSION = 22
"""The densest element makes 64 bytes out of 3, so a longer declared length cannot be true."""


class BadSnappy(Exception):
    """The bytes are no raw snappy block."""


def decompress(data: bytes) -> bytes:
    """The bytes behind a raw snappy block (no framing), at most 64 MiB.

    Raises:
        BadSnappy: a malformed block, or one whose declared length its input cannot fill.
    """
    try:
        size, at = read_varint(data, 0, len(data), 5)
    except ValueError as error:
        raise BadSnappy("its length does not end") from error
    if size > min(MOST_OUTPUT_BYTES, _MOST_EXPANSION * len(data)):
        raise BadSnappy(f"{len(data):,} bytes cannot hold {size:,}")
    out = bytearray()
    elements = 0
    while at < len(data):
        elements += 1
        if elements > _MOST_ELEMENTS:
            raise BadSnappy(f"more than {_MOST_ELEMENTS:,} elements")
        tag = data[at]
        at = _literal(data, at, out) if tag & 3 == 0 else _copy(data, at, out)
        if len(out) > size:
            raise BadSnappy("more bytes than it declares")
    if len(out) != size:
        raise BadSnappy("fewer bytes than it declares")
    return bytes(out)


def _literal(data: bytes, at: int, out: bytearray) -> int:
    """Append a run of stored bytes; lengths above 60 follow the tag in 1 to 4 bytes."""
    length = (data[at] >> 2) + 1
    at += 1
    if length > 60:
        extra = length - 60
        length = int.from_bytes(data[at : at + extra], "little") + 1
        at += extra
    if at + length > len(data):
        raise BadSnappy("a literal runs past its end")
    out += data[at : at + length]
    return at + length


def _copy(data: bytes, at: int, out: bytearray) -> int:
    """Append bytes that are already in the output; where source and target overlap, they repeat."""
    tag = data[at]
    offset_bytes = (0, 1, 2, 4)[tag & 3]
    stop = at + 1 + offset_bytes
    if stop > len(data):
        raise BadSnappy("a copy runs past its end")
    offset = int.from_bytes(data[at + 1 : stop], "little")
    length = (tag >> 2) + 1
    if offset_bytes == 1:
        offset |= (tag >> 5) << 8
        length = (tag >> 2 & 7) + 4
    if not 0 < offset <= len(out):
        raise BadSnappy("a copy from before its start")
    start = len(out) - offset
    pattern = out[start : start + length]
    out += (pattern * (length // offset + 1))[:length]
    return stop
