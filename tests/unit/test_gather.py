"""Elements picked by their index, where they are many: what is read for them, and how a table is cut that does not fit the memory."""

import random

import numpy as np
import pytest

from surgery.blocking import parts
from surgery.dtypes import DTYPES
from surgery.expr import Assemble, Expr, Stored, evaluate
from surgery.gather import Take
from surgery.means import Mean
from surgery.regions import extent_of
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

ROWS, COLUMNS, NEW = 60_000, 64, 300
NBYTES = ROWS * COLUMNS * 4
VALUES = np.random.default_rng(5).standard_normal((ROWS, COLUMNS), dtype=np.float32)
ORDER = random.Random(7).sample(range(ROWS + NEW), ROWS + NEW)


def table() -> Stored:
    file = SourceFile("memory", Fingerprint(NBYTES, 0, 0, 0))
    return Stored(Extent(file, 0, NBYTES, TensorSpec(DTYPES["float32"], VALUES.shape)))


def shuffled() -> Expr:
    """Each row of a table, and the mean of all of them for new ones, in any order."""
    old = table()
    grown = TensorSpec(old.spec.dtype, (ROWS + NEW, COLUMNS))
    return Take(Assemble(grown, (((0, 0), old), ((ROWS, 0), Mean(old, 0, NEW)))), 0, ORDER)


@pytest.mark.parametrize("budget", [NBYTES // 2, NBYTES // 4])
def test_a_shuffled_table_is_cut_into_as_few_parts_as_the_budget_asks_for(budget):
    cut = list(parts(shuffled(), budget))
    assert len(cut) <= 6 * NBYTES // budget
    assert max(part.working_bytes for part in cut) <= 1.01 * budget  # tiles are as large as the first, and others may read a little more


def test_the_parts_of_a_shuffled_table_have_the_rows_in_their_places():
    expr, data = shuffled(), VALUES.tobytes()
    out = np.empty(expr.spec.shape, np.float32)
    for part in parts(expr, NBYTES // 4):
        out[tuple(slice(*pair) for pair in part.region)] = evaluate(expr, part.region, lambda _, start, stop: data[start:stop])
    mean = VALUES.mean(0, keepdims=True, dtype=np.float64).astype(np.float32)
    assert np.array_equal(out, np.concatenate([VALUES, mean.repeat(NEW, 0)])[ORDER])


def test_rows_that_lie_close_together_are_read_at_once():
    taken = Take(table(), 0, [row for row in ORDER if row < ROWS and row % 20 == 0])
    assert len(list(taken.inputs(((0, ROWS // 20), (0, COLUMNS))))) <= 64


def test_rows_that_lie_far_apart_are_read_one_by_one():
    far = Take(table(), 0, [0, ROWS - 1, 9_000])
    assert [region[0] for _, region in far.inputs(((0, 3), (0, COLUMNS)))] == [(0, 1), (9_000, 9_001), (ROWS - 1, ROWS)]


def test_a_row_wanted_many_times_costs_no_more_than_the_result():
    often = Take(table(), 0, [3] * ROWS)
    read = [extent_of(region)[0] for _, region in often.inputs(((0, ROWS), (0, COLUMNS)))]
    assert set(read) == {1}
    assert len(read) <= 64
