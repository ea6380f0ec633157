"""The nodes that calculate: values against numpy in float64, and the same bits whatever is asked for at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from surgery.blocking import blocks, parts, working_bytes
from surgery.calculation import calculate, calculated_in
from surgery.dtypes import DTYPES
from surgery.expr import Expr, Slice, Stored, Transpose, evaluate
from surgery.formula import parse
from surgery.math_nodes import MatMul, Spread
from surgery.reductions import Reduce
from surgery.regions import Region, extent_of, whole
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

DICE = np.random.default_rng(5)


class Memory:
    """Arrays that can be read as if they lay in files."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}
        self.largest = 0

    def stored(self, array: Any) -> Stored:
        name = str(len(self.files))
        self.files[name] = np.ascontiguousarray(array).tobytes()
        file = SourceFile(name, Fingerprint(array.nbytes, 0, 0, 0))
        return Stored(Extent(file, 0, array.nbytes, TensorSpec(DTYPES[array.dtype.name], array.shape)))

    def read(self, file: SourceFile, start: int, stop: int) -> bytes:
        self.largest = max(self.largest, stop - start)
        found: bytes = self.files[file.path][start:stop]
        return found

    def all_of(self, expr: Expr) -> Any:
        return evaluate(expr, whole(expr.spec.shape), self.read)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def normal(*shape: int, dtype: str = "f4") -> Any:
    return DICE.standard_normal(shape).astype(dtype)


def regions(shape: tuple[int, ...], number: int = 12) -> Iterator[Region]:
    """Random boxes, single elements and whole rows."""
    for _ in range(number):
        yield tuple((low, low + int(DICE.integers(1, size - low + 1))) for size in shape for low in [int(DICE.integers(0, size))])
    yield tuple((size - 1, size) for size in shape)
    yield ((0, shape[0]), *((size - 1, size) for size in shape[1:]))


def assert_same_bits(memory: Memory, expr: Expr) -> None:
    """A region, however it is cut, has the bits of the whole."""
    full = memory.all_of(expr)
    for region in regions(expr.spec.shape):
        part = evaluate(expr, region, memory.read)
        assert part.tobytes() == full[tuple(slice(*pair) for pair in region)].tobytes()
    element = working_bytes(expr, tuple((0, 1) for _ in expr.spec.shape))
    for budget in (2 * element, 5 * element + full.nbytes // 3):
        out = np.empty_like(full)
        for part in parts(expr, budget):
            for region in blocks(expr, part.region, part.block_bytes):
                out[tuple(slice(*pair) for pair in region)] = evaluate(expr, region, memory.read)
        assert out.tobytes() == full.tobytes()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("rows", "shared", "columns"), [(70, 8, 1100), (33, 1300, 5), (1, 600, 1), (64, 512, 512)])
def test_a_product_has_the_same_bits_in_every_region(memory: Memory, dtype: str, rows: int, shared: int, columns: int) -> None:
    a, b = normal(rows, shared, dtype=dtype), normal(shared, columns, dtype=dtype)
    expr = MatMul(memory.stored(a), memory.stored(b))
    assert_same_bits(memory, expr)
    exact = a.astype("f8") @ b.astype("f8")
    np.testing.assert_allclose(memory.all_of(expr), exact, rtol=0, atol=(1e-5 if dtype == "f4" else 1e-12))


def test_a_product_does_not_depend_on_how_its_operands_lie_in_memory(memory: Memory) -> None:
    a, b = normal(70, 90), normal(90, 600)
    plain = MatMul(memory.stored(a), memory.stored(b))
    turned = MatMul(Transpose(memory.stored(a.T), (1, 0)), Slice(memory.stored(np.pad(b, ((3, 0), (0, 7)))), (3, 0), (90, 600)))
    assert memory.all_of(plain).tobytes() == memory.all_of(turned).tobytes()


def test_products_of_stacked_matrices_are_those_of_numpy(memory: Memory) -> None:
    a, b = np.arange(2 * 3 * 4, dtype="f4").reshape(2, 1, 3, 4), np.arange(5 * 4 * 2, dtype="f4").reshape(5, 4, 2)
    expr = MatMul(memory.stored(a), memory.stored(b))
    assert_same_bits(memory, expr)
    np.testing.assert_array_equal(memory.all_of(expr), np.matmul(a, b))


@pytest.mark.parametrize("shape", [(100_003, 1), (1, 100_003), (5_001, 20), (20, 5_001), (7, 300, 11)])
@pytest.mark.parametrize("axis", [0, -1, None])
@pytest.mark.parametrize("function", ["mean", "max"])
def test_a_reduction_has_the_same_bits_in_every_region(memory: Memory, shape: tuple[int, ...], axis: int | None, function: str) -> None:
    array = normal(*shape)
    axes = tuple(range(len(shape))) if axis is None else (axis % len(shape),)
    expr = Reduce(function, memory.stored(array), axes, True)
    assert_same_bits(memory, expr)
    exact = getattr(np, function)(array.astype("f8"), axis=axis, keepdims=True)
    np.testing.assert_array_equal(memory.all_of(expr), exact.astype("f4"))


def test_a_reduction_does_not_depend_on_how_its_operand_lies_in_memory(memory: Memory) -> None:
    array = normal(5_000, 1)
    plain, turned = memory.stored(array), Transpose(memory.stored(array.T), (1, 0))
    assert memory.all_of(Reduce("sum", plain, (0,), False)).tobytes() == memory.all_of(Reduce("sum", turned, (0,), False)).tobytes()


def test_a_mean_of_a_large_tensor_takes_a_portion_of_it_at_once(memory: Memory) -> None:
    array = np.ones((4_000, 1_000), "f4")
    expr = Reduce("mean", memory.stored(array), (0, 1), False)
    assert working_bytes(expr, ()) < array.nbytes
    assert memory.all_of(expr) == 1
    assert memory.largest < array.nbytes // 2


def test_a_mean_along_the_first_axis_keeps_a_budget(memory: Memory) -> None:
    array = np.arange(3_000 * 800, dtype="f4").reshape(3_000, 800)
    expr = Reduce("mean", memory.stored(array), (0,), False)
    found = list(parts(expr, 1 << 20))
    assert max(part.working_bytes for part in found) <= 1 << 20
    joined = np.concatenate([evaluate(expr, part.region, memory.read) for part in found])
    np.testing.assert_array_equal(joined, array.astype("f8").mean(0).astype("f4"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a * b - c / a", lambda a, b, c: a * b - c / a),
        ("-a ** 2", lambda a, b, c: -(a**2)),
        ("2 ** -1 * a", lambda a, b, c: np.float32(0.5) * a),
        ("a - b - c", lambda a, b, c: a - b - c),
        ("abs(a) + sqrt(abs(b))", lambda a, b, c: abs(a) + np.sqrt(abs(b))),
        ("exp(a)", lambda a, b, c: np.exp(a.astype("f8")).astype("f4")),
        ("log(abs(a))", lambda a, b, c: np.log(abs(a).astype("f8")).astype("f4")),
        ("where(a >= b, a, 0)", lambda a, b, c: np.where(a >= b, a, np.float32(0))),
        ("clip(a, -0.5, 0.5)", lambda a, b, c: np.clip(a, np.float32(-0.5), np.float32(0.5))),
        ("(a < 0) * b", lambda a, b, c: (a < 0) * b),
        ("a.T", lambda a, b, c: a.T),
        ("min(a, axis=-1)", lambda a, b, c: a.min(-1)),
        ("dim(a, 1) * c", lambda a, b, c: np.float32(130) * c),
        ("1.5e-1 * a", lambda a, b, c: np.float32(0.15) * a),
    ],
)
def test_a_formula_means_what_it_means_in_python(memory: Memory, text: str, expected: Any) -> None:
    a, b, c = normal(50, 130), normal(50, 130), normal(130)
    tensors = {name: memory.stored(array) for name, array in zip("abc", (a, b, c), strict=True)}
    expr = calculate(parse(text), text, tensors, DTYPES["float32"])
    wanted = expected(a, b, c)
    assert memory.all_of(expr).dtype == wanted.dtype == np.float32
    np.testing.assert_array_equal(memory.all_of(expr), wanted)
    assert_same_bits(memory, expr)


def test_scales_are_spread_over_blocks(memory: Memory) -> None:
    expr = Spread(memory.stored(np.arange(6, dtype="f4").reshape(2, 3)), (2, 4), (3, 9))
    assert memory.all_of(expr).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 2], [0, 0, 0, 0, 1, 1, 1, 1, 2], [3, 3, 3, 3, 4, 4, 4, 4, 5]]
    assert_same_bits(memory, expr)
    assert extent_of(expr.needs(((1, 3), (3, 5)))[0]) == (2, 2)


@pytest.mark.parametrize(
    ("dtypes", "wanted"), [("bfloat16 int16", "float32"), ("float32 float64", "float64"), ("bfloat16 int64", "float64"), ("uint32", "float64")]
)
def test_what_float32_cannot_hold_is_calculated_in_float64(dtypes: str, wanted: str) -> None:
    assert calculated_in(DTYPES[name] for name in dtypes.split()).name == wanted


@pytest.mark.parametrize("function", ["sum", "mean", "max", "min"])
def test_nothing_of_a_reduction_is_nothing(function: str) -> None:
    memory = Memory()
    expr = Reduce(function, memory.stored(np.ones(3, np.float32)), (0,), True)
    assert evaluate(expr, ((0, 0),), memory.read).shape == (0,)
