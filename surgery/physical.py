"""Lower: from tables to byte ranges. Pure: layouts place every tensor, `view` gives the source ranges, blocks cut the rest."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from surgery import formats
from surgery.errors import PlanError, SurgeryError, gather
from surgery.expr import Expr, Stored, blocks, extent_of, working_bytes
from surgery.formats.base import Bundle, FileLayout, Indexed, Layout, Origin, Placement
from surgery.logical import LogicalPlan
from surgery.steps.base import Output
from surgery.tasks import Companion, ComputeBlock, CopyRun, OutputPlan, PhysicalPlan, Piece, Task, VerifyExtent
from surgery.tensors import Extent
from surgery.units import size_text

LONGEST_RUN = 256 << 20
"""Bytes of the longest single copy; longer ones are cut so that several threads and the progress bar have something to do."""
LARGEST_BLOCK = 64 << 20


def lower(
    logical: LogicalPlan,
    folders: Mapping[str, frozenset[str]],
    free: Mapping[str, int | None],
    *,
    jobs: int,
    memory: int,
    force: bool = False,
) -> PhysicalPlan:
    """Lay every output out and cut the work into tasks.

    `folders` are the names found in the output folders, `free` their free bytes. `memory` is the budget of all arrays
    together, shared by `jobs` threads.

    Raises:
        PlanError: an output exists, a format cannot hold a tensor, or the disk has too little room; all together.
    """
    budget = max(1 << 20, min(LARGEST_BLOCK, memory // max(jobs, 1)))
    outputs: list[OutputPlan] = []
    faults: list[SurgeryError] = []
    notes: list[str] = []
    for number, output in enumerate(logical.outputs):
        item = next(item for item in logical.recipe.steps if item.number == output.step)
        try:
            planned, more = _output(number, output, logical, folders, budget, force)
            outputs.append(planned)
            notes += more
        except SurgeryError as error:
            faults.append(item.locate(error))
    faults += [] if faults else _room(logical, outputs, free)
    if faults:
        raise gather(faults)
    blocks_of = [task for output in outputs for task in output.tasks if isinstance(task, ComputeBlock)]
    largest = max((working_bytes(task.expr, task.region) for task in blocks_of), default=0)
    return PhysicalPlan(tuple(outputs), logical.checks, jobs * largest, tuple(notes))


def _output(
    number: int, output: Output, logical: LogicalPlan, folders: Mapping[str, frozenset[str]], budget: int, force: bool
) -> tuple[OutputPlan, list[str]]:
    sources = _sources(output, logical)
    metadata, notes = _metadata(output, sources)
    module = formats.by_name(output.format)
    bundle = Bundle(
        path=output.path,
        tensors={key: entry.expr for key, entry in output.table.items()},
        metadata=metadata,
        options=output.options,
        origins={key: Origin(entry.source, entry.root.key) for key, entry in output.table.items() if entry.source},
        sources=logical.sources,
    )
    layout = module.layout(bundle)
    companions = tuple(_companions(output, sources, layout))
    names = [file.name for file in layout.files] + [companion.name for companion in companions]
    present = folders.get(layout.folder, frozenset())
    stale = tuple(sorted(name for name in present if layout.stale(name) and name not in names))
    standing = [name for name in names if name in present] + list(stale)
    if standing and not (output.overwrite or force):
        raise PlanError(
            f"the output `{output.path}` exists",
            code="output-exists",
            at=("path",),
            notes=["found " + ", ".join(posixpath.join(layout.folder, name) for name in standing[:5]) + (" …" if len(standing) > 5 else "")],
            help="set `overwrite: replace` in this step, or run with --force",
        )
    tasks, copied, computed = _tasks(number, layout, budget)
    planned = OutputPlan(output.path, output.step, layout, tasks, companions, stale, bool(standing), len(output.table), copied, computed)
    return planned, [*notes, *(f"{output.path}: {note}" for note in layout.notes)]


def _sources(output: Output, logical: LogicalPlan) -> list[Indexed]:
    """The checkpoints that tensors of this output come from, in the order of loading."""
    used = {entry.source for entry in output.table.values()}
    return [indexed for location, indexed in logical.sources.items() if location in used]


def _metadata(output: Output, sources: list[Indexed]) -> tuple[dict[str, str], list[str]]:
    """Source metadata, kept unless replaced; where sources disagree the first wins, with a note."""
    merged: dict[str, str] = {}
    notes: list[str] = []
    for source in sources:
        for key, value in source.metadata.items():
            if merged.setdefault(key, value) != value:
                notes.append(f"{output.path}: metadata `{key}` of {source.location} differs from an earlier source's, which was kept")
    for key, new in output.metadata.items():
        if new is None:
            merged.pop(key, None)
        else:
            merged[key] = new
    return merged, notes


def _companions(output: Output, sources: list[Indexed], layout: Layout) -> Iterator[Companion]:
    """The files that `carry` names, each once; a TensorFlow `.meta` follows the prefix."""
    found: dict[str, Companion] = {}
    for pattern in output.carry:
        hits = 0
        for source in sources:
            for path in source.companions:
                name = posixpath.basename(path)
                if not (fnmatchcase(name, pattern) or (pattern in ("meta", ".meta") and name.endswith(".meta"))):
                    continue
                hits += 1
                prefix = posixpath.basename(source.location)
                target = posixpath.basename(output.path) + name[len(prefix) :] if output.format == "tf" and name.startswith(prefix + ".") else name
                found.setdefault(target, Companion(path, target, output.edit.get(name, {})))
        if not hits:
            have = [posixpath.basename(path) for source in sources for path in source.companions]
            raise PlanError(
                f"no companion file fits `{pattern}`",
                code="nothing-matched",
                at=("carry", output.carry.index(pattern)),
                notes=[f"companions are {', '.join(have)}" if have else "the sources have no companion files"],
                help="correct the name, or leave it out",
            )
    names = {file.name for file in layout.files}
    clash = [name for name in found if name in names]
    if clash:
        raise PlanError(f"the companion `{clash[0]}` has the name of an output file", code="path-conflict", at=("carry",))
    unused = [name for name in output.edit if not any(posixpath.basename(companion.path) == name for companion in found.values())]
    if unused:
        raise PlanError(f"`edit` names `{unused[0]}`, which is not carried", code="bad-option", at=("edit", unused[0]), help="add it to `carry`")
    yield from found.values()


def _room(logical: LogicalPlan, outputs: list[OutputPlan], free: Mapping[str, int | None]) -> list[SurgeryError]:
    """Disk space: staged files live beside the old ones until the commit."""
    needed: dict[str, int] = {}
    for output in outputs:
        needed[output.layout.folder] = needed.get(output.layout.folder, 0) + sum(file.size or 0 for file in output.layout.files)
    faults: list[SurgeryError] = []
    for output in outputs:
        available = free.get(output.layout.folder)
        wanted = needed.get(output.layout.folder, 0)
        if available is not None and wanted > available:
            item = next(item for item in logical.recipe.steps if item.number == output.step)
            faults.append(
                item.locate(
                    PlanError(
                        f"`{output.layout.folder}` has room for {size_text(available)}, {size_text(wanted)} are needed",
                        code="disk-full",
                        at=("path",),
                        help="free some space, or save elsewhere; the old output is kept until the new one is complete",
                    )
                )
            )
            break
    return faults


def _tasks(number: int, layout: Layout, budget: int) -> tuple[tuple[Task, ...], int, int]:
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
    if isinstance(task, VerifyExtent):
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
    """Byte copies joined into the longest runs, and the placements that have to be computed."""
    runs: list[CopyRun] = []
    rest: list[Placement] = []
    pieces: list[Piece] = []
    run: list[Any] = []  # source file, source start, target start, length so far

    def close() -> None:
        if run:
            runs.append(CopyRun(number, file.name, run[2], run[0], run[1], run[3], tuple(pieces)))
        run.clear()
        pieces.clear()

    for placement in sorted(file.placements, key=lambda placement: placement.start):
        ranges = _copyable(placement.expr, layout)
        if ranges is None:
            rest.append(placement)
            continue
        rel_start = 0
        for extent in ranges:
            at = placement.start + rel_start
            for low in range(0, extent.nbytes, LONGEST_RUN) if extent.codec is None and extent.checksum is None else (0,):
                length = min(LONGEST_RUN, extent.nbytes - low) if extent.codec is None and extent.checksum is None else extent.nbytes
                joined = run and run[0] == extent.file and run[1] + run[3] == extent.start + low and run[2] + run[3] == at + low
                if not joined or run[3] + length > LONGEST_RUN:
                    close()
                    run += [extent.file, extent.start + low, at + low, 0]
                run[3] += length
                pieces.append(Piece(placement.key, rel_start + low, length, extent.checksum, extent.codec, extent.spec))
            rel_start += extent.nbytes
    close()
    return [run_ for run_ in runs if run_.nbytes], rest


def _blocks(number: int, file: FileLayout, placement: Placement, budget: int) -> Iterator[Task]:
    expr = placement.expr
    if expr.spec.size == 0:
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
