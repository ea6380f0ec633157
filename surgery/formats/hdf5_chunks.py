"""Datasets in chunks: which chunk lies where, and the dataset put together from them as one leaf that is read in regions.

Knows what to do with a list of chunks; `hdf5_indexes` makes the list. Source of format facts: HDF5 File Format Specification 3.0, section IV.A.2.i.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from math import prod
from typing import NamedTuple

from surgery.chunked import Chunked
from surgery.errors import UnsupportedFeature
from surgery.expr import Expr
from surgery.formats.hdf5_content import UNDEFINED, Content
from surgery.formats.hdf5_filters import INFLATION, Filters
from surgery.formats.hdf5_types import Type
from surgery.tensors import Extent, TensorSpec

_CHUNKS_LIMIT = 1 << 20


class Chunk(NamedTuple):
    """A chunk in the file by its place on the grid; `skipped` has a bit for each filter that was left out."""

    place: tuple[int, ...]
    address: int
    nbytes: int
    skipped: int


class Dataset(NamedTuple):
    """A dataset in chunks as its header tells it; `most` is how far each axis may grow, None without a limit."""

    content: Content
    spec: TensorSpec
    most: tuple[int | None, ...]
    kind: Type
    chunk: tuple[int, ...]
    filters: tuple[int, ...]
    label: str

    @property
    def grid(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return tuple(-(-size // step) for size, step in zip(self.spec.shape, self.chunk, strict=True))

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of a chunk without filters."""
        return prod(self.chunk) * self.kind.nbytes


class _Table:
    """Where each chunk lies, by its number in C order on the grid: 28 bytes a chunk, since there may be a million."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.grid = dataset.grid
        self.numbers, self.addresses = array("Q"), array("Q")
        self.sizes, self.skipped = array("Q"), array("I")

    def add(self, chunk: Chunk) -> None:
        """One more chunk. Raises CorruptFile where it cannot be, UnsupportedFeature where there are too many."""
        grid, content, label = self.grid, self.dataset.content, self.dataset.label
        if any(number >= count for number, count in zip(chunk.place, grid, strict=True)):
            raise content.fault(f"has a chunk outside of {label}", chunk.address, chunk.nbytes, f"its place is {list(chunk.place)} of {list(grid)}")
        nbytes = self.dataset.chunk_nbytes
        filtered = any(not chunk.skipped >> place & 1 for place in range(len(self.dataset.filters)))
        possible = chunk.nbytes * INFLATION >= nbytes if filtered else chunk.nbytes == nbytes
        if not possible or chunk.address + chunk.nbytes > content.nbytes:
            fact = f"{chunk.nbytes:,} bytes should become {TensorSpec(self.dataset.spec.dtype, self.dataset.chunk)}"
            raise content.fault(f"has a chunk of {label} that cannot be", chunk.address, chunk.nbytes, fact)
        if len(self.numbers) == _CHUNKS_LIMIT:
            raise UnsupportedFeature(f"{label} has more than {_CHUNKS_LIMIT:,} chunks", help="rewrite it with h5repack -l CONTI")
        self.numbers.append(_number(chunk.place, grid))
        self.addresses.append(chunk.address)
        self.sizes.append(chunk.nbytes)
        self.skipped.append(chunk.skipped)

    def finish(self) -> None:
        """Put the chunks into the order of the grid. Raises CorruptFile where two have one place."""
        numbers = self.numbers
        if any(numbers[at] >= numbers[at + 1] for at in range(len(numbers) - 1)):
            order = sorted(range(len(numbers)), key=numbers.__getitem__)
            self.numbers, self.addresses = (array("Q", [column[at] for at in order]) for column in (numbers, self.addresses))
            self.sizes = array("Q", [self.sizes[at] for at in order])
            self.skipped = array("I", [self.skipped[at] for at in order])
        if any(self.numbers[at] == self.numbers[at + 1] for at in range(len(numbers) - 1)):
            raise self.dataset.content.fault(f"has two chunks for one place, {self.dataset.label}", 0, self.dataset.content.nbytes)

    def find(self, place: tuple[int, ...]) -> Extent | None:
        """The chunk at a place; None where it was never written."""
        number = _number(place, self.grid)
        at = bisect_left(self.numbers, number)
        if at == len(self.numbers) or self.numbers[at] != number:
            return None
        dataset, nbytes = self.dataset, self.sizes[at]
        filters = tuple(each for number, each in enumerate(dataset.filters) if not self.skipped[at] >> number & 1)
        codec = Filters(filters, dataset.kind.big_endian, dataset.label) if filters else None
        big_endian = dataset.kind.big_endian and codec is None
        spec = TensorSpec(dataset.spec.dtype, dataset.chunk)
        return Extent(dataset.content.file, dataset.content.base + self.addresses[at], nbytes, spec, codec=codec, big_endian=big_endian)


def _number(place: tuple[int, ...], grid: tuple[int, ...]) -> int:
    number = 0
    for each, count in zip(place, grid, strict=True):
        number = number * count + each
    return number


def assembled(dataset: Dataset, chunks: Iterable[Chunk], fill: Callable[[], Expr]) -> Expr:
    """The dataset out of its chunks; where there is none, what `fill` makes (of the dataset's spec) shows through.

    Chunks that lie nowhere (at the undefined address) were never written.

    Raises:
        CorruptFile: two chunks for one place, chunks outside of the dataset or the file, or that cannot become what they should.
        UnsupportedFeature: more chunks than can be listed in a moment, and what `fill` raises.
    """
    table = _Table(dataset)
    for chunk in chunks:
        if chunk.address != UNDEFINED:
            table.add(chunk)
    table.finish()
    if not table.numbers:
        return fill()
    holes = prod(dataset.grid) > len(table.numbers)
    start = dataset.content.base + min(table.addresses)
    stop = dataset.content.base + max(address + nbytes for address, nbytes in zip(table.addresses, table.sizes, strict=True))
    extent = Extent(dataset.content.file, start, stop - start, dataset.spec, big_endian=dataset.kind.big_endian)
    return Chunked(extent, dataset.chunk, table.find, fill() if holes else None, encoded=bool(dataset.filters))
