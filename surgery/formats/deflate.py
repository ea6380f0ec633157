"""The codec of deflated zip members: inflated little by little, checked for size and CRC-32. Serves the formats that are zip archives."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from surgery.dtypes import numpy_dtype
from surgery.errors import CorruptFile
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

MOST_INFLATION = 1032
"""Deflate makes at most this many bytes of one."""
_INFLATED = 1 << 20
"""The most bytes of a member that are inflated at once."""


class Deflated:
    """A member that has to be inflated: `header_nbytes` bytes before a tensor, and that, together are `nbytes` bytes with this CRC-32.

    It comes out little-endian, in C order of the spec's shape; a stream that is longer is found out before it is held.
    """

    __slots__ = ("big_endian", "crc32", "header_nbytes", "label", "nbytes")
    name = "deflate"

    def __init__(self, label: str, header_nbytes: int, nbytes: int, crc32: int, big_endian: bool) -> None:
        self.label = label
        self.header_nbytes = header_nbytes
        self.nbytes = nbytes
        self.crc32 = crc32
        self.big_endian = big_endian

    def decode(self, stored: bytes, spec: TensorSpec) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
        """Inflate all of a member. Raises CorruptFile as `chunks` does."""
        import numpy as np

        content = b"".join(self.chunks((stored,), spec))
        return np.frombuffer(content, numpy_dtype(spec.dtype)).reshape(spec.shape)

    def chunks(self, stored: Iterable[bytes | memoryview], spec: TensorSpec) -> Iterator[bytes | memoryview]:
        """Inflate little by little. Raises CorruptFile where the stream, its size or its CRC-32 (known at the end) is wrong."""
        dtype = numpy_dtype(spec.dtype)
        word = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
        skip, rest = self.header_nbytes, b""
        for content in self._inflated(stored):
            data = rest + content[skip:]
            skip = max(0, skip - len(content))
            cut = len(data) - len(data) % word
            rest = data[cut:]
            yield _turned(data[:cut], word) if self.big_endian else data[:cut]

    def _inflated(self, stored: Iterable[bytes | memoryview]) -> Iterator[bytes]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        nbytes = crc32 = 0
        for content in _inflate(inflater, stored, self.label):
            nbytes += len(content)
            crc32 = zlib.crc32(content, crc32)
            if nbytes > self.nbytes:
                break
            yield content
        if nbytes != self.nbytes or not inflater.eof or inflater.unused_data:
            raise damaged(self.label, f"it should inflate to {self.nbytes:,} bytes")
        if crc32 != self.crc32:
            raise damaged(self.label, f"CRC-32 stored {self.crc32:08x}, computed {crc32:08x}")

    def checksum(self, stored: bytes, spec: TensorSpec) -> int:
        """Nothing: zip archives keep no CRC-32C, so no one asks for it."""
        return 0


def _inflate(inflater: zlib._Decompress, stored: Iterable[bytes | memoryview], label: str) -> Iterator[bytes]:
    """What a raw deflate stream holds, in pieces of at most `_INFLATED`; stops at its end, with what follows left in `unused_data`."""
    for piece in chain(stored, [b""]):  # the last one asks for what the inflater still keeps back
        rest: bytes | memoryview = piece
        content = None
        while content is None or len(content) == _INFLATED:
            try:
                content = inflater.decompress(rest, _INFLATED)
            except zlib.error as fault:
                raise damaged(label, str(fault)) from fault
            rest = inflater.unconsumed_tail
            if content:
                yield content
        if inflater.unused_data:
            return


def _turned(data: bytes, word: int) -> memoryview:
    import numpy as np

    return np.frombuffer(data, f"u{word}").byteswap().view(np.uint8).data


def damaged(label: str, fact: str) -> CorruptFile:
    """The error for a member that does not inflate to what it should."""
    return CorruptFile(f"{label} is damaged", notes=[fact], help="the source is damaged or still being written; copy it again")
