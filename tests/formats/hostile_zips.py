"""Zip archives that no zip library would write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def deflated_zeros(nbytes: int, before: bytes = b"") -> tuple[bytes, int]:
    """A raw deflate stream, and the CRC-32 of what it holds."""
    deflater, block = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1 << 24)
    crc32 = zlib.crc32(before)
    parts = [deflater.compress(before)]
    for _ in range(nbytes >> 24):
        parts.append(deflater.compress(block))
        crc32 = zlib.crc32(block, crc32)
    return b"".join([*parts, deflater.flush()]), crc32


def raw_zip(path: Path, name: bytes, stored: bytes, crc32: int, nbytes: int, offset: int = 0) -> Path:
    wide = struct.pack("<2H2Q", 1, 16, nbytes, len(stored))
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 8, 0, 33, crc32, 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(wide)) + name + wide + stored
    central = struct.pack("<4s4B4H3L5H2L", b"PK\1\2", 45, 3, 45, 0, 0, 8, 0, 33, crc32, 0xFFFFFFFF, 0xFFFFFFFF, len(name), 20, 0, 0, 0, 0, offset)
    central += name + wide
    path.write_bytes(local + central + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0))
    return path
