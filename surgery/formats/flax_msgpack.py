"""Flax's msgpack files: a tree of mappings with arrays as leaves. Serves probe (index) and physical planning (layout).

Keys are names joined with `/`. What is written is what `flax.serialization.to_bytes` writes for the same tree: the format has no checksums and
no alignment. Source of format facts: flax/serialization.py.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from surgery.errors import PlanError, SourceError, plural
from surgery.expr import Expr, Slice
from surgery.formats import suffixes
from surgery.formats.base import Bundle, Disk, FileLayout, Indexed, Layout, Patch, Placement, refuse_dtypes, refuse_keys, text_fault
from surgery.formats.flax_tree import CHUNKED, DEEPEST, NDARRAY, SCALAR, TYPES, Tree, array_of, packed_leaf
from surgery.formats.msgpack import Reader, head, pack

NAME = "flax"
SUMMARY = "Flax msgpack, as flax.serialization.to_bytes writes it"
OPTIONS: frozenset[str] = frozenset()

_CHUNK_NBYTES = 1 << 30
"""An array of more bytes is stored in chunks: msgpack's own limit is 2**32, flax's is this."""
_MOST_TENSORS = 25_000
"""That are written, so that they can be read again."""
_MOST_LOOKED_AT = 1000
"""Names before the first array of a file that is to be recognised by its content."""
_SCALARS = "scalars"
_NAME_OF = {dtype: name for name, dtype in TYPES.items()}


def locate(path: str, disk: Disk) -> str | None:
    """Recognise a file by its suffix, or by content: mappings down to a first leaf that is an array."""
    if not disk.is_file(path):
        return None
    return path if path.endswith(suffixes(NAME)) or _looks_right(path, disk) else None


def _looks_right(path: str, disk: Disk) -> bool:
    """Whether mappings with names lead to an array. Numbers and texts may stand before it, as the version does in files of T5X."""
    reader = Reader(*disk.open(path))
    try:
        item = reader.item()
        if item.kind in ("plain", "str"):
            return False
        for _ in range(_MOST_LOOKED_AT):
            if item.kind not in ("map", "plain", "str"):
                return item.kind == "ext" and item.value in (NDARRAY, SCALAR) and array_of(reader, item).nbytes >= 0
            name = reader.item()
            if name.kind != "str":
                return False
            if reader.text(name) == CHUNKED:
                return True
            item = reader.item()
    except SourceError:
        pass
    return False


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the arrays in the order of the file; reads what stands between them, not the arrays.

    Leaves of other kinds become metadata, as JSON. A file that is one array has the file's name without suffix as its key.

    Raises:
        CorruptFile: items that do not fit into the file, arrays whose bytes do not make their shape, names that occur twice.
        UnsupportedFeature: element types that numpy and ml_dtypes lack, very deep trees, megabytes that are no tensors.
    """
    file, read = disk.open(location)
    tree = Tree(Reader(file, read), posixpath.basename(location).removesuffix(suffixes(NAME)[0]))
    attachments = {_SCALARS: frozenset(tree.scalars)}
    return Indexed(NAME, location, tree.tensors, tree.metadata, (file,), notes=tuple(tree.notes), attachments=attachments)


def layout(bundle: Bundle) -> Layout:
    """Place the arrays in the order given, as a tree of mappings: each `/` of a key goes one mapping deeper.

    Metadata of Flax sources, and what the recipe sets, become leaves; that of other formats is left out with a note, since a tree with more
    leaves fits no model. Arrays over 2**30 bytes become chunks of whole rows, which flax joins again.

    Raises:
        PlanError: a dtype or key that the format cannot hold, or a key that is a tensor and a mapping at once; a path that names no file.
    """
    refuse_dtypes(bundle, NAME, lambda spec: spec.dtype in _NAME_OF)
    folder, name = posixpath.split(bundle.path)
    if not name:
        raise PlanError(f"{bundle.path} names no file", code="bad-option", help="name a file in it")
    if len(bundle.tensors) > _MOST_TENSORS:
        fact = f"a flax file holds {_MOST_TENSORS:,} tensors here, not {len(bundle.tensors):,}"
        raise PlanError(fact, code="too-many-tensors", help="save several files, each with a part of the keys")
    root: dict[str, Any] = {}
    leaves = _leaves(bundle)
    refuse_keys(NAME, {key: fault for key in (*bundle.tensors, *leaves) if (fault := _insert(root, key))})
    writer = _Writer(name, bundle, leaves)
    writer.write_map(root)
    left_out = len(bundle.metadata) - len(leaves)
    notes = (f"{plural(left_out, 'entry', 'entries')} of metadata left out: a leaf more in the tree would fit no model",) if left_out else ()
    return Layout(NAME, folder or ".", (writer.file(),), tuple(writer.patches), notes=notes)


def _leaves(bundle: Bundle) -> dict[str, bytes]:
    """The packed leaves that metadata becomes."""
    foreign = [source.metadata for source in bundle.sources.values() if source.format != NAME]
    own = {key for source in bundle.sources.values() if source.format == NAME for key in source.metadata}
    leaves = {}
    for key, text in bundle.metadata.items():
        if key not in own and any(metadata.get(key) == text for metadata in foreign):
            continue
        try:
            leaves[key] = packed_leaf(text)
        except (ValueError, TypeError, RecursionError) as fault:
            help = "give JSON, or take the key away with null"
            raise PlanError(f"metadata `{key}` cannot become {text[:80]}: {fault}", code="bad-option", at=("metadata", key), help=help) from None
    return leaves


def _insert(root: dict[str, Any], key: str) -> str:
    """Put a key at its place in the tree, where it stands for itself; tells why it cannot be there, or ""."""
    *names, last = key.split("/")
    if len(names) >= DEEPEST:
        return f"it has more than {DEEPEST} names"
    if CHUNKED in (*names, last):
        return "flax marks chunks with that name"
    node: Any = root
    for name in names:
        node = node.setdefault(name, {})
        if isinstance(node, str):
            return f"`{node}` cannot be an array and a mapping at once"
    if last in node:
        return "it cannot be an array and a mapping at once"
    node[last] = key
    return text_fault(key)


class _Writer:
    """Goes through the tree and collects what stands between the arrays as patches, and the arrays as placements."""

    def __init__(self, name: str, bundle: Bundle, leaves: dict[str, bytes]) -> None:
        self.patches: list[Patch] = []
        self._name = name
        self._bundle = bundle
        self._leaves = leaves
        self._placements: list[Placement] = []
        self._between: list[bytes] = []
        self._at = 0

    def write_map(self, tree: dict[str, Any]) -> None:
        self._between.append(head("map", len(tree)))
        for name, node in tree.items():
            self._between.append(pack(name))
            if isinstance(node, dict):
                self.write_map(node)
            elif node in self._leaves:
                self._between.append(self._leaves[node])
            else:
                self._write_tensor(node, self._bundle.tensors[node])

    def file(self) -> FileLayout:
        """All that was written."""
        self._flush()
        return FileLayout(self._name, self._at, tuple(self._placements))

    def _write_tensor(self, key: str, expr: Expr) -> None:
        if expr.spec.nbytes <= _CHUNK_NBYTES:
            self._write_array(key, expr, expr.spec.shape, SCALAR if self._is_scalar(key) and not expr.spec.shape else NDARRAY)
            return
        shape = {str(axis): size for axis, size in enumerate(expr.spec.shape)}
        pieces = list(_pieces(expr))
        self._between += [head("map", 3), pack(CHUNKED), pack(True), pack("shape"), pack(shape), pack("chunks"), head("map", len(pieces))]
        for number, piece in enumerate(pieces):
            self._between.append(pack(str(number)))
            self._write_array(key, piece, (piece.spec.size,), NDARRAY)

    def _is_scalar(self, key: str) -> bool:
        """Whether it was a numpy scalar, which Flax tells from an array without axes."""
        origin = self._bundle.origins.get(key)
        source = self._bundle.sources.get(origin.location) if origin else None
        return origin is not None and source is not None and source.format == NAME and origin.key in source.attachments[_SCALARS]

    def _write_array(self, key: str, expr: Expr, shape: tuple[int, ...], code: int) -> None:
        nbytes = expr.spec.nbytes
        before = head("array", 3) + pack(list(shape)) + pack(_NAME_OF[expr.spec.dtype]) + head("bin", nbytes)
        self._between += [head("ext", len(before) + nbytes, code), before]
        self._flush()
        self._placements.append(Placement(key, expr, self._at))
        self._at += nbytes

    def _flush(self) -> None:
        data = b"".join(self._between)
        self._between.clear()
        if data:
            self.patches.append(Patch(self._name, self._at, data))
            self._at += len(data)


def _pieces(expr: Expr) -> Iterator[Expr]:
    """A large tensor cut along its first axes into pieces that lie one behind the other, as long as chunks may be."""
    shape = expr.spec.shape
    if expr.spec.nbytes <= _CHUNK_NBYTES:
        yield expr
        return
    axis = next(axis for axis, size in enumerate(shape) if size > 1)
    rows = max(1, _CHUNK_NBYTES // (expr.spec.nbytes // shape[axis]))
    for low in range(0, shape[axis], rows):
        origin = (*(0 for _ in shape[:axis]), low, *(0 for _ in shape[axis + 1 :]))
        yield from _pieces(Slice(expr, origin, (*shape[:axis], min(rows, shape[axis] - low), *shape[axis + 1 :])))
