"""The values of a bundle's index: the header under the empty key and one entry per tensor, as protos and as ours.

Source: TensorFlow, core/protobuf/tensor_bundle.proto, core/framework/{types,tensor_shape,versions}.proto.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple, NoReturn

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.tf_slices import Slice
from surgery.formats.tf_table import COPY_AGAIN, UNREADABLE, Entry, mask, shown, unmask
from surgery.tensors import TensorSpec

# fmt: off
NUMBERS = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "string": 7, "complex64": 8, "int64": 9, "bool": 10,
    "qint8": 11, "quint8": 12, "qint32": 13, "bfloat16": 14, "qint16": 15, "quint16": 16, "uint16": 17, "complex128": 18, "float16": 19,
    "variant": 21, "uint32": 22, "uint64": 23, "float8_e5m2": 24, "float8_e4m3fn": 25, "float8_e4m3fnuz": 26, "float8_e4m3b11fnuz": 27,
    "float8_e5m2fnuz": 28, "int4": 29, "uint4": 30, "int2": 31, "uint2": 32, "float4_e2m1fn": 33,
}
# fmt: on
"""Our name of a dtype → TensorFlow's number. A `resource` (20) is a handle of a running program and never stored."""

_DTYPES = {number: DTYPES[name] for name, number in NUMBERS.items()}
_VERSION = 1
_MOST_DIMENSIONS = 254
_BIG = 1
_AS = "TensorFlow 2.21.0"


class Header(NamedTuple):
    """What the header says of the data files."""

    num_shards: int
    big_endian: bool


class Piece(NamedTuple):
    """A tensor or slice as its entry tells it; sorts by its place in the data. `crc32c` is unmasked."""

    shard: int
    start: int
    nbytes: int
    key: bytes
    spec: TensorSpec
    crc32c: int

    @property
    def stop(self) -> int:
        """Offset of the first byte behind."""
        return self.start + self.nbytes


class Whole(NamedTuple):
    """A partitioned tensor: its own entry has no place, its slices have."""

    key: bytes
    spec: TensorSpec
    slices: tuple[Slice, ...]


def read_header(entries: list[Entry], path: str) -> Header:
    """The header, which has to be the first entry of the index at `path`.

    Raises:
        CorruptFile: there is none, or it cannot be parsed.
        UnsupportedFeature: it asks for a version of TensorFlow's bundle format that this is not.
    """
    from google.protobuf.message import DecodeError

    from surgery.formats.tf_messages_pb2 import BundleHeader

    if not entries or entries[0][0] != b"":
        title = UNREADABLE.format(path=path, stage="failed to seek to header entry", fault="").removesuffix(": ")
        raise CorruptFile(title, notes=["the index has no header: its first key is not the empty one"], help=COPY_AGAIN, sentence=True)
    try:
        header = BundleHeader.FromString(entries[0][1])
    except DecodeError:
        title = UNREADABLE.format(path=path, stage="unable to parse header", fault="Entry for key  not parseable.")
        raise CorruptFile(title, notes=["the header is the entry of the empty key"], help=COPY_AGAIN, sentence=True) from None
    _check_version(header.version, path)
    return Header(header.num_shards, header.endianness == _BIG)


def _check_version(version: Any, path: str) -> None:
    if version.producer < 0:
        fault = f"Checkpoint producer version {version.producer} below min producer 0 supported by {_AS}.  Please regenerate your checkpoint."
    elif version.min_consumer > _VERSION:
        fault = f"Checkpoint min consumer version {version.min_consumer} above current version {_VERSION} for {_AS}.  Please upgrade TensorFlow."
    elif _VERSION in version.bad_consumers:
        fault = f"Checkpoint disallows consumer version {_VERSION}.  Please upgrade TensorFlow: this version is likely buggy."
    else:
        return
    raise UnsupportedFeature(
        fault,
        notes=[f"{path}, header: this reads bundles of version {_VERSION}"],
        help="load it in the TensorFlow that wrote it and save it from there",
        sentence=True,
    )


def read_entries(entries: list[Entry], header: Header, path: str) -> tuple[list[Piece], list[Whole]]:
    """All tensors and slices in the order of their bytes (empty ones before what shares their offset), and all partitioned tensors.

    Compares sizes with shapes, and shards with their number; not with the data files.

    Raises:
        CorruptFile: an entry that cannot be parsed, an illegal shape, a size that does not fit it, a place that cannot be.
        UnsupportedFeature: a dtype that is not known.
    """
    from google.protobuf.message import DecodeError

    from surgery.formats.tf_messages_pb2 import BundleEntry

    parse = BundleEntry.FromString
    specs: dict[tuple[int, bytes], tuple[TensorSpec, int | None]] = {}
    pieces: list[Piece] = []
    wholes: list[Whole] = []
    for key, value in entries[1:]:
        try:
            entry = parse(value)
        except DecodeError:
            _fail(f"Entry for key {shown(key)} not parseable.", key, path)
        address = (entry.dtype, entry.shape.SerializeToString())
        known = specs.get(address)
        if known is None:
            known = specs[address] = _checked_spec(key, entry.dtype, entry.shape, path)
        spec, nbytes = known
        if entry.slices:
            wholes.append(Whole(key, spec, tuple(map(_slice, entry.slices))))
            continue
        shard, start, size = entry.shard_id, entry.offset, entry.size
        if size != nbytes:
            _check_size(key, spec, size, path)
        if start < 0:
            _fail(f"Seeking to a negative position: {start}", key, path)
        if not 0 <= shard < header.num_shards:
            _fail(f"key {shown(key)} lies in shard {shard} of {header.num_shards}", key, path, sentence=False)
        pieces.append(Piece(shard, start, size, key, spec, unmask(entry.crc32c)))
    pieces.sort()
    return pieces, wholes


def _checked_spec(key: bytes, number: int, message: Any, path: str) -> tuple[TensorSpec, int | None]:
    """The spec, and its bytes or None where they vary."""
    dtype = _DTYPES.get(number)
    if dtype is None:
        raise UnsupportedFeature(
            f"{number} does not correspond to a valid tensorflow::DataType",
            notes=[f"key {shown(key)}", path],
            help="a newer TensorFlow may have written it; this knows the types of TensorFlow 2.21",
            sentence=True,
        )
    shape = tuple(dim.size for dim in message.dim)
    if message.unknown_rank:
        _fail(f"Invalid tensor shape: {shown(key)}", key, path, "its rank is unknown")
    if len(shape) > _MOST_DIMENSIONS:
        _fail(f"Invalid tensor shape: {shown(key)}", key, path, f"{len(shape):,} dimensions; {_MOST_DIMENSIONS} are allowed")
    if min(shape, default=0) < 0:
        _fail(f"Invalid tensor shape: {shown(key)}", key, path, f"a dimension is {min(shape)}")
    if prod(size for size in shape if size) >= 1 << 63:
        _fail(f"Invalid tensor shape: {shown(key)}", key, path, "more than 2**63 elements")
    spec = TensorSpec(dtype, shape)
    return spec, spec.nbytes if dtype.bits else None


def _check_size(key: bytes, spec: TensorSpec, size: int, path: str) -> None:
    """Raise for a size that does not fit the shape: strings and variants take at least a byte per element."""
    fault = f"Invalid size in bundle entry: key {shown(key)}; stored size {size}; expected size"
    if spec.dtype.bits:
        _fail(f"{fault} {spec.nbytes}", key, path)
    if size < spec.size:
        _fail(f"{fault} is at least {spec.size}", key, path)


def _slice(message: Any) -> Slice:
    return Slice(tuple((each.start, each.length) if each.HasField("length") else (0, None) for each in message.extent))


def _fail(title: str, key: bytes, path: str, fact: str = "", sentence: bool = True) -> NoReturn:
    raise CorruptFile(title, notes=[f"{path}, entry of key {shown(key)}", fact], help=COPY_AGAIN, sentence=sentence)


def write_header(num_shards: int) -> bytes:
    """The header of a little-endian bundle."""
    from surgery.formats.tf_messages_pb2 import BundleHeader, Version

    return bytes(BundleHeader(num_shards=num_shards, version=Version(producer=_VERSION)).SerializeToString())


def write_entry(piece: Piece) -> bytes:
    """The entry of a tensor."""
    from surgery.formats.tf_messages_pb2 import BundleEntry

    entry = BundleEntry(
        dtype=NUMBERS[piece.spec.dtype.name],
        shape=_shape_message(piece.spec.shape),
        shard_id=piece.shard,
        offset=piece.start,
        size=piece.nbytes,
        crc32c=mask(piece.crc32c),
    )
    return bytes(entry.SerializeToString())


@lru_cache(maxsize=4096)
def _shape_message(shape: tuple[int, ...]) -> Any:
    """The message is present for scalars too, where it is empty. Kept, because checkpoints repeat few shapes in many tensors."""
    from surgery.formats.tf_messages_pb2 import Shape

    return Shape(dim=[Shape.Dim(size=size) for size in shape])
