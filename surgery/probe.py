"""Probe: read the headers that a recipe needs, and look at the places it will write to. All I/O before the plan is here."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from surgery import data_files, formats
from surgery.commit import recover, staging_name
from surgery.data_files import Parse
from surgery.errors import NotFoundError, SourceError, SurgeryError, gather, near
from surgery.formats.base import Disk, Indexed
from surgery.manifest import MOST_BYTES, Evidence, file_name, is_manifest, is_manifest_name
from surgery.several import first_part, is_numbered, numbered_files
from surgery.steps.base import Catalog, Found, Reads, Wanted
from surgery.units import size_text
from surgery.witness import Witness

if TYPE_CHECKING:
    from surgery.files import Place

_MOST_SPEC_BYTES = 64 << 20
_MOST_TEXT_BYTES = 1 << 20


class Facts(NamedTuple):
    """What was found: the catalog with all it was made from, and every folder that may be written to, by its path as `folders_of` gives it.

    `holes` are bytes of source files, by path, that take no space.
    """

    catalog: Catalog
    evidence: Evidence
    places: Mapping[str, Place]
    holes: Mapping[str, int]


def probe(recipe: Any, disk: Disk) -> Facts:
    """Read all headers that the steps of a recipe ask for.

    Raises:
        SurgeryError: every source that cannot be read, together.
    """
    from surgery.files import hole_bytes
    from surgery.steps.save import Save

    checkpoints: dict[str, Indexed] = {}
    targets: dict[str, Mapping[str, Wanted]] = {}
    found: dict[Reads, tuple[Found, ...]] = {}
    contents: dict[tuple[str, Parse], Any] = {}
    faults: list[SurgeryError] = []
    sources = Witness(disk, recipe.evidence)
    for item in recipe.steps:
        for wanted in item.step.reads():
            try:
                if wanted.parse is not None:
                    contents.setdefault((wanted.path, wanted.parse), wanted.parse(data_of(wanted.path, sources), wanted.path))
                elif wanted.target_spec and wanted.path not in targets:
                    targets[wanted.path] = target_spec(wanted, sources)
                elif not wanted.target_spec:
                    found[wanted] = tuple(_find(path, wanted, checkpoints, sources) for path in _paths(wanted, sources))
            except SurgeryError as error:
                error.at = error.at or wanted.at
                faults.append(item.locate(error))
    if faults:
        raise gather(faults)
    saves = [item.step for item in recipe.steps if isinstance(item.step, Save)]
    folders = {folder for save in saves for folder in folders_of(save.path)}
    manifests = {path for save in saves for path in manifests_of(save.path)}
    for folder in folders:
        recover(folder)  # before its names are looked at: the run will find a committed save finished
    places = {folder: _place(folder, manifests, disk, any(save.in_place for save in saves)) for folder in folders}
    holes = {file.path: hole_bytes(file.path) for indexed in checkpoints.values() for file in indexed.files}
    return Facts(Catalog(checkpoints, targets, found, contents), sources.evidence, places, holes)


def _paths(wanted: Reads, disk: Disk) -> tuple[str, ...]:
    return numbered_files(wanted.path, disk) if is_numbered(wanted.path) else (wanted.path,)


def _find(path: str, wanted: Reads, checkpoints: dict[str, Indexed], disk: Disk) -> Found:
    """What a path stands for; the headers are put among the checkpoints, and read once for each path."""

    def open_at(path: str) -> Indexed:
        return checkpoints.get(path) or open_checkpoint(path, disk, wanted.format)

    found, indexed = first_part(path, wanted.root, open_at) if wanted.root else (Found(path), open_at(path))
    checkpoints[found.path] = indexed
    return found


def _place(folder: str, manifests: Collection[str], disk: Disk, edited: bool) -> Place:
    from surgery import files
    from surgery.commit import leftover_bytes
    from surgery.formats.tf_state import FILE_NAME

    obstacle = files.obstacle(folder)
    if obstacle:
        return files.Place(obstacle=obstacle)
    names = frozenset(disk.names(folder))
    state = posixpath.join(folder, FILE_NAME)
    return files.Place(
        names=names,
        folders=files.folders_in(folder),
        linked=files.linked_in(folder) if edited else frozenset(),
        manifests=frozenset(name for name in names if _is_manifest(posixpath.join(folder, name), manifests, disk)),
        texts={FILE_NAME: _beginning(state, disk, _MOST_TEXT_BYTES)} if disk.is_file(state) else {},
        device=files.device_of(folder),
        free=files.free_bytes(folder),
        leftover=leftover_bytes(folder),
        shares=files.shares_blocks(folder),
    )


def _is_manifest(path: str, expected: Collection[str], disk: Disk) -> bool:
    """Whether a file is one of the expected manifests, and not another file by its name."""
    return path in expected and disk.is_file(path) and is_manifest(_beginning(path, disk, MOST_BYTES))


def _beginning(path: str, disk: Disk, most_bytes: int) -> bytes:
    """A small file, or enough of a large one to tell that it is something else; nothing where it cannot be read, which the run will tell."""
    with suppress(SourceError):
        file, read = disk.open(path)
        return read(0, min(file.nbytes, most_bytes))
    return b""


def folders_of(path: str) -> tuple[str, str]:
    """The two folders an output under this path may live in: beside it, or in it."""
    return as_folder(posixpath.dirname(path)), as_folder(path)


def manifests_of(path: str) -> tuple[str, ...]:
    """Where the manifest of an output under this path may lie: beside it, or in it."""
    return tuple(posixpath.join(folder, file_name(staging_name(folder, path))) for folder in folders_of(path))


def as_folder(path: str) -> str:
    """One spelling of a folder's path, so that layouts and facts meet: no slashes at its end."""
    return path.rstrip("/") or path[:1] or "."


def open_checkpoint(path: str, disk: Disk, format: str | None = None, *, strict: bool = True) -> Indexed:
    """Find the format of what lies at `path` and read its headers.

    A save that was killed while it committed is finished first. Without `strict`, a TensorFlow bundle may lack data files.

    Raises:
        NotFoundError: there is nothing, in TensorFlow's words.
        SourceError: no format recognises it, or its format finds a fault.
    """
    if not path:
        raise NotFoundError("the path of the checkpoint is empty", code="no-such-checkpoint", help="give a file, a prefix or a folder")
    for folder in folders_of(path):
        if disk.is_folder(folder):
            recover(folder)
    for name in [format] if format else formats.likely_first(path):
        module = formats.by_name(name)
        location = module.locate(path, disk)
        if location is not None:
            return module.index(location, disk, strict=strict)
    raise _unknown(path, disk, format)


def _unknown(path: str, disk: Disk, format: str | None) -> SourceError | NotFoundError:
    folder, name = posixpath.split(path.rstrip("/"))
    if disk.is_file(path):
        return SourceError(
            f"`{path}` is no {format} checkpoint" if format else f"no format recognises `{path}`",
            code="unknown-format",
            notes=[f"formats are {', '.join(formats.NAMES)}; they are found from content"],
            help="look at `surgery formats`" if not format else "leave `format` out to have it found",
        )
    if disk.is_folder(path):
        names = disk.names(path)
        return SourceError(
            f"Couldn't find 'checkpoint' file or checkpoints in given directory {path}",
            code="no-such-checkpoint",
            sentence=True,
            notes=["it holds " + (", ".join(names[:5]) + (" …" if len(names) > 5 else "") if names else "nothing")],
            help="name a file, or a prefix in it",
        )
    siblings = {known.removesuffix(".index") for known in disk.names(folder or ".") if ".data-" not in known and not is_manifest_name(known)}
    close = near(name, siblings)
    return NotFoundError(
        f"Unsuccessful TensorSliceReader constructor: Failed to find any matching files for {path}",
        code="no-such-checkpoint",
        sentence=True,
        notes=[] if disk.is_folder(folder or ".") else [f"there is no folder `{folder}`"],
        help=f"did you mean `{posixpath.join(folder, close[0])}`?" if close else "correct the path; it is relative to the working directory",
    )


def data_of(path: str, disk: Disk) -> bytes:
    """The whole of a small file. Raises SourceError where it cannot be read or is too large to be what a step asks for."""
    file, read = disk.open(path)
    if file.nbytes > data_files.MOST_BYTES:
        raise data_files.bad_data(path, f"is too large: {size_text(file.nbytes)}", "name a vocabulary, or a list of indices")
    return read(0, file.nbytes)


def target_spec(wanted: Reads, disk: Disk) -> Mapping[str, Wanted]:
    """The tensors of a target: a YAML file with `variables:`, a graph, an index (names only where its shards are absent), or a checkpoint."""
    path = wanted.path
    if path.endswith((".yaml", ".yml")) and disk.is_file(path):
        return _spelled_out(path, disk)
    if path.endswith(".meta") and disk.is_file(path):
        from surgery.formats.tf_meta import variables

        return {key: Wanted(spec) for key, spec in variables(path, disk).items()}
    if path.endswith(".index.json") and disk.is_file(path):
        names = _index_names(path, disk)
        if names is not None:
            return {key: Wanted(None) for key in names}
    return {key: Wanted(expr.spec) for key, expr in open_checkpoint(path, disk, wanted.format, strict=False).tensors.items()}


def _spelled_out(path: str, disk: Disk) -> Mapping[str, Wanted]:
    from surgery.located import parse
    from surgery.model_faults import faults_of, place
    from surgery.models import ValidationError
    from surgery.steps.targets import VariablesFile, as_wanted, lint_variables

    file, read = disk.open(path)
    document = parse(read(0, min(file.nbytes, _MOST_SPEC_BYTES)), path)
    try:
        spec = VariablesFile.model_validate(document.data)
    except ValidationError as error:
        raise gather(faults_of(error, document, (), VariablesFile, "the target spec")) from None
    faults: list[SurgeryError] = [fault.located(place(document, fault.at)) for fault in lint_variables(spec.variables, ("variables",))]
    if faults:
        raise gather(faults)
    return as_wanted(spec.variables)


def _index_names(path: str, disk: Disk) -> list[str] | None:
    """The keys of a sharded index whose shards are not all there; None where they are, or where it is no such index."""
    import json

    file, read = disk.open(path)
    try:
        weight_map = json.loads(read(0, min(file.nbytes, _MOST_SPEC_BYTES)))["weight_map"]
        shards = {posixpath.join(posixpath.dirname(path), shard) for shard in weight_map.values()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return None if all(disk.is_file(shard) for shard in shards) else list(weight_map)
