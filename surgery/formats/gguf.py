"""GGUF, the format of llama.cpp: key/values, then tensors. Serves probe (index) and physical planning (layout).

Reads versions 2 and 3 in both byte orders, writes version 3, little-endian. Quantised blocks are carried as they are: one block is one element of an
opaque dtype, see `gguf_types`. Key/values are metadata, see `gguf_values`. Shapes are reversed: ggml names the fastest axis first.
The format has no checksums, so damage inside the data cannot be noticed here. Source of all format facts: ggml's docs/gguf.md and gguf.cpp.
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterable, Mapping
from math import prod
from operator import attrgetter
from typing import NamedTuple

from surgery.errors import PlanError, UnsupportedFeature, plural
from surgery.expr import Expr, Stored
from surgery.formats import suffixes
from surgery.formats.base import Bundle, Disk, FileLayout, Indexed, Layout, Patch, Placement, ReadAt, refuse_dtypes, refuse_keys, text_fault
from surgery.formats.gguf_cursor import Cursor
from surgery.formats.gguf_split import first_in, joined
from surgery.formats.gguf_types import CODE_OF, TYPES
from surgery.formats.gguf_values import UINT32, Value, read_value, value_of
from surgery.tensors import Extent, SourceFile, TensorSpec

NAME = "gguf"
SUMMARY = "GGUF file of llama.cpp, with its key/values"
OPTIONS: frozenset[str] = frozenset()

_MAGIC = b"GGUF"
_VERSION = 3
_VERSIONS_READ = (2, 3)
_ALIGNMENT_KEY = "general.alignment"
_ALIGNMENT = 32
_MOST_ALIGNMENT = 1 << 20
_AXES_LIMIT = 64
_VALUE_NBYTES = 13
_ENTRY_NBYTES = 24
"""Bytes of a key/value and of a tensor's entry, at their shortest."""
_COST = 20
"""Of reading a key/value or an entry, in items of an array."""
_MOST_TENSORS = 1 << 16
"""That are written, so that they can be read again beside any vocabulary."""
_GGML_AXES = 4
_GGML_NAME_NBYTES = 63
"""What ggml is built to load, by GGML_MAX_DIMS and GGML_MAX_NAME."""


def locate(path: str, disk: Disk) -> str | None:
    """Recognise a file by its magic number or its suffix, and a folder by the names of one model's parts."""
    if disk.is_folder(path):
        return first_in(path, disk.names(path))
    if not disk.is_file(path):
        return None
    return path if path.endswith(suffixes(NAME)) or _looks_right(path, disk) else None


def _looks_right(path: str, disk: Disk) -> bool:
    file, read = disk.open(path)
    return read(0, min(file.nbytes, len(_MAGIC))) == _MAGIC


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the tensors in the order of their data, without reading any of them. The text of metadata is JSON.

    The first file of a model in several stands for all of them.

    Raises:
        CorruptFile: a front that contradicts itself or the file's size, names that occur twice, data that overlaps.
        UnsupportedFeature: version 1, element types that ggml has taken out or this version does not know, big-endian quantised blocks.
        SourceError: a file of the model is not there.
    """
    return joined(_index_file(location, disk), disk, _index_file)


def _index_file(location: str, disk: Disk) -> Indexed:
    file, read = disk.open(location)
    cursor, count, values = _read_values(file, read)
    entries = [_read_entry(cursor) for _ in range(count)]
    alignment = _alignment(cursor, values)
    data_start = _padded(cursor.at, alignment)
    tensors = _tensors(cursor, entries, data_start, alignment)
    metadata = {key: value.text for key, value in values.items()}
    return Indexed(NAME, location, tensors, metadata, (file,), attachments=values)


def _read_values(file: SourceFile, read: ReadAt) -> tuple[Cursor, int, dict[str, Value]]:
    """A cursor behind the key/values, the number of tensors, and the key/values."""
    cursor = Cursor(file, read)
    if cursor.take(4) != _MAGIC:
        raise cursor.corrupt("it does not begin with GGUF", 0)
    version = cursor.number("I")
    if not version & 0xFFFF:
        cursor.order, version = ">", int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in _VERSIONS_READ:
        raise cursor.unsupported(f"version {version} of GGUF; 2 and 3 are read here")
    count, value_count = cursor.numbers("Q", 2)
    cursor.claim(value_count, _VALUE_NBYTES, "key/values", _COST)
    values: dict[str, Value] = {}
    for _ in range(value_count):
        start = cursor.at
        key = cursor.text()
        if key in values:
            raise cursor.corrupt(f"the key `{key}` occurs twice", start)
        values[key] = read_value(cursor)
    cursor.claim(count, _ENTRY_NBYTES, "tensors", _COST)
    return cursor, count, values


class _Entry(NamedTuple):
    """What a file says of one tensor; its data lies `rel_start` bytes behind where the data begins."""

    key: str
    spec: TensorSpec
    rel_start: int


def _read_entry(cursor: Cursor) -> _Entry:
    start = cursor.at
    key = cursor.text()
    axes = cursor.number("I")
    if axes > _AXES_LIMIT:
        raise cursor.corrupt(f"`{key}` has {axes:,} axes", start)
    shape = cursor.numbers("Q", axes)[::-1]
    code, rel_start = cursor.number("I"), cursor.number("Q")
    if code not in TYPES:
        raise UnsupportedFeature(
            f"`{key}` in {cursor.file.path} is of type {code}, which this version does not know, or ggml has taken out again",
            notes=[f"{cursor.file.path}, bytes {start:,} to {cursor.at:,}"],
            help="quantise the model again with a current llama.cpp",
        )
    dtype = TYPES[code]
    block = dtype.block
    if block > 1:
        if not shape or shape[-1] % block:
            raise cursor.corrupt(f"the rows of `{key}` are no whole blocks of {block}", start)
        if cursor.order == ">":
            raise cursor.unsupported(f"big-endian quantised blocks in `{key}`")
        shape = (*shape[:-1], shape[-1] // block)
    if prod(size or 1 for size in shape) * dtype.bits >= 1 << 63:
        raise cursor.corrupt(f"`{key}` has an impossible shape", start)
    return _Entry(key, TensorSpec(dtype, shape), rel_start)


def _alignment(cursor: Cursor, values: Mapping[str, Value]) -> int:
    value = values.get(_ALIGNMENT_KEY)
    if value is None:
        return _ALIGNMENT
    alignment = int.from_bytes(value.data, "little")
    if value.kind != UINT32 or not _is_alignment(alignment):
        raise cursor.corrupt(f"its alignment is {value.text[:20]}, not a power of two", 0)
    return alignment


def _is_alignment(number: int) -> bool:
    return 0 < number <= _MOST_ALIGNMENT and not number & (number - 1)


def _padded(nbytes: int, alignment: int) -> int:
    return -(-nbytes // alignment) * alignment


def _tensors(cursor: Cursor, entries: Iterable[_Entry], data_start: int, alignment: int) -> dict[str, Expr]:
    tensors: dict[str, Expr] = {}
    behind = data_start
    for key, spec, rel_start in sorted(entries, key=attrgetter("rel_start")):
        start, nbytes = data_start + rel_start, spec.nbytes
        fault = ""
        if start + nbytes > cursor.file.nbytes:
            fault = "would end behind the end of the file"
        elif start < behind and nbytes:
            fault = "overlaps the tensor before it"
        elif rel_start % alignment:
            fault = f"does not begin at a multiple of {alignment}"
        elif key in tensors:
            fault = "occurs twice"
        if fault:
            raise cursor.corrupt(f"`{key}` {fault}", start, f"{spec} at bytes {start:,} to {start + nbytes:,} of {cursor.file.nbytes:,}")
        tensors[key] = Stored(Extent(cursor.file, start, nbytes, spec, big_endian=cursor.order == ">"))
        behind = max(behind, start + nbytes)
    return tensors


def layout(bundle: Bundle) -> Layout:
    """Place the tensors in the order given, each at a multiple of `general.alignment`, with all metadata as key/values.

    A value that a GGUF source has with this very text keeps its bytes, one that was edited keeps its type. There is no room for padding but the
    alignment: ggml computes where data begins. What ggml itself would not load (the gguf package does) is told in a note.

    Raises:
        PlanError: a dtype, shape or key that the format cannot hold, metadata that does not fit its type, a path that names no file.
    """
    refuse_dtypes(bundle, NAME, lambda spec: spec.dtype in CODE_OF)
    folder, name = posixpath.split(bundle.path)
    if not name:
        raise PlanError(f"{bundle.path} names no file", code="bad-option", help="name a file in it")
    if len(bundle.tensors) > _MOST_TENSORS:
        fact = f"a gguf file holds {_MOST_TENSORS:,} tensors here, not {len(bundle.tensors):,}"
        raise PlanError(fact, code="too-many-tensors", help="save several files, each with a part of the keys")
    refuse_keys(NAME, {key: fault for key in bundle.tensors if (fault := text_fault(key))})
    values = _values(bundle)
    alignment = int.from_bytes(values[_ALIGNMENT_KEY].data, "little") if _ALIGNMENT_KEY in values else _ALIGNMENT
    parts = [_MAGIC, struct.pack("<IQQ", _VERSION, len(bundle.tensors), len(values))]
    parts += [_string(key) + struct.pack("<I", value.kind) + value.data for key, value in values.items()]
    rel_starts: list[int] = []
    rel_start = 0
    for key, expr in bundle.tensors.items():
        parts.append(_entry(key, expr.spec, rel_start))
        rel_starts.append(rel_start)
        rel_start += _padded(expr.spec.nbytes, alignment)
    front = b"".join(parts)
    data_start = _padded(len(front), alignment)
    placements = tuple(Placement(key, expr, data_start + start) for (key, expr), start in zip(bundle.tensors.items(), rel_starts, strict=True))
    file = FileLayout(name, data_start + rel_start, placements)
    return Layout(NAME, folder or ".", (file,), (Patch(name, 0, front.ljust(data_start, b"\0")),), notes=_notes(bundle.tensors))


def _values(bundle: Bundle) -> dict[str, Value]:
    """The metadata as key/values. Raises PlanError."""
    sources = [source.attachments for source in bundle.sources.values() if source.format == NAME]
    values: dict[str, Value] = {}
    for key, text in bundle.metadata.items():
        had = [source[key] for source in sources if key in source]
        try:
            values[key] = next((value for value in had if value.text == text), None) or value_of(text, had[0] if had else None)
        except ValueError as fault:
            help = "give JSON of that type, or take the key away with null"
            raise PlanError(f"metadata `{key}` cannot become {text[:80]}: {fault}", code="bad-option", at=("metadata", key), help=help) from None
    aligned = values.get(_ALIGNMENT_KEY)
    if aligned and not (aligned.kind == UINT32 and _is_alignment(int.from_bytes(aligned.data, "little"))):
        help = "give a power of two, such as 32"
        raise PlanError(f"metadata `{_ALIGNMENT_KEY}` cannot be {aligned.text[:80]}", code="bad-option", at=("metadata", _ALIGNMENT_KEY), help=help)
    return values


def _string(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise PlanError(f"gguf cannot hold {text!r}: it is not UTF-8", code="key-not-storable", help="`rename` or `drop` it") from None
    return struct.pack("<Q", len(data)) + data


def _entry(key: str, spec: TensorSpec, rel_start: int) -> bytes:
    code = CODE_OF[spec.dtype]
    block = spec.dtype.block
    if block > 1 and not spec.shape:
        raise PlanError(f"`{key}` is one block of {spec.dtype} without an axis", code="shape-not-storable", help="`drop` it")
    shape = (*spec.shape[:-1], spec.shape[-1] * block) if block > 1 else spec.shape
    return _string(key) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), code, rel_start)


def _notes(tensors: Mapping[str, Expr]) -> tuple[str, ...]:
    odd = [key for key, expr in tensors.items() if len(expr.spec.shape) > _GGML_AXES or len(key.encode()) > _GGML_NAME_NBYTES or 0 in expr.spec.shape]
    if not odd:
        return ()
    limits = f"no elements, more than {_GGML_AXES} axes or names of more than {_GGML_NAME_NBYTES} bytes"
    return (f"llama.cpp will not load {plural(len(odd), 'tensor')} with {limits}: `{odd[0]}`",)
