"""What `.zarray` and `zarr.json` say of an array, checked and in one form for both versions. Opens nothing.

Sources: Zarr specification 2 and 3.1 with its codecs (bytes, transpose, gzip, zstd, blosc, crc32c, sharding_indexed); the element types beyond
them are those of TensorStore's drivers `zarr` and `zarr3`.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from surgery.dtypes import DTYPES, DType
from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.npy import CODE_OF
from surgery.formats.wire import COPY_AGAIN
from surgery.formats.zarr_codecs import INFLATION
from surgery.tensors import TensorSpec

AXES_LIMIT = 64
_SMALL_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e4m3b11fnuz")
_CODES = {code: dtype for dtype, code in CODE_OF.items()} | {name: DTYPES[name] for name in _SMALL_FLOATS}
V2_CODES = {dtype: code if code in _SMALL_FLOATS else f"{'|' if dtype.itemsize == 1 else '<'}{code}" for code, dtype in _CODES.items()}
"""dtype → how version 2 spells it little-endian."""
_NAMES = {dtype.name: dtype for dtype in _CODES.values()}
_REWRITE = "write it again with zarr-python or TensorStore as a plain array"


class Encoding(NamedTuple):
    """How a chunk became bytes: its axes in `order`, elements in their byte order, then `steps`, the last one first."""

    order: tuple[int, ...]
    big_endian: bool
    steps: tuple[str, ...]


class Shard(NamedTuple):
    """A chunk that holds chunks, with an index before or behind them of two 64-bit numbers each."""

    chunk: tuple[int, ...]
    encoding: Encoding
    index_first: bool
    index_steps: tuple[str, ...]


class Array(NamedTuple):
    """An array: its grid of chunks, their encoding and names, and what stands where there is none."""

    spec: TensorSpec
    chunk: tuple[int, ...]
    inside: Encoding | Shard
    prefix: str
    separator: str
    fill: Any

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(-(-size // step) for size, step in zip(self.spec.shape, self.chunk, strict=True))


def array_v2(fields: dict[str, Any], label: str) -> Array:
    """The array of a `.zarray`.

    Raises:
        CorruptFile: fields that describe no array.
        UnsupportedFeature: an element type, filter or compressor that is not read here.
    """
    if fields.get("zarr_format") != 2:
        raise _corrupt(label, "zarr_format is not 2")
    dtype, big_endian = _dtype_v2(fields.get("dtype"), label)
    spec, chunk = _shapes(dtype, fields.get("shape"), fields.get("chunks"), label)
    if fields.get("filters"):
        raise _unsupported(label, f"filters {str(fields['filters'])[:100]}")
    if fields.get("order") not in ("C", "F"):
        raise _corrupt(label, "order is neither C nor F")
    axes = tuple(range(len(chunk)))
    compressor = fields.get("compressor")
    steps = (_step(compressor.get("id") if isinstance(compressor, dict) else compressor, label),) if compressor is not None else ()
    separator = fields.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise _corrupt(label, "dimension_separator is neither . nor /")
    return Array(spec, chunk, Encoding(axes if fields["order"] == "C" else axes[::-1], big_endian, steps), "", separator, fields.get("fill_value"))


def array_v3(fields: dict[str, Any], label: str) -> Array:
    """The array of a `zarr.json`. Raises what `array_v2` does."""
    if fields.get("zarr_format") != 3:
        raise _corrupt(label, "zarr_format is not 3")
    if fields.get("storage_transformers"):
        raise _unsupported(label, "storage transformers")
    dtype = _named_dtype(fields.get("data_type"), label)
    grid, grid_options = _named(fields.get("chunk_grid"), label)
    if grid != "regular":
        raise _unsupported(label, f"the chunk grid {grid!r}")
    spec, chunk = _shapes(dtype, fields.get("shape"), grid_options.get("chunk_shape"), label)
    names, options = _named(fields.get("chunk_key_encoding"), label)
    separator = options.get("separator", "/" if names == "default" else ".")
    if names not in ("default", "v2") or separator not in (".", "/"):
        raise _unsupported(label, f"the chunk keys {names!r}")
    inside = _pipeline(fields.get("codecs"), chunk, label, sharded=True)
    return Array(spec, chunk, inside, "c" if names == "default" else "", separator, fields.get("fill_value"))


def _shapes(dtype: DType, shape: Any, chunk: Any, label: str) -> tuple[TensorSpec, tuple[int, ...]]:
    sizes, steps = _sizes(shape, 0, label), _sizes(chunk, 1, label)
    if len(sizes) != len(steps) or len(sizes) > AXES_LIMIT:
        raise _corrupt(label, f"shape {str(shape)[:100]} in chunks of {str(chunk)[:100]}")
    if max(prod(size or 1 for size in sizes), prod(steps)) * dtype.itemsize >= 1 << 63:
        raise _corrupt(label, f"no file holds {str(shape)[:100]} in chunks of {str(chunk)[:100]}")
    return TensorSpec(dtype, sizes), steps


def _sizes(found: Any, least: int, label: str) -> tuple[int, ...]:
    if not isinstance(found, list) or not all(type(size) is int and least <= size < 1 << 63 for size in found):
        raise _corrupt(label, f"{str(found)[:100]} is no shape")
    return tuple(found)


def _dtype_v2(code: Any, label: str) -> tuple[DType, bool]:
    if isinstance(code, str):
        if code in _SMALL_FLOATS:
            return DTYPES[code], False
        dtype = _CODES.get(code[1:])
        if dtype is not None and dtype.name not in _SMALL_FLOATS and (code[0] in "<>" or (code[0] == "|" and dtype.itemsize == 1)):
            return dtype, code[0] == ">" and dtype.itemsize > 1
    raise _unsupported(label, f"the element type {str(code)[:100]!r}")


def _named_dtype(name: Any, label: str) -> DType:
    dtype = _NAMES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise _unsupported(label, f"the element type {str(name)[:100]!r}")
    return dtype


def _named(found: Any, label: str) -> tuple[str, dict[str, Any]]:
    """A name with its configuration, which may be written as the name alone."""
    if isinstance(found, str):
        return found, {}
    options = found.get("configuration", {}) if isinstance(found, dict) else None
    if not isinstance(options, dict) or not isinstance(found.get("name"), str):
        raise _corrupt(label, f"{str(found)[:100]} has no name and configuration")
    return found["name"], options


def _pipeline(codecs: Any, chunk: tuple[int, ...], label: str, *, sharded: bool) -> Encoding | Shard:
    """Codecs in the order in which they were applied: transpositions, the one that makes bytes, then those that change bytes."""
    if not isinstance(codecs, list) or len(codecs) > AXES_LIMIT:
        raise _corrupt(label, "it has no list of codecs")
    named = [_named(codec, label) for codec in codecs]
    order = tuple(range(len(chunk)))
    while named and named[0][0] == "transpose":
        order = _transposed(order, named.pop(0)[1].get("order"), label)
    if not named:
        raise _corrupt(label, "no codec makes bytes of the elements")
    (name, options), *rest = named
    if name == "sharding_indexed":
        if not sharded or rest or order != tuple(range(len(chunk))):
            raise _unsupported(label, "shards in shards, or shards that are transposed or compressed as a whole")
        return _shard(options, chunk, label)
    if name != "bytes" or options.get("endian", "little") not in ("little", "big"):
        raise _unsupported(label, f"the codec {name!r}")
    return Encoding(order, options.get("endian") == "big", tuple(_step(each, label) for each, _ in reversed(rest)))


def _transposed(order: tuple[int, ...], found: Any, label: str) -> tuple[int, ...]:
    if not isinstance(found, list) or not all(type(axis) is int for axis in found) or sorted(found) != list(range(len(order))):
        raise _corrupt(label, f"{str(found)[:100]} is no order of {len(order)} axes")
    return tuple(order[axis] for axis in found)


def _shard(options: dict[str, Any], chunk: tuple[int, ...], label: str) -> Shard:
    inner = _sizes(options.get("chunk_shape"), 1, label)
    if len(inner) != len(chunk) or any(size % step for size, step in zip(chunk, inner, strict=True)):
        raise _corrupt(label, f"shards of {list(chunk)} in chunks of {list(inner)}")
    encoding = _pipeline(options.get("codecs"), inner, label, sharded=False)
    index = _pipeline(options.get("index_codecs"), (*inner, 2), label, sharded=False)
    place = options.get("index_location", "end")
    if not isinstance(encoding, Encoding) or not isinstance(index, Encoding) or place not in ("start", "end"):
        raise _corrupt(label, "shards need codecs, and an index at their start or end")
    if index.big_endian or index.order != tuple(range(len(index.order))) or set(index.steps) - {"crc32c"}:
        raise _unsupported(label, "an index of shards that is not little-endian and plain")
    return Shard(inner, encoding, place == "start", index.steps)


def _step(name: Any, label: str) -> str:
    if not isinstance(name, str) or name not in INFLATION:
        raise _unsupported(label, f"the codec {str(name)[:100]!r}")
    return name


def _corrupt(label: str, fact: str) -> CorruptFile:
    return CorruptFile(f"{label} is no sound array", notes=[fact], help=COPY_AGAIN)


def _unsupported(label: str, what: str) -> UnsupportedFeature:
    return UnsupportedFeature(f"{label} uses {what}, which is not read here", help=_REWRITE)
