"""Means of tensors that come in several portions: numpy's, whatever regions are asked for and however often."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from surgery import means
from surgery.dtypes import DTYPES
from surgery.expr import Stored, evaluate
from surgery.means import Mean
from surgery.regions import whole
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

DICE = np.random.default_rng(5)


def stored(values: Any) -> tuple[Stored, Any, list[int]]:
    """A tensor in memory, a reader of it, and the lengths of what was read."""
    data, reads = values.tobytes(), list[int]()

    def read(file: SourceFile, start: int, stop: int) -> bytes:
        reads.append(stop - start)
        return data[start:stop]

    file = SourceFile("memory", Fingerprint(len(data), 0, 0, 0))
    return Stored(Extent(file, 0, len(data), TensorSpec(DTYPES[values.dtype.name], values.shape))), read, reads


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("shape", "axis"), [((3001, 257), 0), ((130, 2500), 1), ((5, 700, 101), 1), ((400_001,), 0)])
def test_the_mean_is_that_of_numpy_in_float64(dtype: Any, shape: tuple[int, ...], axis: int) -> None:
    values = (DICE.standard_normal(shape) + 3).astype(dtype)
    leaf, read, _ = stored(values)
    node = Mean(leaf, axis, 2)
    mean = evaluate(node, whole(node.spec.shape), read)
    wide = np.float64 if dtype is np.float64 else np.float32
    expected = values.astype(np.float64).mean(axis, keepdims=True).repeat(2, axis)
    assert mean.dtype == wide
    np.testing.assert_allclose(mean, expected, rtol=1e-12 if wide is np.float64 else 6e-8)


def test_a_table_is_read_once_in_portions() -> None:
    values = DICE.standard_normal((4096, 64)).astype(np.float32)
    leaf, read, reads = stored(values)
    node = Mean(leaf, 0, 100)
    rows = [evaluate(node, ((row, row + 1), (0, 64)), read) for row in range(100)]
    assert sum(reads) == values.nbytes
    assert max(reads) <= means._PORTION * 4
    assert all(np.array_equal(row, rows[0]) for row in rows)


def test_a_mean_too_large_to_keep_is_worked_out_region_by_region(monkeypatch: pytest.MonkeyPatch) -> None:
    values = DICE.standard_normal((3, 4, 1000)).astype(np.float32)
    leaf, read, reads = stored(values)
    kept = evaluate(Mean(leaf, 0, 2), whole((2, 4, 1000)), read)
    monkeypatch.setattr(means, "_MOST_KEPT", 100)
    reads.clear()
    part = evaluate(Mean(leaf, 0, 2), ((1, 2), (2, 3), (10, 30)), read)
    assert sum(reads) < values.nbytes
    assert part.tobytes() == kept[1:2, 2:3, 10:30].tobytes()


def test_what_is_no_number_stays_that() -> None:
    leaf, read, _ = stored(np.array([[1, np.nan, np.inf, np.inf], [3, 4, 5, -np.inf]], np.float32))
    mean = evaluate(Mean(leaf, 0, 1), ((0, 1), (0, 4)), read)
    np.testing.assert_array_equal(mean, np.array([[2, np.nan, np.inf, np.nan]], np.float32))


def test_the_mean_of_negative_zeros_is_a_plain_zero_as_numpy_has_it():
    zeros = np.full((3, 2), -0.0, np.float32)
    spec = TensorSpec(DTYPES["float32"], zeros.shape)
    leaf = Stored(Extent(SourceFile("memory", Fingerprint(0, 0, 0, 0)), 0, spec.nbytes, spec))
    mean = evaluate(Mean(leaf, 0, 1), ((0, 1), (0, 2)), lambda _, start, stop: zeros.tobytes()[start:stop])
    assert mean.tobytes() == zeros.mean(0, keepdims=True).tobytes()
