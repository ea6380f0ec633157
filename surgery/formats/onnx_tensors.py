"""One TensorProto of an ONNX model as an expression. Serves the onnx format module; knows no graphs.

`raw_data`, packed floats and external data are byte ranges; other value lists, strings and types below a byte go through a codec.
Source: onnx/onnx.proto (messages TensorProto and StringStringEntryProto), onnx/docs/ExternalData.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from surgery.dtypes import DTYPES, numpy_dtype
from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.expr import Expr, Stored
from surgery.formats.inside import is_inside
from surgery.formats.wire import BYTES, COPY_AGAIN, Field, Message
from surgery.formats.wire_values import values_of
from surgery.tensors import Extent, SourceFile, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

_DIMS, _DATA_TYPE, _SEGMENT, _NAME, _EXTERNAL, _LOCATION = 1, 2, 3, 8, 13, 14
_FLOATS, _INT32S, _STRINGS, _INT64S, _RAW, _DOUBLES, _UINT64S = 4, 5, 6, 7, 9, 10, 11
_VALUES = frozenset({_FLOATS, _INT32S, _STRINGS, _INT64S, _RAW, _DOUBLES, _UINT64S})
_AXES_LIMIT = 64
_OUTSIDE = 1

# fmt: off
_TYPES = {
    1: ("float32", _FLOATS), 2: ("uint8", _INT32S), 3: ("int8", _INT32S), 4: ("uint16", _INT32S), 5: ("int16", _INT32S), 6: ("int32", _INT32S),
    7: ("int64", _INT64S), 8: ("string", _STRINGS), 9: ("bool", _INT32S), 10: ("float16", _INT32S), 11: ("float64", _DOUBLES),
    12: ("uint32", _UINT64S), 13: ("uint64", _UINT64S), 14: ("complex64", _FLOATS), 15: ("complex128", _DOUBLES), 16: ("bfloat16", _INT32S),
    17: ("float8_e4m3fn", _INT32S), 18: ("float8_e4m3fnuz", _INT32S), 19: ("float8_e5m2", _INT32S), 20: ("float8_e5m2fnuz", _INT32S),
    21: ("uint4", _INT32S), 22: ("int4", _INT32S), 23: ("float4_e2m1fn", _INT32S), 24: ("float8_e8m0fnu", _INT32S),
    25: ("uint2", _INT32S), 26: ("int2", _INT32S),
}
# fmt: on
"""Number of a type → our name, and the field of its values where they are not raw."""

NUMBERS = {name: number for number, (name, _) in _TYPES.items()}
"""Our name of a dtype → ONNX's number."""
DTYPE_NAMES = frozenset(NUMBERS)

_PACKED_BITS = {"uint4": 4, "int4": 4, "float4_e2m1fn": 4, "uint2": 2, "int2": 2}
"""Several of these share a byte, the first in its lowest bits; here each has a byte of its own."""


class Values:
    """A TensorProto that has to be decoded: its values are a list of varints or strings."""

    __slots__ = ("field", "label")
    name = "onnx-values"

    def __init__(self, field: int, label: str) -> None:
        self.field = field
        self.label = label

    def decode(self, stored: bytes, spec: TensorSpec) -> Array:
        """The array behind the bytes of a whole TensorProto. Raises CorruptFile where its values do not fit the spec."""
        message = Message.of_bytes(stored, self.label)
        if spec.dtype.name not in _PACKED_BITS:
            return values_of(message, self.field, spec, self.label)
        bytes_spec = TensorSpec(DTYPES["uint8"], (_packed_bytes(spec),))
        return _unpacked(values_of(message, self.field, bytes_spec, self.label), spec)

    def checksum(self, stored: bytes, spec: TensorSpec) -> int:
        """Nothing: ONNX keeps no checksums, so no one asks for one."""
        return 0


PACKED = "onnx-packed"


class Packed:
    """Raw bytes of which each holds several elements."""

    __slots__ = ()
    name = PACKED

    def decode(self, stored: bytes, spec: TensorSpec) -> Array:
        """One element per byte."""
        import numpy as np

        return _unpacked(np.frombuffer(stored, np.uint8), spec)

    def checksum(self, stored: bytes, spec: TensorSpec) -> int:
        """Nothing: ONNX keeps no checksums, so no one asks for one."""
        return 0


_PACKED = Packed()


def is_raw(expr: Expr) -> bool:
    """Whether a tensor can be written as `raw_data`: not strings, and types below a byte only as another model stores them."""
    name = expr.spec.dtype.name
    if name in _PACKED_BITS:
        return isinstance(expr, Stored) and expr.extent.codec is _PACKED
    return name in NUMBERS and name != "string"


def is_listed(expr: Expr) -> bool:
    """Whether a tensor is a list of values in a model: in a copy of that model it can stay one."""
    return isinstance(expr, Stored) and isinstance(expr.extent.codec, Values)


def stored_nbytes(expr: Expr) -> int:
    """The length of a tensor's `raw_data`."""
    return _packed_bytes(expr.spec) if expr.spec.dtype.name in _PACKED_BITS else expr.spec.nbytes


def _packed_bytes(spec: TensorSpec) -> int:
    return -(-spec.size * _PACKED_BITS[spec.dtype.name] // 8)


def _unpacked(packed: Array, spec: TensorSpec) -> Array:
    import numpy as np

    bits = _PACKED_BITS[spec.dtype.name]
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    small = (packed[:, None] >> shifts & (1 << bits) - 1).reshape(-1)[: spec.size].reshape(spec.shape)
    if spec.dtype.kind == "float":
        return small.view(numpy_dtype(spec.dtype))
    if spec.dtype.kind == "int":
        sign = 1 << (bits - 1)
        small = (small ^ sign).astype(np.int8) - np.int8(sign)
    return small.astype(numpy_dtype(spec.dtype))


class _Proto(NamedTuple):
    """What the fields of a TensorProto say; `values` are its value fields in order, `where` the fields that tell of external data."""

    name: str
    spec: TensorSpec
    value_field: int
    values: tuple[Field, ...]
    where: Mapping[str, str] | None
    start: int
    stop: int


Outside = Callable[[str, str], SourceFile]
"""The file beside the model for a location, given the name of the tensor that is in it. Raises SourceError."""


def read_tensor(message: Message, file: SourceFile, start: int, stop: int, outside: Outside, name: str = "") -> tuple[str, Expr]:
    """The name and expression of the TensorProto at `start` to `stop`; the name is its own unless one is given.

    Raises:
        CorruptFile: a shape that no tensor has, or values that are not as many as it says, as far as their ranges tell.
        UnsupportedFeature: a type this version does not know, a tensor in segments.
        SourceError: external data that is not there or outside the folder.
    """
    proto = _parse(message, start, stop, name)
    extent = _outside(message, proto, outside) if proto.where is not None else _inside(message, proto, file)
    return proto.name, Stored(extent)


def _parse(message: Message, start: int, stop: int, name: str) -> _Proto:
    dims: list[int] = []
    data_type, location = 0, 0
    own_name = ""
    values: list[Field] = []
    where: dict[str, str] = {}
    for field in message.fields(start, stop):
        if field.number == _DIMS:
            if field.stop - field.start > 10 * _AXES_LIMIT:
                raise message.corrupt(f"a tensor has more than {_AXES_LIMIT} axes", field.start, field.stop)
            dims += message.numbers(field)
        elif field.number in _VALUES:
            values.append(field)
        elif field.number == _DATA_TYPE:
            data_type = field.value
        elif field.number == _NAME:
            own_name = message.text(field)
        elif field.number == _EXTERNAL:
            key, value = read_pair(message, field)
            where[key] = value
        elif field.number == _LOCATION:
            location = field.value
        elif field.number == _SEGMENT:
            raise UnsupportedFeature(f"{message.path} has a tensor in segments", help="save the model again with the onnx package")
    name = name or own_name
    if not name:
        raise message.corrupt("a tensor has no name", start, stop)
    spec, value_field = _checked_spec(message, name, data_type, dims, start, stop)
    return _Proto(name, spec, value_field, tuple(values), where if location == _OUTSIDE else None, start, stop)


def read_pair(message: Message, field: Field) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    key = value = ""
    for part in message.fields(field.start, field.stop):
        if part.number == 1:
            key = message.text(part)
        elif part.number == 2:
            value = message.text(part)
    return key, value


def _checked_spec(message: Message, name: str, data_type: int, dims: list[int], start: int, stop: int) -> tuple[TensorSpec, int]:
    if data_type not in _TYPES:
        raise UnsupportedFeature(
            f"`{name}` in {message.path} has the element type {data_type}",
            notes=[f"known are 1 to {max(_TYPES)}; 6-bit floats are not"],
            help="a newer version of this tool may know it",
        )
    dtype, value_field = _TYPES[data_type]
    if len(dims) > _AXES_LIMIT or min(dims, default=0) < 0 or prod(size or 1 for size in dims) * 128 >= 1 << 63:
        raise message.corrupt(f"`{name}` has the shape {dims[:_AXES_LIMIT]}", start, stop)
    return TensorSpec(DTYPES[dtype], tuple(dims)), value_field


def _inside(message: Message, proto: _Proto, file: SourceFile) -> Extent:
    raw = [field for field in proto.values if field.number == _RAW]
    listed = [field for field in proto.values if field.number == proto.value_field]
    if raw and not (listed and raw[-1].start == raw[-1].stop):
        return _raw(proto, file, raw[-1].start, raw[-1].stop - raw[-1].start)
    is_run = len(listed) == 1 and listed[0].kind == BYTES and proto.value_field in (_FLOATS, _DOUBLES)
    if is_run or not proto.spec.size:
        return _raw(proto, file, listed[0].start, listed[0].stop - listed[0].start) if listed else _raw(proto, file, proto.start, 0)
    nbytes = proto.stop - proto.start
    if _packed_elements(proto.spec) > nbytes:
        raise _unfit(proto, file, proto.start, nbytes)
    return Extent(file, proto.start, nbytes, proto.spec, codec=Values(proto.value_field, f"`{proto.name}` in {message.path}"))


def _packed_elements(spec: TensorSpec) -> int:
    """The least bytes that a value list of this spec takes."""
    return _packed_bytes(spec) if spec.dtype.name in _PACKED_BITS else spec.size


def _outside(message: Message, proto: _Proto, outside: Outside) -> Extent:
    where = proto.where or {}
    location = where.get("location", "")
    if not is_inside(location):
        raise CorruptFile(
            f"`{proto.name}` in {message.path} lies outside the model's folder",
            notes=[f"its location is {location!r}"],
            help="external data has to lie beside the model or below it",
        )
    file = outside(location, proto.name)
    offset, length = (_count(message, proto, where.get(word)) for word in ("offset", "length"))
    start = offset or 0
    if file.nbytes < 0:
        return Extent(file, start, proto.spec.nbytes, proto.spec)
    nbytes = file.nbytes - start if length is None else length
    if nbytes < 0 or start + nbytes > file.nbytes:
        raise _unfit(proto, file, start, nbytes)
    return _raw(proto, file, start, nbytes)


def _count(message: Message, proto: _Proto, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise message.corrupt(f"`{proto.name}` has external data at {text[:40]!r}", proto.start, proto.stop)
    return int(text)


def _raw(proto: _Proto, file: SourceFile, start: int, nbytes: int) -> Extent:
    spec = proto.spec
    packed = spec.dtype.name in _PACKED_BITS
    if nbytes != (_packed_bytes(spec) if packed else spec.nbytes) or spec.dtype.kind == "string":
        raise _unfit(proto, file, start, nbytes)
    return Extent(file, start, nbytes, spec, codec=_PACKED if packed else None)


def _unfit(proto: _Proto, file: SourceFile, start: int, nbytes: int) -> CorruptFile:
    notes = [f"{proto.spec} in {nbytes:,} bytes", f"{file.path}, bytes {start:,} to {start + nbytes:,} of {file.nbytes:,}"]
    return CorruptFile(f"the data of `{proto.name}` does not fit its shape", notes=notes, help=COPY_AGAIN)
