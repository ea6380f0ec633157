"""A fresh `PREFIX.meta` (MetaGraphDef) for a bundle: its variables and a Saver, so that `import_meta_graph` and `restore` need no program.

The graph has for each tensor a resource variable with an initializer of zeros and, as `tf.train.Saver` makes them, the ops that save and restore
all of them. Bytes depend on the tensors alone. Source: TensorFlow, core/protobuf/{meta_graph,saver}.proto, core/framework/{graph,node_def,attr_value,
tensor,variable}.proto; python/training/saver.py for names.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from surgery.errors import listed
from surgery.expr import Expr
from surgery.formats.tf_entries import NUMBERS
from surgery.formats.tf_object_graph import GRAPH_KEY
from surgery.formats.wire_write import field
from surgery.tensors import TensorSpec

_GRAPH, _SAVER, _COLLECTIONS = 2, 3, 4
_STRING = NUMBERS["string"]
_PRODUCER = 134
"""The version of graphs that TensorFlow 1.15 writes; all later ones read it."""
_MOST_KEPT, _HOURS, _V2 = field(4, 5), b"\x35" + struct.pack("<f", 10_000), field(7, 2)
"""What a Saver has unless told otherwise: five checkpoints, one more every 10,000 hours, of the second version."""
_ODD = re.compile(r"[^A-Za-z0-9_./-]")
_FIRST = re.compile(r"[A-Za-z0-9.]")
_HELPERS = ("Initializer/zeros", "IsInitialized/VarIsInitializedOp", "Assign", "Read/ReadVariableOp")
"""What the nodes that go with a variable are called below it."""
_NO_VARIABLE = frozenset({"variant", "qint16", "quint16", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz"})
"""Types for which TensorFlow 2.21 has no AssignVariableOp, or no constant."""
_TRAINABLE = frozenset({"float", "complex"})
"""Kinds of types: the bundle does not tell which of its tensors were trained."""


class Variable(NamedTuple):
    """`key` is what the bundle calls it, `name` its node, which is the same unless no node can be called so."""

    key: str
    name: str
    spec: TensorSpec

    @property
    def number(self) -> int:
        """TensorFlow's number of its type."""
        return NUMBERS[self.spec.dtype.name]

    @property
    def is_trainable(self) -> bool:
        """Whether its kind of type is one that is trained."""
        return self.spec.dtype.kind in _TRAINABLE


def variables_of(tensors: Mapping[str, Expr]) -> list[Variable]:
    """The variables of a graph for these tensors, in their order; object graphs are none, nor are tensors of a few types."""
    names = {key: _plain(key) for key, expr in tensors.items() if key != GRAPH_KEY and expr.spec.dtype.name not in _NO_VARIABLE}
    wanted = frozenset(names.values())
    taken: set[str] = set()
    return [Variable(key, _free(name, wanted, taken), tensors[key].spec) for key, name in names.items()]


def _plain(key: str) -> str:
    """The key with nothing in it that the name of a node cannot have."""
    plain = _ODD.sub("_", key)
    return plain if _FIRST.match(plain) else f"v{plain}"


def _free(plain: str, wanted: frozenset[str], taken: set[str]) -> str:
    """This name, or with a number one that nothing else has or wants, neither for a variable nor for a node that goes with one."""
    name, number = plain, 0
    while name in taken or (number and name in wanted) or any(f"{name}/{helper}" in wanted for helper in _HELPERS):
        number += 1
        name = f"{plain}_{number}"
    taken.add(name)
    return name


def graph_notes(tensors: Mapping[str, Expr], variables: Sequence[Variable]) -> list[str]:
    """What a user has to know of the graph: tensors without a variable, and variables that could not be called as their tensors."""
    having = {variable.key for variable in variables}
    lacking = [key for key in tensors if key not in having]
    renamed = [f"{variable.name} for `{variable.key}`" for variable in variables if variable.name != variable.key]
    return [
        *([f"the graph has no variable for {listed(lacking)}: TensorFlow cannot have them in one"] if lacking else []),
        *([f"the graph has other names where none of its nodes can have the key: {listed(renamed)}"] if renamed else []),
    ]


def meta_graph(variables: Sequence[Variable]) -> bytes:
    """The bytes of the MetaGraphDef."""
    scope = _saver_scope(variables)
    nodes = [*(node for variable in variables for node in _variable_nodes(variable)), *_saver_nodes(scope, variables)]
    graph = b"".join([*(field(1, node) for node in nodes), field(4, field(1, _PRODUCER))])
    saver = field(1, f"{scope}/Const:0") + field(2, f"{scope}/control_dependency:0") + field(3, f"{scope}/restore_all")
    saver += _MOST_KEPT + _HOURS + _V2
    trainable = [variable for variable in variables if variable.is_trainable]
    collections = _collection("trainable_variables", trainable) + _collection("variables", variables)
    return field(_GRAPH, graph) + field(_SAVER, saver) + collections


def _saver_scope(variables: Sequence[Variable]) -> str:
    scopes = {variable.name.partition("/")[0] for variable in variables}
    name, number = "save", 0
    while name in scopes:
        number += 1
        name = f"save_{number}"
    return name


def _node(name: str, op: str, inputs: Iterable[str] = (), **attributes: bytes) -> bytes:
    """A NodeDef; attributes in the order of their names."""
    pairs = (field(1, key) + field(2, attributes[key]) for key in sorted(attributes))
    return b"".join([field(1, name), field(2, op), *(field(3, each) for each in inputs), *(field(5, pair) for pair in pairs)])


def _type(number: int) -> bytes:
    return field(6, number)


def _types(numbers: Iterable[int]) -> bytes:
    return field(1, b"".join(field(6, number) for number in numbers))


def _shape(shape: tuple[int, ...]) -> bytes:
    return b"".join(field(2, field(1, size)) for size in shape)


def _constant(name: str, number: int, shape: tuple[int, ...], texts: Sequence[bytes] = ()) -> bytes:
    """A Const; without values TensorFlow takes zeros, however many, or empty strings."""
    value = field(1, number) + field(2, _shape(shape)) + b"".join(field(8, text) for text in texts)
    return _node(name, "Const", dtype=_type(number), value=field(8, value))


def _variable_nodes(variable: Variable) -> Iterator[bytes]:
    name, number, shape = variable.name, variable.number, variable.spec.shape
    zeros, is_initialized, assign, read = (f"{name}/{helper}" for helper in _HELPERS)
    yield _constant(zeros, number, shape)
    yield _node(name, "VarHandleOp", dtype=_type(number), shape=field(7, _shape(shape)), shared_name=field(2, name), container=field(2, ""))
    yield _node(is_initialized, "VarIsInitializedOp", [name])
    yield _node(assign, "AssignVariableOp", [name, zeros], dtype=_type(number))
    yield _node(read, "ReadVariableOp", [name], dtype=_type(number))


def _saver_nodes(scope: str, variables: Sequence[Variable]) -> Iterator[bytes]:
    """The ops of a Saver; without variables nothing is saved, and nothing restored."""
    keys = [variable.key.encode("utf-8", "surrogateescape") for variable in variables]
    types = _types(variable.number for variable in variables)
    prefix = f"{scope}/Const"
    yield _constant(f"{scope}/filename/input", _STRING, (), [b"model"])
    for name, value in ((f"{scope}/filename", f"{scope}/filename/input"), (prefix, f"{scope}/filename")):
        yield _node(name, "PlaceholderWithDefault", [value], dtype=_type(_STRING), shape=field(7, b""))
    saved, restored = f"{scope}/SaveV2", f"{scope}/RestoreV2"
    for op in (saved, restored) if keys else ():
        yield _constant(f"{op}/tensor_names", _STRING, (len(keys),), keys)
        yield _constant(f"{op}/shape_and_slices", _STRING, (len(keys),), [b""] * len(keys))
    lists = [[prefix, f"{op}/tensor_names", f"{op}/shape_and_slices"] for op in (saved, restored)]
    if keys:
        yield _node(saved, "SaveV2", [*lists[0], *(f"{variable.name}/Read/ReadVariableOp" for variable in variables)], dtypes=types)
        yield _node(restored, "RestoreV2", lists[1], dtypes=types)
    yield _node(f"{scope}/control_dependency", "Identity", [prefix, *([f"^{saved}"] if keys else [])], T=_type(_STRING))
    assigned = []
    for number, variable in enumerate(variables):
        value, assign = f"{scope}/Identity_{number}", f"{scope}/AssignVariableOp_{number}"
        yield _node(value, "Identity", [f"{restored}:{number}" if number else restored], T=_type(variable.number))
        yield _node(assign, "AssignVariableOp", [variable.name, value], dtype=_type(variable.number))
        assigned.append(f"^{assign}")
    yield _node(f"{scope}/restore_all", "NoOp", assigned)


def _collection(name: str, variables: Sequence[Variable]) -> bytes:
    """An entry of the collections: a list of VariableDefs."""
    items = b"".join(field(1, _definition(variable)) for variable in variables)
    return field(_COLLECTIONS, field(1, name) + field(2, field(2, items))) if variables else b""


def _definition(variable: Variable) -> bytes:
    name = variable.name
    definition = field(1, f"{name}:0") + field(2, f"{name}/Assign") + field(3, f"{name}/Read/ReadVariableOp:0") + field(5, 1)
    definition += field(6, f"{name}/Initializer/zeros:0")
    return definition + field(7, int(variable.is_trainable))
