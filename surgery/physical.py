"""Lower: from tables to files and tasks. Pure: layouts place every tensor, conflicts and room are checked, then the work is cut."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING, NamedTuple

from surgery import formats
from surgery.commit import staging_folder, staging_name
from surgery.companions import companions_of, merged_metadata
from surgery.cutting import cut_tasks
from surgery.errors import PlanError, SurgeryError, gather, listed, plural
from surgery.formats.base import Bundle, Indexed, Layout, Origin, Relabel
from surgery.formats.in_place import not_in_place
from surgery.items import StepItem
from surgery.journal import is_plain
from surgery.logical import LogicalPlan
from surgery.manifest import file_name
from surgery.probe import as_folder
from surgery.steps.base import Output
from surgery.table import Table
from surgery.tasks import (
    Companion,
    CopyRun,
    Edit,
    OutputPlan,
    PhysicalPlan,
    Task,
    key_of,
    memory_of,
    not_of_its_kind,
    standing_in_the_way,
)
from surgery.tensors import SourceFile
from surgery.tied import untied_note
from surgery.units import size_text
from surgery.value_checks import check_bytes

if TYPE_CHECKING:
    from surgery.files import Place

_LONGEST_NAME = 255  # bytes, on every file system of Linux


def lower(
    logical: LogicalPlan,
    places: Mapping[str, Place],
    holes: Mapping[str, int],
    *,
    jobs: int,
    memory: int,
    force: bool = False,
) -> PhysicalPlan:
    """Lay every output out and cut the work into tasks.

    `places` are the folders that outputs may lie in, as they were found, `holes` the bytes of source files that take no space.
    `memory` is the budget of all arrays together, shared by `jobs` threads.

    Raises:
        PlanError: an output exists or cannot be where it is to be, a format cannot hold a tensor, or the disk has too little
            room; all together.
    """
    laid_out: list[tuple[_LaidOut, StepItem]] = []
    faults: list[SurgeryError] = []
    items = {item.number: item for item in logical.recipe.steps}
    for output in logical.outputs:
        try:
            laid_out.append((_lay_out(output, logical, places, force), items[output.step]))
        except SurgeryError as error:
            faults.append(items[output.step].locate(error))
    faults = faults or _overlaps(laid_out)
    if faults:
        raise gather(faults)
    budget = max(1 << 20, memory // max(jobs, 1))
    outputs = tuple(_cut(number, laid, places[as_folder(laid.layout.folder)], budget) for number, (laid, _) in enumerate(laid_out))
    faults = _room(outputs, places, holes, items)
    if faults:
        raise gather(faults)
    costs = [(cost, key_of(task)) for output in outputs for task in output.tasks if (cost := memory_of(task))]
    costs += [(check_bytes(check, budget), check.key) for check in logical.checks]
    largest = nlargest(jobs, costs)  # no more than `jobs` of them are worked on at the same time, and none that would exceed the budget
    peak = min(sum(cost for cost, _ in largest), max([memory, *(cost for cost, _ in largest[:1])]))
    notes = (*(note for laid, _ in laid_out for note in laid.notes), *_oversized(costs, memory))
    return PhysicalPlan(outputs, logical.checks, memory, budget, peak, notes, _files_used(logical))


def _oversized(costs: list[tuple[int, str]], memory: int) -> Iterator[str]:
    """A note on tensors that cannot be had in parts, and are larger than all memory that was granted."""
    oversized = {key: size_text(cost) for cost, key in sorted(costs) if cost > memory}
    if len(oversized) == 1:
        yield from (f"`{key}` needs {size} at once, more than --memory" for key, size in oversized.items())
    elif oversized:
        needs = listed([f"`{key}` {size}" for key, size in reversed(oversized.items())])
        yield f"{plural(len(oversized), 'tensor')} are each needed at once, more than --memory: {needs}"


class _LaidOut(NamedTuple):
    """An output whose places are known, and its work not yet cut."""

    output: Output
    layout: Layout
    companions: tuple[Companion, ...]
    stale: tuple[str, ...]
    overwrites: bool
    may_replace: bool
    notes: tuple[str, ...]
    kept: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()

    @property
    def names(self) -> list[str]:
        """The files that are its own, by their names in its folder."""
        return [file.name for file in self.layout.files] + [companion.name for companion in self.companions]

    @property
    def updates(self) -> list[str]:
        """The files that it goes on from and may share with other outputs."""
        return [update.name for update in self.layout.updates]

    @property
    def manifest(self) -> str:
        """The name of its manifest, to be written or not."""
        return file_name(staging_name(self.layout.folder, self.output.path))

    @property
    def told(self) -> list[str]:
        """Its manifest, if it is to be written."""
        return [self.manifest] if self.output.manifest else []


def _lay_out(output: Output, logical: LogicalPlan, places: Mapping[str, Place], force: bool) -> _LaidOut:
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
    layout = _relabelled(bundle, output, logical, places) if output.in_place else formats.by_name(output.format).layout(bundle)
    companions = tuple(companions_of(output, sources, layout))
    place = places[as_folder(layout.folder)]
    carried = {companion.path for companion in companions}
    graphs = [path for source in sources for path in source.companions if path.endswith(".meta") and path not in carried]
    graphs = [] if "meta" in output.options else graphs
    notes += [f"{output.path}: {path} is left out: it describes the graph under the old keys" for path in graphs]
    notes += [f"{output.path}: {note}" for note in (*layout.notes, untied_note(layout, bundle.origins)) if note]
    kept, edits = _left_in_place(layout, place)
    laid = _LaidOut(output, layout, companions, (), False, output.overwrite or force, tuple(notes), kept, edits)
    _refuse_place(laid, place)
    stale = tuple(sorted(name for name in place.names if layout.stale(name) and name not in laid.names))
    standing = [*(name for name in laid.names if name in place.names), *stale]
    if not laid.may_replace:
        foreign = [name for name in laid.told if name in place.names - place.manifests]
        if standing or foreign:
            raise standing_in_the_way(output.path, layout.folder, [*standing, *foreign], output.step)
        for update in layout.updates:
            if update.name in place.texts and not update.knows(place.texts[update.name]):
                raise not_of_its_kind(output.path, layout.folder, update.name, output.step)
    others = [name for name in formats.FOLDER_HEADS if name in place.names and name not in (*laid.names, *stale)]
    return laid._replace(stale=stale, overwrites=bool(standing), notes=(*laid.notes, *_beside_others(laid, others)))


def _beside_others(laid: _LaidOut, others: Sequence[str]) -> Iterator[str]:
    """What to tell of a folder that already is a checkpoint of another kind, which this save leaves there."""
    path = laid.output.path
    if others and as_folder(laid.layout.folder) == as_folder(path):
        yield f"{path}: {others[0]} in it is another checkpoint and stays; whoever is given the folder may read that one"


def _relabelled(bundle: Bundle, output: Output, logical: LogicalPlan, places: Mapping[str, Place]) -> Layout:
    """The layout of a loaded checkpoint with other keys, if its format and its place allow that."""
    relabel: Relabel | None = getattr(formats.by_name(output.format), "relabel", None)
    if relabel is None:
        raise not_in_place(bundle, f"{output.format} keeps keys between the tensors")
    source = logical.sources[output.in_place]
    here = places.get(as_folder(posixpath.dirname(source.files[0].path)))
    layout = relabel(bundle, source, grows=here is not None and here.shares)
    folder = as_folder(layout.folder)
    if here is None:
        raise not_in_place(bundle, f"its files lie in another folder, {folder}")
    linked = [edit.name for edit in _left_in_place(layout, places[folder])[1] if edit.name in places[folder].linked]
    if linked:
        path = posixpath.normpath(posixpath.join(folder, linked[0]))
        raise not_in_place(bundle, f"{path} is a link, or has another name elsewhere that would change too")
    return layout


def _left_in_place(layout: Layout, place: Place) -> tuple[tuple[str, ...], tuple[Edit, ...]]:
    """The files that stay as they are, and those that get another beginning where they lie, because a clone of them would be a copy."""
    beginnings = {patch.file: patch.data for patch in layout.patches}
    there = [file for file in layout.files if file.same_as is not None]
    kept = tuple(file.name for file in there if file.name not in beginnings)
    edits = (Edit(file.name, file.same_as, beginnings[file.name]) for file in there if file.same_as and file.name in beginnings)
    return kept, () if place.shares else tuple(edits)


def _refuse_place(laid: _LaidOut, place: Place) -> None:
    """What can be told of paths before anything is written: each would be refused while running."""
    folder, written = laid.layout.folder, [*laid.names, *laid.updates, *laid.told]
    staging = staging_folder(staging_name(folder, laid.output.path))
    every = (*folder.split("/"), *laid.names, *laid.updates, staging, *laid.told)
    long = [name for name in every if len(name.encode(errors="replace")) > _LONGEST_NAME]
    blocked = [name for name in written if name in place.folders or name in (".", "..")]
    odd = [name for name in written if not is_plain(name)]
    if long:
        raise PlanError(
            f"a name has {_LONGEST_NAME} bytes at most, and this output needs one of {len(long[0].encode(errors='replace'))}",
            code="name-too-long",
            at=("path",),
            notes=[f"the folder in which it is staged would be {long[0]}" if long[0] == staging else long[0]],
            help="save under a shorter name",
        )
    if place.obstacle:
        raise PlanError(f"there can be no folder {folder}: {place.obstacle}", code="no-folder", at=("path",), help="save elsewhere")
    if blocked:
        path = posixpath.normpath(posixpath.join(folder, blocked[0]))
        raise PlanError(f"{path} is a folder", code="folder-in-the-way", at=("path",), help="move it away, or save under another name")
    if odd:
        raise PlanError(f"{odd[0]!r} cannot be the name of an output file", code="bad-name", at=("path",), help="save under another name")


def _cut(number: int, laid: _LaidOut, place: Place, budget: int) -> OutputPlan:
    output = laid.output
    there = {*laid.kept, *(edit.name for edit in laid.edits)}
    written = laid.layout._replace(files=tuple(file for file in laid.layout.files if file.name not in there))
    tasks, copied, computed = cut_tasks(number, written, budget)
    return OutputPlan(
        output.path,
        output.step,
        laid.layout,
        tasks,
        laid.companions,
        laid.stale,
        laid.overwrites,
        laid.may_replace,
        len(output.table),
        copied,
        computed,
        laid.manifest,
        output.manifest,
        laid.kept,
        laid.edits,
        _shared_bytes(tasks, place),
    )


def _shared_bytes(tasks: Sequence[Task], place: Place) -> int:
    """Bytes that can be in both files at once, if the file system is as it looks."""
    from surgery.files import shareable

    shared = 0
    for task in tasks if place.shares else ():
        if isinstance(task, CopyRun) and task.source.fingerprint.device == place.device:
            low, high = shareable(task.source_start, task.source_start + task.nbytes, task.start)
            shared += high - low
    return shared


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


def _files_used(logical: LogicalPlan) -> tuple[SourceFile, ...]:
    """All files of the checkpoints that outputs come from: what a plan says of them holds only while none changes."""
    return tuple(dict.fromkeys(file for output in logical.outputs for source in _sources(output, logical) for file in source.files))


def _overlaps(laid_out: list[tuple[_LaidOut, StepItem]]) -> list[SurgeryError]:
    """Two outputs of one recipe that would write the same file, or of which one would remove a file of the other."""
    owner: dict[str, _LaidOut] = {}
    shared: dict[str, _LaidOut] = {}
    for laid, item in laid_out:
        folder = posixpath.normpath(laid.layout.folder)
        own = [posixpath.join(folder, name) for name in (*laid.names, *laid.stale, *laid.told)]
        updated = [posixpath.join(folder, name) for name in laid.updates]
        for path in own + updated:
            other = owner.get(path, laid if path in updated else shared.get(path, laid))
            if other is not laid:
                message = f"`{laid.output.path}` and `{other.output.path}` would both write `{path}`"
                return [item.locate(PlanError(message, code="path-conflict", at=("path",), help="save under another path"))]
        owner |= dict.fromkeys(own, laid)
        shared |= dict.fromkeys(updated, laid)
    return []


def _room(outputs: Sequence[OutputPlan], places: Mapping[str, Place], holes: Mapping[str, int], items: Mapping[int, StepItem]) -> list[SurgeryError]:
    """Disk space, for each file system: staged files lie beside the old ones until the commit."""
    needed: dict[int, int] = {}
    freed: dict[int, dict[tuple[str, str], int]] = {}
    for output in outputs:
        folder = as_folder(output.layout.folder)
        place = places[folder]
        needed[place.device] = needed.get(place.device, 0) + _new_bytes(output, holes)
        own = staging_folder(staging_name(output.layout.folder, output.path))
        freed.setdefault(place.device, {}).update({(folder, name): place.leftover.get(name, 0) for name in ("", own)})
        if place.free is None:
            continue
        available = place.free + sum(freed[place.device].values())
        if needed[place.device] > available:
            error = PlanError(
                f"`{output.layout.folder}` has room for {size_text(available)}, {size_text(needed[place.device])} are needed",
                code="disk-full",
                at=("path",),
                help="free some space, or save elsewhere; the old output is kept until the new one is complete",
            )
            return [items[output.step].locate(error)]
    return []


def _new_bytes(output: OutputPlan, holes: Mapping[str, int]) -> int:
    """Bytes that will take space: all but those that the file system shares, and holes, which stay holes."""
    copied: dict[str, int] = {}
    for task in output.tasks if any(holes.values()) else ():
        if isinstance(task, CopyRun):
            copied[task.source.path] = copied.get(task.source.path, 0) + task.nbytes
    sparse = sum(min(nbytes, holes.get(path, 0)) for path, nbytes in copied.items())
    return max(0, sum(file.size or 0 for file in output.staged) - output.shared_bytes - sparse)
