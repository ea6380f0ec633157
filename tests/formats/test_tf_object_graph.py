from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from contract import bundle
from disk import FolderDisk
from executor import RawFile, content, execute

from surgery.dtypes import DTYPES
from surgery.errors import PlanError
from surgery.expr import Expr
from surgery.formats import tf_bundle
from surgery.formats.base import Bundle, Indexed, Origin
from surgery.formats.tf_messages_pb2 import ObjectGraph
from surgery.formats.tf_object_graph import GRAPH_KEY, follow
from surgery.tensors import TensorSpec

DATA = Path(__file__).parents[1] / "data" / "tf"
PLAIN, SLOTS = DATA / "object" / "plain-1", DATA / "object_slots" / "ckpt-1"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def opened(prefix: Path) -> Indexed:
    return tf_bundle.index(str(prefix), FolderDisk())


def renamed(source: Indexed, new_keys: Mapping[str, str | None], path: str = "out/m") -> Bundle:
    """The output with some keys renamed, or dropped (None)."""
    kept = {old: new_keys.get(old, old) for old in source.tensors}
    tensors: dict[str, Expr] = {new: source.tensors[old] for old, new in kept.items() if new is not None}
    origins = {new: Origin(source.location, old) for old, new in kept.items() if new is not None}
    return bundle(path, tensors)._replace(origins=origins, sources={source.location: source})


def graph_of(wanted: Bundle) -> ObjectGraph:
    graph = follow(wanted)
    assert graph is not None
    return ObjectGraph.FromString(graph)


def keys_of(graph: ObjectGraph) -> set[str]:
    return {attribute.checkpoint_key for node in graph.nodes for attribute in node.attributes}


def before(source: Indexed) -> ObjectGraph:
    return ObjectGraph.FromString(source.attachments["object_graph"])


def some_key(source: Indexed) -> str:
    return next(key for key in sorted(source.tensors) if key.endswith(VALUE) and not key.startswith("save_counter"))


def test_a_graph_stays_as_it_is_while_no_key_changes() -> None:
    source = opened(PLAIN)
    wanted = renamed(source, {})
    assert follow(wanted) is None
    layout = tf_bundle.layout(wanted)
    assert layout.patches == ()
    assert GRAPH_KEY in [place.key for place in layout.files[0].placements]


def test_a_rename_changes_the_key_and_nothing_else() -> None:
    source = opened(PLAIN)
    old = some_key(source)
    graph, expected = graph_of(renamed(source, {old: "new"})), before(source)
    for node in expected.nodes:
        for attribute in node.attributes:
            if attribute.checkpoint_key == old:
                attribute.checkpoint_key = "new"
    assert graph == expected


def test_two_keys_can_swap() -> None:
    source = opened(PLAIN)
    one, two = sorted(keys_of(before(source)))[:2]
    graph = graph_of(renamed(source, {one: two, two: one}))
    named = {attribute.full_name: attribute.checkpoint_key for node in graph.nodes for attribute in node.attributes}
    was = {attribute.full_name: attribute.checkpoint_key for node in before(source).nodes for attribute in node.attributes}
    assert {name: {one: two, two: one}.get(key, key) for name, key in was.items()} == named


def test_a_drop_removes_attribute_and_edges_and_keeps_the_node() -> None:
    source = opened(PLAIN)
    old = some_key(source)
    was, graph = before(source), graph_of(renamed(source, {old: None}))
    (number,) = [number for number, node in enumerate(was.nodes) if any(each.checkpoint_key == old for each in node.attributes)]
    assert len(graph.nodes) == len(was.nodes)
    assert not graph.nodes[number].attributes
    assert number in {child.node_id for node in was.nodes for child in node.children}
    assert number not in {child.node_id for node in graph.nodes for child in node.children}
    assert keys_of(graph) == keys_of(was) - {old}


def test_a_dropped_slot_leaves_the_slot_variables() -> None:
    source = opened(SLOTS)
    slots = [key for key in source.tensors if ".OPTIMIZER_SLOT" in key]
    was, graph = before(source), graph_of(renamed(source, {slots[0]: None}))
    count = [sum(len(node.slot_variables) for node in each.nodes) for each in (was, graph)]
    assert count == [len(slots), len(slots) - 1]


def test_a_node_that_still_has_children_keeps_its_edges() -> None:
    graph = ObjectGraph()
    root, parent, leaf = graph.nodes.add(), graph.nodes.add(), graph.nodes.add()
    root.children.add(node_id=1, local_name="p")
    parent.children.add(node_id=2, local_name="q")
    parent.attributes.add(name="VARIABLE_VALUE", checkpoint_key="p")
    leaf.attributes.add(name="VARIABLE_VALUE", checkpoint_key="q")
    source = opened(PLAIN)._replace(attachments={"object_graph": graph.SerializeToString()})
    scalar = source.tensors[some_key(source)]
    source = source._replace(tensors={"p": scalar, "q": scalar, GRAPH_KEY: source.tensors[GRAPH_KEY]})
    found = graph_of(renamed(source, {"p": None}))
    assert [child.local_name for node in found.nodes for child in node.children] == ["p", "q"]


def test_unknown_fields_are_kept() -> None:
    source = opened(PLAIN)
    strange = b"\xfa\x01\x03xyz"
    source = source._replace(attachments={"object_graph": source.attachments["object_graph"] + strange})
    graph = follow(renamed(source, {some_key(source): "new"}))
    assert graph is not None
    assert graph.endswith(strange)


def test_the_new_graph_is_a_patch_with_its_own_checksum(tmp_path: Path) -> None:
    source = opened(PLAIN)
    old = some_key(source)
    layout = tf_bundle.layout(renamed(source, {old: "a/longer/name" * 9}, f"{tmp_path}/m"))
    assert len(layout.patches) == 1
    assert GRAPH_KEY not in [place.key for place in layout.files[0].placements]
    execute(layout, FolderDisk())
    again = opened(tmp_path / "m")
    assert again.attachments["object_graph"] == follow(renamed(source, {old: "a/longer/name" * 9}))
    assert content(again.tensors["a/longer/name" * 9], FolderDisk()) == content(source.tensors[old], FolderDisk())


def test_a_rename_that_restore_cannot_follow_is_told() -> None:
    source = opened(PLAIN)
    old = some_key(source)
    assert tf_bundle.layout(renamed(source, {old: f"renamed{VALUE}"})).notes == ()
    (note,) = tf_bundle.layout(renamed(source, {old: "renamed"})).notes
    assert note.startswith("`tf.train.Checkpoint.restore` cannot read renamed: ")


def refused(wanted: Bundle) -> PlanError:
    with pytest.raises(PlanError) as fault:
        follow(wanted)
    assert GRAPH_KEY in fault.value.help
    return fault.value


def test_additions_are_refused(tmp_path: Path) -> None:
    wanted = renamed(opened(PLAIN), {})
    extra = RawFile(tmp_path / "raw").tensor(TensorSpec(DTYPES["float32"], ()), bytes(4))
    fault = refused(wanted._replace(tensors={**wanted.tensors, "extra": extra}))
    assert (fault.code, fault.data["keys"]) == ("object-graph-addition", ["extra"])


def test_a_copy_is_refused_and_the_tensor_that_kept_its_name_is_meant() -> None:
    source = opened(PLAIN)
    wanted, old = renamed(source, {}), some_key(source)
    tensors = {"copy": source.tensors[old], **wanted.tensors}
    fault = refused(wanted._replace(tensors=tensors, origins={"copy": Origin(source.location, old), **wanted.origins}))
    assert fault.data["keys"] == ["copy"]


def test_a_key_that_the_graph_never_named_may_stay_under_its_name() -> None:
    source = opened(PLAIN)
    source = source._replace(tensors={**source.tensors, "loose": source.tensors[some_key(source)]})
    assert follow(renamed(source, {})) is None
    assert refused(renamed(source, {"loose": "renamed"})).data["keys"] == ["renamed"]


def test_without_the_graph_everything_goes() -> None:
    source = opened(PLAIN)
    wanted = renamed(source, {GRAPH_KEY: None, some_key(source): "new"})
    assert tf_bundle.layout(wanted).patches == ()


@pytest.mark.parametrize("attachments", [{}, {"object_graph": b"\xff"}])
def test_a_graph_that_cannot_be_read_is_refused(attachments: dict[str, bytes]) -> None:
    source = opened(PLAIN)._replace(attachments=attachments)
    assert refused(renamed(source, {})).code == "object-graph-unreadable"


def test_a_graph_from_nowhere_is_refused() -> None:
    source = opened(PLAIN)
    assert refused(bundle("out/m", source.tensors)).code == "object-graph-unreadable"


def test_a_key_that_is_not_utf8_is_refused() -> None:
    source = opened(PLAIN)
    assert refused(renamed(source, {some_key(source): "\udcff"})).code == "object-graph-key"
