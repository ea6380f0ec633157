"""The filters of HDF5 chunks: deflate, shuffle and fletcher32, which the HDF5 library itself brings, and h5py's lzf. Others are refused by name.

Source of format facts: HDF5 File Format Specification 3.0, section IV.A.2.l, and the list of registered filters of the HDF Group.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from surgery.dtypes import numpy_dtype
from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.hdf5_content import Fields
from surgery.formats.hdf5_headers import FILTERS, Header
from surgery.formats.lzf import decompressed
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000
_KNOWN = {_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF}
_NAMES = {4: "szip", 5: "nbit", 6: "scaleoffset", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32015: "zstd"}
INFLATION = 1032
"""Deflate makes at most this many bytes of one; lzf, fewer."""


class Filters:
    """The codec of a chunk: its filters in the order in which they were applied, and the byte order below them."""

    __slots__ = ("big_endian", "filters", "label")
    name = "hdf5-filters"

    def __init__(self, filters: tuple[int, ...], big_endian: bool, label: str) -> None:
        self.filters = filters
        self.big_endian = big_endian
        self.label = label

    def decode(self, stored: bytes, spec: TensorSpec) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
        """The chunk's elements. Raises CorruptFile where the stream, its size or its checksum is wrong."""
        import numpy as np

        data = stored
        for number in range(len(self.filters) - 1, -1, -1):
            tail = 4 * self.filters[:number].count(_FLETCHER32)
            if self.filters[number] == _DEFLATE:
                data = self._inflated(data, spec.nbytes + tail)
            elif self.filters[number] == _LZF:
                data = self._expanded(data, spec.nbytes + tail)
            elif self.filters[number] == _SHUFFLE:
                data = _unshuffled(data, spec.dtype.itemsize)
            else:
                data = self._verified(data)
        if len(data) != spec.nbytes:
            raise self._damaged(f"it has {len(data):,} bytes and should have {spec.nbytes:,}")
        dtype = numpy_dtype(spec.dtype)
        if self.big_endian and dtype.itemsize > 1:
            word = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
            return np.frombuffer(data, f"u{word}").byteswap().view(dtype).reshape(spec.shape)
        return np.frombuffer(data, dtype).reshape(spec.shape)

    def checksum(self, stored: bytes, spec: TensorSpec) -> int:
        """Nothing: HDF5 keeps no CRC-32C, so no one asks for it."""
        return 0

    def _inflated(self, data: bytes, nbytes: int) -> bytes:
        inflater = zlib.decompressobj()
        try:
            content = inflater.decompress(data, nbytes + 1)
        except zlib.error as fault:
            raise self._damaged(str(fault)) from fault
        if not inflater.eof or len(content) > nbytes:
            raise self._damaged(f"it should inflate to {nbytes:,} bytes")
        return content

    def _expanded(self, data: bytes, nbytes: int) -> bytes:
        try:
            return decompressed(data, nbytes)
        except ValueError as fault:
            raise self._damaged(str(fault)) from None

    def _verified(self, data: bytes) -> bytes:
        if len(data) < 4 or _fletcher32(data[:-4]) != tuple(part % 0xFFFF for part in (_word(data[-4:-2]), _word(data[-2:]))):
            raise self._damaged("its Fletcher-32 checksum does not match")
        return data[:-4]

    def _damaged(self, fact: str) -> CorruptFile:
        return CorruptFile(f"{self.label} is damaged", notes=[fact], help="the source is damaged or still being written; copy it again")


def _unshuffled(data: bytes, itemsize: int) -> bytes:
    """Bytes that were sorted by their place in the element, back in order; what is no whole element stands at the end."""
    import numpy as np

    whole = len(data) // itemsize * itemsize
    return np.frombuffer(data[:whole], np.uint8).reshape(itemsize, -1).T.tobytes() + data[whole:]


def _word(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _fletcher32(data: bytes) -> tuple[int, int]:
    """Both sums modulo 65535 over big-endian words, the low one first."""
    import numpy as np

    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2").astype(np.uint64)
    places = np.arange(len(words), 0, -1, dtype=np.uint64) % np.uint64(0xFFFF)
    return int(words.sum()) % 0xFFFF, int((words * places % np.uint64(0xFFFF)).sum()) % 0xFFFF


def filters_of(header: Header, label: str) -> tuple[int, ...]:
    """The filters of a dataset. Raises UnsupportedFeature for those of plug-ins."""
    fields = header.find(FILTERS, "filter message")
    if fields is None:
        return ()
    version, count = fields.uint(1), fields.uint(1)
    fields.take(6 if version == 1 else 0)
    found = tuple(_filter(fields, version) for _ in range(count))
    for unknown in set(found) - _KNOWN:
        raise UnsupportedFeature(
            f"{label} is compressed by {_NAMES.get(unknown, f'filter {unknown}')}", help="rewrite it with h5repack -f GZIP=4, or with -f NONE"
        )
    if len(set(found)) != len(found):
        raise UnsupportedFeature(f"{label} went through a filter twice", help="rewrite it with h5repack -f NONE")
    return found


def _filter(fields: Fields, version: int) -> int:
    number = fields.uint(2)
    name_nbytes = fields.uint(2) if version == 1 or number >= 256 else 0
    fields.take(2)
    count = fields.uint(2)
    fields.take(-(-name_nbytes // 8) * 8 if version == 1 else name_nbytes)
    fields.take(4 * count + (4 * (count % 2) if version == 1 else 0))
    return number
