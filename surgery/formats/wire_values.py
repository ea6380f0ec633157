"""The value lists of TensorProtos as arrays: those of TensorFlow and ONNX differ in field numbers only.

Source: tensorflow/core/framework/tensor.proto; onnx/onnx.proto, message TensorProto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from surgery.dtypes import numpy_dtype
from surgery.errors import CorruptFile
from surgery.formats.wire import COPY_AGAIN, Message
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

_MOST_VARINT_BYTES = 10
_AT_ONCE = 1 << 20


class BadValues(Exception):
    """The bytes are no list of such values."""


def values_of(message: Message, field_number: int, spec: TensorSpec, label: str) -> Array:
    """The elements of a TensorProto whose values are the repeated field `field_number`, packed or one by one.

    Floats and complex numbers lie there as they are, strings as bytes; all others are varints, of which 16-bit and 8-bit floats are the bits.

    Raises:
        CorruptFile: not as many elements as the spec has, or values that do not end.
    """
    fields = [field for field in message.fields() if field.number == field_number]
    if spec.dtype.kind == "string":
        return _strings([message.whole(field) for field in fields], spec, label)
    try:
        flat = _numbers([message.whole(field) for field in fields], spec)
    except BadValues as fault:
        raise _corrupt(label, str(fault)) from None
    return _shaped(flat, spec, label)


def _numbers(runs: list[bytes], spec: TensorSpec) -> Array:
    import numpy as np

    dtype = numpy_dtype(spec.dtype)
    if spec.dtype.kind == "complex" or spec.dtype.name in ("float32", "float64"):
        joined = b"".join(runs)
        if len(joined) % dtype.itemsize:
            raise BadValues(f"{len(joined):,} bytes are no whole number of elements")
        return np.frombuffer(joined, dtype)
    numbers = varints(b"".join(runs))
    if spec.dtype.kind == "bool":
        return np.not_equal(numbers, 0)
    if spec.dtype.is_float:
        return numbers.astype(f"<u{spec.dtype.itemsize}").view(dtype)
    return numbers.astype(dtype)


def varints(data: bytes) -> Array:
    """All varints of a run, as uint64; what does not fit is cut off, as protocol buffers do. Raises BadValues where the last does not end."""
    import numpy as np

    raw = np.frombuffer(data, np.uint8)
    if len(raw) and raw[-1] >= 0x80:
        raise BadValues("a number does not end")
    ends = np.flatnonzero(raw < 0x80) + 1
    if len(ends) == len(raw):
        return raw.astype(np.uint64)
    out = np.empty(len(ends), np.uint64)
    for first in range(0, len(ends), _AT_ONCE):
        stops = ends[first : first + _AT_ONCE]
        start = ends[first - 1] if first else 0
        starts = np.concatenate(([start], stops[:-1]))
        lengths = stops - starts
        if lengths.max() > _MOST_VARINT_BYTES:
            raise BadValues("a number is too long")
        piece = raw[start : stops[-1]]
        place = np.arange(len(piece)) - np.repeat(starts - start, lengths)
        bits = (piece & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
        out[first : first + len(stops)] = np.add.reduceat(bits, starts - start)
    return out


def _strings(items: list[bytes], spec: TensorSpec, label: str) -> Array:
    import numpy as np

    flat = np.empty(len(items), object)
    flat[:] = items
    return _shaped(flat, spec, label)


def _shaped(flat: Array, spec: TensorSpec, label: str) -> Array:
    if flat.size != spec.size:
        raise _corrupt(label, f"{flat.size:,} values for {spec}")
    return flat.reshape(spec.shape)


def _corrupt(label: str, fact: str) -> CorruptFile:
    return CorruptFile(f"the values of {label} do not fit its type", notes=[fact], help=COPY_AGAIN)
