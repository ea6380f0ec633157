"""ONNX models: initializers, the tensors of Constant nodes, and those of nested graphs. Writing, into a copy of a model, is in `onnx_layout`.

The model is walked field by field, and its tensors are never held: `raw_data` and external data become byte ranges. Names of a graph's tensors
are unique in it, so they are the keys; tensors of a nested graph have the path `NODE.ATTRIBUTE/` before theirs, those of a function `FUNCTION/`.
Refused: tensors in segments. Left out, with a note: sparse initializers, graphs for training. No version is refused, since fields are
found by number. Source: onnx/onnx.proto.
"""

from __future__ import annotations

import posixpath

from surgery.errors import SourceError, UnsupportedFeature, listed, plural
from surgery.expr import Expr
from surgery.formats import suffixes
from surgery.formats.base import Disk, Indexed
from surgery.formats.onnx_graph import (
    ATTRIBUTE_TENSOR,
    CONSTANT,
    FUNCTION_NAME,
    FUNCTION_NODE,
    FUNCTIONS,
    GRAPH,
    INITIALIZER,
    METADATA,
    NODE,
    SPARSE,
    TRAINING,
    Node,
    Scopes,
    nested_graphs,
    read_node,
)
from surgery.formats.onnx_layout import layout as layout
from surgery.formats.onnx_skeleton import skeleton_of
from surgery.formats.onnx_tensors import DTYPE_NAMES, read_pair, read_tensor
from surgery.formats.wire import BYTES, VARINT, Field, Message
from surgery.tensors import Fingerprint, SourceFile

__all__ = ["NAME", "OPTIONS", "READS", "SUMMARY", "index", "layout", "locate"]

NAME = "onnx"
SUMMARY = "ONNX model: initializers and constants, also of nested graphs and external data"
OPTIONS = frozenset({"model", "external_data"})
READS = DTYPE_NAMES

_MODEL_FIELDS = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 14: BYTES, 20: BYTES, 25: BYTES, 26: BYTES}
_MOST_LEVELS = 32
_ABSENT = Fingerprint(-1, 0, 0, 0)


def locate(path: str, disk: Disk) -> str | None:
    """Recognise a file by its suffix, or as a message with the fields of a model and a graph among them: ONNX has no magic number.

    Raises:
        SourceError: a folder with several models; code `ambiguous-source`.
    """
    if disk.is_folder(path):
        return _only_model(path, disk)
    if not disk.is_file(path):
        return None
    return path if path.endswith(suffixes(NAME)) or _looks_right(path, disk) else None


def _only_model(folder: str, disk: Disk) -> str | None:
    names = [name for name in disk.names(folder) if name.endswith(suffixes(NAME))]
    if len(names) > 1:
        help = f"name one: {posixpath.join(folder, names[0])}"
        raise SourceError(f"{folder} holds {len(names)} ONNX models", code="ambiguous-source", notes=[listed(names)], help=help)
    return posixpath.join(folder, names[0]) if names else None


def _looks_right(path: str, disk: Disk) -> bool:
    file, read = disk.open(path)
    if not file.nbytes or read(0, 1) != b"\x08":  # the version, which every writer puts first
        return False
    found = set()
    try:
        for field in Message(read, file.nbytes, path).fields():
            found.add(field.number)
            if _MODEL_FIELDS.get(field.number) != field.kind:
                return False
    except SourceError:
        return False
    return GRAPH in found


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the tensors in the order of the file, graph by graph; metadata are the model's own properties.

    Raises:
        CorruptFile: a message that contradicts itself, or that has no graph; two tensors of one name; data that does not fit its shape.
        UnsupportedFeature: a tensor in segments, an element type that is not known, graphs nested without end.
        SourceError: external data is not there (code `missing-shard`); without `strict`, a note tells so.
    """
    file, read = disk.open(location)
    walk = _Walk(Message(read, file.nbytes, location), file, disk, strict)
    walk.model()
    files = (file, *(each for each in walk.outside.values() if each.nbytes >= 0))
    attachments = {"skeleton": skeleton_of(file, read, walk.tensors)}
    return Indexed(NAME, location, walk.tensors, walk.metadata, files, notes=tuple(walk.notes), attachments=attachments)


class _Walk:
    """A model on the way to its table; the only state is what has been found."""

    def __init__(self, message: Message, file: SourceFile, disk: Disk, strict: bool) -> None:
        self.message = message
        self.file = file
        self.disk = disk
        self.strict = strict
        self.tensors: dict[str, Expr] = {}
        self.metadata: dict[str, str] = {}
        self.notes: list[str] = []
        self.outside: dict[str, SourceFile] = {}
        self._scopes = Scopes()
        self._sparse = 0

    def model(self) -> None:
        """The whole file."""
        found = set()
        for field in self.message.fields():
            found.add(field.number)
            if field.number == GRAPH and field.kind == BYTES:
                self._graph(field.start, field.stop, "", 0)
            elif field.number == FUNCTIONS and field.kind == BYTES:
                self._function(field.start, field.stop)
            elif field.number == METADATA and field.kind == BYTES:
                key, value = read_pair(self.message, field)
                self.metadata[key] = value
        if GRAPH not in found:
            raise self.message.corrupt("it has no graph, so it is no ONNX model", 0, self.message.nbytes)
        if TRAINING in found:
            self.notes.append("the graphs for training are left out")
        if self._sparse:
            self.notes.append(
                f"{plural(self._sparse, 'sparse initializer')} left out; a copy of the model keeps {'it' if self._sparse == 1 else 'them'}"
            )

    def _graph(self, start: int, stop: int, scope: str, level: int) -> None:
        if level > _MOST_LEVELS:
            raise UnsupportedFeature(f"{self.message.path} nests graphs more than {_MOST_LEVELS} deep", help="no model that is known does")
        for field in self.message.fields(start, stop):
            if field.number == NODE:
                self._node(field.start, field.stop, scope, level)
            elif field.number == INITIALIZER:
                self._add(field.start, field.stop, scope)
            elif field.number == SPARSE:
                self._sparse += 1

    def _function(self, start: int, stop: int) -> None:
        fields = list(self.message.fields(start, stop))
        scope = self._scopes.of("", next((self.message.text(field) for field in fields if field.number == FUNCTION_NAME), ""))
        for field in fields:
            if field.number == FUNCTION_NODE:
                self._node(field.start, field.stop, scope, 1)

    def _node(self, start: int, stop: int, scope: str, level: int) -> None:
        node = read_node(self.message, start, stop)
        for attribute in node.attributes:
            self._attribute(attribute, scope, node, level)

    def _attribute(self, attribute: Field, scope: str, node: Node, level: int) -> None:
        if node.kind == CONSTANT:
            for field in self.message.fields(attribute.start, attribute.stop):
                if field.number == ATTRIBUTE_TENSOR:
                    self._add(field.start, field.stop, scope, node.output)
        name, graphs = nested_graphs(self.message, attribute)
        for field in graphs:
            self._graph(field.start, field.stop, self._scopes.of_attribute(scope, node, name), level + 1)

    def _add(self, start: int, stop: int, scope: str, name: str = "") -> None:
        name, expr = read_tensor(self.message, self.file, start, stop, self._open, name)
        if scope + name in self.tensors:
            raise self.message.corrupt(f"two tensors are called `{scope + name}`", start, stop)
        self.tensors[scope + name] = expr

    def _open(self, location: str, name: str) -> SourceFile:
        if location not in self.outside:
            self.outside[location] = self._opened(posixpath.join(posixpath.dirname(self.message.path), location), name)
        return self.outside[location]

    def _opened(self, path: str, name: str) -> SourceFile:
        if self.disk.is_file(path):
            return self.disk.open(path)[0]
        title = f"{path}, which {self.message.path} keeps data in, is not there"
        if self.strict:
            raise SourceError(title, code="missing-shard", notes=[f"it should hold `{name}`"], help="copy or download what is missing")
        self.notes.append(title)
        return SourceFile(path, _ABSENT)
