"""Where HDF5 keeps names and values that vary in length: local, global and fractal heaps, and the B-trees that list what is in the last.

Source of format facts: HDF5 File Format Specification 3.0, sections III.A (B-trees) and III.D to III.G (heaps).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from surgery.errors import UnsupportedFeature
from surgery.formats.hdf5_content import UNDEFINED, Content, Fields

_DEPTH_LIMIT = 32
_MANAGED, _HUGE, _TINY = 0, 1, 2


def local_heap(content: Content, address: int) -> Fields:
    """The names of a group of the old kind, as one text with NULs."""
    heap = content.fields(address, 32, "local heap", b"HEAP")
    heap.take(4)
    nbytes, _, start = heap.uint(8), heap.uint(8), heap.uint(8)
    return content.fields(start, nbytes, "local heap")


def global_heap_object(content: Content, address: int, number: int) -> bytes:
    """One object of a global heap collection, such as a text of varying length."""
    if address not in content.heaps:
        content.heaps[address] = dict(_collection(content, address))
    if number not in content.heaps[address]:
        raise content.fault("has a broken global heap", address, 16, f"it has no object {number}")
    return content.heaps[address][number]


def _collection(content: Content, address: int) -> Iterator[tuple[int, bytes]]:
    head = content.fields(address, 16, "global heap", b"GCOL")
    head.take(4)
    collection = content.fields(address, head.uint(8), "global heap", b"GCOL")
    collection.take(12)
    while collection.left >= 16:
        number, _, nbytes = collection.uint(2), collection.uint(6), collection.uint(8)
        if number == 0:
            return
        yield number, collection.take(nbytes)
        collection.take(min(-nbytes % 8, collection.left))


class FractalHeap(NamedTuple):
    """A heap of blocks that double in size row by row; its objects are found by IDs that a B-tree lists."""

    content: Content
    offset_nbytes: int
    length_nbytes: int
    width: int
    first_nbytes: int
    direct_rows: int
    root: int
    root_rows: int
    huge: int

    def object(self, identity: bytes) -> bytes:
        """The object behind an ID. Raises CorruptFile."""
        kind = identity[0] >> 4 & 3
        if kind == _TINY:
            return identity[1 : 2 + (identity[0] & 15)]
        if kind == _HUGE:
            return self._huge(identity[1:])
        if kind != _MANAGED:
            raise self.content.fault("has a heap object of an unknown kind", self.root, 0, f"its ID is {identity.hex()}")
        fields = Fields(self.content, identity, self.root, "heap ID", 1)
        offset, nbytes = fields.uint(self.offset_nbytes), fields.uint(self.length_nbytes)
        return self.content.at(self._address(offset), nbytes, "heap object")

    def _huge(self, number: bytes) -> bytes:
        """An object that lies outside of the blocks; a B-tree lists address, size and number of each."""
        for record in records(self.content, self.huge) if self.huge != UNDEFINED else ():
            if record[16:24] == number.ljust(8, b"\0"):
                return self.content.at(int.from_bytes(record[:8], "little"), int.from_bytes(record[8:16], "little"), "heap object")
        raise self.content.fault("has a heap object outside of its heap", 0, self.content.nbytes)

    def _address(self, offset: int) -> int:
        block, rows = self.root, self.root_rows
        for _ in range(_DEPTH_LIMIT):
            if block == UNDEFINED:
                break
            if not rows:
                return block + offset
            block, rows, offset = self._child(block, rows, offset)
        raise self.content.fault("has a heap object outside of its heap", 0, self.content.nbytes)

    def _child(self, block: int, rows: int, offset: int) -> tuple[int, int, int]:
        """The block of an indirect block that `offset` lies in: address, rows (0: it holds objects), and the offset within it."""
        entries = block + 13 + self.offset_nbytes
        for row in range(rows):
            size = self.first_nbytes << max(row - 1, 0)
            if offset < size * self.width:
                column = row * self.width + offset // size
                direct = row < self.direct_rows
                address = self.content.fields(entries + 8 * column, 8, "heap block").uint(8)
                below = 0 if direct else (size // self.first_nbytes // self.width).bit_length()
                return address, below, offset % size
            offset -= size * self.width
        return UNDEFINED, rows, offset


def fractal_heap(content: Content, address: int) -> FractalHeap:
    """The header of a fractal heap."""
    head = content.fields(address, 142, "fractal heap", b"FRHP")
    version, id_nbytes, filters, _, largest = head.uint(1), head.uint(2), head.uint(2), head.uint(1), head.uint(4)
    head.take(8)
    huge = head.uint(8)
    head.take(80)
    width, first, most, bits, _, root, rows = head.uint(2), head.uint(8), head.uint(8), head.uint(2), head.uint(2), head.uint(8), head.uint(2)
    if version or filters or not id_nbytes:
        raise UnsupportedFeature(f"{content.file.path} has a fractal heap of version {version} with filters", help="rewrite it with h5repack")
    if not width or not first or first > most or most > 1 << 32 or bits > 64 or rows > 64:
        raise head.fault("its sizes cannot be")
    length_nbytes = min((most.bit_length() + 7) // 8, (largest.bit_length() + 7) // 8)
    direct_rows = (most // first).bit_length() + 1
    return FractalHeap(content, (bits + 7) // 8, length_nbytes, width, first, direct_rows, root, rows, huge)


def records(content: Content, address: int) -> Iterator[bytes]:
    """All records of a B-tree of version 2, in its order. Raises CorruptFile."""
    head = content.fields(address, 38, "B-tree", b"BTHD")
    head.take(2)
    node_nbytes, record_nbytes, depth, _, root, count = head.uint(4), head.uint(2), head.uint(2), head.uint(2), head.uint(8), head.uint(2)
    if not record_nbytes or node_nbytes < 10 + record_nbytes or depth > _DEPTH_LIMIT:
        raise head.fault("its sizes cannot be")
    if root != UNDEFINED:
        yield from _Tree(content, node_nbytes, record_nbytes, _levels(node_nbytes, record_nbytes, depth)).node(root, count, depth)


def _levels(node_nbytes: int, record_nbytes: int, depth: int) -> list[tuple[int, int]]:
    """For the nodes of each depth, how wide their children's two counts are stored: own records, and all below."""
    most = (node_nbytes - 10) // record_nbytes
    own, below, total = (most.bit_length() + 7) // 8, 0, most
    widths = [(0, 0)]
    for _ in range(depth):
        widths.append((own, below))
        pointer = 8 + own + below
        fit = max((node_nbytes - 10 - pointer) // (record_nbytes + pointer), 1)
        total = (fit + 1) * total + fit
        below = (total.bit_length() + 7) // 8
    return widths


class _Tree(NamedTuple):
    """The sizes that all nodes of a B-tree share."""

    content: Content
    node_nbytes: int
    record_nbytes: int
    levels: list[tuple[int, int]]

    def node(self, address: int, count: int, depth: int) -> Iterator[bytes]:
        """The records of a node and of all below it."""
        node = self.content.fields(address, self.node_nbytes, "B-tree", b"BTIN" if depth else b"BTLF")
        node.take(2)
        yield from [node.take(self.record_nbytes) for _ in range(count)]
        if depth:
            own, below = self.levels[depth]
            for _ in range(count + 1):
                child, child_count, _ = node.uint(8), node.uint(own), node.uint(below)
                yield from self.node(child, child_count, depth - 1)
