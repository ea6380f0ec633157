"""Bundles written here, restored by TensorFlow: every bundle of tests/data/tf, under new names and under its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import (
    BUNDLES,
    DATA,
    GRAPH_KEY,
    Expected,
    comparable,
    expected,
    files_of,
    load,
    recipe_text,
    restore,
    restore_from_slices,
    run,
    save,
)

import surgery

pytestmark = pytest.mark.peers

SLICES_ONLY = {("float16", True)}
"""Types that TensorFlow cannot read whole where they are partitioned."""
ONE_PLAIN_SHARD = [prefix for prefix in BUNDLES if BUNDLES[prefix]["num_shards"] == 1 and not any(tensor.slices for tensor in expected(prefix))]


def renamable_in_place(prefix: str) -> bool:
    """Whether a bundle has only whole, little-endian tensors, and no object graph that keeps their keys."""
    return not any(tensor.slices or tensor.key == GRAPH_KEY.encode() for tensor in expected(prefix)) and "big_endian" not in prefix


def with_values(prefix: str) -> list[Expected]:
    """The tensors of a fixture that have values to compare; variants have none."""
    return [tensor for tensor in expected(prefix) if tensor.dtype != "variant"]


def original(tf: Any, prefix: str) -> list[Any]:
    """What TensorFlow reads from the fixture itself."""
    tensors = with_values(prefix)
    whole = [tensor for tensor in tensors if (tensor.dtype, bool(tensor.slices)) not in SLICES_ONLY]
    read = dict(zip(whole, restore(tf, DATA / prefix, [tensor.key for tensor in whole], [tensor.dtype for tensor in whole]), strict=True))
    return [read[tensor] if tensor in read else restore_from_slices(tf, DATA / prefix, tensor) for tensor in tensors]


def assert_restores(tf: Any, prefix: str, written: Path, put_in_front: bytes = b"") -> None:
    """TensorFlow finds each tensor of the fixture in `written`, whole and equal."""
    tensors = with_values(prefix)
    keys = [put_in_front + tensor.key for tensor in tensors]
    found = restore(tf, written, keys, [tensor.dtype for tensor in tensors])
    assert [comparable(tensor) for tensor in found] == [comparable(tensor) for tensor in original(tf, prefix)]


@pytest.mark.parametrize("prefix", BUNDLES)
def test_tensorflow_restores_every_tensor_under_its_new_name(tf: Any, tmp_path: Path, prefix: str) -> None:
    recipe = tmp_path / "r.yaml"
    rename = {"rename": {"match": "^", "to": "new/scope/"}}
    recipe.write_text(recipe_text(load(DATA / prefix), rename, save(tmp_path / "out" / "model.ckpt-7", format="tf")))
    subprocess.run([sys.executable, "-m", "surgery", "run", str(recipe)], check=True, stdout=subprocess.DEVNULL)
    assert_restores(tf, prefix, tmp_path / "out" / "model.ckpt-7", b"new/scope/")


@pytest.mark.parametrize("prefix", BUNDLES)
def test_tensorflow_restores_a_copy_cut_into_small_shards(tf: Any, tmp_path: Path, prefix: str) -> None:
    run(load(DATA / prefix), save(tmp_path / "m", format="tf", shard_size=20_000 if prefix == "many/vars" else 1))
    assert len(files_of(tmp_path / "m")) > 2 or len(expected(prefix)) == 1
    assert_restores(tf, prefix, tmp_path / "m")


@pytest.mark.parametrize("prefix", BUNDLES)
def test_tensorflow_lists_a_copy_as_it_lists_the_original(tf: Any, tmp_path: Path, prefix: str) -> None:
    run(load(DATA / prefix), save(tmp_path / "m", format="tf"))
    if prefix == "odd_names/binary":
        with pytest.raises(UnicodeDecodeError):
            tf.train.list_variables(str(tmp_path / "m"))
        return
    assert tf.train.list_variables(str(tmp_path / "m")) == tf.train.list_variables(str(DATA / prefix))


@pytest.mark.parametrize("prefix", ONE_PLAIN_SHARD)
def test_a_copy_has_the_files_that_tensorflow_wrote(tmp_path: Path, prefix: str) -> None:
    run(load(DATA / prefix), save(tmp_path / "m", format="tf"))
    assert files_of(tmp_path / "m") == files_of(DATA / prefix)


@pytest.mark.parametrize("prefix", BUNDLES)
def test_open_reads_what_tensorflow_reads(tf: Any, prefix: str) -> None:
    with surgery.open(DATA / prefix) as checkpoint:
        for tensor, theirs in zip(with_values(prefix), original(tf, prefix), strict=True):
            ours = checkpoint[tensor.text].numpy()
            dtype, shape, content = comparable(theirs)
            assert checkpoint[tensor.text].dtype == dtype
            assert (ours.shape, ours.dtype) == (shape, np.asarray(theirs.numpy(), object if dtype == "string" else None).dtype)
            assert (ours.reshape(-1).tolist() if dtype == "string" else ours.tobytes()) == content


def test_tensorflow_unpacks_a_variant_that_was_copied(tf: Any, tmp_path: Path) -> None:
    run(load(DATA / "variant" / "list"), {"rename": {"keys": {"list": "deep/list"}}}, save(tmp_path / "m", format="tf"))
    (ours,) = restore(tf, tmp_path / "m", [b"deep/list"], ["variant"])
    (theirs,) = restore(tf, DATA / "variant" / "list", [b"list"], ["variant"])
    stacks = [tf.raw_ops.TensorListStack(input_handle=each, element_shape=[2], element_dtype=tf.float32) for each in (ours, theirs)]
    assert stacks[0].shape == (3, 2)
    assert comparable(stacks[0]) == comparable(stacks[1])


def test_tensorflow_restores_computed_tensors_beside_copied_ones(tf: Any, tmp_path: Path) -> None:
    run(
        load(DATA / "scoped_adam" / "model.ckpt-3"),
        {"drop": {"match": "Adam|_power$"}},
        {"transpose": {"match": "kernel$"}},
        {"cast": {"match": "bias$", "dtype": "float64"}},
        save(tmp_path / "m", format="tf"),
    )
    read, was = tf.train.load_checkpoint(str(tmp_path / "m")), tf.train.load_checkpoint(str(DATA / "scoped_adam" / "model.ckpt-3"))
    kept = {key for key in was.get_variable_to_shape_map() if "Adam" not in key and not key.endswith("_power")}
    assert set(read.get_variable_to_shape_map()) == kept
    for key in kept:
        wanted = was.get_tensor(key)
        wanted = wanted.T if key.endswith("kernel") else wanted.astype("f8") if key.endswith("bias") else wanted
        np.testing.assert_array_equal(read.get_tensor(key), wanted, strict=True)


def test_tensorflow_takes_the_graph_key_for_a_string_where_it_was_renamed(tf: Any, tmp_path: Path) -> None:
    run(load(DATA / "object" / "plain-1"), {"scope": {"add": "old/"}}, save(tmp_path / "m", format="tf"))
    (ours,) = restore(tf, tmp_path / "m", [f"old/{GRAPH_KEY}".encode()], ["string"])
    (theirs,) = restore(tf, DATA / "object" / "plain-1", [GRAPH_KEY.encode()], ["string"])
    assert ours.numpy() == theirs.numpy()


@pytest.mark.parametrize("prefix", [prefix for prefix in BUNDLES if renamable_in_place(prefix)])
def test_tensorflow_restores_what_was_renamed_in_place(tf: Any, tmp_path: Path, prefix: str) -> None:
    """The index is new; the data files are the very same ones."""
    for file in DATA.glob(f"{prefix}.*"):
        shutil.copy(file, tmp_path / file.name)
    copy = tmp_path / Path(prefix).name
    before = {file.name: (file.stat().st_ino, file.read_bytes()) for file in tmp_path.glob("*.data-*")}
    run(load(copy), {"rename": {"match": "^", "to": "new/scope/"}}, save(copy, in_place=True))
    assert {file.name: (file.stat().st_ino, file.read_bytes()) for file in tmp_path.glob("*.data-*")} == before
    assert_restores(tf, prefix, copy, b"new/scope/")
