"""Casts as torch and TensorFlow carry them out, transposes as numpy does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import load, recipe_text, run, save

import surgery
from surgery.api import Source

pytestmark = pytest.mark.peers

LARGEST = {"bfloat16": 3.3895314e38, "float16": 65504.0, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
"""The greatest finite values of the formats, from their definitions (IEEE 754, the OCP 8-bit specification)."""
SPECIALS = [0.0, -0.0, 1.0, -1.0, float("nan"), 1e-45, -1e-45, 1.1754942e-38, 2**-24, 2**-25, 3 * 2**-25, 2**-9, 2**-10, 3 * 2**-10, 2**-16, 2**-17]


def floats_that_fit(dtype: str) -> Any:
    """Random bits, normals, ties between neighbours and specials: float32, within the finite range."""
    dice = np.random.default_rng(3)
    bits = dice.integers(0, 1 << 32, 200_000, np.uint32).view(np.float32)
    ties = (dice.integers(0, 1 << 12, 50_000, np.uint32) << 20 | np.uint32(1 << 19)).view(np.float32)
    half_ties = (dice.integers(0, 1 << 16, 50_000, np.uint32) << 16 | np.uint32(1 << 15)).view(np.float32)
    normals = dice.standard_normal(100_000, np.float32) * np.float32(min(LARGEST[dtype] / 8, 100))
    values = np.concatenate([bits, ties, half_ties, normals, np.array([*SPECIALS, LARGEST[dtype], -LARGEST[dtype]], np.float32)])
    return values[np.isnan(values) | (np.abs(values) <= np.float32(LARGEST[dtype]))]


def cast_by_us(tmp_path: Path, values: Any, dtype: str) -> Any:
    np.savez(tmp_path / "in.npz", w=values)
    run(load(tmp_path / "in.npz"), {"cast": {"dtype": dtype}}, save(tmp_path / "out.safetensors"))
    with surgery.open(tmp_path / "out.safetensors") as checkpoint:
        assert checkpoint["w"].dtype == dtype
        return checkpoint["w"].numpy()


def assert_same_bits(ours: Any, theirs: Any) -> None:
    """Equal bit for bit, but for the payload of a NaN."""
    word = f"u{ours.dtype.itemsize}"
    nan = np.isnan(ours.astype(np.float32))
    assert 0 < np.count_nonzero(nan) < nan.size / 2
    np.testing.assert_array_equal(nan, np.isnan(theirs.astype(np.float32)))
    np.testing.assert_array_equal(ours[~nan].view(word), theirs[~nan].view(word))


@pytest.mark.parametrize("dtype", LARGEST)
def test_a_cast_rounds_as_torch_does(torch: Any, tmp_path: Path, dtype: str) -> None:
    values = floats_that_fit(dtype)
    ours = cast_by_us(tmp_path, values, dtype)
    word = torch.int16 if ours.dtype.itemsize == 2 else torch.uint8
    theirs = torch.from_numpy(values).to(getattr(torch, dtype)).view(word).numpy().view(ours.dtype)
    assert_same_bits(ours, theirs)


@pytest.mark.parametrize("dtype", LARGEST)
def test_a_cast_rounds_as_tensorflow_does(tf: Any, tmp_path: Path, dtype: str) -> None:
    values = floats_that_fit(dtype)
    assert_same_bits(cast_by_us(tmp_path, values, dtype), tf.cast(values, dtype).numpy())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e5m2"])
def test_infinities_stay_as_in_torch(torch: Any, tmp_path: Path, dtype: str) -> None:
    ours = cast_by_us(tmp_path, np.array([np.inf, -np.inf], np.float32), dtype).astype(np.float32).tolist()
    assert ours == torch.tensor([torch.inf, -torch.inf]).to(getattr(torch, dtype)).float().tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_widening_gives_the_values_that_torch_gives(torch: Any, tmp_path: Path, dtype: str) -> None:
    narrow = cast_by_us(tmp_path, floats_that_fit(dtype), dtype)
    run(load(tmp_path / "out.safetensors"), {"cast": {"dtype": "float32"}}, save(tmp_path / "wide.npz"))
    word = torch.int16 if narrow.dtype.itemsize == 2 else torch.uint8
    theirs = torch.from_numpy(narrow.view("i2" if narrow.dtype.itemsize == 2 else "u1")).view(word).view(getattr(torch, dtype)).float().numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "wide.npz", allow_pickle=False)["w"], theirs, strict=True)


def test_float64_is_rounded_once(tmp_path: Path) -> None:
    """1 + 2^-8 + 2^-40 lies above the tie between bfloat16's 1 and 1 + 2^-7; by way of float32 it would fall on the tie, and then to 1."""
    assert cast_by_us(tmp_path, np.array([1 + 2**-8 + 2**-40, 1 + 2**-8]), "bfloat16").astype(np.float64).tolist() == [1 + 2**-7, 1.0]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_saturating_casts_to_integers_are_numpys_clip_of_rint(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(9).normal(0, 300, 10_000)
    np.savez(tmp_path / "in.npz", w=values)
    run(
        load(tmp_path / "in.npz"),
        {"cast": {"keys": "w", "dtype": dtype, "rounding": "nearest", "overflow": "saturate"}},
        save(tmp_path / "out.npz"),
    )
    limits = np.iinfo(dtype)
    wanted = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["w"], wanted, strict=True)


ORDERS = [((4, 5), [1, 0]), ((2, 3, 4), [2, 0, 1]), ((2, 3, 4, 5), [3, 2, 0, 1]), ((2, 3, 4), None), ((1, 7), [1, 0]), ((0, 3), [1, 0]), ((6,), None)]


@pytest.mark.parametrize(("shape", "order"), ORDERS)
@pytest.mark.parametrize("dtype", ["int8", "float32", "complex64"])
def test_a_transpose_is_numpys(tmp_path: Path, shape: tuple[int, ...], order: list[int] | None, dtype: str) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.savez(tmp_path / "in.npz", w=array)
    run(load(tmp_path / "in.npz"), {"transpose": {"keys": "w"} | ({"order": order} if order else {})}, save(tmp_path / "out.safetensors"))
    with surgery.open(tmp_path / "out.safetensors") as checkpoint:
        np.testing.assert_array_equal(checkpoint["w"].numpy(), np.transpose(array, order), strict=True)


@pytest.mark.parametrize("make", [lambda a: a.T, lambda a: a[::-1], lambda a: np.asfortranarray(a)], ids=["transposed", "reversed", "fortran"])
def test_a_large_transpose_under_a_small_memory_budget_is_numpys(tmp_path: Path, make: Callable[[Any], Any]) -> None:
    array = make(np.random.default_rng(1).integers(0, 1 << 30, (1500, 1300), np.int64))
    np.savez(tmp_path / "in.npz", w=array)
    steps = [load(tmp_path / "in.npz"), {"transpose": {"keys": "w"}}, save(tmp_path / "out.npz")]
    surgery.plan(Source(recipe_text(*steps), "test.yaml"), memory=2 << 20).run()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz", allow_pickle=False)["w"], array.T, strict=True)
