"""Cutting the work of a layout into tasks: the longest runs of bytes to copy, blocks of what has to be computed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from surgery.expr import Expr, Stored, blocks
from surgery.formats.base import FileLayout, Layout, Placement
from surgery.regions import extent_of
from surgery.tasks import ComputeBlock, CopyRun, DecodeStream, Piece, Task, VerifyExtent
from surgery.tensors import Extent, SourceFile, StreamCodec

LONGEST_RUN = 256 << 20
"""Bytes of the longest single copy; longer ones are cut so that several threads and the progress bar have something to do."""
LARGEST_BLOCK = 64 << 20


def cut_tasks(number: int, layout: Layout, budget: int) -> tuple[tuple[Task, ...], int, int]:
    """The tasks of one output, in source order, with the bytes copied and computed."""
    tasks: list[Task] = []
    copied = computed = 0
    for file in layout.files:
        runs, rest = _runs(number, file, layout)
        tasks += runs
        copied += sum(run.nbytes for run in runs)
        for placement in rest:
            tasks += _blocks(number, file, placement, budget)
            computed += placement.expr.spec.nbytes
    tasks.sort(key=_source_order)
    return tuple(tasks), copied, computed


def _source_order(task: Task) -> tuple[str, int]:
    if isinstance(task, CopyRun):
        return task.source.path, task.source_start
    if isinstance(task, VerifyExtent | DecodeStream):
        return task.extent.file.path, task.extent.start
    leaf = next((leaf for leaf in task.expr.leaves() if isinstance(leaf, Stored)), None)
    return (leaf.extent.file.path, leaf.extent.start) if leaf else ("", 0)


def _copyable(expr: Expr, layout: Layout) -> tuple[Extent, ...] | None:
    """The stored ranges whose bytes can stand in the output as they are."""
    ranges = expr.view()
    if ranges is None or any(extent.codec is not None and extent.codec.name not in layout.codecs for extent in ranges):
        return None
    return ranges


def _runs(number: int, file: FileLayout, layout: Layout) -> tuple[list[CopyRun], list[Placement]]:
    """Byte copies joined into the longest runs, and the placements that have to be computed.

    The pieces of a run are all of it. A tensor with a checksum is one piece, since that is over all of it.
    """
    runs = _Runs(number, file.name)
    rest: list[Placement] = []
    for placement in sorted(file.placements, key=attrgetter("start")):
        ranges = _copyable(placement.expr, layout)
        if ranges is None:
            rest.append(placement)
            continue
        rel_start = 0
        for extent in ranges:
            plain = extent.codec is None and extent.checksum is None
            step = LONGEST_RUN if plain else max(extent.nbytes, 1)
            for low in range(0, extent.nbytes, step):
                length = min(step, extent.nbytes - low)
                runs.add(extent.file, extent.start + low, placement.start + rel_start + low, length)
                runs.pieces.append(Piece(placement.key, rel_start + low, length, extent.checksum, extent.codec, extent.spec))
            rel_start += extent.nbytes
    return runs.done(), rest


class _Runs:
    """Collects byte ranges in target order; a range that continues the last one in both files becomes part of it."""

    def __init__(self, output: int, name: str) -> None:
        self.output = output
        self.name = name
        self.pieces: list[Piece] = []
        self._runs: list[CopyRun] = []
        self._source: SourceFile | None = None
        self._source_start = self._start = self._nbytes = 0

    def add(self, source: SourceFile, source_start: int, start: int, nbytes: int) -> None:
        """One more range; the caller adds its piece afterwards."""
        joins = (
            source is self._source
            and source_start == self._source_start + self._nbytes
            and start == self._start + self._nbytes
            and self._nbytes + nbytes <= LONGEST_RUN
        )
        if not joins:
            self._close()
            self._source, self._source_start, self._start = source, source_start, start
        self._nbytes += nbytes

    def done(self) -> list[CopyRun]:
        """All runs."""
        self._close()
        return self._runs

    def _close(self) -> None:
        if self._source is not None and self._nbytes:
            run = CopyRun(self.output, self.name, self._start, self._source, self._source_start, self._nbytes, tuple(self.pieces))
            self._runs.append(run)
        self.pieces.clear()
        self._source, self._nbytes = None, 0


def _blocks(number: int, file: FileLayout, placement: Placement, budget: int) -> Iterator[Task]:
    expr = placement.expr
    if expr.spec.size == 0:
        return
    ranges = expr.view()
    if ranges is not None and len(ranges) == 1 and isinstance(ranges[0].codec, StreamCodec):
        yield DecodeStream(number, file.name, placement.start, placement.key, ranges[0])
        return
    item = expr.spec.dtype.itemsize
    regions = list(blocks(expr, budget))
    stored = [leaf.extent for leaf in expr.leaves() if isinstance(leaf, Stored) and leaf.extent.checksum is not None]
    rel_start = 0
    for region in regions:
        nbytes = item
        for size in extent_of(region):
            nbytes *= size
        yield ComputeBlock(
            number, file.name, placement.start + rel_start, placement.key, rel_start, nbytes, expr, region, bool(stored) and len(regions) == 1
        )
        rel_start += nbytes
    if len(regions) > 1:
        yield from (VerifyExtent(number, placement.key, extent) for extent in stored)
