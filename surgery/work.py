"""Carrying out one task: bytes from the sources into a staged file. Serves apply; any number of threads may share a `Work`.

A task changes nothing but its own range of a staged file. What it learnt on the way is its `Outcome`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from surgery import files
from surgery.blocking import STRIP, blocks
from surgery.checksums import EXTEND
from surgery.commit import Staging
from surgery.expr import evaluate, stored_pieces
from surgery.regions import Region, runs
from surgery.tasks import ComputeBlock, CopyRun, DecodeStream, PhysicalPlan, Piece, Task, VerifyExtent, bytes_of, has_to_pass
from surgery.tensors import Extent, StreamCodec
from surgery.verify import CheckedReader, ReadPart, compare, stored_checksum

if TYPE_CHECKING:
    from surgery.arrays import Array

Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call, from any thread."""


class Part(NamedTuple):
    """The checksum (of the kind that the output wants) of `nbytes` of a tensor from `rel_start` on."""

    key: str
    rel_start: int
    nbytes: int
    checksum: int


class Outcome(NamedTuple):
    """What a task learnt.

    `parts` are for the seal, `verified` are keys whose stored checksums were found right, `read` are parts of stored tensors
    that were checksummed in passing and can be judged when all of them are there. `written` is the CRC-32C of all that was computed.
    """

    parts: tuple[Part, ...] = ()
    verified: tuple[str, ...] = ()
    shared_bytes: int = 0
    read: tuple[ReadPart, ...] = ()
    written: int | None = None


class Work:
    """What all tasks of a run share: sources, staged files, and how the user wants it."""

    def __init__(self, plan: PhysicalPlan, sources: files.Sources, stagings: list[Staging], verify: bool, progress: Progress) -> None:
        self.plan = plan
        self.sources = sources
        self.stagings = stagings
        self.verify = verify
        self.progress = progress
        # The kernel lets one writer at a time into a file, and lets the others burn a core while they wait.
        self.copying = {(number, file.name): Lock() for number, output in enumerate(plan.outputs) for file in output.layout.files}

    def do(self, task: Task) -> Outcome:
        """Carry out one task. Raises SourceError, ApplyError."""
        if isinstance(task, CopyRun):
            return self._copy(task)
        if isinstance(task, ComputeBlock):
            return self._compute(task)
        if isinstance(task, DecodeStream):
            return self._decode(task)
        return self._verify_extent(task)

    def is_done(self, task: Task, outcome: Outcome) -> bool:
        """Whether the staged file still has what the task once wrote there; looks at every byte. Raises SourceError."""
        if isinstance(task, VerifyExtent):
            return True
        with self.stagings[task.output].opened(task.file) as target:
            if isinstance(task, CopyRun):
                with self.sources.opened(task.source) as source:
                    return files.same_bytes(source, task.source_start, task.source_start + task.nbytes, target, task.start)
            if isinstance(task, DecodeStream):
                return files.checksum_range(target, task.start, task.start + task.extent.spec.nbytes, "crc32c") == outcome.written
            return self._checksum_of_block(task, target) == outcome.written

    def clear(self, task: Task) -> None:
        """Take back what a run that died may have written for this task, so that it finds the holes of a new file."""
        if isinstance(task, VerifyExtent):
            return
        ranges = _ranges(task, task.region) if isinstance(task, ComputeBlock) else [(task.start, bytes_of(task))]
        with self.stagings[task.output].opened(task.file) as target:
            for start, nbytes in ranges:
                files.clear_range(target, start, start + nbytes)

    def _checksum_of_block(self, task: ComputeBlock, target: int) -> int:
        """The CRC-32C of what the file has in the places of a block, in the order in which it is computed."""
        value = 0
        for region in blocks(task.expr, task.region, task.block_bytes):
            for start, nbytes in _ranges(task, region):
                value = files.checksum_range(target, start, start + nbytes, "crc32c", value)
        return value

    def _kind(self, task: Task) -> str:
        return self.plan.outputs[task.output].layout.checksum

    def _copy(self, task: CopyRun) -> Outcome:
        """Blocks are shared where that can be; what is to be checksummed is then only read. Stored checksums are handed on where nothing is read."""
        kind = self._kind(task)
        must_read = has_to_pass(task, kind) or (self.verify and any(piece.expected is not None for piece in task.pieces))
        stop = task.source_start + task.nbytes
        with self.sources.opened(task.source) as source, self.stagings[task.output].opened(task.file) as target:
            if not must_read and all(piece.expected is None for piece in task.pieces):
                with self.copying[task.output, task.file]:
                    moved = files.copy_range(source, task.source_start, stop, target, task.start)
                outcome = Outcome(shared_bytes=moved.shared_bytes)
            else:
                shared = files.copy_if_shared(source, task.source_start, stop, target, task.start)
                if shared is None or must_read:
                    outcome = self._copy_pieces(task, kind, source, target if shared is None else None)
                else:
                    outcome = Outcome(tuple(Part(piece.key, piece.rel_start, piece.nbytes, piece.expected or 0) for piece in task.pieces if kind))
                outcome = outcome._replace(shared_bytes=shared.shared_bytes if shared else 0)
        self.progress(task.nbytes)
        return outcome

    def _copy_pieces(self, task: CopyRun, kind: str, source: int, target: int | None) -> Outcome:
        """Copy with all checksums that are wanted or stored; without a target only these."""
        parts: list[Part] = []
        verified: list[str] = []
        at = task.source_start
        for piece in task.pieces:
            stop, target_start = at + piece.nbytes, at + task.start - task.source_start
            stored_kind = task.source.checksum_kind if piece.expected is not None else ""
            kinds = sorted({stored_kind, kind} - {""})
            if piece.codec is not None:
                sums = dict.fromkeys((kind, stored_kind), self._copy_encoded(task, piece, at, target))
            elif target is None:
                sums = {each: files.checksum_range(source, at, stop, each) for each in kinds}
            elif kinds:
                sums = dict(zip(kinds, files.copy_and_checksum(source, at, stop, target, target_start, kinds), strict=True))
            else:
                files.copy_range(source, at, stop, target, target_start)
                sums = {}
            if piece.expected is not None:
                compare(piece.key, task.source, at, piece.nbytes, piece.expected, sums[stored_kind])
                verified.append(piece.key)
            if kind:
                parts.append(Part(piece.key, piece.rel_start, piece.nbytes, sums[kind]))
            at = stop
        assert at == task.source_start + task.nbytes, "the pieces of a run are all of it"
        return Outcome(tuple(parts), tuple(verified))

    def _copy_encoded(self, task: CopyRun, piece: Piece, at: int, target: int | None) -> int:
        """A string tensor or the like: its checksum is not simply over its bytes, so it is read whole."""
        assert piece.codec is not None
        stored = bytes(self.sources.read(task.source, at, at + piece.nbytes))
        checksum = stored_checksum(piece.key, Extent(task.source, at, piece.nbytes, piece.spec, codec=piece.codec), stored)
        if target is not None:
            files.write_at(target, task.start + at - task.source_start, stored)
        return checksum

    def _compute(self, task: ComputeBlock) -> Outcome:
        """Blocks one after the other, each written where its runs belong."""
        kind = self._kind(task) if task.contiguous else ""  # of tiles nobody can tell the checksum of the tensor
        reader = CheckedReader(task.key, task.expr, self.sources.read)
        checksum = written = 0
        with self.stagings[task.output].opened(task.file) as target:
            for region in blocks(task.expr, task.region, task.block_bytes):
                places = _Places(_ranges(task, region))
                for data in _strips(evaluate(task.expr, region, reader.read if task.contiguous else self.sources.read)):
                    for start, piece in places.of(data):
                        files.write_sparsely(target, start, piece)
                    written = EXTEND["crc32c"](data, written)
                    checksum = EXTEND[kind](data, checksum) if kind == "crc32" else written
                    self.progress(len(data))
        parts = (Part(task.key, task.rel_start, task.nbytes, checksum),) if kind else ()
        return Outcome(parts, read=tuple(reader.parts), written=written)

    def _decode(self, task: DecodeStream) -> Outcome:
        assert isinstance(task.extent.codec, StreamCodec)
        kind = self._kind(task)
        at, checksum, written = task.start, 0, 0
        with self.stagings[task.output].opened(task.file) as target:
            for chunk in task.extent.codec.chunks(stored_pieces(task.extent, self.sources.read), task.extent.spec):
                files.write_at(target, at, chunk)
                written = EXTEND["crc32c"](chunk, written)
                checksum = EXTEND[kind](chunk, checksum) if kind == "crc32" else written
                at += len(chunk)
                self.progress(len(chunk))
        return Outcome((Part(task.key, 0, at - task.start, checksum),) if kind else (), written=written)

    def _verify_extent(self, task: VerifyExtent) -> Outcome:
        self.verify_stored(task.key, task.extent)
        return Outcome(verified=(task.key,))

    def verify_stored(self, key: str, extent: Extent) -> None:
        """Read a stored tensor from the first byte to the last. Raises CorruptFile where its checksum does not fit."""
        if extent.codec is None:
            with self.sources.opened(extent.file) as source:
                computed = files.checksum_range(source, extent.start, extent.stop, extent.file.checksum_kind)
        else:
            computed = stored_checksum(key, extent, self.sources.read(extent.file, extent.start, extent.stop))
        compare(key, extent.file, extent.start, extent.nbytes, extent.checksum or 0, computed)

    def checksum_of_written(self, output: int, file: str, start: int, nbytes: int) -> int:
        """The checksum that an output wants of bytes that are in its staged file already."""
        with self.stagings[output].opened(file) as target:
            return files.checksum_range(target, start, start + nbytes, self.plan.outputs[output].layout.checksum)


def _ranges(task: ComputeBlock, region: Region) -> Iterator[tuple[int, int]]:
    """Where the bytes of a region belong in the file, in the order in which they are computed: absolute offset and length of each run."""
    item = task.expr.spec.dtype.itemsize
    length, starts = runs(task.expr.spec.shape, region)
    return ((task.start + start * item, length * item) for start in starts)


class _Places:
    """Hands out the ranges of a region to bytes that come piece by piece."""

    def __init__(self, ranges: Iterator[tuple[int, int]]) -> None:
        self._ranges = ranges
        self._at = self._left = 0

    def of(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """The next bytes with their offsets, cut where a range ends."""
        while data:
            if not self._left:
                self._at, self._left = next(self._ranges)
            piece, data = data[: self._left], data[self._left :]
            yield self._at, piece
            self._at += len(piece)
            self._left -= len(piece)


def _strips(array: Array) -> Iterator[memoryview]:
    """The bytes of an array in C order, some at a time, so that one that is transposed needs little memory on its way."""
    import numpy as np

    from surgery.arrays import contiguous

    if array.flags.c_contiguous or array.nbytes <= STRIP or array.ndim == 0:
        yield contiguous(array).reshape(-1).view(np.uint8).data
        return
    rows = STRIP * len(array) // array.nbytes
    if rows:
        for low in range(0, len(array), rows):
            yield from _strips(array[low : low + rows])
    else:
        for row in array:
            yield from _strips(row)
