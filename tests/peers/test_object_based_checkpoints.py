"""Object-based checkpoints: what `tf.train.Checkpoint` restores after keys were renamed or dropped under its object graph."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from peer_bundles import DATA, GRAPH_KEY, VALUE, files_of, load, run, save

pytestmark = pytest.mark.peers


class Program(NamedTuple):
    """A user's program: `restore` reads a prefix into `variables` and gives TensorFlow's status object."""

    restore: Callable[[str], Any]
    variables: list[Any]

    def values_after(self, prefix: object) -> list[Any]:
        self.restore(str(prefix)).assert_consumed()
        return [variable.numpy() for variable in self.variables]


def nested_module(tf: Any, *, without_w: bool = False, dtype: str = "float32") -> Program:
    """The program of `object/plain-1`: a list, a dict with names that have to be escaped, an attribute."""
    net = tf.Module()
    if not without_w:
        net.w = tf.Variable(np.zeros([2, 3], dtype), name="kernel_w")
    net.layers = [tf.Variable(np.zeros(size, dtype)) for size in (2, 1)]
    net.params = {name: tf.Variable(np.zeros([], dtype)) for name in (".hidden", "a/b", "plain")}
    step = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=net, step=step)
    return Program(checkpoint.restore, [*([] if without_w else [net.w]), *net.layers, *net.params.values(), step])


def adam_slots(tf: Any) -> Program:
    """The program of `object_slots/ckpt-1`: two variables and their slots."""
    optimizer = tf.compat.v1.train.AdamOptimizer(0.1)
    w, b = tf.Variable(tf.zeros([3, 2]), name="w"), tf.Variable(tf.zeros([2]), name="b")
    optimizer.minimize(lambda: tf.reduce_sum(tf.square(w)) + tf.reduce_sum(tf.square(b)), var_list=[w, b])
    checkpoint = tf.train.Checkpoint(net_w=w, net_b=b, optimizer=optimizer)
    return Program(checkpoint.restore, [w, b, *optimizer.variables()])


def keras_model(tf: Any) -> Program:
    """The program of `object_keras/ckpt-2`: a model and its optimizer."""
    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.Input((4,)), layers.Dense(3, activation="relu"), layers.BatchNormalization(), layers.Dense(1)])
    model.compile(optimizer=tf.keras.optimizers.Adam(0.01), loss="mse")
    model.optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    return Program(checkpoint.restore, [*model.variables, *model.optimizer.variables])


def split_over_shards(tf: Any) -> Program:
    """The program of `max_shard/ckpt`, which TensorFlow itself cut into slices."""
    big, small = tf.Variable(tf.zeros([40, 16])), tf.Variable(tf.zeros([3]))
    return Program(tf.train.Checkpoint(big=big, small=small).read, [big, small])


CASES = [
    pytest.param("object/plain-1", nested_module, "^model/", "tower/1/", "tower/1/w", id="object"),
    pytest.param("object_slots/ckpt-1", adam_slots, "^net_w/", "dense/kernel/", "dense/kernel/.OPTIMIZER_SLOT/optimizer/m", id="object_slots"),
    pytest.param("object_keras/ckpt-2", keras_model, r"^optimizer/_variables/(?P<n>\d+)", "slots/{n:03}", "slots/012", id="object_keras"),
    pytest.param("max_shard/ckpt", split_over_shards, "^big/", "large/", "large", id="max_shard"),
]


@pytest.mark.parametrize(("prefix", "program", "match", "to", "new"), CASES)
def test_the_old_program_restores_renamed_keys_completely(
    tf: Any, tmp_path: Path, prefix: str, program: Callable[[Any], Program], match: str, to: str, new: str
) -> None:
    run(load(DATA / prefix), {"rename": {"match": match, "to": to}}, save(tmp_path / "ckpt-1", format="tf"))
    assert new + VALUE in dict(tf.train.list_variables(str(tmp_path / "ckpt-1")))
    wanted = program(tf).values_after(DATA / prefix)
    found = program(tf).values_after(tmp_path / "ckpt-1")
    assert any(np.any(value) for value in wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


@pytest.mark.parametrize(("prefix", "program", "match", "to", "new"), CASES)
def test_existing_objects_match_after_renames_into_shards(
    tf: Any, tmp_path: Path, prefix: str, program: Callable[[Any], Program], match: str, to: str, new: str
) -> None:
    run(load(DATA / prefix), {"rename": {"match": match, "to": to}}, save(tmp_path / "ckpt-1", format="tf", shard_size=64))
    assert len(files_of(tmp_path / "ckpt-1")) > 2
    assert new + VALUE in dict(tf.train.list_variables(str(tmp_path / "ckpt-1")))
    program(tf).restore(str(tmp_path / "ckpt-1")).assert_existing_objects_matched()


def without_w(tmp_path: Path) -> str:
    """`object/plain-1` after its key `model/w/…` was dropped."""
    run(load(DATA / "object" / "plain-1"), {"drop": {"keys": f"model/w{VALUE}"}}, save(tmp_path / "ckpt-1", format="tf"))
    return str(tmp_path / "ckpt-1")


def test_a_dropped_variable_keeps_its_initial_value(tf: Any, tmp_path: Path) -> None:
    w, *rest = nested_module(tf).values_after(DATA / "object" / "plain-1")
    program = nested_module(tf)
    program.restore(without_w(tmp_path)).expect_partial()
    found_w, *found = [variable.numpy() for variable in program.variables]
    assert np.any(w)
    assert not np.any(found_w)
    assert [value.tobytes() for value in found] == [value.tobytes() for value in rest]


@pytest.mark.parametrize("demand", ["assert_existing_objects_matched", "assert_consumed"])
def test_tensorflows_asserts_name_a_dropped_variable(tf: Any, tmp_path: Path, demand: str) -> None:
    program = nested_module(tf)
    status = program.restore(without_w(tmp_path))
    with pytest.raises(AssertionError, match=r"Found 1 Python objects that were not bound.*'kernel_w:0'"):
        getattr(status, demand)()


def test_a_program_without_the_dropped_variable_consumes_the_rest(tf: Any, tmp_path: Path) -> None:
    program = nested_module(tf, without_w=True)
    _, *wanted = nested_module(tf).values_after(DATA / "object" / "plain-1")
    found = program.values_after(without_w(tmp_path))
    assert [value.tobytes() for value in found] == [value.tobytes() for value in wanted]


def test_dropping_the_slots_leaves_variables_that_restore(tf: Any, tmp_path: Path) -> None:
    run(load(DATA / "object_slots" / "ckpt-1"), {"drop": {"match": "/.OPTIMIZER_SLOT/"}}, save(tmp_path / "ckpt-1", format="tf"))
    w, b, *_ = adam_slots(tf).values_after(DATA / "object_slots" / "ckpt-1")
    fresh_w, fresh_b = tf.Variable(tf.zeros([3, 2])), tf.Variable(tf.zeros([2]))
    status = tf.train.Checkpoint(net_w=fresh_w, net_b=fresh_b).restore(str(tmp_path / "ckpt-1"))
    status.assert_existing_objects_matched()
    status.expect_partial()
    np.testing.assert_array_equal(fresh_w.numpy(), w)
    np.testing.assert_array_equal(fresh_b.numpy(), b)


def test_a_program_in_another_precision_restores_a_cast_checkpoint(tf: Any, tmp_path: Path) -> None:
    run(load(DATA / "object" / "plain-1"), {"cast": {"dtype": "float64"}}, save(tmp_path / "ckpt-1", format="tf"))
    wanted = nested_module(tf).values_after(DATA / "object" / "plain-1")
    found = nested_module(tf, dtype="float64").values_after(tmp_path / "ckpt-1")
    assert [value.dtype.name for value in found] == ["float64"] * 6 + ["int64"]
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_saved_model_loads_after_its_keys_were_renamed(tf: Any, tmp_path: Path) -> None:
    model = tmp_path / "saved_model"
    shutil.copytree(DATA / "saved_model", model)
    inputs = tf.constant([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]])
    wanted = tf.saved_model.load(str(model))(inputs).numpy()
    run(
        load(model),
        {"rename": {"match": "^kernel/", "to": "dense/kernel/"}},
        save(model / "variables" / "variables", format="tf", overwrite="replace", latest=False),
    )
    assert ("dense/kernel" + VALUE, [3, 2]) in tf.train.list_variables(str(model / "variables" / "variables"))
    np.testing.assert_array_equal(tf.saved_model.load(str(model))(inputs).numpy(), wanted)


# as a name-based checkpoint


@pytest.fixture
def name_based(tmp_path: Path) -> str:
    run(
        load(DATA / "object" / "plain-1"),
        {"drop": {"keys": [GRAPH_KEY, f"save_counter{VALUE}"]}},
        {"rename": {"match": r"/\.ATTRIBUTES/VARIABLE_VALUE$", "to": ""}},
        save(tmp_path / "names.ckpt", format="tf"),
    )
    return str(tmp_path / "names.ckpt")


def test_a_reader_lists_plain_names_without_suffix_and_graph(tf: Any, name_based: str) -> None:
    assert tf.train.list_variables(name_based) == [
        ("model/layers/0", [2]),
        ("model/layers/1", [1]),
        ("model/params/..hidden", []),
        ("model/params/a.Sb", []),
        ("model/params/plain", []),
        ("model/w", [2, 3]),
        ("step", []),
    ]


def test_a_graph_saver_restores_plain_names(tf: Any, v1: Any, name_based: str) -> None:
    w, *_, step = nested_module(tf).values_after(DATA / "object" / "plain-1")
    with tf.Graph().as_default(), v1.Session() as session:
        variables = [v1.get_variable("model/w", [2, 3]), v1.get_variable("step", [], tf.int64)]
        v1.train.Saver().restore(session, name_based)
        found = session.run(variables)
    np.testing.assert_array_equal(found[0], w)
    assert (found[1], step) == (3, 3)
