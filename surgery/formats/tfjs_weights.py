"""One weight of a TensorFlow.js group as an expression: plain bytes, strings, and quantised values turned back as TensorFlow.js does.

Serves the tfjs format module; knows no files but as byte ranges.
Source: tfjs-core 4.22, src/io/{types,io_utils}.ts (decodeWeights).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from surgery.dtypes import DTYPES, numpy_dtype
from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.expr import Cast, Expr, Stored
from surgery.formats.wire import COPY_AGAIN
from surgery.joined import Joined, Range
from surgery.regions import Region
from surgery.tensors import Extent, SourceFile, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

DTYPE_NAMES = frozenset({"float32", "int32", "bool", "string", "complex64", "float16", "uint8", "uint16"})
QUANTIZED = {"uint8": ("float32", "int32"), "uint16": ("float32", "int32"), "float16": ("float32",)}
"""The stored type of quantised weights, and what it may stand for."""
_LENGTH_BYTES = 4
_MOST_STRINGS = 200_000
"""Each costs a read while the model is listed."""


class Weight(NamedTuple):
    """What the manifest says of a weight. `stored` is the type of its bytes; scale and min apply where that is an integer for `spec`."""

    name: str
    spec: TensorSpec
    stored: str
    scale: float
    min: float

    @property
    def stored_spec(self) -> TensorSpec:
        """The spec of the bytes."""
        return self.spec._replace(dtype=DTYPES[self.stored])


class Dequantized(Expr):
    """Integers turned back: `value * scale + min` in float64, rounded once; whole numbers round half up, as JavaScript does."""

    __slots__ = ("min", "scale")

    def __init__(self, child: Expr, spec: TensorSpec, scale: float, min: float) -> None:
        self.children = (child,)
        self.spec = spec
        self.scale = scale
        self.min = min

    def needs(self, region: Region) -> tuple[Region, ...]:
        return (region,)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        dtype = numpy_dtype(self.spec.dtype)
        values = inputs[0].astype(np.float64) * self.scale + self.min
        return np.floor(values + 0.5).astype(np.int64).astype(dtype) if dtype.kind == "i" else values.astype(dtype)


class Strings:
    """Elements that each are a length of 4 bytes, little-endian, and as many bytes."""

    __slots__ = ("label",)
    name = "tfjs-string"

    def __init__(self, label: str) -> None:
        self.label = label

    def decode(self, stored: bytes, spec: TensorSpec) -> Array:
        """An object array of `bytes`. Raises CorruptFile where the lengths do not fit the bytes."""
        import numpy as np

        items = list(string_ranges(lambda start, stop: stored[start:stop], len(stored), spec.size, self.label))
        flat = np.empty(len(items), object)
        flat[:] = [stored[start:stop] for start, stop in items]
        return flat.reshape(spec.shape)

    def checksum(self, stored: bytes, spec: TensorSpec) -> int:
        """Nothing: TensorFlow.js keeps no checksums, so no one asks for one."""
        return 0


def string_ranges(read: Callable[[int, int], bytes], nbytes: int, count: int, label: str) -> Iterator[tuple[int, int]]:
    """Where each of `count` strings lies.

    Raises:
        CorruptFile: one would end behind `nbytes`.
        UnsupportedFeature: more strings than can be looked at in a moment.
    """
    at = 0
    if count > _MOST_STRINGS:
        raise UnsupportedFeature(f"{label} has {count:,} strings", help=f"at most {_MOST_STRINGS:,} are read")
    if count * _LENGTH_BYTES > nbytes:
        raise _too_short(label, f"{count:,} strings in {nbytes:,} bytes")
    for _ in range(count):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(read(at, start), "little") if start <= nbytes else nbytes + 1
        if at > nbytes:
            raise _too_short(label, f"a string would end at byte {at:,} of {nbytes:,}")
        yield start, at


def _too_short(label: str, fact: str) -> CorruptFile:
    return CorruptFile(f"the shards end before {label} does", notes=[fact], help=COPY_AGAIN)


def expression(weight: Weight, ranges: tuple[Range, ...], label: str) -> Expr:
    """The weight whose stored bytes are these ranges.

    Raises:
        UnsupportedFeature: a string tensor in several shards.
    """
    if weight.stored == "string":
        if len(ranges) != 1:
            raise UnsupportedFeature(f"{label} is a string tensor in {len(ranges)} shards", help="convert the model again with larger shards")
        file, start, nbytes = ranges[0]
        return Stored(Extent(file, start, nbytes, weight.spec, codec=Strings(label)))
    stored = _stored(weight.stored_spec, ranges)
    if weight.stored == weight.spec.dtype.name:
        return stored
    return Cast(stored, weight.spec) if weight.stored == "float16" else Dequantized(stored, weight.spec, weight.scale, weight.min)


def _stored(spec: TensorSpec, ranges: tuple[Range, ...]) -> Expr:
    if len(ranges) == 1:
        file, start, nbytes = ranges[0]
        return Stored(Extent(file, start, nbytes, spec))
    return Joined(spec, ranges)


def absent(weight: Weight, file: SourceFile) -> Expr:
    """A weight of which only the spec is known, since its shard is not there."""
    return Stored(Extent(file, 0, weight.spec.nbytes, weight.spec))
