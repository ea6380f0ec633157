"""Cutting the work of a layout into tasks: the longest runs of bytes to copy, blocks of what has to be computed. Pure."""

from __future__ import annotations

from operator import attrgetter

from surgery.blocking import parts
from surgery.expr import Expr, Stored, checksummed, read_in_part
from surgery.formats.base import FileLayout, Layout, Placement
from surgery.tasks import ComputeBlock, CopyRun, DecodeStream, Piece, Task, VerifyExtent
from surgery.tensors import Extent, SourceFile, StreamCodec

LONGEST_RUN = 256 << 20
"""Bytes of the longest single copy; longer ones are cut so that several threads and the progress bar have something to do."""


def cut_tasks(number: int, layout: Layout, budget: int) -> tuple[tuple[Task, ...], int, int]:
    """The tasks of one output, in source order, with the bytes copied and computed."""
    tasks: list[Task] = []
    in_parts: dict[Extent, VerifyExtent] = {}
    copied = computed = 0
    for file in layout.files:
        runs, rest, cut = _runs(number, file, layout)
        tasks += runs
        copied += sum(run.nbytes for run in runs)
        for placement in rest:
            computing, read_in_parts = _blocks(number, file, placement, budget)
            tasks += computing
            cut += read_in_parts
            computed += placement.expr.spec.nbytes
        for task in cut:
            in_parts.setdefault(task.extent, task)  # however many tensors take a part of it
    tasks += in_parts.values()
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
    for extent in ranges or ():
        if extent.codec is not None and extent.codec.name not in layout.codecs:
            return None
    return ranges


def _runs(number: int, file: FileLayout, layout: Layout) -> tuple[list[CopyRun], list[Placement], list[VerifyExtent]]:
    """Byte copies joined into the longest runs, the placements that have to be computed, and the stored tensors that are copied in parts.

    The pieces of a run are all of it. A tensor with a checksum is one piece, since that is over all of it.
    """
    runs = _Runs(number, file.name)
    rest: list[Placement] = []
    in_parts: list[VerifyExtent] = []
    for placement in sorted(file.placements, key=attrgetter("start")):
        ranges = _copyable(placement.expr, layout)
        if ranges is None:
            rest.append(placement)
            continue
        key, start, rel_start = placement.key, placement.start, 0
        for extent in ranges:
            source, source_start, nbytes, spec, checksum, codec = extent[:6]
            step = LONGEST_RUN if codec is None and checksum is None else max(nbytes, 1)
            for low in range(0, nbytes, step):
                length = min(step, nbytes - low)
                runs.add(source, source_start + low, start + rel_start + low, length)
                runs.pieces.append(Piece(key, rel_start + low, length, checksum, codec, spec))
            if extent.part_of is not None:
                in_parts.append(VerifyExtent(number, placement.key, extent.part_of))
            rel_start += extent.nbytes
    return runs.done(), rest, in_parts


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


def _blocks(number: int, file: FileLayout, placement: Placement, budget: int) -> tuple[list[Task], list[VerifyExtent]]:
    """The tasks that compute a tensor, and the stored tensors with checksums that these do not read from the first byte to the last."""
    expr = placement.expr
    if expr.spec.size == 0:
        return [], []
    ranges = expr.view()
    if ranges is not None and len(ranges) == 1 and isinstance(ranges[0].codec, StreamCodec):
        return [DecodeStream(number, file.name, placement.start, placement.key, ranges[0])], []
    blocks = [ComputeBlock(number, file.name, placement.start, placement.key, expr, *part) for part in parts(expr, budget)]
    in_order = all(block.contiguous for block in blocks)
    unverified = read_in_part(expr) + ([] if in_order else checksummed(expr))
    return [*blocks], [VerifyExtent(number, placement.key, extent) for extent in unverified]
