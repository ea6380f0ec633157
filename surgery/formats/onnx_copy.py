"""A copy of an ONNX model with other tensors: fields that need no change keep their bytes, unknown ones included. Serves the writing of ONNX.

The copy is a `Rope`, in which tensors and untouched ranges of the model stand for their bytes. Messages that change get new lengths, nothing else.
Source: onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from surgery.errors import UnsupportedFeature
from surgery.expr import Expr
from surgery.formats.onnx_graph import (
    ANNOTATION,
    ATTRIBUTE_GRAPHS,
    ATTRIBUTE_TENSOR,
    ATTRIBUTE_TENSORS,
    CONSTANT,
    FUNCTION_NAME,
    FUNCTION_NODE,
    FUNCTION_OUTPUT,
    FUNCTION_VALUE_INFO,
    FUNCTIONS,
    GRAPH,
    INITIALIZER,
    INPUT,
    METADATA,
    NODE,
    NODE_ATTRIBUTE,
    NODE_INPUT,
    NODE_OUTPUT,
    OUTPUT,
    VALUE_INFO,
    Node,
    Scopes,
    nested_graphs,
    read_node,
)
from surgery.formats.onnx_names import Fate, Names
from surgery.formats.onnx_tensors import NUMBERS, read_pair, stored_nbytes
from surgery.formats.wire import Field, Message
from surgery.formats.wire_write import field as written
from surgery.formats.wire_write import head
from surgery.tensors import TensorSpec


class Range(NamedTuple):
    """Bytes `start` to `stop` of the model as they are."""

    start: int
    stop: int


class Data(NamedTuple):
    """The stored bytes of a tensor."""

    key: str
    expr: Expr


class Rope:
    """Bytes that are mostly elsewhere: parts in order, and how many bytes they have together."""

    def __init__(self, *parts: bytes | Range | Data) -> None:
        self.parts: list[bytes | Range | Data] = []
        self.nbytes = 0
        for part in parts:
            self.add(part)

    def add(self, part: bytes | Range | Data) -> None:
        """Put one part at the end."""
        self.parts.append(part)
        self.nbytes += stored_nbytes(part.expr) if isinstance(part, Data) else part.stop - part.start if isinstance(part, Range) else len(part)

    def join(self, other: Rope) -> None:
        """Put all of another rope at the end."""
        self.parts += other.parts
        self.nbytes += other.nbytes

    def as_field(self, number: int) -> Rope:
        """A field with this as its message."""
        rope = Rope(head(number, self.nbytes))
        rope.join(self)
        return rope


GONE = Rope()
Edit = Callable[[Field], Rope | None]
"""What stands in the place of a field, None for the field itself."""
Outside = Callable[[str, Expr, bool], "dict[str, str] | None"]
"""Where the external data of an initializer will be, None to keep it in the model; given its key, its values, and if it was outside before."""

_NAME, _LOCATION = 8, 14
_REPLACED = frozenset({1, 2, 4, 5, 6, 7, _NAME, 9, 10, 11, 13, _LOCATION})
"""The fields of a TensorProto that tell its type, shape, name and values."""


class Copy:
    """A model on its way into a copy. `users` are dropped tensors that something still needs, with what that is; found while copying."""

    def __init__(
        self,
        message: Message,
        fates: Mapping[str, Fate | None],
        names: Mapping[str, Names],
        metadata: Mapping[str, str],
        outside: Outside,
    ) -> None:
        self.users: dict[str, str] = {}
        self._message = message
        self._fates = fates
        self._names = names
        self._metadata = dict(metadata)
        self._outside = outside
        self._scopes = Scopes()

    def model(self) -> Rope:
        """The whole file."""
        rope = self._edited(0, self._message.nbytes, self._model_field) or Rope(Range(0, self._message.nbytes))
        for key, value in self._metadata.items():
            rope.add(written(METADATA, written(1, key) + written(2, value)))
        return rope

    def _model_field(self, field: Field) -> Rope | None:
        if field.number == GRAPH:
            return self._graph(field, "")
        if field.number == FUNCTIONS:
            return self._function(field)
        if field.number == METADATA:
            key, value = read_pair(self._message, field)
            if self._metadata.get(key) != value:
                return GONE
            del self._metadata[key]
        return None

    def _edited(self, start: int, stop: int, edit: Edit) -> Rope | None:
        """The message at `start` to `stop` with its fields edited; None where all stay."""
        rope, kept_from, at, is_same = Rope(), start, start, True
        for field in self._message.fields(start, stop):
            new = edit(field)
            if new is not None:
                is_same = False
                rope.add(Range(kept_from, at))
                rope.join(new)
                kept_from = field.stop
            at = field.stop
        if is_same:
            return None
        rope.add(Range(kept_from, stop))
        return rope

    def _edited_field(self, field: Field, edit: Edit) -> Rope | None:
        rope = self._edited(field.start, field.stop, edit)
        return rope.as_field(field.number) if rope else None

    def _graph(self, field: Field, scope: str) -> Rope | None:
        names = self._names[scope]

        def edit(part: Field) -> Rope | None:
            if part.number == NODE:
                return self._node(part, names)
            if part.number == INITIALIZER:
                return self._initializer(part, names)
            if part.number in (INPUT, VALUE_INFO):
                return self._declaration(part, names)
            if part.number == OUTPUT:
                return self._edited_field(part, lambda fact: self._use(fact, names, "an output of the graph") if fact.number == 1 else None)
            return self._annotation(part, names) if part.number == ANNOTATION else None

        return self._edited_field(field, edit)

    def _function(self, field: Field) -> Rope | None:
        own = next((self._message.text(part) for part in self._message.fields(field.start, field.stop) if part.number == FUNCTION_NAME), "")
        names = self._names[self._scopes.of("", own)]

        def edit(part: Field) -> Rope | None:
            if part.number == FUNCTION_NODE:
                return self._node(part, names)
            if part.number == FUNCTION_OUTPUT:
                return self._use(part, names, f"an output of the function `{own}`")
            return self._declaration(part, names) if part.number == FUNCTION_VALUE_INFO else None

        return self._edited_field(field, edit)

    def _node(self, field: Field, names: Names) -> Rope | None:
        node = read_node(self._message, field.start, field.stop)
        is_tensor = node.kind == CONSTANT and names.scope + node.output in self._fates
        if is_tensor and self._fates[names.scope + node.output] is None:
            return GONE

        def edit(part: Field) -> Rope | None:
            if part.number == NODE_INPUT and names.seen:
                return self._use(part, names, f"node {node}")
            if part.number == NODE_OUTPUT and is_tensor:
                return self._use(part, names, f"node {node}")
            return self._attribute(part, names, node) if part.number == NODE_ATTRIBUTE else None

        return self._edited_field(field, edit)

    def _attribute(self, field: Field, names: Names, node: Node) -> Rope | None:
        name, graphs = nested_graphs(self._message, field)
        scopes = {graph.start: self._scopes.of_attribute(names.scope, node, name) for graph in graphs}

        def edit(part: Field) -> Rope | None:
            if part.number in ATTRIBUTE_GRAPHS and part.start in scopes:
                return self._graph(part, scopes[part.start])
            if part.number == ATTRIBUTE_TENSOR and node.kind == CONSTANT:
                return self._tensor(part, names.scope + node.output, None)
            if part.number in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS) and self._is_outside(part):
                raise UnsupportedFeature(
                    f"node {node} of {self._message.path} has external data of its own", help="save it again with the onnx package"
                )
            return None

        return self._edited_field(field, edit)

    def _use(self, field: Field, names: Names, user: str) -> Rope | None:
        """A field with the name of a value. A tensor that is dropped is remembered with its user."""
        name = self._message.text(field)
        new = names.seen.get(name, name)
        if new is None:
            self.users.setdefault(name, user)
        return Rope(written(field.number, new)) if new is not None and new != name else None

    def _initializer(self, field: Field, names: Names) -> Rope | None:
        name = self._name(field, _NAME)
        if name in names.own and names.own[name] is None:
            return GONE
        return self._tensor(field, names.scope + name, names.own.get(name, name))

    def _tensor(self, field: Field, key: str, name: str | None) -> Rope | None:
        """A TensorProto under another name (None: its own, which means nothing in a Constant), with other values, or with these elsewhere."""
        fate = self._fates.get(key)
        if fate is None:
            return None
        was_outside = self._is_outside(field)
        place = self._outside(fate.key, fate.expr, was_outside)
        if not fate.changed and not was_outside and place is None:
            return self._edited_field(field, lambda part: self._renamed(part, name) if part.number == _NAME else None)
        return self._made(field, fate, name, place)

    def _is_outside(self, tensor: Field) -> bool:
        return any(part.number == _LOCATION and part.value == 1 for part in self._message.fields(tensor.start, tensor.stop))

    def _renamed(self, field: Field, name: str | None) -> Rope | None:
        return None if name is None or self._message.text(field) == name else Rope(written(field.number, name))

    def _made(self, field: Field, fate: Fate, name: str | None, place: Mapping[str, str] | None) -> Rope:
        spec = fate.expr.spec
        rope = Rope(*(written(1, size) for size in spec.shape), written(2, NUMBERS[spec.dtype.name]))
        if name is not None:
            rope.add(written(_NAME, name))
        rope.join(self._edited(field.start, field.stop, lambda part: GONE if part.number in _REPLACED else None) or Rope())
        if place is None:
            rope.join(Rope(Data(fate.key, fate.expr)).as_field(9))
        else:
            rope.add(b"".join(written(13, written(1, word) + written(2, text)) for word, text in place.items()) + written(_LOCATION, 1))
        return rope.as_field(field.number)

    def _declaration(self, field: Field, names: Names) -> Rope | None:
        """A ValueInfoProto, which has to tell the type that a changed tensor has now."""
        name = self._name(field, 1)
        new = names.own.get(name, name)
        if new is None:
            return GONE
        fate = self._fates.get(names.scope + name)
        spec = fate.expr.spec if fate and fate.changed else None

        def edit(part: Field) -> Rope | None:
            if part.number == 1:
                return self._renamed(part, new)
            return Rope(written(2, _type_of(spec))) if part.number == 2 and spec else None

        return self._edited_field(field, edit)

    def _annotation(self, field: Field, names: Names) -> Rope | None:
        """A TensorAnnotation: which tensors hold the scale and zero point of another one."""
        name = self._name(field, 1)
        if names.seen.get(name, name) is None:
            return GONE

        def edit(part: Field) -> Rope | None:
            if part.number == 1:
                return self._use(part, names, "")
            user = f"the quantization of `{name}`"
            return self._edited_field(part, lambda fact: self._use(fact, names, user) if fact.number == 2 else None) if part.number == 2 else None

        return self._edited_field(field, edit)

    def _name(self, field: Field, number: int) -> str:
        return next((self._message.text(part) for part in self._message.fields(field.start, field.stop) if part.number == number), "")


def _type_of(spec: TensorSpec) -> bytes:
    """A TypeProto."""
    sizes = b"".join(written(1, written(1, size)) for size in spec.shape)
    return written(1, written(1, NUMBERS[spec.dtype.name]) + written(2, sizes))
