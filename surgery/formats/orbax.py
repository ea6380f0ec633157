"""Orbax checkpoints of JAX: trees of arrays, in a database (OCDBT) or as zarr arrays of version 2 or 3. Serves probe; writing is in `orbax_writer`.

Given the folder of an item, a step or a root with several steps: the item, its only item, the newest step. Keys are tree paths joined with `/`;
numbers are scalars, texts are metadata. A tree without `_METADATA` is known by the names of its arrays, whose dots become `/`.
Refused: int4 and int2, arrays of custom handlers. Source: orbax-checkpoint 0.12, `_src/metadata/tree.py` and `_src/serialization/type_handlers.py`.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from surgery.errors import CorruptFile, SourceError, listed, plural
from surgery.expr import Expr
from surgery.formats.base import Disk, Indexed
from surgery.formats.ocdbt import MANIFEST, Database, read_database
from surgery.formats.orbax_writer import CHECKPOINT_METADATA, DICT_KEY, KEY_TYPES, NAME, SEQUENCE_KEY, STRINGS, TREE_METADATA
from surgery.formats.orbax_writer import layout as layout
from surgery.formats.wire import COPY_AGAIN
from surgery.formats.zarr_arrays import find_array
from surgery.formats.zarr_store import FolderStore, read_object
from surgery.tensors import SourceFile

__all__ = ["NAME", "OPTIONS", "SUMMARY", "index", "layout", "locate"]

SUMMARY = "Orbax checkpoint of JAX: an item, a step, or a folder of steps"
OPTIONS: frozenset[str] = frozenset()

_STEP = re.compile(r"(?:.*_)?(\d{1,18})")
_ARRAYS = ("/.zarray", "/zarr.json")
_DEPTH_LIMIT = 100
_MOST_NOTES = 5


def locate(path: str, disk: Disk) -> str | None:
    """The folder of the item at a path: itself, the only item of a step, that of the newest step below.

    Raises:
        SourceError: with code `ambiguous-source`, a step with several items.
    """
    folder = path.rstrip("/") or "/"
    if not disk.is_folder(folder):
        return None
    return _item_of_step(folder, disk) or next((item for step in _newest_first(folder, disk) if (item := _item_of_step(step, disk))), None)


def _newest_first(root: str, disk: Disk) -> list[str]:
    steps = [(int(step[1]), name) for name in disk.names(root) if (step := _STEP.fullmatch(name)) and disk.is_folder(posixpath.join(root, name))]
    return [posixpath.join(root, name) for _, name in sorted(steps, reverse=True)]


def _item_of_step(step: str, disk: Disk) -> str | None:
    if _is_item(step, disk):
        return step
    if _STEP.fullmatch(posixpath.basename(step)) is None and not disk.is_file(posixpath.join(step, CHECKPOINT_METADATA)):
        return None
    items = [name for name in disk.names(step) if _is_item(posixpath.join(step, name), disk)]
    if len(items) > 1:
        raise SourceError(
            f"{step} holds {plural(len(items), 'Orbax item')}",
            code="ambiguous-source",
            notes=[listed(items)],
            help=f"name one of them, such as {posixpath.join(step, items[0])}",
        )
    return posixpath.join(step, items[0]) if items else None


def _is_item(folder: str, disk: Disk) -> bool:
    if not disk.is_folder(folder):
        return False
    if any(disk.is_file(posixpath.join(folder, name)) for name in (TREE_METADATA, MANIFEST)):
        return True
    if not disk.is_file(posixpath.join(folder, CHECKPOINT_METADATA)):
        return False
    return any(disk.is_file(posixpath.join(folder, name) + mark) for name in disk.names(folder) for mark in _ARRAYS)


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the arrays in the order of the tree; reads metadata, the nodes of a database and the indexes of shards.

    Raises:
        CorruptFile: metadata, a database or arrays that contradict each other; a tree whose arrays are not there.
        UnsupportedFeature: an element type, codec or layout that is not read here; with code `missing-package` where `orbax` brings it.
    """
    item = _Item(location, disk)
    tensors: dict[str, Expr] = {}
    files = [*item.files]
    for key, name in item.arrays():
        found = find_array(item.store, name, key, NAME)
        if found is None:
            raise CorruptFile(f"`{key}` of {location} has no array", notes=[f"the tree names it, and there is no `{name}`"], help=COPY_AGAIN)
        if key in tensors:
            raise CorruptFile(f"two arrays of {location} would be called `{key}`", help="save it from JAX under keys that differ")
        tensors[key] = found.expr
        files += found.files
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in item.metadata().items()}
    every = tuple(dict.fromkeys([*files, *item.files]))
    return Indexed(NAME, location, tensors, metadata, every, notes=tuple(item.notes()), attachments={KEY_TYPES: item.key_types()})


class _Leaf(NamedTuple):
    """A leaf of the tree: the names on the way to it, what kind of value it has, and for each name whether it is one of a mapping or of a list."""

    path: tuple[str, ...]
    kind: str
    key_types: tuple[int, ...]

    @property
    def key(self) -> str:
        return "/".join(self.path)

    @property
    def name(self) -> str:
        return ".".join(self.path)


class _Item:
    """The folder of an item: its tree, and the store that its arrays are in."""

    def __init__(self, folder: str, disk: Disk) -> None:
        self.files: list[SourceFile] = []
        self._folder = folder
        self._plain = FolderStore(folder, disk)
        self.store: FolderStore | Database = self._plain
        if disk.is_file(posixpath.join(folder, MANIFEST)):
            self.store = read_database(folder, disk)
            self.files += self.store.files
        self._tree = self._object(TREE_METADATA)
        self._leaves = list(self._leaves_of(self._tree.get("tree_metadata"))) if self._tree else []

    def arrays(self) -> Iterator[tuple[str, str]]:
        """The key of each array, and its path in the store."""
        if not self._tree:
            for path in sorted(self._paths()):
                yield path.replace(".", "/"), path
        for leaf in self._leaves:
            if leaf.kind != "":
                yield leaf.key, leaf.name

    def metadata(self) -> dict[str, Any]:
        """Texts of the tree, and what its user kept beside it."""
        texts = self._object(STRINGS)
        kept = self._object(CHECKPOINT_METADATA).get("custom_metadata")
        names = {leaf.name: leaf.key for leaf in self._leaves}
        return {names.get(name, name): text for name, text in texts.items()} | (kept if isinstance(kept, dict) else {})

    def key_types(self) -> dict[str, tuple[int, ...]]:
        """For each key, what its names are of; the writer makes lists again of what were lists."""
        return {leaf.key: leaf.key_types for leaf in self._leaves if leaf.key_types.count(SEQUENCE_KEY) and leaf.key.count("/") + 1 == len(leaf.path)}

    def notes(self) -> Iterator[str]:
        """What of the tree is no array."""
        if not self._tree:
            yield f"there is no {TREE_METADATA}: dots in the names of arrays were taken for the tree's"
        empty = [leaf.key for leaf in self._leaves if leaf.kind == ""]
        if empty:
            yield f"{plural(len(empty), 'leaf', 'leaves')} of the tree without an array: {listed(empty, _MOST_NOTES)}"

    def _paths(self) -> Iterator[str]:
        if isinstance(self.store, Database):
            for key in self.store.beginning(""):
                yield from (key.removesuffix(mark) for mark in _ARRAYS if key.endswith(mark))
            return
        for name in self.store.names(""):
            if any(self.store.find(name + mark) for mark in _ARRAYS):
                yield name

    def _object(self, name: str) -> dict[str, Any]:
        value = self._plain.find(name)
        if value is None:
            return {}
        self.files.append(value.file)
        return read_object(value)

    def _leaves_of(self, tree: Any) -> Iterator[_Leaf]:
        if not isinstance(tree, dict):
            raise self._fault("it has no `tree_metadata`")
        for entry in tree.values():
            parts = entry.get("key_metadata") if isinstance(entry, dict) else None
            value = entry.get("value_metadata") if isinstance(entry, dict) else None
            if not isinstance(parts, list) or not isinstance(value, dict) or len(parts) > _DEPTH_LIMIT:
                raise self._fault(f"a leaf of the tree is {str(entry)[:100]}")
            path = tuple(part["key"] if isinstance(part, dict) and isinstance(part.get("key"), str) else "" for part in parts)
            kind = value.get("value_type")
            if not path or "" in path or not isinstance(kind, str):
                raise self._fault(f"a leaf of the tree is {str(entry)[:100]}")
            no_array = value.get("skip_deserialize") or kind in ("string", "None", "Dict", "List", "Tuple")
            key_types = tuple(SEQUENCE_KEY if part.get("key_type") == SEQUENCE_KEY else DICT_KEY for part in parts)
            yield _Leaf(path, "" if no_array else kind, key_types)

    def _fault(self, fact: str) -> CorruptFile:
        return CorruptFile(f"{posixpath.join(self._folder, TREE_METADATA)} describes no tree", notes=[fact], help=COPY_AGAIN)
