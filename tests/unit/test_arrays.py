"""Values in C order: always those of numpy, whatever the layout, and the array itself where nothing is to be done."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.arrays import contiguous

DTYPES = ["bool", "u1", "i2", "<f4", "<f8", "c8", "c16", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4]


def counted(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array whose neighbours differ in their bytes."""
    size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    return (np.arange(size, dtype=np.uint32) * 2654435761 >> 24).astype(np.uint8).view(dtype).reshape(shape)


@given(
    order=st.permutations(range(4)),
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 17, 40])] * 4),
    dtype=st.sampled_from(DTYPES),
    step=st.sampled_from([1, 2, -1]),
)
def test_the_values_are_those_of_numpy(order: list[int], sizes: tuple[int, ...], dtype: Any, step: int) -> None:
    array = counted(sizes, dtype).transpose(order)[::step]
    ours = contiguous(array)
    assert ours.flags.c_contiguous
    assert (ours.dtype, ours.shape) == (array.dtype, array.shape)
    assert ours.tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(1025, 1031), (3, 257, 1029), (2, 1, 300, 301)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_more_than_one_box_in_each_direction(shape: tuple[int, ...], dtype: Any) -> None:
    array = counted(shape, dtype).swapaxes(-1, -2)
    assert contiguous(array).tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (1, 1), (7,)])
def test_small_arrays_keep_their_shape(shape: tuple[int, ...]) -> None:
    assert contiguous(counted(shape, "<f4").T).shape == shape[::-1]


def test_what_is_in_order_already_is_not_copied() -> None:
    array = counted((300, 300), "<f4")
    assert np.shares_memory(contiguous(array), array)


def test_a_window_with_whole_rows_of_its_own_is_copied_out() -> None:
    array = counted((300, 400), "<f4")[:, 100:300]
    assert contiguous(array).tobytes() == array.tobytes()


def test_one_value_spread_over_a_large_shape() -> None:
    array = np.broadcast_to(np.float32(3), (300, 300))
    assert contiguous(array).tolist() == [[3.0] * 300] * 300


def test_objects_stay_the_same_objects() -> None:
    array = np.empty((2, 3), object)
    array[...] = [[b"a", b"b", b"c"], [b"d", b"e", b"f"]]
    assert contiguous(array.T).tolist() == [[b"a", b"d"], [b"b", b"e"], [b"c", b"f"]]
