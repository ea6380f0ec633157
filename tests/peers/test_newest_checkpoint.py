"""The file `checkpoint` as TensorFlow reads it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from peer_bundles import DATA, load, run, save

pytestmark = pytest.mark.peers

SOURCE = DATA / "article" / "two_scalars"


def test_tensorflow_finds_the_newest_of_several_saves(tf: Any, tmp_path: Path) -> None:
    for name in ("model.ckpt-1", "model.ckpt-2", "model.ckpt-10"):
        run(load(SOURCE), save(tmp_path / name, format="tf"))
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "model.ckpt-10")
    assert list(tf.train.get_checkpoint_state(str(tmp_path)).all_model_checkpoint_paths) == [
        str(tmp_path / name) for name in ("model.ckpt-1", "model.ckpt-2", "model.ckpt-10")
    ]


def test_tensorflow_loads_the_newest_from_the_folder(tf: Any, tmp_path: Path) -> None:
    run(load(SOURCE), save(tmp_path / "first", format="tf"))
    run(load(SOURCE), {"rename": {"keys": {"a": "d"}}}, save(tmp_path / "ünï", format="tf"))
    assert tf.train.list_variables(str(tmp_path)) == [("b", []), ("d", [])]


def test_saving_an_older_name_again_makes_it_the_newest(tf: Any, tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        run(load(SOURCE), save(tmp_path / name, format="tf", overwrite="replace"))
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "one")


def test_latest_false_leaves_the_newest_alone(tf: Any, tmp_path: Path) -> None:
    run(load(SOURCE), save(tmp_path / "kept", format="tf"))
    run(load(SOURCE), save(tmp_path / "aside", format="tf", latest=False))
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "kept")


def test_latest_false_makes_no_state_file(tf: Any, tmp_path: Path) -> None:
    run(load(SOURCE), save(tmp_path / "aside", format="tf", latest=False))
    assert tf.train.latest_checkpoint(str(tmp_path)) is None


def test_a_save_beside_tensorflows_own_keeps_them_listed(tf: Any, tmp_path: Path) -> None:
    shutil.copytree(DATA / "history", tmp_path / "history")
    run(load(SOURCE), save(tmp_path / "history" / "model.ckpt-40", format="tf"))
    state = tf.train.get_checkpoint_state(str(tmp_path / "history"))
    assert state.model_checkpoint_path == str(tmp_path / "history" / "model.ckpt-40")
    assert [Path(path).name for path in state.all_model_checkpoint_paths] == ["model.ckpt-20", "model.ckpt-30", "model.ckpt-40"]


def test_a_checkpoint_manager_goes_on_from_our_save(tf: Any, tmp_path: Path) -> None:
    tf.train.CheckpointManager(tf.train.Checkpoint(step=tf.Variable(5, dtype=tf.int64)), str(tmp_path), max_to_keep=1).save()
    run(load(tmp_path / "ckpt-1"), save(tmp_path / "ckpt-2", format="tf"))
    step = tf.Variable(0, dtype=tf.int64)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(step=step), str(tmp_path), max_to_keep=1)
    manager.checkpoint.restore(manager.latest_checkpoint).assert_consumed()
    assert step.numpy() == 5
    assert manager.save(checkpoint_number=3) == str(tmp_path / "ckpt-3")
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-3")
