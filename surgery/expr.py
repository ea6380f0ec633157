"""Where one tensor comes from: a frozen tree of nodes, and what is done with whole trees.

Planning builds these trees, lowering reads `view`, applying calls `evaluate`. The nodes are in `nodes` and `moves`, the leaf for tensors in
files in `stored`; all are imported from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from surgery.moves import Reshape, Slice, Transpose
from surgery.nodes import Assemble, Cast, Expr, Fill
from surgery.regions import Region, extent_of, whole
from surgery.stored import Read, Stored, stored_pieces
from surgery.tensors import Extent

if TYPE_CHECKING:
    from surgery.nodes import Array as Array

__all__ = [
    "Assemble",
    "Cast",
    "Expr",
    "Fill",
    "Read",
    "Reshape",
    "Slice",
    "Stored",
    "Transpose",
    "checksummed",
    "evaluate",
    "is_encoded",
    "read_in_part",
    "stored_pieces",
]


def evaluate(expr: Expr, region: Region, read: Read) -> Array:
    """The values of a region of `expr`, reading only what it needs.

    Raises whatever `read`, the codecs and the cast policies raise.
    """
    if isinstance(expr, Stored):
        return expr.load(region, read)
    inputs = (evaluate(child, need, read) for child, need in expr.inputs(region))
    return expr.compute(region, inputs if expr.streams else tuple(inputs))  # type: ignore[arg-type]


def is_encoded(expr: Expr) -> bool:
    """Whether a tensor has to be decoded as a whole, however small a region of it is asked for."""
    return any(isinstance(leaf, Stored) and leaf.extent.codec is not None for leaf in expr.leaves())


def checksummed(expr: Expr) -> list[Extent]:
    """The stored ranges with checksums that a tensor is computed from, each once; without those of which it reads a part only."""
    in_part = set(read_in_part(expr))
    found = (extent for extent, _ in _reads(expr, whole(expr.spec.shape)) if extent.checksum is not None)
    return [extent for extent in dict.fromkeys(found) if extent not in in_part]


def read_in_part(expr: Expr) -> list[Extent]:
    """The stored ranges with checksums of which a tensor reads a part only, as slices do, each once."""
    reads = _reads(expr, whole(expr.spec.shape))
    found = (extent for extent, region in reads if extent.checksum is not None and region != whole(extent.spec.shape))
    return list(dict.fromkeys(found))


def _reads(expr: Expr, region: Region) -> Iterator[tuple[Extent, Region]]:
    """The stored ranges that a region depends on, each with the region of it that is read."""
    if isinstance(expr, Stored) and 0 not in extent_of(region):
        yield expr.extent, region
    for child, need in expr.inputs(region):
        yield from _reads(child, need)
