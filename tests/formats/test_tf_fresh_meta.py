"""A fresh graph, read back by the reader of graphs, which was made for TensorFlow's own; TensorFlow itself reads it in the peers tests."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disk import FolderDisk
from executor import RawFile

import surgery
from surgery.api import Source
from surgery.dtypes import DTYPES
from surgery.formats.tf_fresh_meta import meta_graph, variables_of
from surgery.formats.tf_meta import variables
from surgery.formats.wire import Message
from surgery.tensors import TensorSpec

DATA = Path(__file__).parents[1] / "data" / "tf"


def saved(arrays: Mapping[str, np.ndarray[Any, Any]], **options: Any) -> list[str]:
    """Save them as a bundle with a graph in the working directory; returns the plan's notes."""
    np.savez("in.npz", **arrays)
    steps = [{"load": {"path": "in.npz"}}, {"save": {"path": "m.ckpt", "format": "tf", "meta": "write", "overwrite": "replace", **options}}]
    plan = surgery.plan(Source(json.dumps({"surgery": 1, "steps": steps}), "r.yaml"))
    plan.run()
    return [*plan.physical.notes]


def names_of_nodes(stored: bytes) -> list[str]:
    message = Message.of_bytes(stored, "m.meta")
    graphs = [field for field in message.fields() if field.number == 2]
    nodes = [node for graph in graphs for node in message.fields(graph.start, graph.stop) if node.number == 1]
    return [message.text(next(iter(message.fields(node.start, node.stop)))) for node in nodes]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


ARRAYS = {"dense/kernel": np.ones((2, 3), "f4"), "global_step": np.array(7), "empty": np.zeros((0, 2), "f8")}


def test_the_graph_has_the_variables_of_the_bundle() -> None:
    assert saved(ARRAYS) == []
    found = {key: str(spec) for key, spec in variables("m.ckpt.meta", FolderDisk()).items()}
    assert found == {"dense/kernel": "f32[2,3]", "global_step": "i64[]", "empty": "f64[0,2]"}


def test_the_same_tensors_give_the_same_bytes() -> None:
    saved(ARRAYS)
    first = Path("m.ckpt.meta").read_bytes()
    saved(ARRAYS)
    assert Path("m.ckpt.meta").read_bytes() == first


def test_keys_that_no_node_can_have_become_names_that_one_can_and_a_note_tells() -> None:
    (note,) = saved({"a b": np.zeros(1), "a:b": np.zeros(1), "_c": np.zeros(1), "a_b_1": np.zeros(1)})
    assert list(variables("m.ckpt.meta", FolderDisk())) == ["a_b", "a_b_2", "v_c", "a_b_1"]
    assert "a_b for `a b`, a_b_2 for `a:b`, v_c for `_c`" in note


def test_no_two_nodes_have_one_name_whatever_the_keys_are() -> None:
    keys = ["a", "a/Assign", "a/Read/ReadVariableOp", "a/Initializer/zeros", "save", "save/Const", "save_1/restore_all", "b", "b_1", "B"]
    saved({key: np.zeros(1) for key in keys})
    names = names_of_nodes(Path("m.ckpt.meta").read_bytes())
    assert len(set(names)) == len(names)


def test_types_without_variables_and_object_graphs_are_left_out_and_told() -> None:
    steps = [{"load": {"path": str(DATA / "object" / "plain-1")}}, {"save": {"path": "m.ckpt", "format": "tf", "meta": "write"}}]
    plan = surgery.plan(Source(json.dumps({"surgery": 1, "steps": steps}), "r.yaml"))
    plan.run()
    assert any("no variable for _CHECKPOINTABLE_OBJECT_GRAPH" in note for note in plan.physical.notes)
    assert "_CHECKPOINTABLE_OBJECT_GRAPH" not in variables("m.ckpt.meta", FolderDisk())


def test_a_source_graph_is_not_called_left_out_when_there_is_a_fresh_one() -> None:
    steps = [{"load": {"path": str(DATA / "article" / "two_scalars")}}, {"save": {"path": "m.ckpt", "format": "tf", "meta": "write"}}]
    assert surgery.plan(Source(json.dumps({"surgery": 1, "steps": steps}), "r.yaml")).physical.notes == ()


def test_a_save_without_the_graph_removes_that_of_an_older_save() -> None:
    saved(ARRAYS)
    saved(ARRAYS, meta=None)
    assert not Path("m.ckpt.meta").exists()


def test_an_empty_bundle_has_a_graph_too() -> None:
    assert names_of_nodes(meta_graph([]))[-1] == "save/restore_all"


def test_tens_of_thousands_of_variables_take_seconds(tmp_path: Path) -> None:
    spec = TensorSpec(DTYPES["float32"], ())
    tensor = RawFile(tmp_path / "raw").tensor(spec, bytes(4))
    began = time.perf_counter()
    stored = meta_graph(
        variables_of({f"layer_{number} w": tensor for number in range(10_000)} | {f"layer_{number}:w": tensor for number in range(10_000)})
    )
    assert time.perf_counter() - began < 30
    assert len(stored) < 40 << 20
