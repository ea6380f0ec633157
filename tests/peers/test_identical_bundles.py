"""Copies of bundles that TensorFlow writes on the spot, compared byte by byte: index and data."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import files_of, load, run, save, write

pytestmark = pytest.mark.peers

DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool", "string"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "qint8", "quint8", "qint16", "quint16", "qint32"),
    *("float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz", "int4", "uint4", "int2", "uint2"),
)
NARROW = ("bool", "int4", "uint4", "int2", "uint2")
"""Types that not every byte is a value of."""
LETTERS = "abcXYZ019_./-:é語🙂 \t\0"


def random_name(dice: random.Random) -> str:
    """From one letter to hundreds, with shared beginnings, since the index leaves those out."""
    scope = dice.choice(["", "bert/encoder/layer_1/", "bert/encoder/layer_11/", "ü/"])
    return scope + "".join(dice.choice(LETTERS) for _ in range(dice.choice([1, 2, 5, 20, 300])))


def random_shape(dice: random.Random) -> list[int]:
    """Scalars, no elements, one element, and sizes whose varints have several bytes."""
    return [dice.choice([0, 1, 1, 2, 3, 5, 130]) for _ in range(dice.choice([0, 0, 1, 1, 2, 3, 4]))] if dice.random() < 0.9 else [20_000]


def random_tensor(tf: Any, dice: random.Random) -> Any:
    dtype, shape = dice.choice(DTYPES), random_shape(dice)
    size = int(np.prod(shape))
    while size > 50_000:
        shape, size = shape[1:], size // shape[0]
    if dtype == "string":
        texts = [dice.randbytes(dice.choice([0, 1, 7, 128, 20_000])) for _ in range(min(size, 50))]
        return tf.constant(texts, tf.string, [len(texts)])
    target = tf.dtypes.as_dtype(dtype)
    if dtype in NARROW:
        return tf.constant(np.array([dice.randrange(2) for _ in range(size)]).reshape(shape).astype(target.as_numpy_dtype), target)
    bits = np.frombuffer(dice.randbytes(size * target.size), dtype.removeprefix("q") if dtype.startswith("q") else target.as_numpy_dtype).reshape(
        shape
    )
    return tf.bitcast(tf.constant(bits), target) if dtype.startswith("q") else tf.constant(bits, target)


@pytest.mark.parametrize("seed", range(30))
def test_a_copy_is_the_bundle_that_tensorflow_wrote(tf: Any, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    names = list(dict.fromkeys(random_name(dice) for _ in range(dice.choice([1, 3, 17, 40]))))
    write(tf, tmp_path / "theirs" / "m", {name: random_tensor(tf, dice) for name in names})
    run(load(tmp_path / "theirs" / "m"), save(tmp_path / "ours" / "m", format="tf"))
    assert files_of(tmp_path / "ours" / "m") == files_of(tmp_path / "theirs" / "m")


def test_names_long_enough_to_end_blocks_give_the_same_index(tf: Any, tmp_path: Path) -> None:
    dice = random.Random(7)
    names = ["".join(dice.choices("ab", k=length)) for length in (1, 262_200, 10, 600_000, 300_000, 5, 530_000, 3)]
    write(tf, tmp_path / "theirs" / "m", {name: np.float32(number) for number, name in enumerate(names)})
    run(load(tmp_path / "theirs" / "m"), save(tmp_path / "ours" / "m", format="tf"))
    assert files_of(tmp_path / "ours" / "m") == files_of(tmp_path / "theirs" / "m")


def test_six_thousand_names_give_the_same_index(tf: Any, tmp_path: Path) -> None:
    dice = random.Random(11)
    tensors = {f"layer_{number % 97}/{dice.randbytes(12).hex()}/w{number}": np.float32(number) for number in range(6000)}
    write(tf, tmp_path / "theirs" / "m", tensors)
    run(load(tmp_path / "theirs" / "m"), save(tmp_path / "ours" / "m", format="tf"))
    assert files_of(tmp_path / "ours" / "m") == files_of(tmp_path / "theirs" / "m")


@pytest.mark.parametrize("seed", range(5))
def test_a_rename_is_the_bundle_that_tensorflow_writes_under_the_new_names(tf: Any, tmp_path: Path, seed: int) -> None:
    dice = random.Random(100 + seed)
    tensors = {name: random_tensor(tf, dice) for name in dict.fromkeys(random_name(dice) for _ in range(25))}
    write(tf, tmp_path / "theirs" / "m", tensors)
    write(tf, tmp_path / "wanted" / "m", {f"pre/{name}": tensor for name, tensor in tensors.items()})
    run(load(tmp_path / "theirs" / "m"), {"rename": {"match": "^", "to": "pre/"}}, save(tmp_path / "ours" / "m", format="tf"))
    assert files_of(tmp_path / "ours" / "m") == files_of(tmp_path / "wanted" / "m")


def test_tensors_without_elements_keep_their_place(tf: Any, tmp_path: Path) -> None:
    tensors = {"z": np.zeros([0], np.float32), "b": np.float32(1), "a": np.zeros([3, 0], np.int8), "y": np.float32(2), "c": np.zeros([0, 2])}
    write(tf, tmp_path / "theirs" / "m", tensors)
    run(load(tmp_path / "theirs" / "m"), save(tmp_path / "ours" / "m", format="tf"))
    assert files_of(tmp_path / "ours" / "m") == files_of(tmp_path / "theirs" / "m")
