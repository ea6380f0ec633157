"""Where one tensor comes from, as a frozen tree of nodes.

Each node answers four questions: what comes out (`spec`), which region of its children it needs for a region of itself
(`needs`), how to compute that region (`compute`), and whether it is the same bytes under another address (`view`).
Planning builds these trees, lowering reads `view`, applying calls `evaluate`. Nothing here opens a file: bytes come
through a `Read` function. A region is one half-open `(start, stop)` pair per axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from surgery.dtypes import numpy_dtype
from surgery.regions import Region, extent_of, span_of, spans, strides_of, whole
from surgery.tensors import Codec, Extent, SourceFile, StreamCodec, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from surgery.initializers import Initializer

    Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

Read = Callable[[SourceFile, int, int], "bytes | memoryview"]
"""Bytes `start` to `stop` of a file; a writable buffer is the caller's own."""

_SMALL_GAP = 16 << 10
"""Rows that lie closer together than this are read as one span: a system call costs more than the bytes."""
_READ_AT_ONCE = 1 << 20
"""The most bytes of a span that has holes."""
_STREAM_STEP = 256 << 10
_OBJECT_BYTES = 48
"""A string in an object array: the pointer and the head of the object."""


class Expr:
    """A node. Subclasses are immutable and set `spec` and `children` when they are made."""

    __slots__ = ("children", "spec")
    spec: TensorSpec
    children: tuple[Expr, ...]

    def needs(self, region: Region) -> tuple[Region, ...]:
        """For each child, the region of it that `region` of this node depends on."""
        raise NotImplementedError

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        """The values of `region`, an array of its shape, from the children's needed regions."""
        raise NotImplementedError

    def view(self) -> tuple[Extent, ...] | None:
        """The stored ranges whose bytes, one after the other, are this tensor; None if it has to be computed."""
        return None

    def leaves(self) -> Iterator[Expr]:
        """The nodes without children below this one, itself included."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


class Stored(Expr):
    """A tensor as it lies in a file."""

    __slots__ = ("extent",)

    def __init__(self, extent: Extent) -> None:
        self.extent = extent
        self.spec = extent.spec
        self.children = ()

    def needs(self, region: Region) -> tuple[Region, ...]:
        return ()

    def view(self) -> tuple[Extent, ...] | None:
        return None if self.extent.big_endian and self.extent.spec.dtype.bits > 8 else (self.extent,)

    def load(self, region: Region, read: Read) -> Array:
        """The values of `region`, read from the file; fetches only the rows that it touches, but encoded tensors whole.

        Raises:
            CorruptFile: the codec finds the bytes wrong.
            TypeError: the dtype has no array form.
        """
        import numpy as np

        dtype = numpy_dtype(self.spec.dtype)
        if 0 in extent_of(region):
            return np.empty(extent_of(region), dtype)
        if self.extent.codec is not None:
            wanted: tuple[Any, ...] = (*(slice(*pair) for pair in region), ...)  # the ellipsis keeps a scalar an array
            decoded: Array = _decoded(self.extent, self.extent.codec, read)[wanted]
            return decoded
        flat = _gathered(self.extent, region, read)
        if self.extent.big_endian and dtype.itemsize > 1:
            flat = _swapped(flat, dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize)
        return flat.view(dtype).reshape(extent_of(region))


def _gathered(extent: Extent, region: Region, read: Read) -> Array:
    """The stored bytes of a region that is not empty, one after the other."""
    import numpy as np

    shape, item = extent.spec.shape, extent.spec.dtype.itemsize
    start, stop = span_of(shape, region)
    if stop - start == prod(extent_of(region)):
        return np.frombuffer(read(extent.file, extent.start + start * item, extent.start + stop * item), np.uint8)
    element = np.dtype("c16" if item == 16 else f"u{item}")  # numpy moves its own types fastest; the values are never looked at
    strides = tuple(stride * item for stride in strides_of(shape))
    out, at = np.empty(prod(extent_of(region)), element), 0
    for start, stop, part in spans(shape, region, _READ_AT_ONCE // item, max(1, _SMALL_GAP // item)):
        span = read(extent.file, extent.start + start * item, extent.start + stop * item)
        size = prod(part)
        if size == stop - start:
            out[at : at + size] = np.frombuffer(span, element)
        else:
            out[at : at + size].reshape(part)[...] = np.ndarray(part, element, span, strides=strides)
        at += size
        del span  # before the next one is read
    return out.view(np.uint8)


def _swapped(flat: Array, word: int) -> Array:
    """Bytes with every word of them turned round, in place where the buffer is ours."""
    import numpy as np

    return flat.view(f"u{word}").byteswap(inplace=flat.flags.writeable).view(np.uint8)


def _decoded(extent: Extent, codec: Codec, read: Read) -> Array:
    import numpy as np

    if not isinstance(codec, StreamCodec):
        return codec.decode(bytes(read(extent.file, extent.start, extent.stop)), extent.spec)
    flat, at = np.empty(extent.spec.nbytes, np.uint8), 0
    for chunk in codec.chunks(stored_pieces(extent, read), extent.spec):
        flat[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)
    return flat.view(numpy_dtype(extent.spec.dtype)).reshape(extent.spec.shape)


def stored_pieces(extent: Extent, read: Read) -> Iterator[bytes | memoryview]:
    """The bytes of an extent from the first to the last, for a `StreamCodec`."""
    for start in range(extent.start, extent.stop, _STREAM_STEP):
        yield read(extent.file, start, min(start + _STREAM_STEP, extent.stop))


class Fill(Expr):
    """A new tensor. Its values depend on spec, initializer, seed and key only, whatever regions are asked for.

    The maker has asked `initializers.check`. `key` is the name the tensor was made under, and stays when it is renamed.
    """

    __slots__ = ("initializer", "key", "seed")

    def __init__(self, spec: TensorSpec, initializer: Initializer, seed: int, key: str) -> None:
        self.spec = spec
        self.children = ()
        self.initializer = initializer
        self.seed = seed
        self.key = key

    def needs(self, region: Region) -> tuple[Region, ...]:
        return ()

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        from surgery.initializers import fill

        return fill(self.initializer, self.spec, self.seed, self.key, region)


class Assemble(Expr):
    """Parts laid side by side into one tensor, each with its origin: partitioned variables, and whatever is joined.

    The parts must cover the shape without overlap; the maker has checked that.
    """

    __slots__ = ("origins",)

    def __init__(self, spec: TensorSpec, parts: tuple[tuple[tuple[int, ...], Expr], ...]) -> None:
        self.spec = spec
        ordered = sorted(parts, key=lambda part: part[0])
        self.origins = tuple(origin for origin, _ in ordered)
        self.children = tuple(child for _, child in ordered)

    def _overlap(self, region: Region) -> Iterator[Region]:
        """For each part, the region of the whole where it meets `region` (perhaps empty)."""
        for origin, child in zip(self.origins, self.children, strict=True):
            meet = []
            for (start, stop), low, size in zip(region, origin, child.spec.shape, strict=True):
                first, last = max(start, low), min(stop, low + size)
                meet.append((first, max(first, last)))
            yield tuple(meet)

    def needs(self, region: Region) -> tuple[Region, ...]:
        needed = []
        for meet, origin in zip(self._overlap(region), self.origins, strict=True):
            empty = any(start == stop for start, stop in meet)
            needed.append(tuple((0, 0) if empty else (start - low, stop - low) for (start, stop), low in zip(meet, origin, strict=True)))
        return tuple(needed)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        out = np.empty(extent_of(region), numpy_dtype(self.spec.dtype))
        for meet, part in zip(self._overlap(region), inputs, strict=True):
            if part.size:
                out[tuple(slice(start - base, stop - base) for (start, stop), (base, _) in zip(meet, region, strict=True))] = part
        return out

    def view(self) -> tuple[Extent, ...] | None:
        if self.spec.dtype.bits % 8 or self.spec.dtype.bits == 0:
            return None
        joined = next((axis for axis, size in enumerate(self.spec.shape) if size != 1), 0)
        pieces: list[Extent] = []
        for child in self.children:
            stored = child.view()
            if stored is None or child.spec.shape[joined + 1 :] != self.spec.shape[joined + 1 :]:
                return None
            pieces += stored
        return tuple(pieces)


class Cast(Expr):
    """Another element type. Floats round to nearest even; the policies say what happens where a value does not fit.

    `overflow`: "error" (a finite value that would leave the range), "saturate", "inf", "wrap" (integers).
    `rounding`: how floats become integers: "nearest" (half to even), "floor", "ceil", "zero"; "" where it cannot happen.
    """

    __slots__ = ("label", "overflow", "rounding")

    def __init__(self, child: Expr, spec: TensorSpec, overflow: str = "error", rounding: str = "", label: str = "") -> None:
        self.children = (child,)
        self.spec = spec
        self.overflow = overflow
        self.rounding = rounding
        self.label = label

    def needs(self, region: Region) -> tuple[Region, ...]:
        return (region,)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        from surgery.casting import cast

        return cast(inputs[0], self.spec.dtype, overflow=self.overflow, rounding=self.rounding, label=self.label)


class Transpose(Expr):
    """Axes in another order: axis i of the result is axis `order[i]` of the child."""

    __slots__ = ("order",)

    def __init__(self, child: Expr, order: tuple[int, ...]) -> None:
        self.children = (child,)
        self.order = order
        self.spec = TensorSpec(child.spec.dtype, tuple(child.spec.shape[axis] for axis in order))

    def needs(self, region: Region) -> tuple[Region, ...]:
        needed = [(0, 0)] * len(region)
        for axis, pair in zip(self.order, region, strict=True):
            needed[axis] = pair
        return (tuple(needed),)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        return inputs[0].transpose(self.order)

    def view(self) -> tuple[Extent, ...] | None:
        child = self.children[0]
        moved = [axis for axis in self.order if child.spec.shape[axis] != 1]
        return child.view() if moved == sorted(moved) else None


def evaluate(expr: Expr, region: Region, read: Read) -> Array:
    """The values of a region of `expr`, reading only what it needs.

    Raises whatever `read`, the codecs and the cast policies raise.
    """
    if isinstance(expr, Stored):
        return expr.load(region, read)
    inputs = tuple(evaluate(child, need, read) for child, need in zip(expr.children, expr.needs(region), strict=True))
    return expr.compute(region, inputs)


def working_bytes(expr: Expr, region: Region) -> int:
    """An upper bound of the memory that `evaluate` holds for this region: each node's array, all at once, and encoded tensors whole.

    Not counted: temporaries of fixed size (a span that is read, a piece of a cast or fill), and the whole of an `orthogonal` fill.
    """
    size = prod(extent_of(region))
    if size and isinstance(expr, Stored) and expr.extent.codec is not None:
        return _decoding_bytes(expr.extent, expr.extent.codec)
    own = size * max(expr.spec.dtype.itemsize, 1)
    return own + sum(working_bytes(child, need) for child, need in zip(expr.children, expr.needs(region), strict=True))


def _decoding_bytes(extent: Extent, codec: Codec) -> int:
    """What a tensor costs that is decoded whole; elements that vary in length lie beside the bytes that they were cut from."""
    if isinstance(codec, StreamCodec):
        return extent.spec.nbytes
    return 2 * extent.nbytes + extent.spec.size * _OBJECT_BYTES


def blocks(expr: Expr, budget: int) -> Iterator[Region]:
    """Cut a tensor into regions that are contiguous in C order and, where that is possible, cost at most `budget` bytes.

    A single element is never cut, and neither is what comes of an encoded tensor, which every block would decode again.
    Where one of them costs more, the budget is exceeded.
    """
    if any(isinstance(leaf, Stored) and leaf.extent.codec is not None for leaf in expr.leaves()):
        yield whole(expr.spec.shape)
    else:
        yield from _cut(expr, whole(expr.spec.shape), 0, budget)


def _cut(expr: Expr, region: Region, axis: int, budget: int) -> Iterator[Region]:
    cost = working_bytes(expr, region)
    if cost <= budget or axis == len(region):
        yield region
        return
    start, stop = region[axis]
    rows = stop - start
    if rows <= 1:
        yield from _cut(expr, region, axis + 1, budget)
        return
    step = min(rows - 1, max(1, rows * budget // cost))
    for low in range(start, stop, step):  # rows may differ in cost, so each slab is looked at anew; only single rows are cut across
        yield from _cut(expr, (*region[:axis], (low, min(low + step, stop)), *region[axis + 1 :]), axis, budget)
