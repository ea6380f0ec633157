"""Where TensorFlow has a sentence for a fault, the first line of ours is that sentence: both are shown the same damaged files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import BUNDLES, DATA, expected, load, recipe_text, restore, run, save, write

import surgery

pytestmark = pytest.mark.peers

Damage = Callable[[Path], None]


def copied(prefix: str, folder: Path) -> Path:
    """A fixture's own copy, to be damaged."""
    source = DATA / prefix
    for file in source.parent.glob(f"{source.name}.*"):
        shutil.copy(file, folder)
    return folder / source.name


def file_of(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)


def without(ending: str) -> Damage:
    return lambda prefix: file_of(prefix, ending).unlink()


def cut(ending: str, length: int) -> Damage:
    def damage(prefix: Path) -> None:
        content = file_of(prefix, ending).read_bytes()
        assert len(content) > length
        file_of(prefix, ending).write_bytes(content[:length])

    return damage


def flipped(ending: str, at: int) -> Damage:
    def damage(prefix: Path) -> None:
        content = bytearray(file_of(prefix, ending).read_bytes())
        content[at] ^= 0x10
        file_of(prefix, ending).write_bytes(content)

    return damage


def unwrapped(message: str) -> str:
    """TensorFlow's sentence without the op that eager mode puts around it, or without the graph that a session does."""
    eager = re.fullmatch(r"\{\{function_node [^}]*\}\} (.*) \[Op:RestoreV2\]", message, re.DOTALL)
    return eager[1] if eager else message.split("\n\t [[")[0].split("\n")[-1]


def tensorflow_says(tf: Any, prefix: object, keys: list[bytes], dtypes: list[str]) -> str:
    with pytest.raises(tf.errors.OpError) as caught:
        restore(tf, prefix, keys, dtypes)
    return unwrapped(caught.value.message)


def surgery_says(*steps: Any) -> str:
    with pytest.raises(surgery.SurgeryError) as caught:
        run(*steps)
    return str(caught.value).splitlines()[0]


ONE, SHARD = ".data-00000-of-00001", ".data-00001-of-00003"
DAMAGES = [
    pytest.param("article/with_matrix", without(ONE), "b", id="data file missing"),
    pytest.param("sharded/model-12", without(SHARD), "dev1/v0", id="shard missing"),
    pytest.param("article/with_matrix", flipped(ONE, 100), "b", id="tensor damaged"),
    pytest.param("article/two_scalars", flipped(ONE, 0), "a", id="scalar damaged"),
    pytest.param("sharded/model-12", flipped(SHARD, 2), "dev1/v0", id="shard damaged"),
    pytest.param("article/with_matrix", cut(ONE, 500), "b", id="data cut"),
    pytest.param("article/with_matrix", cut(ONE, 0), "b", id="data empty"),
    pytest.param("sharded/model-12", cut(SHARD, 1), "dev1/v0", id="shard cut"),
    *(pytest.param("article/with_matrix", cut(".index", length), "b", id=f"index cut to {length}") for length in (0, 1, 47, 48, 100, 160)),
    pytest.param("article/with_matrix", flipped(".index", -1), "b", id="magic number damaged"),
    pytest.param("article/with_matrix", flipped(".index", 5), "b", id="first data block damaged"),
    pytest.param("article/with_matrix", flipped(".index", -55), "b", id="index block damaged"),
    pytest.param("article/with_matrix", without(".index"), "b", id="index missing"),
]


@pytest.mark.parametrize(("prefix", "damage", "key"), DAMAGES)
def test_damaged_files_get_tensorflows_sentence(tf: Any, tmp_path: Path, prefix: str, damage: Damage, key: str) -> None:
    source = copied(prefix, tmp_path)
    damage(source)
    theirs = tensorflow_says(tf, source, [key.encode()], ["float32"])
    assert surgery_says(load(source), save(tmp_path / "out" / "m", format="tf")) == theirs
    assert not (tmp_path / "out" / "m.index").exists()


@pytest.mark.parametrize(("prefix", "damage", "key"), DAMAGES[:5])
def test_a_lazy_tensor_gets_tensorflows_sentence(tf: Any, tmp_path: Path, prefix: str, damage: Damage, key: str) -> None:
    source = copied(prefix, tmp_path)
    damage(source)
    with pytest.raises(surgery.SourceError) as caught, surgery.open(source) as checkpoint:
        checkpoint[key].numpy()
    assert str(caught.value).splitlines()[0] == tensorflow_says(tf, source, [key.encode()], ["float32"])


@pytest.mark.parametrize("at", [0, 2, 7], ids=["length", "checksum of the lengths", "text"])
def test_damaged_strings_get_tensorflows_sentence(tf: Any, tmp_path: Path, at: int) -> None:
    """The data are the lengths 3 and 40, four bytes of checksum, and the texts."""
    write(tf, tmp_path / "m", {"s": np.array([b"abc", b"d" * 40], object)})
    assert file_of(tmp_path / "m", ONE).stat().st_size == 49
    content = bytearray(file_of(tmp_path / "m", ONE).read_bytes())
    content[at] ^= 1
    file_of(tmp_path / "m", ONE).write_bytes(content)
    theirs = tensorflow_says(tf, tmp_path / "m", [b"s"], ["string"])
    assert surgery_says(load(tmp_path / "m"), save(tmp_path / "out" / "m", format="tf")) == theirs


def test_a_damaged_variant_gets_tensorflows_sentence(tf: Any, tmp_path: Path) -> None:
    source = copied("variant/list", tmp_path)
    (variant,) = [tensor for tensor in BUNDLES["variant/list"]["tensors"] if tensor["name"] == "list"]
    flipped(ONE, variant["raw_size"] - 1)(source)  # its own checksum stands at its end
    theirs = tensorflow_says(tf, source, [b"list"], ["variant"])
    assert theirs.startswith("The checksum after Variant 0 does not match.")
    assert surgery_says(load(source), save(tmp_path / "out" / "m", format="tf")) == theirs


@pytest.mark.parametrize("name", ["nowhere", "no_folder/m", "two_scalar"])
def test_a_wrong_prefix_gets_tensorflows_sentence(tf: Any, tmp_path: Path, name: str) -> None:
    copied("article/two_scalars", tmp_path)
    assert surgery_says(load(tmp_path / name), save(tmp_path / "out.npz")) == tensorflow_says(tf, tmp_path / name, [b"a"], ["float32"])


def test_a_damaged_block_is_told_where_tensorflow_loses_its_keys(tf: Any, tmp_path: Path) -> None:
    source = copied("many/vars", tmp_path)
    key = expected("many/vars")[-1].key
    flipped(".index", -1000)(source)
    assert tensorflow_says(tf, source, [key], ["float32"]) == f"Key {key.decode()} not found in checkpoint"
    assert surgery_says(load(source), save(tmp_path / "out.npz")).endswith("block checksum mismatch")


# keys, shapes, types


@pytest.mark.parametrize("keys", [["d"], ["zz", "q", "a", "m"], ["a b/ü"], ["a:0"], ["a", "A"]])
def test_missing_keys_get_tensorflows_sentence_about_the_first(tf: Any, tmp_path: Path, keys: list[str]) -> None:
    source = DATA / "article" / "two_scalars"
    theirs = tensorflow_says(tf, source, [key.encode() for key in keys], ["float32"] * len(keys))
    assert surgery_says(load(source, var_list=keys), save(tmp_path / "out.npz")) == theirs


def test_a_missing_key_of_an_open_checkpoint_gets_the_readers_sentence(tf: Any) -> None:
    source = DATA / "article" / "two_scalars"
    with pytest.raises(tf.errors.NotFoundError) as theirs:
        tf.train.load_checkpoint(str(source)).get_tensor("d")
    with pytest.raises(KeyError) as ours, surgery.open(source) as checkpoint:
        checkpoint["d"]
    assert str(ours.value).splitlines()[0] == theirs.value.message


def test_the_command_line_prints_the_sentence_of_a_graphs_saver_first(tf: Any, v1: Any, tmp_path: Path) -> None:
    source = DATA / "article" / "two_scalars"
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("d", initializer=0.0)
        with pytest.raises(tf.errors.NotFoundError) as caught:
            v1.train.Saver().restore(session, str(source))
    (tmp_path / "r.yaml").write_text(recipe_text(load(source), {"expect": {"variables": {"d": {"shape": []}}, "unexpected": "allow"}}))
    done = subprocess.run([sys.executable, "-m", "surgery", "run", str(tmp_path / "r.yaml")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == unwrapped(caught.value.message) == "Key d not found in checkpoint"


def test_another_dtype_gets_tensorflows_sentence(tf: Any) -> None:
    source = DATA / "article" / "two_scalars"
    expect = {"expect": {"variables": {"a": {"shape": [], "dtype": "float64"}}, "unexpected": "allow"}}
    assert surgery_says(load(source), expect) == tensorflow_says(tf, source, [b"a"], ["float64"])


@pytest.mark.parametrize(("key", "shape"), [("a", [3]), ("b", [20, 10]), ("b", [])])
def test_another_shape_gets_tensorflows_sentence(tf: Any, v1: Any, key: str, shape: list[int]) -> None:
    source = DATA / "article" / "with_matrix"
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable(key, shape, initializer=v1.zeros_initializer(), use_resource=False)
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            v1.train.Saver().restore(session, str(source))
    assert surgery_says(load(source), {"expect": {"variables": {key: {"shape": shape}}, "unexpected": "allow"}}) == unwrapped(caught.value.message)
