"""TensorFlow's V1 checkpoints: tables whose values are the tensors themselves, in one file or several shards. Only read.

The first block tells names, shapes and slices; planning reads it and the index block, and no values. A value is a proto, so each tensor
is decoded from its block, which is then verified (CRC-32C) and, where it is compressed, decompressed. Partitioned tensors are joined.
Source: TensorFlow, core/util/saved_tensor_slice.proto, core/util/tensor_slice_writer.cc, core/framework/tensor.proto.
"""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_left
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, SourceError, UnsupportedFeature, plural
from surgery.expr import Assemble, Expr, Stored
from surgery.formats import tf_bundle, tf_state
from surgery.formats.base import Disk, Indexed, ReadAt
from surgery.formats.base import read_only as layout
from surgery.formats.tf_entries import NUMBERS
from surgery.formats.tf_shapes import read_shape, read_slice
from surgery.formats.tf_slices import Slice, check_tiling, slice_key
from surgery.formats.tf_table import COPY_AGAIN, TRAILER_BYTES, Handle, read_block_entries, read_index, shown
from surgery.formats.wire import Message
from surgery.formats.wire_values import values_of
from surgery.tensors import Extent, SourceFile, TensorSpec

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NAME", "OPTIONS", "READS", "SUMMARY", "index", "layout", "locate"]

NAME = "tf-v1"
SUMMARY = "TensorFlow V1 checkpoint: one table file, or PREFIX-*-of-* shards of one"
OPTIONS: frozenset[str] = frozenset()

_SHARD = re.compile(r"(?s)(.+)-\d{5}-of-(\d{5})")
_META, _DATA = 1, 2
_MOST_EXPANSION = 22
"""A compressed block makes at most so many bytes of one, and each element is one of them at least."""
_AXES_LIMIT = 64

# fmt: off
_VALUE_FIELDS = {
    "float32": 5, "float64": 6, "int32": 7, "int16": 7, "int8": 7, "uint16": 7, "uint8": 7, "qint8": 7, "quint8": 7, "qint16": 7, "quint16": 7,
    "qint32": 7, "string": 8, "complex64": 9, "int64": 10, "bool": 11, "complex128": 12, "float16": 13, "bfloat16": 13, "uint32": 16, "uint64": 17,
}
# fmt: on
"""Where a TensorProto has the values of a type."""
_DTYPES = {number: DTYPES[name] for name, number in NUMBERS.items() if name in _VALUE_FIELDS}
READS = frozenset(dtype.name for dtype in _DTYPES.values())


class InBlock:
    """A slice of a tensor inside a block of a table: the stored bytes are the block with its trailer, from `start` of the file on."""

    __slots__ = ("key", "nbytes", "path", "start")
    name = "tf-v1"

    def __init__(self, key: bytes, path: str, start: int, nbytes: int) -> None:
        self.key = key
        self.path = path
        self.start = start
        self.nbytes = nbytes

    def decode(self, stored: bytes, spec: TensorSpec) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
        """The slice's values. Raises CorruptFile: the block is damaged, does not have the slice, or not as many values."""
        handle = (self.start, len(stored) - TRAILER_BYTES)
        entries = read_block_entries(lambda start, stop: stored[start - self.start : stop - self.start], handle, self.nbytes, self.path)
        value = next((value for key, value in entries if key == self.key), None)
        label = f"`{shown(self.key)}` in {self.path}"
        if value is None:
            raise CorruptFile(f"{label} is not where its name belongs", notes=[_where(self.path, handle)], help=COPY_AGAIN)
        return values_of(Message.of_bytes(_tensor_proto(value, self.path), self.path), _VALUE_FIELDS[spec.dtype.name], spec, label)

    def checksum(self, stored: bytes, spec: TensorSpec) -> int:
        """Nothing: the checksum of the block is looked at when it is decoded."""
        return 0


def _tensor_proto(value: bytes, path: str) -> bytes:
    """The TensorProto in the SavedSlice in SavedTensorSlices."""
    for number in (_DATA, 3):
        message = Message.of_bytes(value, path)
        value = b"".join(message.whole(field) for field in message.fields() if field.number == number)
    return value


def _where(path: str, handle: Handle) -> str:
    return f"{path}, bytes {handle[0]:,} to {sum(handle):,}"


def locate(path: str, disk: Disk) -> str | None:
    """The file or prefix at `path`: a table without the suffix `.index`, a prefix of shards, a folder whose `checkpoint` file names such a thing."""
    if disk.is_file(path) and posixpath.basename(path) != tf_state.FILE_NAME:
        return path if not path.endswith(".index") and tf_bundle.is_table(path, disk) else None
    if disk.is_folder(path) or disk.is_file(path):
        prefix = tf_bundle.newest(path.rstrip("/") or "/" if disk.is_folder(path) else posixpath.dirname(path) or ".", disk)
        return prefix if prefix is not None and disk.is_file(prefix) and not disk.is_file(f"{prefix}.index") else None
    shards = _shard_paths(path, disk)
    return path if shards and all(tf_bundle.is_table(shard, disk) for shard in shards) else None


def _shard_paths(prefix: str, disk: Disk) -> list[str]:
    """The files `PREFIX-SSSSS-of-NNNNN` that are there."""
    folder, name = posixpath.split(prefix)
    found = (_SHARD.fullmatch(each) for each in disk.names(folder or "."))
    return [posixpath.join(folder, match[0]) for match in found if match and match[1] == name]


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the tensors in the order of their names; partitioned ones appear as wholes.

    Raises:
        CorruptFile: damage to the blocks that tell of tensors, slices that do not fill theirs, a shape that cannot be.
        UnsupportedFeature: a type that V1 checkpoints do not have, a partitioned string tensor.
        SourceError: shards are missing (code `missing-shard`), whether `strict` or not: only they know what they hold.
    """
    paths = [location] if disk.is_file(location) else _complete(location, _shard_paths(location, disk))
    shards = [_Shard(*disk.open(path)) for path in paths]
    told: dict[str, _Tensor] = {}
    for shard in shards:
        for name, tensor in shard.tensors().items():
            known = told.setdefault(name, _Tensor(tensor.spec, {}))
            if known.spec != tensor.spec:
                raise shard.corrupt(f"`{name}` is {tensor.spec} here and {known.spec} in another shard")
            known.pieces.update(tensor.pieces)
    tensors = {name: _expression(name, told[name]) for name in sorted(told)}
    joined = sum(isinstance(expr, Assemble) for expr in tensors.values())
    notes = (f"{plural(joined, 'partitioned tensor')} joined from slices",) if joined else ()
    companions = (f"{location}.meta",) if disk.is_file(f"{location}.meta") else ()
    return Indexed(NAME, location, tensors, {}, tuple(shard.file for shard in shards), companions, notes)


def _complete(prefix: str, paths: list[str]) -> list[str]:
    counts = {match[2] for path in paths if (match := _SHARD.fullmatch(path))}
    if len(counts) == 1 and int(counts.copy().pop()) == len(paths):
        return paths
    raise SourceError(
        f"the shards of {prefix} are not all there",
        code="missing-shard",
        notes=[", ".join(paths[:5])],
        help="copy what is missing, and keep shards of one checkpoint only",
    )


class _Tensor(NamedTuple):
    """What the shards say of a tensor: its spec, and where each slice lies."""

    spec: TensorSpec
    pieces: dict[Slice, Extent]


class _Shard:
    """One table file."""

    def __init__(self, file: SourceFile, read: ReadAt) -> None:
        self.file = file
        self._read = read
        self._blocks = read_index(read, file.nbytes, file.path)
        self._uppers = [upper for upper, _ in self._blocks]

    def tensors(self) -> Mapping[str, _Tensor]:
        """The tensors of which slices lie here, as the entry of the empty key tells them."""
        first = self._blocks[0][1] if self._blocks else None
        entries = read_block_entries(self._read, first, self.file.nbytes, self.file.path) if first else []
        if not entries or entries[0][0] != b"":
            raise self.corrupt("it is a table, and its first entry does not tell of tensors")
        message = Message.of_bytes(entries[0][1], self.file.path)
        found: dict[str, _Tensor] = {}
        for meta in message.fields():
            if meta.number != _META:
                continue
            for field in message.fields(meta.start, meta.stop):
                if field.number == 1:
                    name, tensor = self._tensor(message, field.start, field.stop)
                    found[name] = tensor
        return found

    def _tensor(self, message: Message, start: int, stop: int) -> tuple[str, _Tensor]:
        name, number = "", 0
        shape: tuple[int, ...] = ()
        slices: list[Slice] = []
        for field in message.fields(start, stop):
            if field.number == 1:
                name = message.data(field).decode("utf-8", "surrogateescape")
            elif field.number == 2:
                shape = read_shape(message, field) or ()
            elif field.number == 3:
                number = field.value
            elif field.number == 4:
                slices.append(read_slice(message, field))
        spec = self._spec(name, number, shape)
        return name, _Tensor(spec, {piece: self._extent(name, piece, spec) for piece in slices})

    def _spec(self, name: str, number: int, shape: tuple[int, ...]) -> TensorSpec:
        if number not in _DTYPES:
            raise UnsupportedFeature(
                f"`{name}` in {self.file.path} has the type {number}",
                help="restore it in TensorFlow and save it again: the Saver writes V2 by default",
            )
        if len(shape) > _AXES_LIMIT or min(shape, default=0) < 0 or prod(size or 1 for size in shape) >= 1 << 59:
            raise self.corrupt(f"`{name}` has the shape {list(shape[:_AXES_LIMIT])}")
        return TensorSpec(_DTYPES[number], shape)

    def _extent(self, name: str, piece: Slice, spec: TensorSpec) -> Extent:
        """Where a slice lies: its block, whose place among the others its key tells."""
        key = slice_key(name.encode("utf-8", "surrogateescape"), piece)
        shape = tuple(stop - start for start, stop in piece.region(spec.shape))
        number = bisect_left(self._uppers, key)
        if number == len(self._blocks):
            raise self.corrupt(f"slice {piece} of `{name}` would come behind the last block")
        _, (start, nbytes) = self._blocks[number]
        if prod(shape) > _MOST_EXPANSION * nbytes:
            raise self.corrupt(f"`{name}` cannot have {prod(shape):,} elements in a block of {nbytes:,} bytes")
        codec = InBlock(key, self.file.path, start, self.file.nbytes)
        return Extent(self.file, start, nbytes + TRAILER_BYTES, TensorSpec(spec.dtype, shape), codec=codec)

    def corrupt(self, fact: str) -> CorruptFile:
        """The error for a table that contradicts itself."""
        notes = [fact, f"{self.file.path}, bytes 0 to {self.file.nbytes:,}"]
        return CorruptFile(f"{self.file.path} is no sound V1 checkpoint", notes=notes, help=COPY_AGAIN)


def _expression(name: str, tensor: _Tensor) -> Expr:
    extents = list(tensor.pieces.values())
    check_tiling(name, tensor.spec.shape, list(tensor.pieces))
    if len(extents) == 1:
        return Stored(extents[0])
    if not tensor.spec.dtype.bits:
        raise UnsupportedFeature(f"`{name}` is a partitioned tensor of type {tensor.spec.dtype.name}", help="save it unpartitioned with TensorFlow")
    origins = [tuple(start for start, _ in piece.region(tensor.spec.shape)) for piece in tensor.pieces]
    return Assemble(tensor.spec, tuple((origin, Stored(extent)) for origin, extent in zip(origins, extents, strict=True)))
