from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from disk import FolderDisk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_writer import field

from surgery.errors import CorruptFile, SourceError, UnsupportedFeature
from surgery.formats import tf_bundle
from surgery.formats.tf_meta import variables

DATA = Path(__file__).parents[1] / "data" / "tf"
GRAPHS = ["article/two_scalars", "article/with_matrix", "scoped_adam/model.ckpt-3", "partitioned/model", "sharded/model-12"]


@pytest.mark.parametrize("prefix", GRAPHS)
def test_the_variables_of_a_graph_are_those_of_its_checkpoint(prefix: str) -> None:
    saved = tf_bundle.index(f"{DATA}/{prefix}", FolderDisk()).tensors
    assert variables(f"{DATA}/{prefix}.meta", FolderDisk()) == {key: expr.spec for key, expr in saved.items()}


def node(name: str, op: str, *attributes: bytes) -> bytes:
    return field(1, field(1, name) + field(2, op) + b"".join(field(5, each) for each in attributes))


DTYPE = field(1, "dtype") + field(2, field(6, 1))
SHAPE = field(1, "shape") + field(2, field(7, field(2, field(1, 3))))
OPEN = field(1, "shape") + field(2, field(7, field(2, field(1, -1))))
NO_RANK = field(1, "shape") + field(2, field(7, field(3, 1)))


def told(tmp_path: Path, stored: bytes) -> dict[str, str]:
    (tmp_path / "m.meta").write_bytes(stored)
    return {key: str(spec) for key, spec in variables(f"{tmp_path}/m.meta", FolderDisk()).items()}


def test_without_the_collection_all_variable_nodes_count(tmp_path: Path) -> None:
    nodes = [node("a", "VariableV2", SHAPE, DTYPE), node("b", "VarHandleOp", DTYPE, SHAPE), node("c", "Const", DTYPE, SHAPE)]
    assert told(tmp_path, field(2, b"".join(nodes))) == {"a": "f32[3]", "b": "f32[3]"}


def test_a_shape_that_the_graph_leaves_open_is_no_spec(tmp_path: Path) -> None:
    nodes = [node("a", "VariableV2", OPEN, DTYPE), node("b", "VariableV2", NO_RANK, DTYPE), node("c", "VariableV2", SHAPE)]
    assert told(tmp_path, field(2, b"".join(nodes))) == {"a": "None", "b": "None", "c": "None"}


@pytest.mark.parametrize("stored", [b"", field(2, node("c", "Const", DTYPE))])
def test_a_graph_without_variables_is_refused(tmp_path: Path, stored: bytes) -> None:
    with pytest.raises(UnsupportedFeature, match="no variables"):
        told(tmp_path, stored)


def test_a_graph_that_ends_early_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile):
        told(tmp_path, (DATA / "article" / "two_scalars.meta").read_bytes()[:-1])


GRAPH = (DATA / "partitioned" / "model.meta").read_bytes()


@settings(max_examples=200, deadline=2000, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(GRAPH) - 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=5))
def test_mutated_graphs_give_source_errors_only(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(GRAPH)
    for at, data in changes:
        damaged[at : at + len(data)] = data
    with suppress(SourceError):
        told(tmp_path, bytes(damaged))
