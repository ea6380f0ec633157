"""What numpy leaves in pickles: arrays, whose bytes stay where they are, and scalars. Serves the readers of PyTorch's files and of plain pickles.

Knows the shapes of numpy's calls and imports nothing that they name. Source of format facts: numpy 2.3, `numpy/_core/src/multiarray/methods.c`
(`array_reduce`, `array_setstate`), and `numpy/_core/numeric.py` (`_frombuffer`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from surgery.dtypes import DTYPES, DType, numpy_dtype
from surgery.errors import CorruptFile
from surgery.formats.pickle_machine import BYTES_PER_OBJECT, Global, Stub
from surgery.formats.tape import Span
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

_TYPES = {"b1": "bool", "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128"}
_TYPES |= {f"{kind}{width}": f"{name}{8 * width}" for kind, name in (("i", "int"), ("u", "uint")) for width in (1, 2, 4, 8)}
_AXES_LIMIT = 64
_SCALAR_CODES = {"b1": "?", "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f2": "e", "f4": "f", "f8": "d"}
"""Numpy's names of types → `struct` code."""


class ArrayData(NamedTuple):
    """An array that is a tensor; `raw` are its bytes, or where they lie."""

    dtype: DType
    shape: tuple[int, ...]
    is_fortran: bool
    big_endian: bool
    raw: bytes | Span


class NumpyArray:
    """An array, made empty by a call; `build` tells what it holds, or why it is no tensor (continues its name)."""

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content: ArrayData | str = "is a numpy array without a state"

    def build(self, state: object) -> None:
        """Take over version, shape, type, whether in Fortran order, and bytes. Raises ValueError where they do not fit each other."""
        if type(state) is not tuple or len(state) != 5:
            raise ValueError("an array of numpy without version, shape, type, order and bytes")
        self.content = _content(*state[1:])


def of_buffer(arguments: tuple[object, ...]) -> NumpyArray:
    """An array of protocol 5. Raises ValueError for arguments that cannot be."""
    if len(arguments) < 4:
        raise ValueError("an array of numpy without bytes, type, shape and order")
    raw, kind, shape, order = arguments[:4]
    made = NumpyArray()
    made.content = _content(shape, kind, order == "F", raw) if order in ("C", "F") else "is a numpy array in an order of its own"
    return made


def _content(shape: object, kind: object, is_fortran: object, raw: object) -> ArrayData | str:
    named = _type_of(kind)
    if isinstance(named, str):
        return f"is a numpy array of {named[:40]}"
    dtype, big_endian = named
    if type(raw) is str:
        raw = raw.encode()  # Python 2's string, which happened to be UTF-8
    if type(shape) is not tuple or len(shape) > _AXES_LIMIT or not all(type(size) is int and 0 <= size < 1 << 63 for size in shape):
        raise ValueError("an array of numpy whose shape is none")
    if not isinstance(raw, bytes | Span):
        raise ValueError("an array of numpy without bytes")
    nbytes = prod(shape) * dtype.itemsize
    least, most = _lengths(raw)
    if not least <= nbytes <= most:
        raise ValueError(f"an array of numpy that is not as long as its bytes: {list(shape)} of {dtype.name} in {most:,} bytes")
    return ArrayData(dtype, shape, bool(is_fortran), big_endian, raw)


def _lengths(raw: bytes | Span) -> tuple[int, int]:
    """The least and the most bytes that these are; a letter of Latin-1 is one or two bytes of UTF-8."""
    if type(raw) is Span:
        return (-(-raw.nbytes // 2) if raw.is_text else raw.nbytes), raw.nbytes
    return len(raw), len(raw)


def _type_of(kind: object) -> tuple[DType, bool] | str:
    """The element type and whether its bytes are big-endian; its name where no tensor has it."""
    if type(kind) is not Stub or kind.name != "numpy.dtype" or type(kind.arguments) is not tuple or not kind.arguments:
        raise ValueError("an array of numpy without element type")
    name = kind.arguments[0]
    if type(name) is Global and name.name.startswith("ml_dtypes."):
        dtype = DTYPES.get(name.name.removeprefix("ml_dtypes."))
        return (dtype, False) if dtype and dtype.numpy == dtype.name else name.name
    if type(name) is not str:
        return "a class"
    order = kind.state[1] if type(kind.state) is tuple and len(kind.state) > 1 else "<"
    return (DTYPES[_TYPES[name]], order == ">") if name in _TYPES else name


class PickledBytes:
    """The codec of bytes that are held in memory, or stand in a pickle as text."""

    __slots__ = ("big_endian", "content")
    name = "pickle"

    def __init__(self, content: bytes | None, big_endian: bool) -> None:
        self.content = content
        self.big_endian = big_endian

    def decode(self, stored: bytes, spec: TensorSpec) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
        """Raises CorruptFile where the text is not Latin-1 in UTF-8, or of another length."""
        import numpy as np

        try:
            content = stored.decode().encode("latin-1") if self.content is None else self.content
        except UnicodeError:
            content = b""
        if len(content) != spec.nbytes:
            raise CorruptFile(f"a pickled array of {spec.nbytes:,} bytes is damaged", help="the source is damaged; copy it again")
        dtype = numpy_dtype(spec.dtype)
        found = np.frombuffer(content, dtype.newbyteorder(">") if self.big_endian else dtype).reshape(spec.shape)
        return found.astype(dtype) if self.big_endian else found

    def checksum(self, stored: bytes, spec: TensorSpec) -> int:
        """Nothing: a pickle keeps none, so no one asks for it."""
        return 0


def encoded(arguments: tuple[object, ...], spend: Callable[[int], None]) -> bytes | Span:
    """Bytes, as pickles of protocol 2 spell them. Raises ValueError for anything else."""
    text = arguments[0] if len(arguments) == 2 and arguments[1] in ("latin1", "latin-1") else None
    if type(text) is Span and text.is_text:
        return text
    if type(text) is not str:
        raise ValueError("bytes that are no text in Latin-1")
    spend(len(text) // BYTES_PER_OBJECT)
    return text.encode("latin-1")


def scalar(arguments: tuple[object, ...]) -> object:
    """A numpy scalar as a number; a `Stub` where it is none."""
    kind, raw = arguments if len(arguments) == 2 else (None, None)
    if type(raw) is str:
        raw = raw.encode()
    if type(kind) is Stub and kind.name == "numpy.dtype" and type(kind.arguments) is tuple and type(raw) is bytes:
        name = kind.arguments[0] if kind.arguments else None
        order = ">" if type(kind.state) is tuple and kind.state[1:2] == (">",) else "<"
        code = _SCALAR_CODES.get(name) if type(name) is str else None
        if code is not None and struct.calcsize(order + code) == len(raw):
            value: object = struct.unpack(order + code, raw)[0]
            return value
    return Stub("numpy.core.multiarray.scalar", arguments)
