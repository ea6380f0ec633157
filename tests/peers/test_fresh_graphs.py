"""Graphs that we make: TensorFlow imports them, restores the bundle into their variables, and saves these again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import DATA, load, run, save

pytestmark = pytest.mark.peers

WITHOUT = ("t/qint16", "t/quint16", "t/float8_e4m3fnuz", "t/float8_e4m3b11fnuz", "t/float8_e5m2fnuz")


def restored(v1: Any, prefix: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The values of the global variables after import and restore, by the names of their nodes."""
    with v1.Graph().as_default(), v1.Session() as session:
        saver = v1.train.import_meta_graph(f"{prefix}.meta")
        saver.restore(session, str(prefix))
        return {variable.op.name: session.run(variable) for variable in v1.global_variables()}


def test_every_type_that_a_variable_can_have_is_restored(tf: Any, v1: Any, tmp_path: Path) -> None:
    run(load(DATA / "dtypes" / "all"), save(tmp_path / "m", format="tf", meta="write"))
    reader = tf.train.load_checkpoint(str(tmp_path / "m"))
    found = restored(v1, tmp_path / "m")
    assert set(found) == set(reader.get_variable_to_dtype_map()) - set(WITHOUT)
    for key, value in found.items():
        assert value.dtype == reader.get_tensor(key).dtype
        assert np.array_equal(value, reader.get_tensor(key)) or value.tobytes() == reader.get_tensor(key).tobytes()


@pytest.mark.parametrize("name", ["article/two_scalars", "partitioned/model", "odd_names/text", "object/plain-1"])
def test_bundles_are_restored_whatever_their_keys_are(tf: Any, v1: Any, tmp_path: Path, name: str) -> None:
    run(load(DATA / name), save(tmp_path / "m", format="tf", meta="write"))
    reader = tf.train.load_checkpoint(str(tmp_path / "m"))
    wanted = [reader.get_tensor(key) for key in sorted(reader.get_variable_to_shape_map()) if key != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    found = restored(v1, tmp_path / "m")
    assert sorted(np.asarray(value).tobytes() for value in found.values()) == sorted(np.asarray(value).tobytes() for value in wanted)


def test_the_imported_graph_initialises_assigns_and_saves_again(tf: Any, v1: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **{"dense/kernel": np.arange(6, dtype="f4").reshape(2, 3), "global_step": np.array(7)})
    run(load(tmp_path / "in.npz"), save(tmp_path / "m", format="tf", meta="write"))
    with v1.Graph().as_default(), v1.Session() as session:
        saver = v1.train.import_meta_graph(str(tmp_path / "m.meta"))
        assert [variable.op.name for variable in v1.trainable_variables()] == ["dense/kernel"]
        session.run(v1.global_variables_initializer())
        assert [session.run(variable).tolist() for variable in v1.global_variables()] == [[[0, 0, 0], [0, 0, 0]], 0]
        saver.restore(session, str(tmp_path / "m"))
        _, step = v1.global_variables()
        session.run(step.assign_add(1))
        again = saver.save(session, str(tmp_path / "again"))
    reader = tf.train.load_checkpoint(again)
    assert reader.get_tensor("global_step") == 8
    np.testing.assert_array_equal(reader.get_tensor("dense/kernel"), [[0, 1, 2], [3, 4, 5]])
    assert set(restored(v1, Path(again))) == {"dense/kernel", "global_step"}


def test_the_graph_restores_renamed_tensors_under_their_new_names(v1: Any, tmp_path: Path) -> None:
    run(load(DATA / "article" / "two_scalars"), {"scope": {"add": "save/"}}, save(tmp_path / "m", format="tf", meta="write"))
    assert all(name.startswith("save/") for name in restored(v1, tmp_path / "m"))


def test_names_that_differ_in_case_only_and_those_of_helpers_are_restored(v1: Any, tmp_path: Path) -> None:
    keys = ["b", "B", "b/Assign", "save", "save/Const", "a b", "a:b", "größe", "back\\slash", "x>y"]
    np.savez(tmp_path / "in.npz", **{key: np.array(number) for number, key in enumerate(keys)})
    run(load(tmp_path / "in.npz"), save(tmp_path / "m", format="tf", meta="write"))
    assert [int(value) for value in restored(v1, tmp_path / "m").values()] == list(range(len(keys)))
