"""What TensorFlow 1 programs do with our output: graph variables, scopes, partitioned variables, savers and `init_from_checkpoint`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import DATA, load, run, save

pytestmark = pytest.mark.peers

ADAM = DATA / "scoped_adam" / "model.ckpt-3"
PARTITIONED = DATA / "partitioned" / "model"


def values(tf: Any, prefix: object) -> dict[str, Any]:
    """Everything TensorFlow's reader finds."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}


def restored(tf: Any, prefix: object, make_variables: Callable[[Any], Any], make_saver: Callable[[Any, Any], Any]) -> Any:
    """The variables of a fresh graph after a saver of it has restored."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variables = make_variables(v1)
        session.run(v1.global_variables_initializer())
        make_saver(v1, variables).restore(session, str(prefix))
        return session.run(variables)


def all_variables(v1: Any, variables: Any) -> Any:
    return v1.train.Saver()


def variables_like(tensors: Mapping[str, Any], use_resource: bool) -> Callable[[Any], dict[str, Any]]:
    def make(v1: Any) -> dict[str, Any]:
        return {
            key: v1.get_variable(key, value.shape, value.dtype, initializer=v1.zeros_initializer(), use_resource=use_resource)
            for key, value in tensors.items()
        }

    return make


@pytest.mark.parametrize("use_resource", [False, True], ids=["reference", "resource"])
def test_a_saver_restores_a_model_with_slots_under_another_scope(tf: Any, tmp_path: Path, use_resource: bool) -> None:
    run(load(ADAM), {"scope": {"from": "model/", "to": "net/tower_0/"}}, save(tmp_path / "m", format="tf"))
    wanted = {key.replace("model/", "net/tower_0/", 1) if key.startswith("model/") else key: value for key, value in values(tf, ADAM).items()}
    assert "net/tower_0/encoder/block_0/kernel/Adam" in wanted
    found = restored(tf, tmp_path / "m", variables_like(wanted, use_resource), all_variables)
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, strict=True)


def test_a_saver_with_scopes_in_the_code_finds_the_scoped_keys(tf: Any, tmp_path: Path) -> None:
    run(
        load(DATA / "article" / "with_matrix"),
        {"rename": {"keys": {"c": "first_scope/second_scope/coef"}}},
        save(tmp_path / "m", format="tf"),
    )

    def make(v1: Any) -> Any:
        with v1.variable_scope("first_scope"), v1.variable_scope("second_scope"):
            return v1.get_variable("coef", initializer=0.0)

    assert restored(tf, tmp_path / "m", make, all_variables) == 3.0


def test_a_saver_takes_a_for_d(tf: Any, tmp_path: Path) -> None:
    run(load(DATA / "article" / "two_scalars"), save(tmp_path / "m", format="tf"))
    found = restored(tf, tmp_path / "m", lambda v1: v1.get_variable("d", initializer=0.0), lambda v1, d: v1.train.Saver({"a": d}))
    assert found == 1.0


def test_a_saver_finds_d_where_var_list_took_a_for_d(tf: Any, tmp_path: Path) -> None:
    run(load(DATA / "article" / "two_scalars", var_list={"a": "d"}), save(tmp_path / "m", format="tf"))
    assert tf.train.list_variables(str(tmp_path / "m")) == [("d", [])]
    assert restored(tf, tmp_path / "m", lambda v1: v1.get_variable("d", initializer=0.0), all_variables) == 1.0


def test_a_saver_restores_what_init_missing_added(tf: Any, tmp_path: Path) -> None:
    added = {"d": {"shape": [2, 2], "dtype": "float32", "init": {"constant": 1.5}}}
    run(load(DATA / "article" / "two_scalars"), {"init_missing": {"variables": added}}, save(tmp_path / "m", format="tf"))
    wanted = {"a": np.float32(1), "b": np.float32(2), "d": np.full([2, 2], 1.5, np.float32)}
    found = restored(tf, tmp_path / "m", variables_like(wanted, use_resource=True), all_variables)
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, strict=True)


# partitioned variables


def partitioned(key: str, shape: list[int], dtype: str, parts: int, axis: int) -> Callable[[Any], list[Any]]:
    """Slices of a variable as a program with a partitioner has them."""

    def make(v1: Any) -> list[Any]:
        scope, _, leaf = key.rpartition("/")
        with v1.variable_scope(scope):
            whole = v1.get_variable(
                leaf, shape, dtype, v1.zeros_initializer(), partitioner=v1.fixed_size_partitioner(parts, axis=axis), use_resource=False
            )
        return list(whole)

    return make


@pytest.mark.parametrize(
    ("key", "shape", "dtype", "axis", "parts"),
    [
        ("emb/table", [10, 4], "float32", 0, 3),
        ("emb/table", [10, 4], "float32", 1, 4),
        ("emb/wide", [4, 200], "float32", 1, 7),
        ("emb/long", [20000], "int8", 0, 5),
    ],
)
def test_a_partitioned_program_reads_its_slices_of_our_whole_tensor(
    tf: Any, tmp_path: Path, key: str, shape: list[int], dtype: str, axis: int, parts: int
) -> None:
    run(load(PARTITIONED), {"scope": {"from": "emb/", "to": "lookup/"}}, save(tmp_path / "m", format="tf"))
    slices = restored(tf, tmp_path / "m", partitioned(key.replace("emb/", "lookup/"), shape, dtype, parts, axis), all_variables)
    assert len(slices) == parts
    original = restored(tf, PARTITIONED, partitioned(key, shape, dtype, parts, axis), all_variables)
    assert any(np.any(part) for part in original)
    for ours, theirs in zip(slices, original, strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


def test_tensorflow_reads_a_joined_tensor_whole_where_it_could_not_read_the_slices(tf: Any, tmp_path: Path) -> None:
    run(load(PARTITIONED), save(tmp_path / "m", format="tf"))
    with pytest.raises(ValueError, match="Dtype half not supported"):
        tf.train.load_variable(str(PARTITIONED), "emb/half")
    whole = tf.train.load_variable(str(tmp_path / "m"), "emb/half")
    slices = restored(tf, PARTITIONED, partitioned("emb/half", [6, 2], "float16", 2, 0), all_variables)
    np.testing.assert_array_equal(whole, np.concatenate(slices), strict=True)


# init_from_checkpoint


def initialised(tf: Any, prefix: object, make_variables: Callable[[Any], Any], assignment: Mapping[str, str]) -> Any:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variables = make_variables(v1)
        v1.train.init_from_checkpoint(str(prefix), dict(assignment))
        session.run(v1.global_variables_initializer())
        return session.run(variables)


def test_init_from_checkpoint_maps_our_scope_to_the_programs(tf: Any, tmp_path: Path) -> None:
    run(
        load(ADAM),
        {"keep": {"match": "^model/.*(kernel|bias)$"}},
        {"scope": {"from": "model/", "to": "pretrained/"}},
        save(tmp_path / "m", format="tf"),
    )
    wanted = {key.replace("model/", "mine/"): value for key, value in values(tf, ADAM).items() if key.endswith(("kernel", "bias"))}
    found = initialised(tf, tmp_path / "m", variables_like(wanted, use_resource=True), {"pretrained/": "mine/"})
    assert len(wanted) == 4
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, strict=True)


def test_init_from_checkpoint_of_a_folder_takes_our_newest(tf: Any, tmp_path: Path) -> None:
    run(load(DATA / "article" / "only_first"), save(tmp_path / "old", format="tf"))
    run(load(DATA / "article" / "two_scalars"), {"rename": {"keys": {"a": "b", "b": "a"}}}, save(tmp_path / "new", format="tf"))
    found = initialised(tf, tmp_path, lambda v1: v1.get_variable("x", initializer=0.0), {"a": "x"})
    assert found == 2.0


def test_init_from_checkpoint_fills_partitioned_variables_from_our_whole(tf: Any, tmp_path: Path) -> None:
    run(load(PARTITIONED), save(tmp_path / "m", format="tf"))
    parts = initialised(tf, tmp_path / "m", partitioned("emb/table", [10, 4], "float32", 2, 0), {"emb/table": "emb/table"})
    np.testing.assert_array_equal(np.concatenate(parts), tf.train.load_variable(str(PARTITIONED), "emb/table"), strict=True)
