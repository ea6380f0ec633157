"""From an array's metadata and the values in a store to an expression: each chunk is a stored tensor of its own, a byte range where it is plain."""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any, NamedTuple

from surgery.chunked import Chunked
from surgery.dtypes import DType
from surgery.errors import CorruptFile, RecipeError, UnsupportedFeature
from surgery.expr import Expr, Fill, Slice, Stored, Transpose
from surgery.formats.wire import COPY_AGAIN
from surgery.formats.zarr_codecs import INFLATION, Packed, need_packages, unpacked
from surgery.formats.zarr_metadata import Array, Encoding, Shard, array_v2, array_v3
from surgery.formats.zarr_store import Store, Value, below, read_object
from surgery.tensors import Extent, SourceFile, TensorSpec

_SPARE = 4096
_ABSENT = (1 << 64) - 1
Place = tuple[int, ...]


class Found(NamedTuple):
    """An array in a store, with the files that its values lie in and its attributes."""

    expr: Expr
    files: tuple[SourceFile, ...]
    attributes: dict[str, Any]


def find_array(store: Store, path: str, key: str, extra: str) -> Found | None:
    """The array at a path of a store, under `key` in messages; None where there is none. Reads its metadata and the indexes of shards.

    Raises:
        CorruptFile: metadata that is none, chunks that cannot become what they should.
        UnsupportedFeature: something that is not read here; with code `missing-package` where `extra` would bring it.
    """
    label = f"`{key}` in {store.label}"
    for name, parse in ((".zarray", array_v2), ("zarr.json", array_v3)):
        value = store.find(posixpath.join(path, name))
        fields = read_object(value) if value else {}
        if value is None or fields.get("node_type", "array") != "array":
            continue
        array = parse(fields, label)
        need_packages(_steps(array), extra)
        chunks = _chunks(store, path, array)
        files = (value.file, *(chunk.file for chunk in chunks.values()))
        attributes = fields.get("attributes", {})
        return Found(_assembled(array, chunks, key, label), files, attributes if isinstance(attributes, dict) else {})
    return None


def _steps(array: Array) -> tuple[str, ...]:
    return array.inside.encoding.steps if isinstance(array.inside, Shard) else array.inside.steps


def _chunks(store: Store, path: str, array: Array) -> dict[Place, Value]:
    """The chunks that are there and lie inside of the array, by their place in the grid."""
    axes = len(array.spec.shape)
    if axes == 0:
        names = [array.prefix or "0"]
    elif array.separator == ".":
        names = [name for name in store.names(path) if name.startswith(array.prefix)]
    else:
        start = posixpath.join(path, array.prefix)
        names = [posixpath.join(array.prefix, *parts) for parts in below(store, start, axes)]
    found: dict[Place, Value] = {}
    for name in names:
        place = _place(name, array)
        value = store.find(posixpath.join(path, name)) if place is not None else None
        if place is not None and value is not None:
            found[place] = value
    return found


def _place(name: str, array: Array) -> Place | None:
    """The place in the grid that a name stands for; None where it stands for none."""
    if not array.spec.shape:
        return ()
    numbers = name.split(array.separator)[1 if array.prefix else 0 :]
    if len(numbers) != len(array.grid) or not all(number.isdecimal() and number.isascii() and len(number) < 20 for number in numbers):
        return None
    place = tuple(map(int, numbers))
    inside = all(number < count for number, count in zip(place, array.grid, strict=True))
    return place if inside and [str(number) for number in place] == numbers else None


def _assembled(array: Array, chunks: dict[Place, Value], key: str, label: str) -> Expr:
    """The array out of its chunks, or its fill value. Chunks whose axes are in another order make an array that is transposed as a whole."""
    if not chunks or not array.spec.size:
        return _fill(array, array.spec, key, label)
    extents = dict(_shards(array, array.inside, chunks, label) if isinstance(array.inside, Shard) else _plain(array, array.inside, chunks, label))
    if not extents:
        return _fill(array, array.spec, key, label)
    encoding = array.inside.encoding if isinstance(array.inside, Shard) else array.inside
    step = array.inside.chunk if isinstance(array.inside, Shard) else array.chunk
    order = encoding.order
    spec = array.spec._replace(shape=_ordered(array.spec.shape, order))
    expr = _joined(array, spec, _ordered(step, order), extents, encoding, key, label)
    in_order = order == tuple(range(len(order)))
    return expr if in_order else Transpose(expr, tuple(order.index(axis) for axis in range(len(order))))


def _joined(array: Array, spec: TensorSpec, chunk: Place, extents: dict[Place, Extent], encoding: Encoding, key: str, label: str) -> Expr:
    count = prod(-(-size // step) for size, step in zip(spec.shape, chunk, strict=True))
    first = next(iter(extents.values()))
    if count == 1:
        stored = Stored(first)
        return stored if spec.shape == chunk else Slice(stored, (0,) * len(chunk), spec.shape)
    fill = _fill(array, spec, key, label) if count > len(extents) else None
    spanning = first._replace(spec=spec, codec=None, big_endian=encoding.big_endian)
    encoded = any(extent.codec is not None for extent in extents.values())
    return Chunked(spanning, chunk, extents.get, fill, encoded=encoded)


def _plain(array: Array, encoding: Encoding, chunks: dict[Place, Value], label: str) -> Iterator[tuple[Place, Extent]]:
    make = _Maker(array.spec.dtype, array.chunk, encoding, label)
    for place, value in chunks.items():
        yield _ordered(place, encoding.order), make.extent(value)


def _shards(array: Array, shard: Shard, chunks: dict[Place, Value], label: str) -> Iterator[tuple[Place, Extent]]:
    make = _Maker(array.spec.dtype, shard.chunk, shard.encoding, label)
    counts = tuple(size // step for size, step in zip(array.chunk, shard.chunk, strict=True))
    inside = tuple(-(-size // step) for size, step in zip(array.spec.shape, shard.chunk, strict=True))
    for place, value in chunks.items():
        index = _shard_index(shard, prod(counts), value, label)
        for number, at in enumerate(product(*map(range, counts))):
            start, nbytes = struct.unpack_from("<2Q", index, 16 * number)
            inner = tuple(outer * count + each for outer, count, each in zip(place, counts, at, strict=True))
            if start == nbytes == _ABSENT or any(each >= count for each, count in zip(inner, inside, strict=True)):
                continue
            if start + nbytes > value.nbytes:
                raise _corrupt(label, f"a chunk of the shard lies at {start:,}, {nbytes:,} bytes long", str(value))
            content = value.inline[start : start + nbytes] if value.inline is not None else None
            part = Value(value.file, value.read, value.start + start, nbytes, content)
            yield _ordered(inner, shard.encoding.order), make.extent(part)


class _Maker:
    """Makes the extents of an array's chunks; those of one array share their codec."""

    def __init__(self, dtype: DType, chunk: Place, encoding: Encoding, label: str) -> None:
        self.spec = TensorSpec(dtype, _ordered(chunk, encoding.order))
        self.encoding = encoding
        self.label = label
        self.codec = Packed(encoding.steps, encoding.big_endian, label) if encoding.steps else None

    def extent(self, value: Value) -> Extent:
        """One chunk, those at the edge whole. Raises CorruptFile for one that cannot become what it should."""
        steps, big_endian = self.encoding.steps, self.encoding.big_endian
        most = value.nbytes
        for step in steps:
            most = most * INFLATION[step] + _SPARE
        if self.spec.nbytes > most or (not steps and self.spec.nbytes != most):
            raise _corrupt(self.label, f"a chunk of {value.nbytes:,} bytes cannot become {self.spec}", str(value))
        if value.inline is not None:
            return Extent(value.file, value.start, 0, self.spec, codec=Packed(steps, big_endian, self.label, value.inline))
        swapped = big_endian and self.codec is None and self.spec.dtype.itemsize > 1
        return Extent(value.file, value.start, value.nbytes, self.spec, codec=self.codec, big_endian=swapped)


def _ordered(sizes: Place, order: Place) -> Place:
    """Sizes or places, one for each axis, in the order in which the chunks have their axes."""
    return tuple(sizes[axis] for axis in order)


def _shard_index(shard: Shard, count: int, value: Value, label: str) -> bytes:
    nbytes = 16 * count + 4 * len(shard.index_steps)
    if nbytes > value.nbytes:
        raise _corrupt(label, f"the index of a shard should have {nbytes:,} bytes", str(value))
    index = value.content(0, nbytes) if shard.index_first else value.content(value.nbytes - nbytes, value.nbytes)
    for number, step in enumerate(shard.index_steps):
        index = unpacked(step, index, nbytes - 4 * (number + 1), f"the index of a shard of {label}")
    return index


def _fill(array: Array, spec: TensorSpec, key: str, label: str) -> Fill:
    """What stands where no chunk was written: the fill value, zero where there is none; of the array's spec, its axes in whatever order."""
    from surgery.initializers import check, parse

    number = _fill_number(array.fill)
    if number == 0 or spec.size == 0:
        return Fill(spec, parse("zeros"), 0, key)
    try:
        initializer = parse({"constant": number})
        if not check(initializer, spec):
            return Fill(spec, initializer, 0, key)
    except RecipeError:
        pass
    raise UnsupportedFeature(
        f"{label} has chunks that were never written, and its fill value cannot be made here",
        notes=[f"{spec} of {str(array.fill)[:100]!r}"],
        help="write these chunks, with `write_empty_chunks` or `fill_missing_data_reads`",
    )


def _fill_number(found: Any) -> Any:
    """The fill value; 0 for all forms of zero."""
    if found in (None, False, "", [0, 0], ["0.0", "0.0"]):
        return 0
    return 1 if found is True else found


def _corrupt(label: str, *facts: str) -> CorruptFile:
    return CorruptFile(f"{label} does not fit its values", notes=facts, help=COPY_AGAIN)
