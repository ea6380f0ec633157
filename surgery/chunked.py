"""The leaf for a tensor that lies in chunks of one shape on a grid, each by itself a range of a file. Opens nothing.

Unlike one encoded tensor, it is had in regions: a region reads and decodes the chunks that it touches, and `blocking` cuts along them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from surgery.dtypes import numpy_dtype
from surgery.nodes import Expr
from surgery.regions import Region, extent_of
from surgery.stored import Read, Stored
from surgery.tensors import Extent

if TYPE_CHECKING:
    from surgery.nodes import Array

_VIEWED = 1 << 16
"""The most chunks that are looked at to find that they are byte ranges."""


class Chunked(Stored):
    """A tensor in chunks. `extent` spans all of them; `find` tells where one lies by its place on the grid, or that it was never written.

    Chunks at the edge are stored whole. `fill`, a node without children, has the values of what was never written,
    and may be None where all is.
    """

    __slots__ = ("chunk", "encoded", "fill", "find")

    def __init__(
        self, extent: Extent, chunk: tuple[int, ...], find: Callable[[tuple[int, ...]], Extent | None], fill: Expr | None, *, encoded: bool
    ) -> None:
        super().__init__(extent)
        self.chunk = chunk
        self.find = find
        self.fill = fill
        self.encoded = encoded

    @property
    def decoding_bytes(self) -> int:
        """Memory for one chunk while it is decoded: stored, decoded, in the order of its elements, in their byte order."""
        return 4 * prod(self.chunk) * self.spec.dtype.itemsize if self.encoded else 0

    def view(self) -> tuple[Extent, ...] | None:
        """The chunks themselves where they are plain bytes that follow each other in the tensor."""
        shape = self.spec.shape
        axis = next((axis for axis, size in enumerate(shape) if size != 1), 0)
        chunks = -(-shape[axis] // self.chunk[axis]) if shape else 1
        if self.encoded or self.extent.big_endian or self.chunk[axis + 1 :] != shape[axis + 1 :] or set(self.chunk[:axis]) - {1} or chunks > _VIEWED:
            return None
        ranges = []
        for number in range(chunks):
            found = self.find((*(0 for _ in shape[:axis]), number, *(0 for _ in shape[axis + 1 :])))
            if found is None:
                return None
            rows = min(self.chunk[axis], shape[axis] - number * self.chunk[axis])
            spec = found.spec._replace(shape=(*shape[:axis], rows, *shape[axis + 1 :]))
            ranges.append(found._replace(nbytes=spec.nbytes, spec=spec))
        return tuple(ranges)

    def load(self, region: Region, read: Read) -> Array:
        """The values of `region`, chunk by chunk. Raises what `Stored.load` does."""
        import numpy as np

        out = np.empty(extent_of(region), numpy_dtype(self.spec.dtype))
        if self.fill is not None and out.size:
            out[...] = self.fill.compute(region, ())
        for place, meet in self._touched(region):
            found = self.find(place)
            if found is None:
                continue
            target = tuple(slice(start - base, stop - base) for (start, stop), (base, _) in zip(meet, region, strict=True))
            corner = (number * step for number, step in zip(place, self.chunk, strict=True))
            out[target] = Stored(found).load(tuple((start - low, stop - low) for (start, stop), low in zip(meet, corner, strict=True)), read)
        return out

    def _touched(self, region: Region) -> Iterator[tuple[tuple[int, ...], Region]]:
        """The places of the chunks that a region touches, each with the part of the region that lies in it."""
        if 0 in extent_of(region):
            return
        for place in product(*(range(start // step, -(-stop // step)) for (start, stop), step in zip(region, self.chunk, strict=True))):
            low = tuple(number * step for number, step in zip(place, self.chunk, strict=True))
            yield (
                place,
                tuple((max(start, first), min(stop, first + step)) for (start, stop), first, step in zip(region, low, self.chunk, strict=True)),
            )
