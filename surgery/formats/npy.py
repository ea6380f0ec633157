"""The header of a `.npy` array, read and written. Serves the npz format module; knows neither files nor archives.

The header is a Python literal. It is matched, never evaluated: nothing in it can run, nest or grow. Versions 1 to 3 are
read, version 1.0 is written. Source of format facts: documentation and code of `numpy.lib.format`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import NamedTuple

from surgery.dtypes import DTYPES, DType
from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.expr import Expr, Stored, Transpose
from surgery.tensors import Extent, TensorSpec

MAGIC = b"\x93NUMPY"
_LENGTH_NBYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
"""Version → width of the field that tells the header's length."""
_HEADER_LIMIT = 64 << 10
AXES_LIMIT = 64
_FIRST_AXIS_DIGITS = 21
_ALIGNMENT = 64

_CODES = {
    "b1": DTYPES["bool"],
    "i1": DTYPES["int8"],
    "i2": DTYPES["int16"],
    "i4": DTYPES["int32"],
    "i8": DTYPES["int64"],
    "u1": DTYPES["uint8"],
    "u2": DTYPES["uint16"],
    "u4": DTYPES["uint32"],
    "u8": DTYPES["uint64"],
    "f2": DTYPES["float16"],
    "f4": DTYPES["float32"],
    "f8": DTYPES["float64"],
    "c8": DTYPES["complex64"],
    "c16": DTYPES["complex128"],
}
CODE_OF = {dtype: code for code, dtype in _CODES.items()}
_REFUSED = {
    "O": "object arrays are pickles, and pickles run code",
    "S": "arrays of bytes are no tensors",
    "U": "arrays of text are no tensors",
    "M": "dates are no tensors",
    "m": "time spans are no tensors",
    "V": "numpy saves bfloat16, float8 and structured arrays as bare bytes, and the name of their type is lost",
    "f": "extended precision differs from machine to machine",
    "c": "extended precision differs from machine to machine",
}
_NO_NUMBERS = frozenset("OSUMm")
"""The first letters of what is no tensor in any format; the rest of the refused are numbers, which would be lost."""
_FIELD = re.compile(
    r"""\s*(?P<q>["'])(?P<name>descr|fortran_order|shape)(?P=q)\s*:\s*"""
    r"""(?:(?P<p>["'])(?P<text>[^"'\\]+)(?P=p)|(?P<flag>True|False)|\((?P<sizes>[0-9,\sL]*)\))\s*(?:,|(?=\}))"""
)


class NoTensor(UnsupportedFeature):
    """An array of something that is no number, so that a table of tensors is complete without it; its first note tells of what."""


class Array(NamedTuple):
    """What an npy header says, and the header's own length with everything before the data."""

    spec: TensorSpec
    fortran: bool
    big_endian: bool
    header_nbytes: int

    def __str__(self) -> str:
        return f"{self.spec} and a header make {self.nbytes:,} bytes"

    @property
    def nbytes(self) -> int:
        """Bytes of header and data."""
        return self.header_nbytes + self.spec.nbytes

    @property
    def stored_spec(self) -> TensorSpec:
        """The spec of the bytes read in C order: Fortran order is the reversed shape."""
        return self.spec._replace(shape=self.spec.shape[::-1]) if self.fortran else self.spec

    def expr(self, extent: Extent) -> Expr:
        """The array, given where the bytes of `stored_spec` lie."""
        return Transpose(Stored(extent), tuple(reversed(range(len(self.spec.shape))))) if self.fortran else Stored(extent)


def read_header(head: Callable[[int], bytes], label: str) -> Array:
    """Parse an npy header; `head(n)` gives the first n bytes of the content, or fewer where it is shorter.

    The header is a Python literal, and is matched rather than evaluated: nothing in it can run, nest or grow.

    Raises:
        CorruptFile: a header that is none, or does not fit.
        NoTensor: objects, text, dates, records.
        UnsupportedFeature: numbers of a type that is not known, or cannot be.
    """
    prologue = head(12)
    version = tuple(prologue[6:8])
    if prologue[:6] != MAGIC or version not in _LENGTH_NBYTES:
        raise corrupt(f"{label} is not an npy file of a version from 1 to 3", f"it begins with {prologue[:8]!r}")
    text_start = 8 + _LENGTH_NBYTES[version]
    text_nbytes = int.from_bytes(prologue[8:text_start], "little")
    header = head(text_start + min(text_nbytes, _HEADER_LIMIT))
    if len(header) != text_start + text_nbytes:
        raise corrupt(f"{label} has an npy header that does not fit", f"it claims {text_nbytes:,} bytes")
    return _described(header[text_start:].decode("latin-1"), len(header), label)


def _described(text: str, header_nbytes: int, label: str) -> Array:
    body = text.strip()
    fields: dict[str, re.Match[str]] = {}
    at = 1
    while (field := _FIELD.match(body, at)) and field["name"] not in fields:
        fields[field["name"]] = field
        at = field.end()
    if re.search(r"""["']descr["']\s*:\s*\[""", body):
        raise NoTensor(f"{label} is a structured array", notes=["records are no tensors", body[:200]], help="save its fields as arrays of their own")
    fits = body.startswith("{") and body[at:].strip() == "}" and len(fields) == 3
    if not fits or fields["descr"]["text"] is None or fields["fortran_order"]["flag"] is None or fields["shape"]["sizes"] is None:
        raise corrupt(f"{label} has an npy header that describes no array", body[:200])
    dtype, big_endian = _dtype(fields["descr"]["text"], label)
    shape = _shape(fields["shape"]["sizes"])
    if shape is None or prod(size or 1 for size in shape) * dtype.itemsize >= 1 << 63:  # numpy counts empty axes as 1 here, too
        raise corrupt(f"{label} has an impossible shape", f"({fields['shape']['sizes'][:200]})")
    return Array(TensorSpec(dtype, shape), fields["fortran_order"]["flag"] == "True", big_endian, header_nbytes)


def _shape(sizes: str) -> tuple[int, ...] | None:
    """The sizes of a tuple's text; None where it is no tuple, or longer than numpy allows. Python 2 wrote `3L`."""
    parts = [part.strip().removesuffix("L") for part in sizes.split(",")]
    if parts[-1] == "":
        parts.pop()
    elif len(parts) == 1:
        return None
    if len(parts) > AXES_LIMIT or not all(part.isdigit() and len(part) < 20 for part in parts):
        return None
    return tuple(map(int, parts))


def _dtype(descr: str, label: str) -> tuple[DType, bool]:
    """The element type of numpy's `<f4`, and whether it is big-endian."""
    dtype = _CODES.get(descr[1:])
    if dtype is not None and (descr[0] in "<>" or (descr[0] == "|" and dtype.itemsize == 1)):
        return dtype, descr[0] == ">" and dtype.itemsize > 1
    letter = descr.lstrip("<>|=")[:1]
    reason = _REFUSED.get(letter, "it is none of numpy's types for tensors")
    refusal = NoTensor if letter in _NO_NUMBERS else UnsupportedFeature
    raise refusal(
        f"{label} has the element type {descr!r}",
        notes=[reason],
        help="save it from Python as a type that numpy has by itself, or as safetensors",
    )


def corrupt(title: str, *facts: str) -> CorruptFile:
    """The error for content that contradicts the format."""
    return CorruptFile(title, notes=facts, help="the source is damaged or still being written; copy it again")


def write_header(spec: TensorSpec) -> bytes:
    """A version 1.0 header as numpy writes it, with its spare room for a longer first axis."""
    order = "|" if spec.dtype.itemsize == 1 else "<"
    text = f"{{'descr': '{order}{CODE_OF[spec.dtype]}', 'fortran_order': False, 'shape': {spec.shape!r}, }}"
    if spec.shape:
        text += " " * (_FIRST_AXIS_DIGITS - len(repr(spec.shape[0])))
    prologue_nbytes = len(MAGIC) + 4
    padding = _ALIGNMENT - (prologue_nbytes + len(text) + 1) % _ALIGNMENT
    text += " " * padding + "\n"
    return MAGIC + bytes((1, 0)) + len(text).to_bytes(2, "little") + text.encode("ascii")
