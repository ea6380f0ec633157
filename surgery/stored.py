"""The leaf for a tensor as it lies in a file, and how regions of it are read. Opens nothing: bytes come through a `Read` function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from surgery.dtypes import numpy_dtype
from surgery.nodes import Expr
from surgery.regions import Region, extent_of, span_of, spans, strides_of
from surgery.tensors import Codec, Extent, SourceFile, StreamCodec

if TYPE_CHECKING:
    from surgery.nodes import Array

Read = Callable[[SourceFile, int, int], "bytes | memoryview"]
"""Bytes `start` to `stop` of a file; a writable buffer is the caller's own."""

_SMALL_GAP = 16 << 10
"""Rows that lie closer together than this are read as one span: a system call costs more than the bytes."""
_READ_AT_ONCE = 1 << 20
"""The most bytes of a span that has holes."""
_STREAM_STEP = 256 << 10


class Stored(Expr):
    """A tensor as it lies in a file."""

    __slots__ = ("extent",)

    def __init__(self, extent: Extent) -> None:
        self.extent = extent
        self.spec = extent.spec
        self.children = ()

    def needs(self, region: Region) -> tuple[Region, ...]:
        return ()

    def view(self) -> tuple[Extent, ...] | None:
        return None if self.extent.big_endian and self.extent.spec.dtype.bits > 8 else (self.extent,)

    def load(self, region: Region, read: Read) -> Array:
        """The values of `region`, read from the file; fetches only the rows that it touches, but encoded tensors whole.

        Raises:
            CorruptFile: the codec finds the bytes wrong.
            TypeError: the dtype has no array form.
        """
        import numpy as np

        dtype = numpy_dtype(self.spec.dtype)
        if 0 in extent_of(region):
            return np.empty(extent_of(region), dtype)
        if self.extent.codec is not None:
            wanted: tuple[Any, ...] = (*(slice(*pair) for pair in region), ...)  # the ellipsis keeps a scalar an array
            decoded: Array = _decoded(self.extent, self.extent.codec, read)[wanted]
            return decoded
        flat = _gathered(self.extent, region, read)
        if self.extent.big_endian and dtype.itemsize > 1:
            flat = _swapped(flat, dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize)
        return flat.view(dtype).reshape(extent_of(region))


def _gathered(extent: Extent, region: Region, read: Read) -> Array:
    """The stored bytes of a region that is not empty, one after the other."""
    import numpy as np

    shape, item = extent.spec.shape, extent.spec.dtype.itemsize
    start, stop = span_of(shape, region)
    if stop - start == prod(extent_of(region)):
        return np.frombuffer(read(extent.file, extent.start + start * item, extent.start + stop * item), np.uint8)
    fastest = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}  # numpy's own types; the values are never looked at
    element = np.dtype(fastest.get(item, f"V{item}"))
    strides = tuple(stride * item for stride in strides_of(shape))
    out, at = np.empty(prod(extent_of(region)), element), 0
    for start, stop, part in spans(shape, region, _READ_AT_ONCE // item, max(1, _SMALL_GAP // item)):
        span = read(extent.file, extent.start + start * item, extent.start + stop * item)
        size = prod(part)
        if size == stop - start:
            out[at : at + size] = np.frombuffer(span, element)
        else:
            out[at : at + size].reshape(part)[...] = np.ndarray(part, element, span, strides=strides)
        at += size
        del span  # before the next one is read
    return out.view(np.uint8)


def _swapped(flat: Array, word: int) -> Array:
    """Bytes with every word of them turned round, in place where the buffer is ours."""
    import numpy as np

    return flat.view(f"u{word}").byteswap(inplace=flat.flags.writeable).view(np.uint8)


def _decoded(extent: Extent, codec: Codec, read: Read) -> Array:
    import numpy as np

    if not isinstance(codec, StreamCodec):
        return codec.decode(bytes(read(extent.file, extent.start, extent.stop)), extent.spec)
    flat, at = np.empty(extent.spec.nbytes, np.uint8), 0
    for chunk in codec.chunks(stored_pieces(extent, read), extent.spec):
        flat[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)
    return flat.view(numpy_dtype(extent.spec.dtype)).reshape(extent.spec.shape)


def stored_pieces(extent: Extent, read: Read) -> Iterator[bytes | memoryview]:
    """The bytes of an extent from the first to the last, for a `StreamCodec`."""
    for start in range(extent.start, extent.stop, _STREAM_STEP):
        yield read(extent.file, start, min(start + _STREAM_STEP, extent.stop))
