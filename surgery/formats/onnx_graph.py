"""The parts of an ONNX model that reader and writer have to see alike: field numbers, nodes, and the paths of nested graphs.

Source: onnx/onnx.proto (ModelProto, GraphProto, FunctionProto, NodeProto, AttributeProto).
"""

from __future__ import annotations

from typing import NamedTuple

from surgery.formats.wire import BYTES, Field, Message

IR_VERSION, GRAPH, METADATA, TRAINING, FUNCTIONS = 1, 7, 14, 20, 25
"""Fields of a ModelProto."""
NODE, INITIALIZER, INPUT, OUTPUT, VALUE_INFO, ANNOTATION, SPARSE = 1, 5, 11, 12, 13, 14, 15
"""Fields of a GraphProto."""
FUNCTION_NAME, FUNCTION_INPUT, FUNCTION_OUTPUT, FUNCTION_NODE, FUNCTION_VALUE_INFO = 1, 4, 5, 7, 12
NODE_INPUT, NODE_OUTPUT, NODE_ATTRIBUTE = 1, 2, 5
ATTRIBUTE_NAME, ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS = 1, 5, 10
ATTRIBUTE_GRAPHS = frozenset({6, 11})
CONSTANT = "Constant"


class Node(NamedTuple):
    """What a NodeProto tells of itself; `output` is its first one, `attributes` are still to be read."""

    name: str
    kind: str
    output: str
    attributes: tuple[Field, ...]

    def __str__(self) -> str:
        return f"{self.kind} `{self.name or self.output}`"


def read_node(message: Message, start: int, stop: int) -> Node:
    """The node at `start` to `stop`. Raises CorruptFile for names that are not UTF-8."""
    name = kind = output = ""
    attributes = []
    for field in message.fields(start, stop):
        if field.number == NODE_OUTPUT and not output:
            output = message.text(field)
        elif field.number == 3:
            name = message.text(field)
        elif field.number == 4:
            kind = message.text(field)
        elif field.number == NODE_ATTRIBUTE:
            attributes.append(field)
    return Node(name, kind, output, tuple(attributes))


def nested_graphs(message: Message, attribute: Field) -> tuple[str, list[Field]]:
    """The name of an attribute, if graphs are in it, and these."""
    fields = list(message.fields(attribute.start, attribute.stop))
    graphs = [field for field in fields if field.number in ATTRIBUTE_GRAPHS and field.kind == BYTES]
    name = next((message.text(field) for field in fields if field.number == ATTRIBUTE_NAME), "") if graphs else ""
    return name, graphs


class Scopes:
    """The paths of nested graphs and functions, which begin the keys of their tensors; asked for in the order of the file."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, outer: str, name: str) -> str:
        """A path below `outer`; a number makes it another one where nodes share a name, as ONNX allows."""
        scope, number = f"{outer}{name}/", 1
        while scope in self._taken:
            number += 1
            scope = f"{outer}{name}_{number}/"
        self._taken.add(scope)
        return scope

    def of_attribute(self, outer: str, node: Node, attribute: str) -> str:
        """The path of a graph in an attribute of a node."""
        return self.of(outer, f"{node.name or node.output}.{attribute}")
