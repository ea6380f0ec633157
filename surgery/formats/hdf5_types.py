"""Element types and shapes of HDF5 messages, told as specs. What is no number (text, records, references) is told by its name.

Source of format facts: HDF5 File Format Specification 3.0, sections IV.A.2.b (dataspace) and IV.A.2.d (datatype); for bool and complex
the documentation of h5py.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from surgery.dtypes import DTYPES, DType
from surgery.formats.hdf5_content import UNDEFINED, Fields

AXES_LIMIT = 32
_NESTING_LIMIT = 8
_FIXED, _FLOAT, _TEXT, _BITS, _OPAQUE, _COMPOUND, _ENUM, _VARYING = 0, 1, 3, 4, 5, 6, 8, 9
_OTHERS = {2: "times", 5: "opaque bytes", 7: "references", 10: "arrays in each element", 11: "complex numbers of HDF5 2.0"}

_FLOATS: dict[tuple[int, ...], DType] = {
    (2, 10, 5, 0, 10, 15): DTYPES["float16"],
    (2, 7, 8, 0, 7, 127): DTYPES["bfloat16"],
    (4, 23, 8, 0, 23, 127): DTYPES["float32"],
    (8, 52, 11, 0, 52, 1023): DTYPES["float64"],
}
"""Bytes, and the properties of the format: place and size of exponent and mantissa, bias."""


class Type(NamedTuple):
    """An element type: `dtype` with its byte order, or None and the reason in words. `text` is "fixed" or "varying" for strings."""

    nbytes: int
    dtype: DType | None
    big_endian: bool = False
    reason: str = ""
    text: str = ""


def read_type(fields: Fields, depth: int = 0) -> Type:
    """An element type. Raises CorruptFile."""
    head, bits, nbytes = fields.uint(1), fields.uint(3), fields.uint(4)
    kind, version = head & 15, head >> 4
    if not 1 <= version <= 5 or depth > _NESTING_LIMIT or nbytes == 0:
        raise fields.fault(f"a type of version {version} with {nbytes:,} bytes")
    if kind == _FIXED:
        return _integer(fields, bits, nbytes)
    if kind == _BITS:  # unsigned integers, as h5py has them; PyTables writes bool so
        return _integer(fields, bits & 1, nbytes)
    if kind == _FLOAT:
        return _float(fields, bits, nbytes)
    if kind == _TEXT:
        return Type(nbytes, None, reason="text", text="fixed")
    if kind == _OPAQUE:
        tag = fields.take(min(bits & 0xFF, fields.left)).strip(b"\0").decode("ascii", "backslashreplace")
        return Type(nbytes, None, reason=f"opaque bytes ({tag})" if tag else "opaque bytes")
    if kind == _COMPOUND:
        return _compound(fields, version, bits & 0xFFFF, nbytes, depth)
    if kind == _ENUM:
        return _enum(fields, version, bits & 0xFFFF, nbytes, depth)
    if kind == _VARYING:
        base = read_type(fields, depth + 1)
        varying = bits & 15 == 1
        return Type(nbytes, None, base.big_endian, "text" if varying else "lists of varying length", "varying" if varying else "")
    return Type(nbytes, None, reason=_OTHERS.get(kind, f"elements of an unknown kind ({kind})"))


def _integer(fields: Fields, bits: int, nbytes: int) -> Type:
    offset, precision = fields.uint(2), fields.uint(2)
    dtype = DTYPES.get(f"{'int' if bits & 8 else 'uint'}{8 * nbytes}")
    if dtype is None or offset or precision != 8 * nbytes:
        return Type(nbytes, None, reason=f"integers of {precision} bits in {nbytes} bytes")
    return Type(nbytes, dtype, bool(bits & 1))


def _float(fields: Fields, bits: int, nbytes: int) -> Type:
    offset, precision = fields.uint(2), fields.uint(2)
    layout = (nbytes, *(fields.uint(1) for _ in range(4)), fields.uint(4))
    dtype = _FLOATS.get(layout)
    if dtype is None or offset or precision != 8 * nbytes or bits & 0x40 or bits >> 8 & 0xFF != 8 * nbytes - 1:
        return Type(nbytes, None, reason=f"floats of {precision} bits that are none of IEEE 754's")
    return Type(nbytes, dtype, bool(bits & 1))


def _enum(fields: Fields, version: int, count: int, nbytes: int, depth: int) -> Type:
    """Numbers with names; FALSE and TRUE in one byte are how h5py writes bool."""
    base = read_type(fields, depth + 1)
    names = [_name(fields, padded=version < 3) for _ in range(count)]
    values = [fields.take(base.nbytes) for _ in range(count)]
    if dict(zip(names, values, strict=True)) == {b"FALSE": b"\0", b"TRUE": b"\1"}:
        return Type(nbytes, DTYPES["bool"])
    return base._replace(nbytes=nbytes) if base.nbytes == nbytes else Type(nbytes, None, reason="numbers with names")


def _compound(fields: Fields, version: int, count: int, nbytes: int, depth: int) -> Type:
    """Records; two floats `r` and `i` without a gap are how h5py writes complex numbers."""
    members = []
    for _ in range(count):
        name = _name(fields, padded=version < 3)
        offset = fields.uint(4 if version < 3 else (nbytes.bit_length() + 7) // 8)
        fields.take(28 if version == 1 else 0)
        members.append((name, offset, read_type(fields, depth + 1)))
    if [(name, offset) for name, offset, _ in members] == [(b"r", 0), (b"i", nbytes // 2)]:
        (_, _, real), (_, _, imaginary) = members
        if real == imaginary and real.dtype in (DTYPES["float32"], DTYPES["float64"]) and nbytes == 2 * real.nbytes:
            return Type(nbytes, DTYPES[f"complex{8 * nbytes}"], real.big_endian)
    return Type(nbytes, None, reason="records of several fields")


def _name(fields: Fields, *, padded: bool) -> bytes:
    name = fields.text()
    if padded:
        fields.take(-(len(name) + 1) % 8)
    return name


def read_shape(fields: Fields) -> tuple[int, ...] | None:
    """The shape of a dataspace; None for one without elements (H5S_NULL). Raises CorruptFile."""
    version, rank = fields.uint(1), fields.uint(1)
    if version not in (1, 2) or rank > AXES_LIMIT:
        raise fields.fault(f"version {version}, {rank} axes")
    fields.take(6 if version == 1 else 1)
    if version == 2 and fields.uint(1) == 2:
        return None
    shape = tuple(fields.uint(8) for _ in range(rank))
    if prod(size or 1 for size in shape) >= 1 << 60:
        raise fields.fault(f"the shape {shape} is impossible")
    return shape


def read_limits(fields: Fields, shape: tuple[int, ...]) -> tuple[int | None, ...]:
    """How far each axis of a dataspace with this shape may grow; None without a limit. Raises CorruptFile."""
    version, rank, flags = fields.uint(1), fields.uint(1), fields.uint(1)
    fields.take((5 if version == 1 else 1) + 8 * rank)
    limits = [fields.uint(8) for _ in range(rank)] if flags & 1 else list(shape)
    if any(limit < size for limit, size in zip(limits, shape, strict=True)):
        raise fields.fault(f"the shape {shape} is beyond its limits {limits}")
    return tuple(None if limit == UNDEFINED else limit for limit in limits)
