"""Apply: run the tasks, seal the files, commit. Knows no steps, formats or YAML; sealers reach it as plain functions.

Nothing of an output is visible before all tasks, all checks on values and all source fingerprints are found right.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from time import perf_counter, time_ns
from typing import NamedTuple

from surgery import files
from surgery.commit import Staging, staging_name
from surgery.errors import ApplyError, CorruptFile, SurgeryError, listed
from surgery.expr import checksummed
from surgery.journal import EditOf
from surgery.parallel import Job, run_all, uninterrupted
from surgery.results import Results
from surgery.tasklog import TaskLog
from surgery.tasks import (
    Companion,
    ComputeBlock,
    OutputPlan,
    PhysicalPlan,
    Task,
    VerifyExtent,
    bytes_of,
    memory_of,
    not_of_its_kind,
    standing_in_the_way,
)
from surgery.tensors import Extent
from surgery.value_checks import check_bytes, check_values
from surgery.work import Outcome, Part, Progress, Work
from surgery.written import Staged, Tell, foreign_manifest, manifest_concerned, stage_manifests

_OLD_STATE_BYTES = 16 << 20


class OutputReport(NamedTuple):
    """What was written, and how its bytes came: shared blocks, copied, computed, or left where they lie; how many tensors had their checksums
    verified.
    """

    path: str
    files: tuple[str, ...]
    tensors: int
    nbytes: int
    shared_bytes: int
    copied_bytes: int
    computed_bytes: int
    kept_bytes: int
    verified: int


class Report(NamedTuple):
    """A finished run. `resumed_bytes` were there from an earlier one; `peak_rss_bytes` is the largest resident size of the process so far."""

    outputs: tuple[OutputReport, ...]
    checks: int
    resumed_bytes: int
    seconds: float
    peak_rss_bytes: int


def apply(
    plan: PhysicalPlan,
    tell: Tell,
    *,
    jobs: int,
    identity: str,
    resume: bool = False,
    verify: bool = False,
    digest: bool = False,
    progress: Progress = lambda nbytes: None,
) -> Report:
    """Write all outputs of a plan, each complete or not at all, and beside each the manifest that `tell` makes.

    `identity` tells this plan from others. With `resume`, tasks that an earlier run of it finished are looked at and not done again, and
    what is finished stays for the next run if this one fails.

    Raises:
        SourceError: a source is damaged, or changed after the plan was made.
        ApplyError: the machine refuses, or a check on values fails. Outputs are then as they were.
    """
    began = perf_counter()
    with ExitStack() as stack:
        sources = stack.enter_context(files.Sources(plan.sources))
        with uninterrupted():
            stagings = [stack.enter_context(_staging(output, plan, resume)) for output in plan.outputs]
        for output in plan.outputs:
            _refuse_replacing(output)
        work = Work(plan, sources, stagings, verify, progress)
        try:
            results, resumed = _carry_out(plan, work, jobs, identity)
        except CorruptFile:
            sources.verify_unchanged()  # a file that was changed meanwhile is not called damaged
            raise
        # The recipe's own inputs are replaced last: killed before that, the same run can be done again.
        order = sorted(range(len(plan.outputs)), key=lambda number: _replaces_input(plan.outputs[number], sources))
        updated: dict[str, bytes] = {}
        sealed = {number: _seal(plan.outputs[number], stagings[number], results.checksums(number), updated) for number in order}
        now = time_ns()
        stage_manifests([Staged(plan.outputs[number], stagings[number], now) for number in order], tell, digest=digest, jobs=jobs)
        sources.verify_unchanged()
        _commit(plan, stagings, sealed, now)
    reports = [
        OutputReport(
            output.path,
            (*output.kept, *(edit.name for edit in output.edits), *sealed[number]),
            output.tensors,
            output.nbytes,
            results.shared_bytes[number],
            output.copied_bytes - results.shared_bytes[number],
            output.computed_bytes,
            output.kept_bytes,
            len(results.verified[number]),
        )
        for number, output in enumerate(plan.outputs)
    ]
    return Report(tuple(reports), len(plan.checks), resumed, perf_counter() - began, files.peak_rss_bytes())


def _carry_out(plan: PhysicalPlan, work: Work, jobs: int, identity: str) -> tuple[Results, int]:
    """Do all tasks and checks on values, then what only shows when they are done; also returns the bytes that were there already."""
    results = Results(plan)
    todo: list[tuple[Task, Job]] = []
    resumed = 0
    for output, staging in zip(plan.outputs, work.stagings, strict=True):
        log = TaskLog(staging, identity)
        finished = _take_over(output, staging, log, work, jobs, plan.memory)
        for number, task in enumerate(output.tasks):
            if number in finished:
                results.add(task, finished[number])
                resumed += bytes_of(task)
                work.progress(bytes_of(task))
            else:
                todo.append((task, Job(partial(_do, work, results, log, number, task), memory_of(task))))
    todo.sort(key=lambda pair: isinstance(pair[0], VerifyExtent))
    checks = [Job(partial(check_values, check, work.sources.read, plan.block_bytes), check_bytes(check, plan.block_bytes)) for check in plan.checks]
    run_all([*(job for _, job in todo), *checks], threads=jobs, memory=plan.memory)
    late = [Job(partial(_verify, work, results, extent, keys)) for extent, keys in results.unverified().items()]
    if work.verify:
        for number, output in enumerate(plan.outputs):
            late += [Job(partial(_verify, work, results, extent, [(number, key)])) for key, extent in _not_moved(output)]
    late += [Job(partial(_checksum, work, results, task)) for task in _tiled(plan)]
    run_all(late, threads=jobs, memory=plan.memory)
    return results, resumed


def _take_over(output: OutputPlan, staging: Staging, log: TaskLog, work: Work, jobs: int, memory: int) -> Mapping[int, Outcome]:
    """The tasks that an earlier run finished, if all of them are found right; otherwise the output is begun anew."""
    sizes = {file.name: file.size for file in output.staged if file.size is not None}  # the others are written when all is done
    numbers = range(len(output.tasks))
    finished = {number: outcome for number, outcome in log.finished().items() if number in numbers} if staging.has(sizes) else {}
    right: list[bool] = []
    run_all(
        [Job(partial(_look, work, output.tasks[number], outcome, right)) for number, outcome in finished.items()],
        threads=jobs,
        memory=memory,
    )
    going_on = bool(finished) and all(right)
    staging.keep_only(sizes if going_on else {})
    for file in output.staged:
        if not (going_on and file.name in sizes):
            staging.create(file.name, file.size or 0)
    if not going_on:
        log.begin()
        return {}
    for number, task in enumerate(output.tasks):
        if number not in finished:
            work.clear(task)
    log.go_on()
    return finished


def _look(work: Work, task: Task, outcome: Outcome, right: list[bool]) -> None:
    right.append(work.is_done(task, outcome))


def _do(work: Work, results: Results, log: TaskLog, number: int, task: Task) -> None:
    outcome = work.do(task)
    results.add(task, outcome)
    log.add(number, outcome)


def _verify(work: Work, results: Results, extent: Extent, keys: list[tuple[int, str]]) -> None:
    """A stored tensor that was not read from the first byte to the last in one go."""
    work.verify_stored(keys[0][1], extent)
    for output, key in keys:
        results.verified[output].add(key)


def _not_moved(output: OutputPlan) -> list[tuple[str, Extent]]:
    """The stored tensors with checksums that stay where they lie."""
    placements = (placement for file in output.layout.files if file.name in output.kept for placement in file.placements)
    return [(placement.key, extent) for placement in placements for extent in checksummed(placement.expr)]


def _tiled(plan: PhysicalPlan) -> list[ComputeBlock]:
    """One block of each tensor that is computed in tiles for an output that wants checksums, which tiles cannot give."""
    found = {}
    for output in plan.outputs:
        for task in output.tasks if output.layout.checksum else ():
            if isinstance(task, ComputeBlock) and not task.contiguous:
                found[task.output, task.key] = task
    return list(found.values())


def _checksum(work: Work, results: Results, task: ComputeBlock) -> None:
    nbytes = task.expr.spec.nbytes
    checksum = work.checksum_of_written(task.output, task.file, task.start, nbytes)
    results.add(task, Outcome((Part(task.key, 0, nbytes, checksum),)))


def _commit(plan: PhysicalPlan, stagings: list[Staging], sealed: Mapping[int, list[str]], now: int) -> None:
    """Commit the outputs in this order; `now` is to be the time of change of files that are edited."""
    done: list[str] = []
    for number, names in sealed.items():
        output = plan.outputs[number]
        indexes = [name for name in output.stale if name.endswith((".index", ".index.json"))]
        try:
            stagings[number].commit(
                names,
                output.stale,
                indexes,
                partial(_refuse_replacing, output),
                manifest_concerned(output),
                [EditOf(edit.name, edit.file.fingerprint.inode, edit.file.nbytes, now) for edit in output.edits],
            )
        except SurgeryError as fault:
            fault.notes += (f"already written, and complete: {listed(done)}",) if done else ()
            raise
        done.append(output.path)


def _replaces_input(output: OutputPlan, sources: files.Sources) -> bool:
    return any(sources.reads(f"{output.layout.folder}/{name}") for name in (*(file.name for file in output.layout.files), *output.stale))


def _staging(output: OutputPlan, plan: PhysicalPlan, resume: bool) -> Staging:
    folder = output.layout.folder
    beside = [staging_name(folder, other.path) for other in plan.outputs if other.layout.folder == folder]
    return Staging.open(folder, staging_name(folder, output.path), resume=resume, beside=beside)


def _refuse_replacing(output: OutputPlan) -> None:
    """Refuse what the plan refused, had it stood there then: files that came since, from another run or another program."""
    if output.may_replace:
        return
    layout, names = output.layout, output.names
    standing = [name for name in files.LocalDisk().names(layout.folder) if name in names or layout.stale(name)] + foreign_manifest(output)
    if standing:
        raise standing_in_the_way(output.path, layout.folder, standing, output.step)


def _seal(output: OutputPlan, staging: Staging, checksums: Mapping[str, int], updated: dict[str, bytes]) -> list[str]:
    """Write headers, indexes, companions and state files; returns all names in the order of the commit, the index last.

    `updated` has the state files that earlier outputs wrote, by path: this one goes on from there.
    """
    layout = output.layout
    for edit in output.edits:
        staging.create(edit.name)
    patches = [*layout.patches, *(layout.seal(checksums) if layout.seal else ())]
    for patch in patches:
        staging.write(patch.file, patch.start, patch.data)
    extras: list[str] = []
    for companion in output.companions:
        staging.create(companion.name)
        staging.write(companion.name, 0, _companion(companion))
        extras.append(companion.name)
    for update in layout.updates:
        path = posixpath.normpath(f"{layout.folder}/{update.name}")
        old = updated[path] if path in updated else files.read_file(path, _OLD_STATE_BYTES)
        if old is not None and not output.may_replace and not update.knows(old):
            raise not_of_its_kind(output.path, layout.folder, update.name, output.step)
        updated[path] = update.rewrite(old)
        staging.create(update.name)
        staging.write(update.name, 0, updated[path])
        extras.append(update.name)
    names = [file.name for file in output.staged]
    return [*names[:-1], *extras, *names[-1:]]


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
