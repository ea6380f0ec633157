"""Apply: run the tasks, seal the files, commit. Knows no steps, formats or YAML; sealers reach it as plain functions.

Nothing of an output is visible before all tasks, all checks on values and all source fingerprints are found right.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from threading import Lock
from time import perf_counter
from typing import Any, NamedTuple

from surgery import files
from surgery.checksums import COMBINE, EXTEND
from surgery.commit import Staging, staging_name
from surgery.errors import ApplyError, CorruptFile, SurgeryError, listed
from surgery.expr import evaluate, stored_pieces
from surgery.tasks import (
    Companion,
    ComputeBlock,
    CopyRun,
    DecodeStream,
    OutputPlan,
    PhysicalPlan,
    Piece,
    Task,
    VerifyExtent,
    not_of_its_kind,
    standing_in_the_way,
)
from surgery.tensors import Extent, SourceFile, StreamCodec
from surgery.value_checks import check_values
from surgery.verify import checksum_fault, stored_checksum, verified_read

Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call, from any thread."""

_OLD_STATE_BYTES = 16 << 20
_VERIFY_STEP = 4 << 20


class OutputReport(NamedTuple):
    """What was written, and how its bytes came: shared blocks, copied, computed; how many tensors had their checksums verified."""

    path: str
    files: tuple[str, ...]
    tensors: int
    nbytes: int
    shared_bytes: int
    copied_bytes: int
    computed_bytes: int
    verified: int


class Report(NamedTuple):
    """A finished run. `peak_rss_bytes` is the largest resident size of the process so far."""

    outputs: tuple[OutputReport, ...]
    checks: int
    seconds: float
    peak_rss_bytes: int


class _Run:
    """One run over all outputs: its files, and what the tasks report back."""

    def __init__(self, plan: PhysicalPlan, sources: files.Sources, stagings: list[Staging], verify: bool, progress: Progress) -> None:
        self.plan = plan
        self.sources = sources
        self.stagings = stagings
        self.verify = verify
        self.progress = progress
        self.lock = Lock()
        # The kernel lets one writer at a time into a file, and lets the others burn a core while they wait.
        self.copying = {(number, file.name): Lock() for number, output in enumerate(plan.outputs) for file in output.layout.files}
        self.parts: list[dict[str, list[tuple[int, int, int]]]] = [{} for _ in plan.outputs]
        self.shared = [0] * len(plan.outputs)
        self.verified: list[set[str]] = [set() for _ in plan.outputs]
        self.updated: dict[str, bytes] = {}

    def do(self, task: Task) -> None:
        """Carry out one task."""
        if isinstance(task, CopyRun):
            self._copy(task)
        elif isinstance(task, ComputeBlock):
            self._compute(task)
        elif isinstance(task, DecodeStream):
            self._decode(task)
        else:
            self._verify_extent(task)

    def _copy(self, task: CopyRun) -> None:
        kind = self.plan.outputs[task.output].layout.checksum
        # A stored checksum is handed on unchecked only where the file system shares the blocks, so that nothing passes by.
        stored_kind = task.source.checksum_kind
        must_read = any(
            piece.codec or _has_to_pass(piece, stored_kind, kind) or (self.verify and piece.expected is not None) for piece in task.pieces
        )
        with self.sources.opened(task.source) as source, self.stagings[task.output].opened(task.file) as target:
            if not must_read and all(piece.expected is None for piece in task.pieces):
                with self.copying[task.output, task.file]:
                    moved = files.copy_range(source, task.source_start, task.source_start + task.nbytes, target, task.start)
                self._shared(task.output, moved.shared_bytes)
            else:
                stop = task.source_start + task.nbytes
                inherited = None if must_read else files.copy_if_shared(source, task.source_start, stop, target, task.start)
                if inherited is None:
                    self._copy_pieces(task, kind, source, target)
                else:
                    self._shared(task.output, inherited.shared_bytes)
                    self._inherit(task, kind)
        self.progress(task.nbytes)

    def _copy_pieces(self, task: CopyRun, kind: str, source: int, target: int) -> None:
        at = task.source_start
        shift = task.start - task.source_start
        for piece in task.pieces:
            stop = at + piece.nbytes
            if piece.codec is not None:
                self._copy_encoded(task, piece, at, target)
            elif piece.expected is not None or kind:
                stored_kind = task.source.checksum_kind if piece.expected is not None else ""
                kinds = sorted({stored_kind, kind} - {""})
                sums = dict(zip(kinds, files.copy_and_checksum(source, at, stop, target, at + shift, kinds), strict=True))
                if piece.expected is not None:
                    self._compare(task.output, piece.key, task.source, at, piece.nbytes, piece.expected, sums[stored_kind])
                if kind:
                    self._part(task.output, piece.key, piece.rel_start, piece.nbytes, sums[kind])
            else:
                files.copy_range(source, at, stop, target, at + shift)
            at = stop
        assert at == task.source_start + task.nbytes, "the pieces of a run are all of it"

    def _copy_encoded(self, task: CopyRun, piece: Piece, at: int, target: int) -> None:
        """A string tensor or the like: its checksum is not simply over its bytes, so it is read whole."""
        assert piece.codec is not None
        stored = bytes(self.sources.read(task.source, at, at + piece.nbytes))
        checksum = stored_checksum(piece.key, Extent(task.source, at, piece.nbytes, piece.spec, codec=piece.codec), stored)
        if piece.expected is not None:
            self._compare(task.output, piece.key, task.source, at, piece.nbytes, piece.expected, checksum)
        files.write_at(target, task.start + at - task.source_start, stored)
        self._part(task.output, piece.key, piece.rel_start, piece.nbytes, checksum)

    def _inherit(self, task: CopyRun, kind: str) -> None:
        if kind:
            for piece in task.pieces:
                assert piece.expected is not None
                self._part(task.output, piece.key, piece.rel_start, piece.nbytes, piece.expected)

    def _compute(self, task: ComputeBlock) -> None:
        import numpy as np

        read = verified_read(task.key, task.expr, self.sources.read) if task.verified else self.sources.read
        array = np.ascontiguousarray(evaluate(task.expr, task.region, read))
        data = array.reshape(-1).view(np.uint8).data
        with self.stagings[task.output].opened(task.file) as target:
            files.write_at(target, task.start, data)
        kind = self.plan.outputs[task.output].layout.checksum
        if kind:
            self._part(task.output, task.key, task.rel_start, task.nbytes, EXTEND[kind](data, 0))
        if task.verified:
            with self.lock:
                self.verified[task.output].add(task.key)
        self.progress(task.nbytes)

    def _decode(self, task: DecodeStream) -> None:
        assert isinstance(task.extent.codec, StreamCodec)
        extend = EXTEND.get(self.plan.outputs[task.output].layout.checksum)
        at, checksum = task.start, 0
        with self.stagings[task.output].opened(task.file) as target:
            for chunk in task.extent.codec.chunks(stored_pieces(task.extent, self.sources.read), task.extent.spec):
                files.write_at(target, at, chunk)
                checksum = extend(chunk, checksum) if extend else 0
                at += len(chunk)
                self.progress(len(chunk))
        if extend:
            self._part(task.output, task.key, 0, at - task.start, checksum)

    def _verify_extent(self, task: VerifyExtent) -> None:
        extent, value = task.extent, 0
        extend = EXTEND[extent.file.checksum_kind]
        for start in range(extent.start, extent.stop, _VERIFY_STEP):
            value = extend(self.sources.read(extent.file, start, min(start + _VERIFY_STEP, extent.stop)), value)
        self._compare(task.output, task.key, extent.file, extent.start, extent.nbytes, extent.checksum or 0, value)

    def _compare(self, output: int, key: str, file: SourceFile, start: int, nbytes: int, stored: int, computed: int) -> None:
        if stored != computed:
            raise checksum_fault(key, file, start, nbytes, stored, computed)
        with self.lock:
            self.verified[output].add(key)

    def _part(self, output: int, key: str, rel_start: int, nbytes: int, checksum: int) -> None:
        with self.lock:
            self.parts[output].setdefault(key, []).append((rel_start, nbytes, checksum))

    def _shared(self, output: int, nbytes: int) -> None:
        with self.lock:
            self.shared[output] += nbytes

    def checksums(self, output: int) -> dict[str, int]:
        """The checksum of each tensor of an output, joined from those of its parts; 0 for tensors without bytes."""
        layout = self.plan.outputs[output].layout
        join = COMBINE[layout.checksum]
        sums = dict.fromkeys((placement.key for file in layout.files for placement in file.placements), 0)
        for key, parts in self.parts[output].items():
            parts.sort()
            value = parts[0][2]
            for _, nbytes, checksum in parts[1:]:
                value = join(value, checksum, nbytes)
            sums[key] = value
        return sums


def _has_to_pass(piece: Piece, stored_kind: str, kind: str) -> bool:
    """Whether the bytes have to be read: the target wants a checksum that is not stored, or keeps none to notice damage by."""
    return kind != (stored_kind if piece.expected is not None else "")


def apply(plan: PhysicalPlan, *, jobs: int, verify: bool = False, progress: Progress = lambda nbytes: None) -> Report:
    """Write all outputs of a plan, each complete or not at all.

    Raises:
        SourceError: a source is damaged, or changed after the plan was made.
        ApplyError: the machine refuses, or a check on values fails. Outputs are then as they were.
    """
    began = perf_counter()
    with ExitStack() as stack:
        sources = stack.enter_context(files.Sources(plan.sources))
        stagings = [stack.enter_context(_staging(output)) for output in plan.outputs]
        for output in plan.outputs:
            _refuse_replacing(output)
        run = _Run(plan, sources, stagings, verify, progress)
        for output, staging in zip(plan.outputs, stagings, strict=True):
            for file in output.layout.files:
                staging.create(file.name, file.size or 0)
        tasks = sorted((task for output in plan.outputs for task in output.tasks), key=lambda task: isinstance(task, VerifyExtent))
        try:
            checks = [_bound(check_values, check, sources.read, plan.block_bytes) for check in plan.checks]
            _in_parallel([*(_bound(run.do, task) for task in tasks), *checks], jobs)
        except CorruptFile:
            sources.verify_unchanged()  # a file that was changed meanwhile is not called damaged
            raise
        # The recipe's own inputs are replaced last: killed before that, the same run can be done again.
        order = sorted(range(len(plan.outputs)), key=lambda number: _replaces_input(plan.outputs[number], sources))
        sealed = {number: _seal(run, number, plan.outputs[number]) for number in order}
        sources.verify_unchanged()
        for number, names in sealed.items():
            stale = plan.outputs[number].stale
            indexes = [name for name in stale if name.endswith((".index", ".index.json"))]
            try:
                stagings[number].commit(names, stale, indexes, partial(_refuse_replacing, plan.outputs[number]))
            except SurgeryError as fault:
                done = [plan.outputs[earlier].path for earlier in order[: order.index(number)]]
                fault.notes += (f"already written, and complete: {listed(done)}",) if done else ()
                raise
    reports = [
        OutputReport(
            output.path,
            tuple(sealed[number]),
            output.tensors,
            output.nbytes,
            run.shared[number],
            output.copied_bytes - run.shared[number],
            output.computed_bytes,
            len(run.verified[number]),
        )
        for number, output in enumerate(plan.outputs)
    ]
    return Report(tuple(reports), len(plan.checks), perf_counter() - began, files.peak_rss_bytes())


def _replaces_input(output: OutputPlan, sources: files.Sources) -> bool:
    return any(sources.reads(f"{output.layout.folder}/{name}") for name in (*(file.name for file in output.layout.files), *output.stale))


def _staging(output: OutputPlan) -> Staging:
    return Staging.open(output.layout.folder, staging_name(output.layout.folder, output.path))


def _refuse_replacing(output: OutputPlan) -> None:
    """Refuse what the plan refused, had it stood there then: files that came since, from another run or another program."""
    if output.may_replace:
        return
    layout, names = output.layout, output.names
    standing = [name for name in files.LocalDisk().names(layout.folder) if name in names or layout.stale(name)]
    if standing:
        raise standing_in_the_way(output.path, layout.folder, standing, output.step)


def _bound(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


def _in_parallel(work: Iterable[Callable[[], None]], jobs: int) -> None:
    """Run all pieces of work; the first fault stops what has not begun, and is raised."""
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    pool = ThreadPoolExecutor(max(jobs, 1))
    try:
        futures = [pool.submit(piece) for piece in work]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future in done:
                future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _seal(run: _Run, number: int, output: OutputPlan) -> list[str]:
    """Write headers, indexes, companions and state files; returns all names in the order of the commit, the index last."""
    layout, staging = output.layout, run.stagings[number]
    patches = [*layout.patches, *(layout.seal(run.checksums(number)) if layout.seal else ())]
    for patch in patches:
        staging.write(patch.file, patch.start, patch.data)
    extras: list[str] = []
    for companion in output.companions:
        staging.create(companion.name)
        staging.write(companion.name, 0, _companion(companion))
        extras.append(companion.name)
    for update in layout.updates:
        path = posixpath.normpath(f"{layout.folder}/{update.name}")
        old = run.updated[path] if path in run.updated else files.read_file(path, _OLD_STATE_BYTES)
        if old is not None and not output.may_replace and not update.knows(old):
            raise not_of_its_kind(output.path, layout.folder, update.name, output.step)
        run.updated[path] = update.rewrite(old)  # a second output in this folder goes on from here
        staging.create(update.name)
        staging.write(update.name, 0, run.updated[path])
        extras.append(update.name)
    names = [file.name for file in layout.files]
    return [*names[:-1], *extras, names[-1]]


def _companion(companion: Companion) -> bytes:
    data = files.read_file(companion.path, 1 << 40)
    if data is None:
        raise ApplyError(f"{companion.path}; No such file or directory", code="no-such-file", sentence=True)
    if not companion.edit:
        return data
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ApplyError(f"{companion.path} is no JSON, so it cannot be edited", code="bad-companion", notes=[str(error)]) from None
    if not isinstance(fields, dict):
        raise ApplyError(f"{companion.path} is no JSON object, so it cannot be edited", code="bad-companion")
    return (json.dumps(fields | dict(companion.edit), indent=2, ensure_ascii=False) + "\n").encode()
