"""Which names the values of each graph of an ONNX model get when its tensors are renamed or dropped. Serves the writing of ONNX.

A name means the same in a graph and in the graphs nested in it, unless one of these has a value of that name itself. Source: onnx/docs/IR.md,
"Names Within a Graph".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from surgery.errors import KeyCollisionError, PlanError
from surgery.expr import Expr
from surgery.formats.onnx_graph import (
    CONSTANT,
    FUNCTION_INPUT,
    FUNCTION_NAME,
    FUNCTION_NODE,
    FUNCTIONS,
    GRAPH,
    INITIALIZER,
    INPUT,
    NODE,
    NODE_OUTPUT,
    SPARSE,
    Scopes,
    nested_graphs,
    read_node,
)
from surgery.formats.wire import BYTES, Field, Message

__all__ = ["Fate", "Names", "names_of"]

_TENSOR_NAME = 8


class Fate(NamedTuple):
    """What becomes of a tensor of the model: its key in the output, its values, whether these are another tensor's or were changed."""

    key: str
    expr: Expr
    changed: bool


class Names:
    """A graph or function: the names of its values, and what becomes of them.

    `own` has the tensors of this graph that are renamed, and with None those that are dropped; `seen` has all such names that its nodes can mean.
    """

    def __init__(self, scope: str, outer: Names | None) -> None:
        self.scope = scope
        self.outer = outer
        self.inner: list[Names] = []
        self.defined: set[str] = set()
        self.own: dict[str, str | None] = {}
        self.seen: Mapping[str, str | None] = {}
        if outer:
            outer.inner.append(self)

    def settle(self, above: frozenset[str]) -> frozenset[str]:
        """Work out `seen` here and in all nested graphs; `above` are the names that values around this graph will have.

        Returns the names that values in it will have, the nested graphs included.

        Raises:
            KeyCollisionError: a tensor would get the name of another value.
        """
        outer = self.outer.seen if self.outer else {}
        hidden = outer.keys() & self.defined
        self.seen = {**{name: new for name, new in outer.items() if name not in hidden}, **self.own} if hidden or self.own else outer
        kept = frozenset(self.defined - self.own.keys())
        given = frozenset(new for new in self.own.values() if new is not None)
        below = frozenset().union(*(graph.settle(above | kept | given) for graph in self.inner))
        for name, new in self.own.items():
            if new is not None and (new in kept or new in above or new in below):
                raise KeyCollisionError(
                    f"`{self.scope}{name}` cannot become `{self.scope}{new}`: another value of the model has that name",
                    data={"collisions": {self.scope + new: [self.scope + name]}},
                    help="`rename` it to a name that no input and no output of a node has",
                )
        return kept | given | below


def names_of(message: Message, fates: Mapping[str, Fate | None]) -> dict[str, Names]:
    """Every graph and function of a model by the path of its tensors, "" for the main graph; tensors that have no fate stay.

    Raises:
        KeyCollisionError: a tensor would get the name of another value.
        PlanError: code `key-not-storable` for a tensor that would leave its nested graph.
    """
    walk = _Walk(message, fates)
    for field in message.fields():
        if field.number == GRAPH and field.kind == BYTES:
            walk.graph(field, "", None)
        elif field.number == FUNCTIONS and field.kind == BYTES:
            walk.function(field)
    for names in walk.found.values():
        if names.outer is None:
            names.settle(frozenset())
    return walk.found


class _Walk:
    def __init__(self, message: Message, fates: Mapping[str, Fate | None]) -> None:
        self.found: dict[str, Names] = {}
        self._message = message
        self._fates = fates
        self._scopes = Scopes()

    def graph(self, graph: Field, scope: str, outer: Names | None) -> None:
        """A GraphProto and all that are nested in it."""
        names = self.found[scope] = Names(scope, outer)
        for field in self._message.fields(graph.start, graph.stop):
            if field.number == NODE:
                self._node(field, names)
            elif field.number == INPUT:
                names.defined.add(self._text(field, 1))
            elif field.number == INITIALIZER:
                self._tensor(self._text(field, _TENSOR_NAME), names)
            elif field.number == SPARSE:
                values = [part for part in self._message.fields(field.start, field.stop) if part.number == 1]
                names.defined.update(self._text(part, _TENSOR_NAME) for part in values)

    def function(self, function: Field) -> None:
        """A FunctionProto."""
        fields = list(self._message.fields(function.start, function.stop))
        scope = self._scopes.of("", next((self._message.text(field) for field in fields if field.number == FUNCTION_NAME), ""))
        names = self.found[scope] = Names(scope, None)
        names.defined.update(self._message.text(field) for field in fields if field.number == FUNCTION_INPUT)
        for field in fields:
            if field.number == FUNCTION_NODE:
                self._node(field, names)

    def _node(self, field: Field, names: Names) -> None:
        node = read_node(self._message, field.start, field.stop)
        names.defined.update(self._message.text(part) for part in self._message.fields(field.start, field.stop) if part.number == NODE_OUTPUT)
        if node.kind == CONSTANT:
            self._tensor(node.output, names)
        for attribute in node.attributes:
            name, graphs = nested_graphs(self._message, attribute)
            for graph in graphs:
                self.graph(graph, self._scopes.of_attribute(names.scope, node, name), names)

    def _tensor(self, name: str, names: Names) -> None:
        names.defined.add(name)
        key = names.scope + name
        if key not in self._fates:
            return
        fate = self._fates[key]
        new = local_name(fate.key, names.scope) if fate else None
        if new != name:
            names.own[name] = new

    def _text(self, field: Field, number: int) -> str:
        return next((self._message.text(part) for part in self._message.fields(field.start, field.stop) if part.number == number), "")


def local_name(key: str, scope: str) -> str:
    """The name in its graph of a tensor with this key. Raises PlanError with code `key-not-storable`."""
    name = key.removeprefix(scope)
    if scope and name == key:
        raise PlanError(
            f"`{key}` belongs to a nested graph or function of the model, and its key has to begin with `{scope}`",
            code="key-not-storable",
            help="`rename` only what comes after that",
        )
    if not name or not _is_utf8(name):
        raise PlanError(f"onnx cannot hold the name {name!a}", code="key-not-storable", help="`rename` or `drop` it")
    return name


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
