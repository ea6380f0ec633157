"""The object graph of `tf.train.Checkpoint`: which Python attribute each tensor of an object-based checkpoint belongs to.

It is itself a string tensor, under `_CHECKPOINTABLE_OBJECT_GRAPH`, and names other tensors by key; so renaming and dropping
have to change it, or TensorFlow refuses the checkpoint.

Source: TensorFlow, core/protobuf/trackable_object_graph.proto; python/checkpoint/restore.py for what a missing part means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from surgery.errors import PlanError, listed, plural
from surgery.formats.base import Bundle, Indexed

if TYPE_CHECKING:
    from surgery.formats.tf_messages_pb2 import ObjectGraph

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
MOST_GRAPH_BYTES = 256 << 20
_ATTRIBUTES = "/.ATTRIBUTES/"
_DROP_IT = f"`drop` {GRAPH_KEY} to save a name-based checkpoint"


def follow(bundle: Bundle) -> bytes | None:
    """The object graph as the output's keys require it; None where there is none or it can stay as it is.

    A renamed tensor's `checkpoint_key` changes. A dropped tensor's attribute goes, and the edges to a node that has nothing else;
    nodes stay, since others refer to them by number.

    Raises:
        PlanError: `object-graph-unreadable`, or `object-graph-addition` for tensors that no attribute names.
    """
    if GRAPH_KEY not in bundle.tensors:
        return None
    source = _source(bundle)
    graph = _parsed(source)
    new_keys = _new_keys(bundle, source.location)
    old_keys = {attribute.checkpoint_key for node in graph.nodes for attribute in node.attributes}
    _refuse_additions(bundle, source.location, old_keys, new_keys)
    if all(new_keys.get(key) == key for key in old_keys):
        return None
    _rewrite(graph, new_keys)
    return bytes(graph.SerializeToString())


def unrestorable(bundle: Bundle) -> list[str]:
    """Renamed keys that the object graph can name and `Checkpoint.restore` still cannot read.

    It takes a key up to `/.ATTRIBUTES/` from the graph and the rest from the program, so that rest has to stay.
    """
    if GRAPH_KEY not in bundle.tensors:
        return []
    origins = ((key, bundle.origins.get(key)) for key in bundle.tensors)
    return [key for key, origin in origins if origin and _ATTRIBUTES in origin.key and _rest(key) != _rest(origin.key)]


def _rest(key: str) -> tuple[str, str]:
    _, found, rest = key.partition(_ATTRIBUTES)
    return found, rest


def _source(bundle: Bundle) -> Indexed:
    origin = bundle.origins.get(GRAPH_KEY)
    source = bundle.sources.get(origin.location) if origin and origin.key == GRAPH_KEY else None
    if source is None or "object_graph" not in source.attachments:
        raise _unreadable("it comes from no TensorFlow checkpoint whose object graph could be read")
    return source


def _parsed(source: Indexed) -> ObjectGraph:
    from google.protobuf.message import DecodeError

    from surgery.formats.tf_messages_pb2 import ObjectGraph

    try:
        return ObjectGraph.FromString(source.attachments["object_graph"])
    except DecodeError:
        raise _unreadable(f"in {source.location} it is no TrackableObjectGraph") from None


def _new_keys(bundle: Bundle, location: str) -> dict[str, str]:
    """Old key → new key. Of several copies the one that kept its name is meant, else the first."""
    new_keys: dict[str, str] = {}
    for key in bundle.tensors:
        origin = bundle.origins.get(key)
        if origin and origin.location == location and (origin.key not in new_keys or key == origin.key):
            new_keys[origin.key] = key
    return new_keys


def _refuse_additions(bundle: Bundle, location: str, old_keys: set[str], new_keys: Mapping[str, str]) -> None:
    """Refuse tensors that nothing in the graph would name. What it never named may stay, under its own key."""
    named = {new_keys[key] for key in old_keys if key in new_keys}
    unnamed = {key for key in new_keys if key not in old_keys and new_keys[key] == key}
    added = [key for key in bundle.tensors if key not in named and key not in unnamed and key != GRAPH_KEY]
    if added:
        raise PlanError(
            f"the object graph of {location} has no place for `{added[0]}`",
            code="object-graph-addition",
            notes=[f"{plural(len(added), 'tensor')} added, copied, or renamed without being part of it: {listed(added)}"],
            help=_DROP_IT,
            data={"keys": added},
        )
    for key in named:
        try:
            key.encode()
        except UnicodeEncodeError:
            raise PlanError(
                f"the object graph cannot name `{key!a}`", code="object-graph-key", notes=["it holds UTF-8 only"], help=_DROP_IT
            ) from None


def _rewrite(graph: Any, new_keys: Mapping[str, str]) -> None:
    emptied = set()
    for number, node in enumerate(graph.nodes):
        attributes = len(node.attributes)
        _keep(node.attributes, lambda attribute: attribute.checkpoint_key in new_keys)
        for attribute in node.attributes:
            attribute.checkpoint_key = new_keys[attribute.checkpoint_key]
        if attributes and not (node.attributes or node.children or node.slot_variables or node.HasField("registered_saver")):
            emptied.add(number)
    for node in graph.nodes:
        _keep(node.children, lambda child: child.node_id not in emptied)
        _keep(node.slot_variables, lambda slot: not emptied & {slot.original_variable_node_id, slot.slot_variable_node_id})


def _keep(items: Any, wanted: Any) -> None:
    """Delete the other items of a repeated field in place."""
    for position in reversed(range(len(items))):
        if not wanted(items[position]):
            del items[position]


def _unreadable(why: str) -> PlanError:
    return PlanError(f"the object graph `{GRAPH_KEY}` cannot be followed", code="object-graph-unreadable", notes=[why], help=_DROP_IT)
