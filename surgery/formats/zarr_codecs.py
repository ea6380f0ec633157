"""The codec of a zarr chunk: what was done to its bytes after the elements had been laid out, undone in little steps.

gzip, zlib and bz2 come with Python; zstd, blosc and lz4 with numcodecs, an optional package. None may become more than the chunk has room for.
Sources: Zarr specification 2 ("compressor") and 3.1 ("codecs"), numcodecs 0.16, RFC 8878 (zstd), the README of c-blosc (header).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from surgery.checksums import crc32c
from surgery.dtypes import numpy_dtype
from surgery.errors import CorruptFile
from surgery.formats.base import required
from surgery.formats.wire import COPY_AGAIN
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

_PIECE = 1 << 20
_ZSTD_MAGIC, _ZSTD_BLOCK = 0xFD2FB528, 128 << 10
_BLOSC_HEADER = 16
_OF_NUMCODECS = ("zstd", "blosc", "lz4")
INFLATION = {"gzip": 1032, "zlib": 1032, "bz2": 1 << 20, "zstd": 1 << 16, "blosc": 1 << 16, "lz4": 256, "crc32c": 1}
"""For every step that is known: it makes at most about this many bytes of one."""


class Packed:
    """A chunk that went through `steps`, the last one first here, and whose elements may be big-endian below them.

    A `value` that lies in an index, and is no range of a file, stands in for the stored bytes.
    """

    __slots__ = ("big_endian", "label", "steps", "value")
    name = "zarr"

    def __init__(self, steps: tuple[str, ...], big_endian: bool, label: str, value: bytes | None = None) -> None:
        self.steps = steps
        self.big_endian = big_endian
        self.label = label
        self.value = value

    def decode(self, stored: bytes, spec: TensorSpec) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
        """The chunk's elements. Raises CorruptFile where the stream, its size or its checksum is wrong."""
        import numpy as np

        data = stored if self.value is None else self.value
        for number, step in enumerate(self.steps):
            rest = 4 * self.steps[number + 1 :].count("crc32c")
            data = unpacked(step, data, spec.nbytes + rest, self.label)
        if len(data) != spec.nbytes:
            raise _damaged(self.label, f"it has {len(data):,} bytes and should have {spec.nbytes:,}")
        dtype = numpy_dtype(spec.dtype)
        if self.big_endian and dtype.itemsize > 1:
            word = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
            return np.frombuffer(data, f"u{word}").byteswap().view(dtype).reshape(spec.shape)
        return np.frombuffer(data, dtype).reshape(spec.shape)

    def chunks(self, stored: Iterable[bytes | memoryview], spec: TensorSpec) -> Iterator[bytes | memoryview]:
        """The chunk's bytes in pieces; it is decoded as a whole. Raises CorruptFile as `decode` does."""
        import numpy as np

        content = self.decode(b"".join(stored), spec).reshape(-1).view(np.uint8).data
        for start in range(0, len(content), _PIECE):
            yield content[start : start + _PIECE]

    def checksum(self, stored: bytes, spec: TensorSpec) -> int:
        """Nothing: zarr keeps no checksum beside the chunk, so no one asks for it."""
        return 0


def need_packages(steps: Iterable[str], extra: str) -> None:
    """See that what the steps need is installed. Raises UnsupportedFeature with code `missing-package`."""
    if any(step in _OF_NUMCODECS for step in steps):
        required("numcodecs", extra)


def unpacked(step: str, data: bytes, most: int, label: str) -> bytes:
    """What stands behind one step; more than `most` bytes are never made.

    Raises:
        CorruptFile: the stream is damaged, or claims or holds more.
    """
    try:
        return _UNPACK[step](data, most)
    except (ValueError, RuntimeError, OSError, EOFError, struct.error, zlib.error) as fault:
        raise _damaged(label, f"{step}: {fault}") from fault


def _damaged(label: str, fact: str) -> CorruptFile:
    return CorruptFile(f"{label} is damaged", notes=[fact], help=COPY_AGAIN)


def _inflated(data: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # takes the headers of gzip and of zlib
    content = inflater.decompress(data, most + 1)
    if not inflater.eof or len(content) > most:
        raise ValueError(f"it should inflate to {most:,} bytes")
    return content


def _unbzipped(data: bytes, most: int) -> bytes:
    import bz2

    expander = bz2.BZ2Decompressor()
    content = expander.decompress(data, most + 1)
    if not expander.eof or len(content) > most:
        raise ValueError(f"it should expand to {most:,} bytes")
    return content


def _unzstandard(data: bytes, most: int) -> bytes:
    if (room := zstd_room(data)) > most + _ZSTD_BLOCK:
        raise ValueError(f"its blocks could hold {room:,} bytes and should hold {most:,}")
    content: bytes = required("numcodecs.zstd", "zarr").decompress(data)
    return content


def zstd_room(data: bytes) -> int:
    """The most that one zstd frame can become, from the headers of its blocks alone; what it says of its own size is not believed.

    Raises:
        ValueError: it is no single frame that ends where the data do.
    """
    if len(data) < 6 or int.from_bytes(data[:4], "little") != _ZSTD_MAGIC:
        raise ValueError("no zstd frame")
    descriptor = data[4]
    single = descriptor >> 5 & 1
    size_nbytes = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_nbytes
    size = int.from_bytes(data[at - size_nbytes : at], "little") + (256 if size_nbytes == 2 else 0) if size_nbytes else None
    room, last = 0, False
    while not last:
        if at + 3 > len(data):
            raise ValueError("the frame does not end")
        header = int.from_bytes(data[at : at + 3], "little")
        last, kind, nbytes = bool(header & 1), header >> 1 & 3, header >> 3
        room += nbytes if kind < 2 else _ZSTD_BLOCK
        at += 3 + (1 if kind == 1 else nbytes)
    if at + 4 * (descriptor >> 2 & 1) != len(data):
        raise ValueError("the frame does not end with the data")
    return room if size is None or size > room else size


def _unblosc(data: bytes, most: int) -> bytes:
    if len(data) < _BLOSC_HEADER:
        raise ValueError("the header is not complete")
    nbytes, block, stored = struct.unpack_from("<3I", data, 4)
    if nbytes > most or stored != len(data) or block > max(nbytes, 1):
        raise ValueError(f"it claims {nbytes:,} bytes in {stored:,}, in blocks of {block:,}; it has {len(data):,} and should become {most:,}")
    content: bytes = required("numcodecs.blosc", "zarr").decompress(data)
    return content


def _unlz4(data: bytes, most: int) -> bytes:
    (nbytes,) = struct.unpack_from("<I", data)
    if nbytes > most:
        raise ValueError(f"it claims {nbytes:,} bytes and should become {most:,}")
    content: bytes = required("numcodecs.lz4", "zarr").decompress(data)
    return content


def _checked(data: bytes, most: int) -> bytes:
    content = data[:-4]
    if len(data) < 4 or crc32c(content) != int.from_bytes(data[-4:], "little"):
        raise ValueError("the checksum does not match")
    return content


_UNPACK: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _inflated,
    "zlib": _inflated,
    "bz2": _unbzipped,
    "zstd": _unzstandard,
    "blosc": _unblosc,
    "lz4": _unlz4,
    "crc32c": _checked,
}
