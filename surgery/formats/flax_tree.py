"""The tree of a Flax msgpack file, walked leaf by leaf. Serves the flax format; reads no tensor data.

Arrays are extensions of three items: shape, name of the type, bytes (little-endian, C order). Arrays of more than 2**30 bytes are mappings of
flat chunks. All other leaves are metadata, told as JSON. Source: flax/serialization.py.
"""

from __future__ import annotations

import json
from math import prod
from typing import Any

from surgery.dtypes import DTYPES, DType
from surgery.errors import UnsupportedFeature
from surgery.expr import Expr, Stored
from surgery.formats.msgpack import Item, Reader, head, pack
from surgery.joined import Joined
from surgery.tensors import Extent, TensorSpec

NDARRAY, COMPLEX, SCALAR = 1, 2, 3
CHUNKED = "__msgpack_chunked_array__"
DEEPEST = 100
TYPES = {dtype.numpy: dtype for dtype in DTYPES.values() if dtype.computable}
_AXES_LIMIT = 64
_MOST_LEAVES = 1 << 16
_MOST_LEAF_BYTES = 4 << 20
"""Of leaves that are no tensors, in all."""
_MOST_KEY_CHARS = 16 << 20
"""Of all keys and the beginnings of keys: with long names at the root, each key below is as long."""


class Tree:
    """What the walk over a file found: tensors and other leaves by their keys, names joined with `/`."""

    def __init__(self, reader: Reader, root: str) -> None:
        self.tensors: dict[str, Expr] = {}
        self.metadata: dict[str, str] = {}
        self.scalars: set[str] = set()
        self.notes: dict[str, None] = {}
        self._reader = reader
        self._leaf_bytes = 0
        self._key_chars_left = _MOST_KEY_CHARS
        item = reader.item()
        if item.kind == "map":
            self._visit_map(item, "", 0)
        else:
            self._visit(item, root, 0)
        if reader.at != reader.stop:
            raise reader.corrupt("there are bytes behind the tree", reader.at)

    def _visit(self, item: Item, key: str, depth: int) -> None:
        if depth > DEEPEST:
            raise self._reader.unsupported(f"mappings nested more than {DEEPEST} deep", item.start)
        if item.kind == "map" and item.value:
            self._visit_map(item, key, depth)
        elif item.kind == "array" and item.value:
            self._note("lists become mappings of numbers when it is saved as flax")
            for number in range(item.value):
                self._visit(self._reader.item(), self._key(f"{key}/", str(number)), depth + 1)
        elif item.kind == "ext" and item.value in (NDARRAY, SCALAR):
            self._add(key, Stored(array_of(self._reader, item)), item)
        else:
            self._add_leaf(key, item)

    def _visit_map(self, item: Item, key: str, depth: int) -> None:
        prefix = f"{key}/" if depth else ""
        for number in range(item.value):
            name = self._name(self._reader.item())
            if name == CHUNKED and number == 0 and depth:
                self._add(key, self._joined(item), item)
                return
            self._visit(self._reader.item(), self._key(prefix, name), depth + 1)

    def _key(self, prefix: str, name: str) -> str:
        self._key_chars_left -= len(prefix) + len(name)
        if self._key_chars_left < 0:
            raise self._reader.unsupported("keys that are too long", self._reader.at)
        return prefix + name

    def _name(self, item: Item) -> str:
        if item.kind == "plain" and type(item.value) is int:
            self._note("numbers as names become text when it is saved as flax")
            return str(item.value)
        if item.kind != "str":
            raise self._reader.corrupt("a name is neither text nor a number", item.start)
        name = self._reader.text(item)
        if "/" in name:
            self._note("names that contain `/` become nested when it is saved as flax")
        return name

    def _add(self, key: str, expr: Expr, item: Item) -> None:
        self._refuse_twice(key, item)
        self.tensors[key] = expr
        if item.kind == "ext" and item.value == SCALAR:
            self.scalars.add(key)

    def _add_leaf(self, key: str, item: Item) -> None:
        self._refuse_twice(key, item)
        self._leaf_bytes += item.stop - item.start
        if self._leaf_bytes > _MOST_LEAF_BYTES or len(self.metadata) >= _MOST_LEAVES:
            raise self._reader.unsupported("too much that is no tensor", item.start)
        self.metadata[key] = json.dumps(self._plain(item), ensure_ascii=False)

    def _plain(self, item: Item) -> Any:
        """A leaf as JSON has it; what JSON has not is an object with one of the names `complex`, `bytes` and `ext`."""
        if item.kind == "ext" and item.value == COMPLEX:
            inner = self._reader.within(item)
            if inner.item()[:2] == ("array", 2):
                return {"complex": [inner.item().value, inner.item().value]}
        if item.kind in ("ext", "bin"):
            told = {"bytes": self._reader.content(item).hex()}
            return told | {"ext": item.value} if item.kind == "ext" else told
        if item.kind == "str":
            return self._reader.text(item)
        return {"map": {}, "array": []}.get(item.kind, item.value)

    def _joined(self, item: Item) -> Expr:
        """A tensor in chunks, of which the mark has been read: its value, then `shape` and `chunks`, both mappings of numbers."""
        reader, start = self._reader, item.start
        reader.item()
        shape = tuple(part.value for part in self._numbered("shape", start))
        chunks = [array_of(reader, part) for part in self._numbered("chunks", start)]
        dtypes = {chunk.spec.dtype for chunk in chunks}
        spec = TensorSpec(dtypes.pop() if len(dtypes) == 1 else DTYPES["bool"], _checked_shape(reader, shape, start))
        if item.value != 3 or dtypes or spec.nbytes != sum(chunk.nbytes for chunk in chunks):
            raise reader.corrupt("the chunks of an array do not make its shape", start)
        return Joined(spec, tuple((chunk.file, chunk.start, chunk.nbytes) for chunk in chunks))

    def _numbered(self, name: str, start: int) -> list[Item]:
        """The values of a mapping with the names 0, 1, 2, …, which comes next under this name."""
        reader = self._reader
        if self._name(reader.item()) != name:
            raise reader.corrupt(f"a chunked array has no `{name}`", start)
        mapping, found = reader.item(), []
        for number in range(mapping.value if mapping.kind == "map" else 0):
            if self._name(reader.item()) != str(number):
                raise reader.corrupt(f"`{name}` of a chunked array is not in order", start)
            found.append(reader.item())
        return found

    def _refuse_twice(self, key: str, item: Item) -> None:
        if key in self.tensors or key in self.metadata:
            raise self._reader.corrupt(f"`{key}` occurs twice", item.start)

    def _note(self, text: str) -> None:
        self.notes[text] = None


def array_of(reader: Reader, item: Item) -> Extent:
    """Where the bytes of an array lie. Raises CorruptFile, or UnsupportedFeature for an element type that is not known."""
    if item.kind != "ext":
        raise reader.corrupt("an array should stand here", item.start)
    inner = reader.within(item)
    triple, axes = inner.item(), inner.item()
    if triple[:2] != ("array", 3) or axes.kind != "array" or axes.value > _AXES_LIMIT:
        raise reader.corrupt("an array is not shape, type and bytes", item.start)
    shape = _checked_shape(inner, tuple(inner.item().value for _ in range(axes.value)), item.start)
    name, data = inner.item(), inner.item()
    if name.kind not in ("str", "bin") or data.kind not in ("str", "bin") or inner.at != item.stop:
        raise reader.corrupt("an array is not shape, type and bytes", item.start)
    spec = TensorSpec(_dtype(inner, name), shape)
    if spec.nbytes != data.stop - data.start:
        raise reader.corrupt(f"{spec} does not take {data.stop - data.start:,} bytes", item.start)
    return Extent(reader.file, data.start, spec.nbytes, spec)


def _checked_shape(reader: Reader, shape: tuple[Any, ...], start: int) -> tuple[int, ...]:
    if any(type(size) is not int or size < 0 for size in shape) or prod(size or 1 for size in shape) >= 1 << 56:
        raise reader.corrupt("an array has an impossible shape", start)
    return shape


def _dtype(reader: Reader, name: Item) -> DType:
    told = reader.content(name)[:80].decode("latin-1") if name.stop - name.start <= 80 else ""
    if told not in TYPES:
        where = f"{reader.file.path}, bytes {name.start:,} to {name.stop:,}"
        raise UnsupportedFeature(
            f"an array in {reader.file.path} has the element type {told!r}", notes=[where], help="a newer version of this tool may know it"
        )
    return TYPES[told]


def packed_leaf(text: str) -> bytes:
    """The leaf that a text of metadata tells; text that is no JSON is itself the leaf. Raises ValueError where msgpack has no such leaf."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        plain = text
    if type(plain) is dict and plain.keys() == {"complex"}:
        content = pack([float(part) for part in plain["complex"]])
        return head("ext", len(content), COMPLEX) + content
    if type(plain) is dict and plain.keys() in ({"bytes"}, {"bytes", "ext"}):
        content = bytes.fromhex(plain["bytes"])
        return head("ext", len(content), plain["ext"]) + content if "ext" in plain else pack(content)
    return pack(plain)
