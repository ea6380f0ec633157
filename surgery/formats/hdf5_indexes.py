"""The indexes that tell where the chunks of an HDF5 dataset lie: B-trees of both versions, none at all, and two kinds of arrays.

Source of format facts: HDF5 File Format Specification 3.0, sections III.A (B-trees), IV.A.2.i (data layout), VII (indexes of chunks).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

from surgery.formats.hdf5_chunks import Chunk, Dataset
from surgery.formats.hdf5_content import UNDEFINED, Fields
from surgery.formats.hdf5_groups import tree_node
from surgery.formats.hdf5_heaps import records

_DEPTH_LIMIT = 32
_ALL_SKIPPED = 0xFFFFFFFF
_SINGLE, _IMPLICIT, _FIXED_ARRAY, _EXTENSIBLE_ARRAY, _TREE = 1, 2, 3, 4, 5
_EDGES_UNFILTERED, _SINGLE_FILTERED = 1, 2

Entry = tuple[int, int, int]
"""Address, size and skipped filters of a chunk."""


def in_old_tree(dataset: Dataset, address: int, depth: int = 0) -> Iterator[Chunk]:
    """The chunks that a B-tree of version 1 lists. Raises CorruptFile."""
    content, axes = dataset.content, len(dataset.chunk)
    if address == UNDEFINED:
        return
    if depth > _DEPTH_LIMIT:
        raise content.fault("has a B-tree that is too deep", address, 24)
    key = struct.Struct(f"<2I{axes}Q8x")
    for raw, child, level in tree_node(content, address, 1, key.size):
        if level:
            yield from in_old_tree(dataset, child, depth + 1)
            continue
        nbytes, skipped, *origin = key.unpack(raw)
        if any(low % step for low, step in zip(origin, dataset.chunk, strict=True)):
            raise content.fault(f"has a chunk of {dataset.label} beside the grid", child, nbytes, f"it begins at {origin}")
        yield Chunk(tuple(low // step for low, step in zip(origin, dataset.chunk, strict=True)), child, nbytes, skipped)


def in_late_index(dataset: Dataset, layout: Fields, flags: int, version: int) -> Iterator[Chunk]:
    """The chunks by the index that the rest of a layout message (version 4 or 5) describes. Raises CorruptFile."""
    kind = layout.uint(1)
    if kind == _SINGLE:
        chunks = _single(dataset, layout, flags)
    elif kind == _IMPLICIT:
        chunks = _implicit(dataset, layout.uint(8))
    elif kind == _FIXED_ARRAY:
        layout.take(1)
        chunks = _numbered(dataset, _fixed_array(dataset, layout.uint(8)), tuple(range(len(dataset.chunk))))
    elif kind == _EXTENSIBLE_ARRAY:
        layout.take(5)
        chunks = _numbered(dataset, _extensible_array(dataset, layout.uint(8)), _growing_first(dataset, layout))
    elif kind == _TREE:
        layout.take(6)
        chunks = _in_tree(dataset, layout.uint(8), 8 if version > 4 else _size_width(dataset))
    else:
        raise layout.fault(f"its index of chunks is of kind {kind}")
    if not flags & _EDGES_UNFILTERED:
        return chunks
    return (chunk._replace(skipped=_ALL_SKIPPED) if _is_cut(dataset, chunk.place) else chunk for chunk in chunks)


def _is_cut(dataset: Dataset, place: tuple[int, ...]) -> bool:
    return any((number + 1) * step > size for number, step, size in zip(place, dataset.chunk, dataset.spec.shape, strict=True))


def _size_width(dataset: Dataset) -> int:
    """Bytes of the field for the size of a filtered chunk in version 4: one more than its size without filters needs."""
    return min(8, 1 + (dataset.chunk_nbytes.bit_length() + 7) // 8)


def _single(dataset: Dataset, layout: Fields, flags: int) -> Iterator[Chunk]:
    nbytes, skipped = (layout.uint(8), layout.uint(4)) if flags & _SINGLE_FILTERED else (dataset.chunk_nbytes, 0)
    yield Chunk((0,) * len(dataset.chunk), layout.uint(8), nbytes, skipped)


def _implicit(dataset: Dataset, address: int) -> Iterator[Chunk]:
    """Chunks side by side, in the order of the largest grid that there may be."""
    if address == UNDEFINED:
        return
    grid = _largest_grid(dataset)
    for place in product(*map(range, dataset.grid)):
        number = 0
        for each, size in zip(place, grid, strict=True):
            number = number * size + each
        yield Chunk(place, address + number * dataset.chunk_nbytes, dataset.chunk_nbytes, 0)


def _largest_grid(dataset: Dataset) -> tuple[int, ...]:
    """How many chunks there may be along each axis; 1 where there is no limit, since none counts beyond that axis."""
    return tuple(-(-most // step) if most is not None else 1 for most, step in zip(dataset.most, dataset.chunk, strict=True))


def _growing_first(dataset: Dataset, layout: Fields) -> tuple[int, ...]:
    """The axes with the one that has no limit in front. Raises CorruptFile where it is not one."""
    growing = [axis for axis, most in enumerate(dataset.most) if most is None]
    if len(growing) != 1:
        raise layout.fault(f"an extensible array needs one axis without a limit, not {len(growing)}")
    return (*growing, *(axis for axis in range(len(dataset.most)) if axis not in growing))


def _numbered(dataset: Dataset, entries: Iterable[tuple[int, Entry]], order: tuple[int, ...]) -> Iterator[Chunk]:
    """Chunks that an array lists by number: in C order on the largest grid, its axes in this `order`."""
    grid = _largest_grid(dataset)
    for number, entry in entries:
        if entry[0] == UNDEFINED:
            continue
        place = [0] * len(grid)
        for axis in reversed(order[1:]):
            number, place[axis] = divmod(number, grid[axis])
        place[order[0]] = number
        yield Chunk(tuple(place), *entry)


def _in_tree(dataset: Dataset, address: int, width: int) -> Iterator[Chunk]:
    if address == UNDEFINED:
        return
    for record in records(dataset.content, address):
        fields = Fields(dataset.content, record, address, "B-tree")
        where, nbytes, skipped = _entry(dataset, fields, width)
        yield Chunk(tuple(fields.uint(8) for _ in dataset.chunk), where, nbytes, skipped)


def _entry(dataset: Dataset, fields: Fields, width: int) -> Entry:
    """One element of an index; size and skipped filters are told only where there are filters."""
    address = fields.uint(8)
    return (address, fields.uint(width), fields.uint(4)) if dataset.filters else (address, dataset.chunk_nbytes, 0)


class _Array(NamedTuple):
    """What the blocks of an array share: bytes of an entry, entries of a page, and bytes of a block's offset in it."""

    dataset: Dataset
    entry_nbytes: int
    page_entries: int
    offset_nbytes: int

    @property
    def width(self) -> int:
        """Bytes of the field for a chunk's size."""
        return self.entry_nbytes - 12

    def entries(self, fields: Fields, number: int, first: int) -> Iterator[tuple[int, Entry]]:
        """The next entries, counted from `first`."""
        for each in range(first, first + number):
            yield each, _entry(self.dataset, fields, self.width)

    def pages(self, address: int, number: int, first: int, written: bytes, bit: int) -> Iterator[tuple[int, Entry]]:
        """Pages one after the other, of `number` entries together; those whose bit in `written`, from `bit` on, is not set are passed over."""
        for page, low in enumerate(range(0, number, self.page_entries)):
            size = min(self.page_entries, number - low)
            if _bit(written, bit + page):
                fields = self.dataset.content.fields(address, size * self.entry_nbytes + 4, "page of chunks")
                yield from self.entries(fields, size, first + low)
            address += size * self.entry_nbytes + 4

    def block(self, address: int, number: int, first: int, written: bytes, bit: int) -> Iterator[tuple[int, Entry]]:
        """A data block of an extensible array, in pages where it is long."""
        if address == UNDEFINED:
            return
        prefix = 14 + self.offset_nbytes
        if number > self.page_entries:
            yield from self.pages(address + prefix + 4, number, first, written, bit)
            return
        fields = self.dataset.content.fields(address, prefix + number * self.entry_nbytes, "data block of chunks", b"EADB")
        fields.take(prefix - 4)
        yield from self.entries(fields, number, first)


def _bit(bits: bytes, number: int) -> bool:
    return bool(bits[number // 8] & 0x80 >> number % 8)


def _checked(dataset: Dataset, head: Fields, entry_nbytes: int, page_bits: int) -> None:
    low, high = (13, 20) if dataset.filters else (8, 8)
    if not low <= entry_nbytes <= high or not 1 <= page_bits <= 40:
        raise head.fault(f"entries of {entry_nbytes} bytes, 2**{page_bits} to a page")


def _fixed_array(dataset: Dataset, address: int) -> Iterator[tuple[int, Entry]]:
    if address == UNDEFINED:
        return
    head = dataset.content.fields(address, 28, "fixed array", b"FAHD")
    head.take(2)
    entry_nbytes, page_bits, number, block = head.uint(1), head.uint(1), head.uint(8), head.uint(8)
    _checked(dataset, head, entry_nbytes, page_bits)
    array = _Array(dataset, entry_nbytes, 1 << page_bits, 0)
    if block == UNDEFINED:
        return
    if number <= array.page_entries:
        fields = dataset.content.fields(block, 14 + number * entry_nbytes, "data block of chunks", b"FADB")
        fields.take(10)
        yield from array.entries(fields, number, 0)
        return
    pages = -(-number // array.page_entries)
    map_nbytes = -(-pages // 8)
    fields = dataset.content.fields(block, 14 + map_nbytes, "data block of chunks", b"FADB")
    fields.take(10)
    yield from array.pages(block + 14 + map_nbytes + 4, number, 0, fields.take(map_nbytes), 0)


def _extensible_array(dataset: Dataset, address: int) -> Iterator[tuple[int, Entry]]:
    """Entries in the index block, then in data blocks: those of the first super blocks are listed in it as well."""
    if address == UNDEFINED:
        return
    head = dataset.content.fields(address, 72, "extensible array", b"EAHD")
    head.take(2)
    entry_nbytes, bits, own, least, pointers, page_bits = (head.uint(1) for _ in range(6))
    head.take(48)
    index = head.uint(8)
    _checked(dataset, head, entry_nbytes, page_bits)
    if bits > 64 or not _is_power(least) or not _is_power(pointers):
        raise head.fault("its sizes cannot be")
    if index == UNDEFINED:
        return
    array = _Array(dataset, entry_nbytes, 1 << page_bits, -(-bits // 8))
    supers = 1 + bits - (least.bit_length() - 1)
    listed = min(2 * (pointers.bit_length() - 1), supers)
    blocks = 2 * (pointers - 1)
    fields = dataset.content.fields(index, 14 + own * entry_nbytes + 8 * (blocks + supers - listed), "index block of chunks", b"EAIB")
    fields.take(10)
    yield from array.entries(fields, own, 0)
    direct = [fields.uint(8) for _ in range(blocks)]
    first = own
    for level in range(supers):
        number, size = 1 << level // 2, least << (level + 1) // 2
        if level < listed:
            for _ in range(number):
                yield from array.block(direct.pop(0), size, first, b"\xff" * (size // array.page_entries // 8 + 1), 0)
                first += size
        else:
            yield from _super_block(array, fields.uint(8), number, size, first)
            first += number * size


def _is_power(number: int) -> bool:
    return number > 0 and number & number - 1 == 0


def _super_block(array: _Array, address: int, number: int, size: int, first: int) -> Iterator[tuple[int, Entry]]:
    """A list of `number` data blocks with `size` entries each, and which of their pages were written."""
    if address == UNDEFINED:
        return
    pages = size // array.page_entries if size > array.page_entries else 0
    map_nbytes = number * -(-pages // 8)
    fields = array.dataset.content.fields(address, 14 + array.offset_nbytes + map_nbytes + 8 * number, "super block of chunks", b"EASB")
    fields.take(10 + array.offset_nbytes)
    written = fields.take(map_nbytes)
    for each in range(number):
        yield from array.block(fields.uint(8), size, first + each * size, written, each * pages)
