"""Lower: from tables to byte ranges. Pure: layouts place every tensor, `view` gives the source ranges, blocks cut the rest."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from operator import attrgetter

from surgery import formats
from surgery.errors import PlanError, SurgeryError, gather
from surgery.expr import Expr, Stored, blocks, extent_of, working_bytes
from surgery.formats.base import Bundle, FileLayout, Indexed, Layout, Origin, Placement
from surgery.logical import LogicalPlan
from surgery.steps.base import Output
from surgery.table import Table
from surgery.tasks import Companion, ComputeBlock, CopyRun, OutputPlan, PhysicalPlan, Piece, Task, VerifyExtent
from surgery.tensors import Extent, SourceFile
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
    faults += [] if faults else [*_overlaps(logical, outputs), *_room(logical, outputs, free)]
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
        origins=_Origins(output.table),
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
            notes=[
                "found "
                + ", ".join(posixpath.normpath(posixpath.join(layout.folder, name)) for name in standing[:5])
                + (" …" if len(standing) > 5 else "")
            ],
            help="set `overwrite: replace` in this step, or run with --force",
        )
    tasks, copied, computed = _tasks(number, layout, budget)
    planned = OutputPlan(output.path, output.step, layout, tasks, companions, stale, bool(standing), len(output.table), copied, computed)
    carried = {companion.path for companion in companions}
    graphs = [path for source in sources for path in source.companions if path.endswith(".meta") and path not in carried]
    notes += [f"{output.path}: {path} is left out: it describes the graph under the old keys" for path in graphs]
    return planned, [*notes, *(f"{output.path}: {note}" for note in layout.notes)]


class _Origins(Mapping[str, Origin]):
    """Where the keys of a table came from, worked out for those that somebody asks for."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __getitem__(self, key: str) -> Origin:
        entry = self._table[key]
        if not entry.source:
            raise KeyError(key)
        return Origin(entry.source, entry.root.key)

    def __iter__(self) -> Iterator[str]:
        return (key for key, entry in self._table.items() if entry.source)

    def __len__(self) -> int:
        return sum(1 for _ in self)


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


def _overlaps(logical: LogicalPlan, outputs: list[OutputPlan]) -> list[SurgeryError]:
    """Two outputs of one recipe that would write the same file, or of which one would remove a file of the other."""
    owner: dict[str, OutputPlan] = {}
    for output in outputs:
        folder = posixpath.normpath(output.layout.folder)
        own = [file.name for file in output.layout.files] + [companion.name for companion in output.companions]
        for path in (posixpath.join(folder, name) for name in (*own, *output.stale)):
            other = owner.setdefault(path, output)
            if other is not output:
                item = next(item for item in logical.recipe.steps if item.number == output.step)
                error = PlanError(
                    f"`{output.path}` and `{other.path}` would both write `{path}`",
                    code="path-conflict",
                    at=("path",),
                    help="save under another path",
                )
                return [item.locate(error)]
    return []


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
    """Byte copies joined into the longest runs, and the placements that have to be computed.

    A tensor with a checksum is one piece, since that is over all of it; where no checksum is kept or wanted pieces tell nothing.
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
                if layout.checksum or not plain:
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
