"""Writing an Orbax checkpoint as one item: an OCDBT database with one data file, in which each tensor is a zarr array of one plain chunk. Pure.

All files have their sizes from the plan, and tensors lie one after the other, so that copies are byte ranges. What `StandardCheckpointer`,
`PyTreeCheckpointer` and, below a step, `CheckpointManager` restore. Source of format facts: orbax-checkpoint 0.12, as of `orbax`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from surgery.errors import KeyCollisionError, PlanError
from surgery.expr import Expr
from surgery.formats.base import Bundle, FileLayout, Layout, Patch, Placement, refuse_dtypes, refuse_keys, text_fault
from surgery.formats.ocdbt import MANIFEST
from surgery.formats.ocdbt_writer import Entry, written
from surgery.formats.zarr_metadata import AXES_LIMIT, V2_CODES
from surgery.tensors import TensorSpec

NAME = "orbax"
TREE_METADATA = "_METADATA"
CHECKPOINT_METADATA = "_CHECKPOINT_METADATA"
STRINGS = "_strings.json"
_DATA = "tensors.ocdbt"
_HANDLER = "orbax.checkpoint._src.handlers.standard_checkpoint_handler.StandardCheckpointHandler"
_ALIGNMENT = 64
_PAGE = 4096
_WORTH_SHARING = 64 << 10
SEQUENCE_KEY, DICT_KEY = 1, 2
KEY_TYPES = "key_types"
"""The attachment of a source that tells which names of its keys are of lists."""
_KEY_LIMIT = 4096
_OF_AN_OLDER_SAVE = re.compile(r"_METADATA|_sharding|_strings\.json|array_metadatas|commit_success\.txt|d|manifest\.ocdbt|ocdbt\.process_\d+")


def layout(bundle: Bundle) -> Layout:
    """Place the tensors one after the other in a data file, and behind them the tree of the database. Metadata is Orbax's custom metadata.

    Each tensor stands at a multiple of 64, where that lets file systems share blocks at the source's offset modulo 4096.

    Raises:
        PlanError: a dtype, shape or key that Orbax cannot hold, a path that names no folder.
        KeyCollisionError: a key that is a tensor and a scope.
    """
    refuse_dtypes(bundle, "Orbax", lambda spec: spec.dtype in V2_CODES)
    folder = bundle.path.rstrip("/")
    if not folder:
        raise PlanError(f"{bundle.path} names no folder of a checkpoint", code="bad-option", help="name a folder that is its own")
    _refuse_keys(bundle.tensors)
    placements, stop = _placed(bundle.tensors)
    tree, manifest = _database(placements, stop)
    texts = {
        TREE_METADATA: _tree_metadata(bundle.tensors, _lists(bundle)),
        CHECKPOINT_METADATA: _json({"item_handlers": _HANDLER, "custom_metadata": dict(bundle.metadata)}),
    }
    small = [FileLayout(name, len(text)) for name, text in texts.items()]
    files = (FileLayout(_DATA, stop + len(tree), placements), *small, FileLayout(MANIFEST, len(manifest)))
    patches = (Patch(_DATA, stop, tree), *(Patch(name, 0, text) for name, text in texts.items()), Patch(MANIFEST, 0, manifest))
    return Layout(NAME, folder, files, patches, stale=partial(_is_stale, frozenset(file.name for file in files)))


def _is_stale(kept: frozenset[str], name: str) -> bool:
    return name not in kept and _OF_AN_OLDER_SAVE.fullmatch(name) is not None


def _refuse_keys(tensors: Mapping[str, Expr]) -> None:
    scopes: dict[str, str] = {}
    names: dict[str, str] = {}
    refuse_keys("Orbax", {key: fault for key in tensors if (fault := _key_fault(key))})
    for key, expr in tensors.items():
        if len(expr.spec.shape) > AXES_LIMIT or 0 in expr.spec.shape:
            what = "no elements" if 0 in expr.spec.shape else f"{len(expr.spec.shape)} axes"
            help = "`drop` it" if 0 in expr.spec.shape else "`reshape` it"
            raise PlanError(f"`{key}` has {what}, and Orbax saves no such arrays", code="shape-not-storable", help=help)
        parts = key.split("/")
        scopes.update({"/".join(parts[:depth]): key for depth in range(1, len(parts))})
        other = names.setdefault(_stored_name(key), key)
        if other != key:
            raise _collision(f"Orbax would store `{other}` and `{key}` under one name", [other, key])
    for key in tensors:
        if key in scopes:
            raise _collision(f"`{key}` would be a tensor and a scope", [key, scopes[key]])


def _collision(what: str, keys: list[str]) -> KeyCollisionError:
    return KeyCollisionError(what, help="`rename` one", data={"collisions": {keys[0]: keys}})


def _key_fault(key: str) -> str:
    if "" in key.split("/"):
        return "a name in it is empty"
    if "\0" in key:
        return "it contains a NUL"
    return text_fault(key) or (f"it is longer than {_KEY_LIMIT:,} bytes" if len(key.encode()) > _KEY_LIMIT else "")


def _stored_name(key: str) -> str:
    """Orbax joins the names of the tree with dots."""
    return key.replace("/", ".")


def _placed(tensors: Mapping[str, Expr]) -> tuple[tuple[Placement, ...], int]:
    """All placements, and where the last one ends."""
    placements: list[Placement] = []
    at = 0
    for key, expr in tensors.items():
        start = _start(at, expr)
        placements.append(Placement(key, expr, start))
        at = start + expr.spec.nbytes
    return tuple(placements), at


def _start(at: int, expr: Expr) -> int:
    """The first place from `at` on where blocks can be shared with the source, if that is worth it; else the next multiple of 64."""
    ranges = expr.view() or ()
    if expr.spec.nbytes >= _WORTH_SHARING and len(ranges) == 1 and ranges[0].codec is None:
        return at + (ranges[0].start - at) % _PAGE
    return at + -at % _ALIGNMENT


def _database(placements: Iterable[Placement], stop: int) -> tuple[bytes, bytes]:
    from hashlib import sha256

    entries: list[Entry] = []
    for key, expr, start in placements:
        name = _stored_name(key)
        chunk = ".".join("0" * len(expr.spec.shape)) or "0"
        entries.append(Entry(f"{name}/.zarray".encode(), inline=_zarray(expr.spec)))
        entries.append(Entry(f"{name}/{chunk}".encode(), start=start, nbytes=expr.spec.nbytes))
    entries.sort()
    identity = sha256(repr(entries).encode()).digest()[:16]  # of the content, so that equal plans write equal bytes
    return written(entries, _DATA, stop, identity, 0)


def _zarray(spec: TensorSpec) -> bytes:
    shape = list(spec.shape)
    fields = {
        "chunks": shape,
        "compressor": None,
        "dimension_separator": ".",
        "dtype": V2_CODES[spec.dtype],
        "fill_value": None,
        "filters": None,
        "order": "C",
        "shape": shape,
        "zarr_format": 2,
    }
    return _json(fields)


def _lists(bundle: Bundle) -> frozenset[str]:
    """The scopes that were lists in the source, and have the names 0, 1, 2, … still."""
    names: dict[str, set[str]] = {}
    others: set[str] = set()
    for key in bundle.tensors:
        parts = key.split("/")
        for depth, key_type in enumerate(_key_types(bundle, key)):
            scope = "/".join(parts[:depth])
            names.setdefault(scope, set()).add(parts[depth])
            if key_type != SEQUENCE_KEY:
                others.add(scope)
    return frozenset(scope for scope, found in names.items() if scope not in others and found == set(map(str, range(len(found)))))


def _key_types(bundle: Bundle, key: str) -> list[int]:
    """What the names of a key are of: numbers of what they were of in the source, as long as these are the same there; all else of mappings."""
    parts = key.split("/")
    types = [DICT_KEY] * len(parts)
    origin = bundle.origins.get(key)
    source = bundle.sources.get(origin.location) if origin else None
    if source is None or origin is None or origin.key not in source.attachments.get(KEY_TYPES, {}):
        return types
    old = origin.key.split("/")
    here, there = _numbers(parts), _numbers(old)
    if [parts[depth] for depth in here] == [old[depth] for depth in there]:
        for depth, was in zip(here, there, strict=True):
            types[depth] = source.attachments[KEY_TYPES][origin.key][was]
    return types


def _numbers(parts: list[str]) -> list[int]:
    """Where the names are numbers."""
    return [depth for depth, name in enumerate(parts) if name.isdecimal()]


def _tree_metadata(tensors: Mapping[str, Expr], lists: frozenset[str]) -> bytes:
    tree = {repr(tuple(key.split("/"))): _leaf(key.split("/"), lists) for key in tensors}
    fields = {"tree_metadata": tree, "use_ocdbt": True, "use_zarr3": False, "store_array_data_equal_to_fill_value": True, "custom_metadata": None}
    return _json(fields)


def _leaf(parts: list[str], lists: frozenset[str]) -> dict[str, Any]:
    types = [SEQUENCE_KEY if "/".join(parts[:depth]) in lists else DICT_KEY for depth in range(len(parts))]
    names = [{"key": name, "key_type": key_type} for name, key_type in zip(parts, types, strict=True)]
    return {"key_metadata": names, "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False}}


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()
