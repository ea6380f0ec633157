"""Lower: from tables to files and tasks. Pure: layouts place every tensor, conflicts and room are checked, then the work is cut."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from surgery import formats
from surgery.companions import companions_of, merged_metadata
from surgery.cutting import LARGEST_BLOCK, cut_tasks
from surgery.errors import PlanError, SurgeryError, gather
from surgery.expr import working_bytes
from surgery.formats.base import Bundle, Indexed, Layout, Origin
from surgery.logical import LogicalPlan
from surgery.recipe import StepItem
from surgery.steps.base import Output
from surgery.table import Table
from surgery.tasks import Companion, ComputeBlock, OutputPlan, PhysicalPlan
from surgery.units import size_text


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
    laid_out: list[tuple[_LaidOut, StepItem]] = []
    faults: list[SurgeryError] = []
    items = {item.number: item for item in logical.recipe.steps}
    for output in logical.outputs:
        try:
            laid_out.append((_lay_out(output, logical, folders, force), items[output.step]))
        except SurgeryError as error:
            faults.append(items[output.step].locate(error))
    faults = faults or [*_overlaps(laid_out), *_room(laid_out, free)]
    if faults:
        raise gather(faults)
    budget = max(1 << 20, min(LARGEST_BLOCK, memory // max(jobs, 1)))
    outputs = tuple(_cut(number, laid, budget) for number, (laid, _) in enumerate(laid_out))
    largest = max((working_bytes(task.expr, task.region) for output in outputs for task in output.tasks if isinstance(task, ComputeBlock)), default=0)
    return PhysicalPlan(outputs, logical.checks, jobs * largest, tuple(note for laid, _ in laid_out for note in laid.notes))


class _LaidOut(NamedTuple):
    """An output whose places are known, and its work not yet cut."""

    output: Output
    layout: Layout
    companions: tuple[Companion, ...]
    stale: tuple[str, ...]
    overwrites: bool
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The files it writes, by their names in its folder."""
        return [file.name for file in self.layout.files] + [companion.name for companion in self.companions]


def _lay_out(output: Output, logical: LogicalPlan, folders: Mapping[str, frozenset[str]], force: bool) -> _LaidOut:
    sources = _sources(output, logical)
    metadata, notes = merged_metadata(output, sources)
    bundle = Bundle(
        path=output.path,
        tensors={key: entry.expr for key, entry in output.table.items()},
        metadata=metadata,
        options=output.options,
        origins=_Origins(output.table),
        sources=logical.sources,
    )
    layout = formats.by_name(output.format).layout(bundle)
    companions = tuple(companions_of(output, sources, layout))
    present = folders.get(layout.folder, frozenset())
    carried = {companion.path for companion in companions}
    graphs = [path for source in sources for path in source.companions if path.endswith(".meta") and path not in carried]
    notes += [f"{output.path}: {path} is left out: it describes the graph under the old keys" for path in graphs]
    notes += [f"{output.path}: {note}" for note in layout.notes]
    laid = _LaidOut(output, layout, companions, (), False, tuple(notes))
    stale = tuple(sorted(name for name in present if layout.stale(name) and name not in laid.names))
    standing = [*(name for name in laid.names if name in present), *stale]
    if standing and not (output.overwrite or force):
        found = [posixpath.normpath(posixpath.join(layout.folder, name)) for name in standing]
        raise PlanError(
            f"the output `{output.path}` exists",
            code="output-exists",
            at=("path",),
            notes=[f"found {', '.join(found[:5])}" + (" …" if len(found) > 5 else "")],
            help="set `overwrite: replace` in this step, or run with --force",
        )
    return laid._replace(stale=stale, overwrites=bool(standing))


def _cut(number: int, laid: _LaidOut, budget: int) -> OutputPlan:
    tasks, copied, computed = cut_tasks(number, laid.layout, budget)
    path, step, tensors = laid.output.path, laid.output.step, len(laid.output.table)
    return OutputPlan(path, step, laid.layout, tasks, laid.companions, laid.stale, laid.overwrites, tensors, copied, computed)


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


def _overlaps(laid_out: list[tuple[_LaidOut, StepItem]]) -> list[SurgeryError]:
    """Two outputs of one recipe that would write the same file, or of which one would remove a file of the other."""
    owner: dict[str, _LaidOut] = {}
    for laid, item in laid_out:
        folder = posixpath.normpath(laid.layout.folder)
        for path in (posixpath.join(folder, name) for name in (*laid.names, *laid.stale)):
            other = owner.setdefault(path, laid)
            if other is not laid:
                message = f"`{laid.output.path}` and `{other.output.path}` would both write `{path}`"
                return [item.locate(PlanError(message, code="path-conflict", at=("path",), help="save under another path"))]
    return []


def _room(laid_out: list[tuple[_LaidOut, StepItem]], free: Mapping[str, int | None]) -> list[SurgeryError]:
    """Disk space: staged files live beside the old ones until the commit."""
    needed: dict[str, int] = {}
    for laid, item in laid_out:
        folder = laid.layout.folder
        needed[folder] = needed.get(folder, 0) + sum(file.size or 0 for file in laid.layout.files)
        available = free.get(folder)
        if available is not None and needed[folder] > available:
            error = PlanError(
                f"`{folder}` has room for {size_text(available)}, {size_text(needed[folder])} are needed",
                code="disk-full",
                at=("path",),
                help="free some space, or save elsewhere; the old output is kept until the new one is complete",
            )
            return [item.locate(error)]
    return []
