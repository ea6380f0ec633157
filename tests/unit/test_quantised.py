"""Expected numbers are what the gguf package decodes (tests/data/gguf/make.py), or written out."""

import json
import struct
import sys
from hashlib import sha256, shake_256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.dtypes import DTYPES, numpy_dtype
from surgery.expr import Cast as CastNode
from surgery.expr import Slice, Stored, evaluate
from surgery.ggml_blocks import decode, is_decodable, needs_package
from surgery.quantised import Dequantised
from surgery.regions import whole
from surgery.steps.base import Catalog, State
from surgery.steps.cast import Cast
from surgery.table import Entry, Table, Trail
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

DIGESTS = json.loads((Path(__file__).parents[1] / "data" / "gguf" / "dequantised.json").read_text())
FILE = SourceFile("memory", Fingerprint(0, 0, 0, 0))
BLOCKS = [dtype for dtype in DTYPES.values() if dtype.block > 1]


def some_blocks(name, count=64):
    """The very bytes that make.py gave to the gguf package."""
    return shake_256(name.encode()).digest(count * DTYPES[f"gguf_{name}"].itemsize)


def stored(name, shape):
    """A tensor of blocks, and how its bytes are read."""
    spec = TensorSpec(DTYPES[f"gguf_{name}"], shape)
    data = some_blocks(name, spec.size)
    return Stored(Extent(FILE, 0, spec.nbytes, spec)), lambda file, start, stop: data[start:stop]


@pytest.mark.parametrize("name", DIGESTS)
def test_blocks_are_decoded_as_the_reference_does_to_the_last_bit(name):
    dtype = DTYPES[f"gguf_{name}"]
    if needs_package(dtype):
        pytest.importorskip("gguf", reason="gguf is not installed")
    numbers = decode(np.frombuffer(some_blocks(name), np.uint8).reshape(64, -1), dtype)
    assert (numbers.dtype, numbers.shape) == (np.float32, (64, dtype.block))
    one_nan = np.where(np.isnan(numbers), np.float32("nan"), numbers)
    assert sha256(one_nan.astype("<f4").tobytes()).hexdigest() == DIGESTS[name]


def test_what_the_reference_does_not_decode_is_not_decodable():
    assert {dtype.name for dtype in BLOCKS if not is_decodable(dtype)} == {"gguf_q1_0", "gguf_q8_1", "gguf_q8_k"}
    assert {dtype.name.removeprefix("gguf_") for dtype in BLOCKS if is_decodable(dtype)} == set(DIGESTS)


def test_a_block_by_hand():
    block = struct.pack("<e32b", 0.5, *range(-16, 16))
    (numbers,) = decode(np.frombuffer(block, np.uint8)[None], DTYPES["gguf_q8_0"])
    assert numbers.tolist() == [number / 2 for number in range(-16, 16)]


def test_an_infinite_scale_gives_infinities_and_nan_without_a_warning():
    block = struct.pack("<e32b", float("inf"), 0, -1, *[1] * 30)
    (numbers,) = decode(np.frombuffer(block, np.uint8)[None], DTYPES["gguf_q8_0"])
    assert np.isnan(numbers[0])
    assert numbers[1:3].tolist() == [float("-inf"), float("inf")]


def test_the_last_axis_becomes_as_long_as_the_model_has_it():
    assert str(Dequantised(stored("q4_k", (3, 2))[0]).spec) == "f32[3,512]"
    assert str(Dequantised(stored("q8_0", (0, 2))[0]).spec) == "f32[0,64]"


def test_more_blocks_than_are_decoded_at_once():
    expr, read = stored("q4_0", (5000,))
    numbers = evaluate(Dequantised(expr), ((0, 160_000),), read)
    at_once = decode(np.frombuffer(some_blocks("q4_0", 5000), np.uint8).reshape(5000, 18), DTYPES["gguf_q4_0"])
    np.testing.assert_array_equal(numbers, at_once.reshape(-1))


def test_no_blocks_become_no_numbers():
    expr, read = stored("q6_k", (2, 0))
    assert evaluate(Dequantised(expr), ((0, 2), (0, 0)), read).shape == (2, 0)


def pairs(size):
    return st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted).map(tuple)


@given(st.sampled_from(["q4_0", "q8_0", "nvfp4", "q3_k"]), st.data())
def test_a_region_is_that_part_of_the_whole_wherever_it_begins(name, data):
    expr, read = stored(name, (3, 4))
    sliced = Slice(expr, (0, 1), (3, 3))  # at whole blocks
    numbers = CastNode(Dequantised(sliced), TensorSpec(DTYPES["float64"], Dequantised(sliced).spec.shape))
    everything = evaluate(numbers, whole(numbers.spec.shape), read)
    region = tuple(data.draw(pairs(size)) for size in numbers.spec.shape)
    part = evaluate(numbers, region, read)
    np.testing.assert_array_equal(part, everything[tuple(slice(*pair) for pair in region)])


def test_the_plan_tells_what_to_install_where_only_the_package_decodes(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    table = Table({"a": Entry(stored("iq2_xs", (2,))[0], Trail(0, "a")), "b": Entry(stored("q4_0", (2,))[0], Trail(0, "b"))})
    state = Cast.model_validate({"keys": ["a", "b"], "dtype": "float32"}).rewrite(State(table, Catalog({}, {})))
    (fault,) = state.faults
    assert (fault.code, fault.help) == ("missing-package", "pip install 'model-surgery[gguf]'")
    assert str(state.table["b"].expr.spec) == "f32[64]"


@pytest.mark.parametrize("dtype", BLOCKS, ids=str)
def test_columns_of_blocks_are_the_same_bytes(dtype):
    """Of any size: numpy has no integers of 18 bytes."""
    name = dtype.name.removeprefix("gguf_")
    expr, read = stored(name, (40, 3))
    found = expr.load(((0, 40), (1, 2)), read)
    assert found.dtype == numpy_dtype(dtype)
    rows = np.frombuffer(some_blocks(name, 120), np.uint8).reshape(40, 3, dtype.itemsize)
    assert found.tobytes() == rows[:, 1].tobytes()
