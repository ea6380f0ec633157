from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.regions import runs, span_of, spans, strides_of, whole


def test_strides_are_how_far_neighbours_lie_apart():
    assert strides_of((2, 3, 4)) == (12, 4, 1)
    assert strides_of(()) == ()


def test_a_span_goes_from_the_first_element_to_the_last():
    assert span_of((3, 5), ((1, 3), (2, 4))) == (7, 14)
    assert span_of((), ()) == (0, 1)


def test_near_rows_are_one_span():
    assert list(spans((3, 5), ((0, 3), (1, 3)), longest=100, gap=4)) == [(1, 13, (3, 2))]


def test_far_rows_are_spans_of_their_own():
    assert list(spans((3, 5), ((0, 3), (1, 3)), longest=100, gap=3)) == [(1, 3, (1, 2)), (6, 8, (1, 2)), (11, 13, (1, 2))]


def test_a_span_has_a_greatest_length():
    assert list(spans((5, 4), ((0, 5), (0, 3)), longest=8, gap=4)) == [(0, 7, (2, 3)), (8, 15, (2, 3)), (16, 19, (1, 3))]


def test_a_row_that_is_too_long_is_cut_across():
    assert list(spans((2, 5), ((0, 2), (0, 5)), longest=3, gap=9)) == [(0, 3, (1, 3)), (3, 5, (1, 2)), (5, 8, (1, 3)), (8, 10, (1, 2))]


@pytest.mark.parametrize(("longest", "gap"), [(1, 1), (5, 2), (7, 100), (30, 4), (1000, 1000)])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (1, 4, 1), (2, 3, 4), (3, 1, 2, 5)])
def test_spans_hold_the_elements_of_the_region_in_order(shape, longest, gap):
    values = np.arange(prod(shape)).reshape(shape)
    for region in (whole(shape), tuple((size // 2, size) for size in shape), tuple((0, (size + 1) // 2) for size in shape)):
        found = []
        for start, stop, extent in spans(shape, region, longest, gap):
            assert stop - start <= longest
            part = np.lib.stride_tricks.as_strided(values.reshape(-1)[start:stop], extent, values.strides, writeable=False)
            found += part.reshape(-1).tolist()
        assert found == values[tuple(slice(*pair) for pair in region)].reshape(-1).tolist()


def elements(shape, region):
    return np.arange(prod(shape)).reshape(shape)[tuple(slice(*pair) for pair in region)].reshape(-1).tolist()


@pytest.mark.parametrize(
    ("shape", "region", "length", "starts"),
    [
        ((4, 5), ((1, 3), (0, 5)), 10, [5]),  # whole rows are one run
        ((4, 5), ((1, 3), (1, 4)), 3, [6, 11]),
        ((4, 5), ((2, 3), (1, 4)), 3, [11]),
        ((2, 3, 4), ((0, 2), (1, 3), (0, 4)), 8, [4, 16]),
        ((2, 3, 4), ((1, 2), (0, 3), (0, 4)), 12, [12]),
        ((7,), ((2, 5),), 3, [2]),
        ((), (), 1, [0]),
    ],
)
def test_runs_are_as_long_as_elements_lie_side_by_side(shape, region, length, starts):
    found, places = runs(shape, region)
    assert (found, list(places)) == (length, starts)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4), st.integers(1, 5)), max_size=4))
def test_runs_hold_the_elements_of_the_region_in_order(axes):
    shape = tuple(size for size, _, _ in axes)
    region = tuple((low % size, min(low % size + length, size)) for size, low, length in axes)
    length, starts = runs(shape, region)
    assert [start + place for start in starts for place in range(length)] == elements(shape, region)


def test_an_empty_region_has_runs_of_no_length():
    assert runs((3, 4), ((1, 1), (0, 4)))[0] == 0
