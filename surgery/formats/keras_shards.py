"""Weights of Keras 3 in several files: `NAME.weights.json`, which tells for each group of variables the shards that hold them.

Keras numbers the variables of a group through, also where it lies in two shards, so that keys never meet. Source of format facts:
`ShardedH5IOStore` in `saving_lib.py` of Keras 3.15.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable
from typing import Any

from surgery.errors import CorruptFile, SourceError, listed, plural
from surgery.expr import Expr
from surgery.formats.base import Disk, Indexed, ReadAt
from surgery.tensors import SourceFile

_MAP = "weight_map"
_SHARD = ".weights.h5"
_MAP_LIMIT = 4 << 20
"""So much text can do no harm when it is parsed, whatever it says."""


def is_map(file: SourceFile, read: ReadAt) -> bool:
    """Whether a JSON text maps groups to shards of Keras."""
    return bool(_mapped(file, read)) if file.nbytes <= _MAP_LIMIT else False


def _mapped(file: SourceFile, read: ReadAt) -> dict[str, list[str]]:
    """Group → names of its shards; empty where the text is something else."""
    try:
        told = json.loads(read(0, file.nbytes))
    except (ValueError, RecursionError):
        return {}
    groups = told.get(_MAP) if isinstance(told, dict) else None
    found = {group: _names(names) for group, names in groups.items()} if isinstance(groups, dict) else {}
    return found if all(found.values()) else {}


def _names(told: Any) -> list[str]:
    """A shard or a list of shards, each a plain name; empty where it is neither."""
    names = told if isinstance(told, list) else [told]
    sound = all(isinstance(name, str) and name.endswith(_SHARD) and name.isprintable() and not set(name) & {"/", "\\"} for name in names)
    return names if sound else []


def index_shards(format: str, location: str, disk: Disk, index_file: Callable[[str, Disk], Indexed]) -> Indexed:
    """List the weights of all shards, shard after shard; `index_file` reads one.

    Raises:
        CorruptFile: a map that is none, a key in two shards, a group that is not where the map has it.
        SourceError: a shard that is not there (code `missing-shard`), and what `index_file` raises.
    """
    file, read = disk.open(location)
    groups = _mapped(file, read) if file.nbytes <= _MAP_LIMIT else {}
    if not groups:
        raise _corrupt(file, "maps no weights to shards of Keras")
    folder = posixpath.dirname(location)
    names = list(dict.fromkeys(name for shards in groups.values() for name in shards))
    absent = [name for name in names if not disk.is_file(posixpath.join(folder, name))]
    if absent:
        title = f"{plural(len(absent), 'shard')} of {location} not there: {listed(absent)}"
        raise SourceError(title, code="missing-shard", help="copy or download what is missing", data={"shards": absent})
    tensors: dict[str, Expr] = {}
    files = [file]
    notes: list[str] = []
    for name in names:
        shard = index_file(posixpath.join(folder, name), disk)
        twice = next((key for key in shard.tensors if key in tensors), None)
        if twice is not None:
            raise _corrupt(file, f"has shards that both hold `{twice}`", f"the second is {name}")
        _refuse_empty(file, name, shard, [group for group, shards in groups.items() if name in shards])
        tensors |= shard.tensors
        files += shard.files
        notes += shard.notes
    return Indexed(format, location, tensors, {}, tuple(files), notes=tuple(notes))


def _refuse_empty(file: SourceFile, name: str, shard: Indexed, groups: list[str]) -> None:
    held = {posixpath.dirname(key) for key in shard.tensors}
    absent = [group for group in groups if group.strip("/") not in held]
    if absent:
        raise _corrupt(file, f"lists weights that are not there, `{absent[0]}`", f"they should be in {name}")


def _corrupt(file: SourceFile, what: str, fact: str = "") -> CorruptFile:
    notes = [fact, f"{file.path}, bytes 0 to {file.nbytes:,}"]
    return CorruptFile(f"{file.path} {what}", notes=notes, help="the source is damaged or incomplete; copy it again")
