"""The variables of a TensorFlow graph (`PREFIX.meta`, a MetaGraphDef): what a checkpoint of it has to hold. Serves target specs.

The variables that a Saver writes are those of the collection `variables`; a graph without it has all its variable nodes. Partitioned
variables appear as wholes, under the name their checkpoint has for them. The graph is walked, never held; text-format graphs are refused.
Source: TensorFlow, core/protobuf/meta_graph.proto, core/framework/{graph,node_def,attr_value,variable}.proto.
"""

from __future__ import annotations

from typing import NamedTuple

from surgery.dtypes import DTYPES
from surgery.errors import UnsupportedFeature
from surgery.formats.base import Disk
from surgery.formats.tf_entries import NUMBERS
from surgery.formats.tf_shapes import read_shape
from surgery.formats.wire import BYTES, Field, Message
from surgery.tensors import TensorSpec

_GRAPH, _COLLECTIONS = 2, 4
_OPS = frozenset({"VariableV2", "Variable", "VarHandleOp"})
_COLLECTION = "variables"
_DTYPES = {number: DTYPES[name] for name, number in NUMBERS.items()}
_REFERENCE = 100
"""Attributes of old graphs may tell the type of a reference, which is that of its values plus this."""


class _Variable(NamedTuple):
    """A name in the collection: the node it means, and of which variable with which full shape it is a part (itself, with None, if whole)."""

    node: str
    key: str
    full_shape: tuple[int, ...] | None


def variables(path: str, disk: Disk) -> dict[str, TensorSpec | None]:
    """Each variable with its spec, or None where the graph leaves its shape open; in the order of the collection, or of the nodes.

    Raises:
        CorruptFile: the file is no MetaGraphDef.
        UnsupportedFeature: it has no graph with variables.
    """
    file, read = disk.open(path)
    message = Message(read, file.nbytes, path)
    nodes: dict[str, TensorSpec | None] = {}
    collected: list[_Variable] = []
    for field in message.fields():
        if field.number == _GRAPH and field.kind == BYTES:
            nodes |= _nodes(message, field)
        elif field.number == _COLLECTIONS and field.kind == BYTES:
            collected += _collection(message, field)
    found = {each.key: _spec(each, nodes) for each in collected} if collected else nodes
    if not found:
        raise UnsupportedFeature(f"{path} has no variables", notes=["graphs in text format are not read"], help="give a checkpoint as the target")
    return found


def _spec(variable: _Variable, nodes: dict[str, TensorSpec | None]) -> TensorSpec | None:
    spec = nodes.get(variable.node)
    return spec._replace(shape=variable.full_shape) if spec and variable.full_shape is not None else spec


def _nodes(message: Message, graph: Field) -> dict[str, TensorSpec | None]:
    """The variable nodes of a GraphDef."""
    found: dict[str, TensorSpec | None] = {}
    for field in message.fields(graph.start, graph.stop):
        if field.number != 1 or field.kind != BYTES:
            continue
        name = op = ""
        attributes = []
        for part in message.fields(field.start, field.stop):
            if part.number == 1:
                name = message.text(part)
            elif part.number == 2:
                op = message.text(part)
                if op not in _OPS:
                    break
            elif part.number == 5:
                attributes.append(part)
        if op in _OPS:
            found[name] = _node_spec(message, attributes)
    return found


def _node_spec(message: Message, attributes: list[Field]) -> TensorSpec | None:
    number = 0
    shape: tuple[int, ...] | None = None
    for attribute in attributes:
        name, value = "", None
        for part in message.fields(attribute.start, attribute.stop):
            if part.number == 1:
                name = message.text(part)
            elif part.number == 2:
                value = part
        for part in message.fields(value.start, value.stop) if value else ():
            if name == "dtype" and part.number == 6:
                number = part.value % _REFERENCE
            elif name == "shape" and part.number == 7:
                shape = read_shape(message, part)
    if shape is None or min(shape, default=0) < 0 or number not in _DTYPES:
        return None
    return TensorSpec(_DTYPES[number], shape)


def _collection(message: Message, entry: Field) -> list[_Variable]:
    """The variables of an entry of the collections; none where it is another collection."""
    name, found = "", []
    for part in message.fields(entry.start, entry.stop):
        if part.number == 1:
            name = message.text(part)
        elif part.number == 2 and name == _COLLECTION:
            found += [
                _variable(message, item)
                for kind in message.fields(part.start, part.stop)
                if kind.number == 2  # bytes_list
                for item in message.fields(kind.start, kind.stop)
                if item.number == 1
            ]
    return found


def _variable(message: Message, field: Field) -> _Variable:
    name, key = "", ""
    full_shape: list[int] = []
    for part in message.fields(field.start, field.stop):
        if part.number == 1:
            name = message.text(part).partition(":")[0]
        elif part.number == 4:
            for fact in message.fields(part.start, part.stop):
                if fact.number == 1:
                    key = message.text(fact)
                elif fact.number == 2:
                    full_shape += message.numbers(fact)
    return _Variable(name, key or name, tuple(full_shape) if key else None)
