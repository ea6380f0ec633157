"""Checkpoints cut into shards and an index of them (`*.index.json` with `weight_map`), as the transformers library writes them.

Serves the formats that are sharded so; knows the index, not what a shard is. Source of format facts: transformers, `modeling_utils.py`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from surgery.errors import SourceError, listed, plural
from surgery.expr import Expr
from surgery.formats.base import Disk, Indexed
from surgery.formats.json_shape import like_index
from surgery.formats.safetensors_header import corrupt, parse_object
from surgery.tensors import SourceFile

_INDEX_LIMIT = 1 << 28


def index_shards(
    format: str, location: str, path: str, companions: tuple[str, ...], disk: Disk, index_file: Callable[[str, Disk], Indexed]
) -> Indexed:
    """List the tensors of all shards, in the order of their names; `index_file` reads one.

    Metadata of shards is joined; where they disagree the first shard wins and a note says so.

    Raises:
        CorruptFile: an index that is none, or that a shard contradicts.
        SourceError: a shard that is not there, and what `index_file` raises.
    """
    index, weight_map = _weight_map(path, disk)
    folder = posixpath.dirname(path)
    names = sorted(set(weight_map.values()))
    _refuse_absent(path, names, weight_map, disk)
    tensors: dict[str, Expr] = {}
    metadata: dict[str, str] = {}
    files = [index]
    notes: list[str] = []
    for name in names:
        shard = index_file(posixpath.join(folder, name), disk)
        file, found, said = shard.files[0], shard.tensors, shard.metadata
        if set(map(weight_map.get, found)) - {name}:
            stray = next(key for key in found if weight_map.get(key) != name)
            told = f"the index puts it in {weight_map[stray]}" if stray in weight_map else "the index does not list it"
            raise corrupt(f"`{stray}` lies in {file.path}, which {path} does not say", file, 0, file.nbytes, told)
        notes += [*shard.notes, *(f"{file.path} disagrees about metadata `{key}`" for key in said if metadata.get(key, said[key]) != said[key])]
        metadata = {**said, **metadata}
        tensors |= found
        files.append(file)
    if len(tensors) != len(weight_map):
        key = next(key for key in weight_map if key not in tensors)
        place = posixpath.join(folder, weight_map[key])
        raise corrupt(f"{path} lists `{key}`, which is not in its shard", index, 0, index.nbytes, f"it should be in {place}")
    return Indexed(format, location, tensors, metadata, tuple(files), companions, tuple(dict.fromkeys(notes)))


def _refuse_absent(path: str, names: list[str], weight_map: dict[str, str], disk: Disk) -> None:
    absent = [name for name in names if not disk.is_file(posixpath.join(posixpath.dirname(path), name))]
    if absent:
        key = next(key for key, name in weight_map.items() if name == absent[0])
        raise SourceError(
            f"{plural(len(absent), 'shard')} of {path} not there: {listed(absent)}",
            code="missing-shard",
            notes=[f"{absent[0]} should hold `{key}`"],
            help="copy or download what is missing",
            data={"shards": absent},
        )


def _weight_map(path: str, disk: Disk) -> tuple[SourceFile, dict[str, str]]:
    """Key → shard name, each a plain name in the index's own folder."""
    file, read = disk.open(path)
    if file.nbytes > _INDEX_LIMIT:
        raise corrupt(f"{path} is too large for an index", file, 0, file.nbytes)
    weight_map = parse_object(read(0, file.nbytes), "the text", file, 0, like_index).get("weight_map")
    if type(weight_map) is not dict:
        raise corrupt(f"{path} has no mapping `weight_map`", file, 0, file.nbytes)
    if set(map(type, weight_map.values())) - {str} or not all(map(is_plain_name, set(weight_map.values()))):
        key, name = next((key, name) for key, name in weight_map.items() if type(name) is not str or not is_plain_name(name))
        raise corrupt(f"{path} puts `{key}` into {name!r}, which is not a name in its folder", file, 0, file.nbytes)
    return file, weight_map


def is_plain_name(name: str) -> bool:
    """Whether a name from a file is one in its folder, and leads nowhere else."""
    return name not in ("", ".", "..") and name.isprintable() and "/" not in name and "\\" not in name
