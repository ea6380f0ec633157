"""What holds for every expression, tried on random trees over random bytes in memory.

Values are whole numbers from 0 to 6, which every type here holds, so that casts are about types and not about ranges.
"""

from itertools import pairwise, product
from math import prod
from typing import NamedTuple

import numpy as np
from hypothesis import given, note, settings
from hypothesis import strategies as st

from surgery import casting, initializers
from surgery.blocking import blocks, working_bytes
from surgery.dtypes import DTYPES, numpy_dtype
from surgery.expr import Assemble, Cast, Expr, Fill, Reshape, Slice, Stored, Transpose, evaluate
from surgery.gather import Take
from surgery.joined import Joined
from surgery.math_nodes import Constant, Elementwise, MatMul, Spread
from surgery.means import Mean
from surgery.reductions import Reduce
from surgery.regions import extent_of, whole
from surgery.resampling import Method, Resample
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

INTEGERS = ["bool", "int8", "uint8", "int4", "int16", "uint32", "int64"]
FLOATS = ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "complex64", "complex128"]
NAMES = INTEGERS + FLOATS
FILE = SourceFile("memory", Fingerprint(0, 0, 0, 0))

settings.register_profile("laws", max_examples=150, deadline=None, database=None, print_blob=True)
settings.load_profile("laws")


class Tree(NamedTuple):
    """An expression, the values it has to have, and the bytes its leaves lie in."""

    expr: Expr
    values: np.ndarray
    data: bytearray

    def read(self, file, start, stop):
        assert 0 <= start <= stop <= len(self.data), "a read beyond the file"
        return bytes(self.data[start:stop])


@st.composite
def trees(draw):
    shape = tuple(draw(st.lists(st.integers(0, 5) | st.just(1), max_size=4)))
    data = bytearray(draw(st.integers(0, 9)))
    expr, values = draw(st.sampled_from([grow, grow, averaged, resampled]))(
        draw, data, DTYPES[draw(st.sampled_from(NAMES))], shape, draw(st.integers(0, 3))
    )
    note(describe(expr))
    return Tree(expr, values, data)


def describe(expr):
    return f"{type(expr).__name__}<{expr.spec}>({', '.join(describe(child) for child in expr.children)})"


def grow(draw, data, dtype, shape, depth):
    """A random tree of this spec, top down."""
    kinds = [stored, stored, joined, filled]
    if depth:
        kinds += [transposed, sliced, reshaped] + [converted] * (dtype.kind != "bool")
        kinds += [assembled, assembled, taken, spread] * (len(shape) > 0)
    if depth and dtype.name in ("float32", "float64"):
        kinds += [combined, reduced] + [multiplied] * (len(shape) > 1)
    return draw(st.sampled_from(kinds))(draw, data, dtype, shape, depth)


def stored(draw, data, dtype, shape, depth):
    numbers = draw(st.binary(min_size=prod(shape), max_size=prod(shape)))
    values = (np.frombuffer(numbers, np.uint8) % (2 if dtype.kind == "bool" else 7)).reshape(shape).astype(numpy_dtype(dtype))
    big = draw(st.booleans())
    plain = values.astype(f"u{dtype.itemsize}") if dtype.kind in ("int", "uint") and dtype.itemsize > 1 else values
    extent = Extent(FILE, len(data), values.nbytes, TensorSpec(dtype, shape), big_endian=big)
    data += swapped(plain, dtype) if big else plain.tobytes()
    data += bytes(draw(st.integers(0, 3)))
    return Stored(extent), values


def swapped(values, dtype):
    word = dtype.itemsize // (2 if dtype.kind == "complex" else 1)
    raw = values.tobytes()
    return b"".join(raw[start : start + word][::-1] for start in range(0, len(raw), word))


def joined(draw, data, dtype, shape, depth):
    """Cut anywhere, even within an element, and with gaps between the parts."""
    numbers = draw(st.binary(min_size=prod(shape), max_size=prod(shape)))
    values = (np.frombuffer(numbers, np.uint8) % (2 if dtype.kind == "bool" else 7)).reshape(shape).astype(numpy_dtype(dtype))
    raw, ranges = values.tobytes(), []
    for start, stop in pairwise([0, *sorted(draw(st.lists(st.integers(0, len(raw)), max_size=3))), len(raw)]):
        ranges.append((FILE, len(data), stop - start))
        data += raw[start:stop] + bytes(draw(st.integers(0, 3)))
    return Joined(TensorSpec(dtype, shape), tuple(ranges)), values


def filled(draw, data, dtype, shape, depth):
    init = draw(st.sampled_from(["zeros", "ones", *([{"uniform": {"min": 0, "max": 6}}] if dtype.is_float else [])]))
    spec, initializer, seed = TensorSpec(dtype, shape), initializers.parse(init), draw(st.integers(0, 3))
    assert initializers.check(initializer, spec) is None
    return Fill(spec, initializer, seed, "a/b"), initializers.fill(initializer, spec, seed, "a/b", whole(shape))


def transposed(draw, data, dtype, shape, depth):
    order = tuple(draw(st.permutations(range(len(shape)))))
    inner = [0] * len(shape)
    for axis, size in zip(order, shape, strict=True):
        inner[axis] = size
    expr, values = grow(draw, data, dtype, tuple(inner), depth - 1)
    return Transpose(expr, order), values.transpose(order)


def sliced(draw, data, dtype, shape, depth):
    """Of a larger tensor; often as large as it along most axes, since what it is part of may then be copied."""
    margins = [draw(st.just((0, 0)) | st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in shape]
    larger = tuple(low + size + high for (low, high), size in zip(margins, shape, strict=True))
    expr, values = grow(draw, data, dtype, larger, depth - 1)
    origin = tuple(low for low, _ in margins)
    window = tuple(slice(low, low + size) for low, size in zip(origin, shape, strict=True))
    return Slice(expr, origin, shape), values[(*window, ...)]


def reshaped(draw, data, dtype, shape, depth):
    """Of a shape whose axes are cut from the same elements in another way, with some of length 1 between."""
    factors = [prime for size in shape for prime in primes(size)] if prod(shape) else list(shape)
    inner = [1]
    for factor in factors:
        if draw(st.booleans()):
            inner.append(1)
        inner[-1] *= factor
    inner = tuple(inner if inner != [1] or draw(st.booleans()) else [])
    expr, values = grow(draw, data, dtype, inner, depth - 1)
    return Reshape(expr, shape), values.reshape(shape)


def primes(number):
    return [prime for prime in (2, 3, 5, 7, 11, 13, 17, 19, 23) for _ in range(next(n for n in range(5) if number % prime ** (n + 1)))]


def taken(draw, data, dtype, shape, depth):
    """By any indices, or by a range with a step."""
    axis = draw(st.integers(0, len(shape) - 1))
    size = shape[axis] + draw(st.integers(0 if shape[axis] == 0 else 1, 20))
    step = draw(st.integers(-3, 3).filter(bool))
    ordered = range(0, size, step) if step > 0 else range(size - 1, -1, step)
    if len(ordered) >= shape[axis] and draw(st.booleans()):
        indices = ordered[: shape[axis]]
    else:
        indices = tuple(draw(st.lists(st.integers(0, size - 1), min_size=shape[axis], max_size=shape[axis]))) if size else ()
    expr, values = grow(draw, data, dtype, (*shape[:axis], size, *shape[axis + 1 :]), depth - 1)
    return Take(expr, axis, indices), values.take(np.asarray(indices, int), axis)


def converted(draw, data, dtype, shape, depth):
    sources = [name for name in NAMES if casting.check(DTYPES[name], dtype, "error", "nearest") is None]
    expr, values = grow(draw, data, DTYPES[draw(st.sampled_from(sources))], shape, depth - 1)
    return Cast(expr, TensorSpec(dtype, shape), rounding="nearest"), casting.cast(values, dtype, rounding="nearest")


def assembled(draw, data, dtype, shape, depth):
    """A grid: every axis is cut at up to two places, perhaps twice at the same."""
    cuts = [[0, *sorted(draw(st.lists(st.integers(0, size), max_size=2))), size] for size in shape]
    parts, values = [], np.empty(shape, numpy_dtype(dtype))
    for cell in draw(st.permutations(list(product(*(pairwise(axis) for axis in cuts))))):
        part, known = grow(draw, data, dtype, extent_of(cell), depth - 1 if len(parts) < 4 else 0)
        parts.append((tuple(start for start, _ in cell), part))
        values[tuple(slice(*pair) for pair in cell)] = known
    return Assemble(TensorSpec(dtype, shape), tuple(parts)), values


def limited(expr, values):
    """A calculated tensor with what is beyond 6 made 6."""
    low, high = (Constant(TensorSpec(expr.spec.dtype, ()), number) for number in (0.0, 6.0))
    return Elementwise("clip", (expr, low, high)), np.clip(values, 0, 6).astype(values.dtype)


def combined(draw, data, dtype, shape, depth):
    """Two operands, of which one may lack leading axes and have others of length 1."""
    less = tuple(draw(st.sampled_from([size, 1])) for size in shape)[draw(st.integers(0, len(shape))) :]
    (one, known), (other, also) = grow(draw, data, dtype, shape, depth - 1), grow(draw, data, dtype, less, depth - 1)
    symbol, combine = draw(st.sampled_from([("+", np.add), ("*", np.multiply), (">", np.greater), ("!=", np.not_equal)]))
    return limited(Elementwise(symbol, (one, other)), combine(known, also).astype(known.dtype))


def reduced(draw, data, dtype, shape, depth):
    keepdims = draw(st.booleans())
    inner, axes = list(shape), []
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(inner)))
        inner.insert(at, draw(st.integers(1, 4)))
        axes = sorted([axis + (axis >= at) for axis in axes] + [at])
    if keepdims:
        axes = [axis for axis, size in enumerate(shape) if size == 1]
        inner = [draw(st.integers(1, 4)) if axis in axes else size for axis, size in enumerate(shape)]
    function = draw(st.sampled_from(["sum", "max", "min"]))
    expr, values = grow(draw, data, dtype, tuple(inner), depth - 1)
    expected = getattr(np, function)(values, axis=tuple(axes), keepdims=keepdims)
    return limited(Reduce(function, expr, tuple(axes), keepdims), np.asarray(expected, values.dtype))


def multiplied(draw, data, dtype, shape, depth):
    *leading, rows, columns = shape
    shared = draw(st.integers(0, 3))
    less = leading[draw(st.integers(0, len(leading))) :]
    (left, a), (right, b) = (
        grow(draw, data, dtype, (*leading, rows, shared), depth - 1),
        grow(draw, data, dtype, (*less, shared, columns), depth - 1),
    )
    return limited(MatMul(left, right), np.matmul(a, b))


def spread(draw, data, dtype, shape, depth):
    blocks = tuple(draw(st.integers(1, 3)) for _ in shape)
    expr, values = grow(draw, data, dtype, tuple(-(-size // block) for size, block in zip(shape, blocks, strict=True)), depth - 1)
    for axis, block in enumerate(blocks):
        values = values.repeat(block, axis)
    return Spread(expr, blocks, shape), values[(*(slice(size) for size in shape), ...)]


def whole_numbers(draw, data, dtype, shape, depth):
    """A tree of floats that have no fraction, so that sums of them are exact in any order."""
    expr, values = grow(draw, data, DTYPES["int8"], shape, depth)
    return Cast(expr, TensorSpec(dtype, shape)), values.astype(numpy_dtype(dtype))


def averaged(draw, data, dtype, shape, depth):
    """The mean of a tensor, not once, once or several times. Only at the root: others need whole numbers."""
    dtype = dtype if dtype.name in ("float16", "bfloat16", "float64") else DTYPES["float32"]
    axis, count = draw(st.integers(0, len(shape))), draw(st.integers(0, 3))
    expr, values = whole_numbers(draw, data, dtype, (*shape[:axis], draw(st.integers(1, 5)), *shape[axis:]), depth)
    wide = np.float64 if dtype.name == "float64" else np.float32
    return Mean(expr, axis, count), values.astype(np.float64).mean(axis, keepdims=True).astype(wide).repeat(count, axis)


def resampled(draw, data, dtype, shape, depth):
    """As long, twice or four times as long: weights are then so round that sums are exact."""
    old, times = draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 4]))
    axis = draw(st.integers(0, len(shape)))
    wide = DTYPES[draw(st.sampled_from(["float32", "float64"]))]
    expr, values = whole_numbers(draw, data, wide, (*shape[:axis], old, *shape[axis:]), depth)
    places = (np.arange(old * times) + 0.5) / times - 0.5
    expected = np.apply_along_axis(lambda row: np.interp(places, range(old), row), axis, values) if values.size else values.repeat(times, axis)
    return Resample(expr, axis, old * times, Method("linear")), expected.astype(values.dtype)


@st.composite
def trees_and_regions(draw):
    tree = draw(trees())
    return tree, tuple(tuple(sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size))))) for size in tree.expr.spec.shape)


def needed_bytes(expr, region):
    """Bytes of the elements that the stored leaves are asked for."""
    if isinstance(expr, Stored):
        return prod(extent_of(region)) * expr.spec.dtype.itemsize
    return (max if expr.streams else sum)([0, *(needed_bytes(child, need) for child, need in expr.inputs(region))])


@given(trees())
def test_the_spec_is_what_evaluate_returns(tree):
    result = evaluate(tree.expr, whole(tree.expr.spec.shape), tree.read)
    assert result.dtype == numpy_dtype(tree.expr.spec.dtype)
    assert result.shape == tree.expr.spec.shape
    assert result.nbytes == tree.expr.spec.nbytes


@given(trees())
def test_the_values_are_those_numpy_gets(tree):
    assert evaluate(tree.expr, whole(tree.expr.spec.shape), tree.read).tobytes() == tree.values.tobytes()


@given(trees_and_regions())
def test_a_region_is_that_region_of_the_whole(pair):
    tree, region = pair
    part = evaluate(tree.expr, region, tree.read)
    assert part.shape == extent_of(region)
    assert part.tobytes() == tree.values[(*(slice(*axis) for axis in region), ...)].tobytes()


@given(trees())
def test_the_bytes_behind_a_view_are_the_computed_bytes(tree):
    pieces = tree.expr.view()
    if pieces is not None:
        joined = b"".join(tree.read(piece.file, piece.start, piece.stop) for piece in pieces)
        assert joined == evaluate(tree.expr, whole(tree.expr.spec.shape), tree.read).tobytes()


@given(trees(), st.integers(1, 400))
def test_blocks_one_after_the_other_are_the_tensor(tree, budget):
    joined = b"".join(evaluate(tree.expr, region, tree.read).tobytes() for region in blocks(tree.expr, whole(tree.expr.spec.shape), budget))
    assert joined == tree.values.tobytes()


@given(trees(), st.integers(1, 400))
def test_a_block_keeps_the_budget_unless_it_is_one_element(tree, budget):
    for region in blocks(tree.expr, whole(tree.expr.spec.shape), budget):
        assert working_bytes(tree.expr, region) <= budget or prod(extent_of(region)) == 1


@given(trees_and_regions())
def test_working_bytes_bound_what_is_read(pair):
    tree, region = pair
    assert needed_bytes(tree.expr, region) <= working_bytes(tree.expr, region)
