"""Attributes of HDF5 objects: texts, lists of texts and numbers. Other kinds have no place in metadata and are passed over.

Source of format facts: HDF5 File Format Specification 3.0, sections IV.A.2.m (attribute) and IV.A.2.v (attribute info).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from surgery.dtypes import numpy_dtype
from surgery.formats.hdf5_content import UNDEFINED, Content, Fields
from surgery.formats.hdf5_headers import ATTRIBUTE, ATTRIBUTE_INFO, Header
from surgery.formats.hdf5_heaps import fractal_heap, global_heap_object, records
from surgery.formats.hdf5_types import Type, read_shape, read_type

if TYPE_CHECKING:
    Value = str | int | float | bool | list["Value"]

_SHARED = 3


def attributes(header: Header) -> dict[str, Value]:
    """The attributes that are text or numbers, or lists of them. Raises CorruptFile."""
    found = [header.fields(message, "attribute") for message in header.messages if message.kind == ATTRIBUTE]
    info = header.find(ATTRIBUTE_INFO, "attribute info message")
    if info is not None:
        found += _dense(header.content, info)
    read = (_attribute(header.content, fields) for fields in found)
    return {name: value for name, value in read if value is not None}


def _dense(content: Content, info: Fields) -> Iterator[Fields]:
    info.take(1)
    info.take(2 if info.uint(1) & 1 else 0)
    heap_address, tree = info.uint(8), info.uint(8)
    if heap_address != UNDEFINED and tree != UNDEFINED:
        heap = fractal_heap(content, heap_address)
        for record in records(content, tree):
            yield Fields(content, heap.object(record[:8]), heap_address, "attribute")


def _attribute(content: Content, fields: Fields) -> tuple[str, Value | None]:
    version, flags = fields.uint(1), fields.uint(1)
    if not 1 <= version <= 3:
        raise fields.fault(f"it is of version {version}")
    lengths = [fields.uint(2) for _ in range(3)]
    fields.take(1 if version == 3 else 0)
    name, type_data, shape_data = (fields.take(-(-length // 8) * 8 if version == 1 else length) for length in lengths)
    text = _text(name)
    if version > 1 and flags & _SHARED:
        return text, None  # a committed type: netCDF writes such, for what is no metadata of a checkpoint
    kind = read_type(Fields(content, type_data, fields.address, "attribute"))
    shape = read_shape(Fields(content, shape_data, fields.address, "attribute"))
    if shape is None or len(shape) > 1 or not (kind.text or kind.dtype):
        return text, None
    count = _checked(fields, kind, prod(shape))
    values = [_value(content, kind, Fields(content, fields.take(kind.nbytes), fields.address, "attribute")) for _ in range(count)]
    return text, values if shape else values[0]


def _checked(fields: Fields, kind: Type, count: int) -> int:
    if count * kind.nbytes > fields.left:
        raise fields.fault(f"{count:,} values of {kind.nbytes} bytes in {fields.left:,}")
    return count


def _value(content: Content, kind: Type, fields: Fields) -> Value:
    if kind.text == "varying":
        nbytes, address, number = fields.uint(4), fields.uint(8), fields.uint(4)
        return _text(global_heap_object(content, address, number)[:nbytes]) if nbytes else ""
    if kind.dtype is None:
        return _text(fields.data)
    import numpy as np

    dtype = numpy_dtype(kind.dtype)
    value: Value = np.frombuffer(fields.data[::-1] if kind.big_endian else fields.data, dtype)[0].item()
    return str(value) if isinstance(value, complex) else value


def _text(raw: bytes) -> str:
    """Text without the NULs or spaces that fill it up."""
    return raw.partition(b"\0")[0].decode("utf-8", "backslashreplace")
