"""LZF, the compression that h5py has beside deflate: literals, and copies of what came before. Source of format facts: liblzf 3.6, `lzf_d.c`."""

from __future__ import annotations

_LONGEST_LITERAL = 32
_LENGTH_FOLLOWS = 7


def decompressed(data: bytes, nbytes: int) -> bytes:
    """The bytes that were compressed, `nbytes` at most. Raises ValueError where the stream is damaged, or makes more."""
    made = bytearray()
    at = 0
    try:
        while at < len(data):
            control = data[at]
            at += 1
            if control < _LONGEST_LITERAL:
                made += data[at : at + control + 1]
                at += control + 1
            else:
                length = control >> 5
                if length == _LENGTH_FOLLOWS:
                    length += data[at]
                    at += 1
                _copy(made, (control & 0x1F) << 8 | data[at], length + 2)
                at += 1
            if len(made) > nbytes:
                raise ValueError(f"it makes more than {nbytes:,} bytes")
    except IndexError:
        raise ValueError("it ends within a copy") from None
    if at != len(data):
        raise ValueError("it ends within a literal")
    return bytes(made)


def _copy(made: bytearray, distance: int, length: int) -> None:
    """Repeat `length` bytes from `distance` before the last; what is repeated may be what this call has made."""
    start = len(made) - distance - 1
    if start < 0:
        raise ValueError("a copy of what is before its beginning")
    pattern = made[start : start + length]
    made += (pattern * (length // len(pattern) + 1))[:length]
