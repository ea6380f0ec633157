"""ONNX models: initializers, the tensors of Constant nodes, and those of nested graphs. Only read.

The model is walked field by field and never held: `raw_data` and external data become byte ranges. Names of a graph's tensors are unique
in it, so they are the keys; tensors of a nested graph have the path `NODE.ATTRIBUTE/` before theirs, those of a function `FUNCTION/`.
Refused: sparse initializers, tensors in segments. Left out, with a note: graphs for training. No version is refused, since fields are
found by number. Source: onnx/onnx.proto.
"""

from __future__ import annotations

import posixpath

from surgery.errors import SourceError, UnsupportedFeature
from surgery.expr import Expr
from surgery.formats import suffixes
from surgery.formats.base import Disk, Indexed
from surgery.formats.base import read_only as layout
from surgery.formats.onnx_tensors import read_pair, read_tensor
from surgery.formats.wire import BYTES, VARINT, Message
from surgery.tensors import Fingerprint, SourceFile

__all__ = ["NAME", "OPTIONS", "SUMMARY", "index", "layout", "locate"]

NAME = "onnx"
SUMMARY = "ONNX model: initializers and constants, also of nested graphs and external data"
OPTIONS: frozenset[str] = frozenset()

_IR_VERSION, _GRAPH, _METADATA, _TRAINING, _FUNCTIONS = 1, 7, 14, 20, 25
_MODEL_FIELDS = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 14: BYTES, 20: BYTES, 25: BYTES, 26: BYTES}
_MOST_LEVELS = 32
_ABSENT = Fingerprint(-1, 0, 0, 0)


def locate(path: str, disk: Disk) -> str | None:
    """Recognise a file by its suffix, or as a message with the fields of a model and a graph among them: ONNX has no magic number."""
    if not disk.is_file(path):
        return None
    return path if path.endswith(suffixes(NAME)) or _looks_right(path, disk) else None


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
    return _GRAPH in found


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the tensors in the order of the file, graph by graph; metadata are the model's own properties.

    Raises:
        CorruptFile: a message that contradicts itself, or that has no graph; two tensors of one name; data that does not fit its shape.
        UnsupportedFeature: a sparse tensor, a tensor in segments, an element type that is not known, graphs nested without end.
        SourceError: external data is not there (code `missing-shard`); without `strict`, a note tells so.
    """
    file, read = disk.open(location)
    walk = _Walk(Message(read, file.nbytes, location), file, disk, strict)
    walk.model()
    files = (file, *(each for each in walk.outside.values() if each.nbytes >= 0))
    return Indexed(NAME, location, walk.tensors, walk.metadata, files, notes=tuple(walk.notes))


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
        self._scopes: set[str] = set()

    def model(self) -> None:
        """The whole file."""
        found = set()
        for field in self.message.fields():
            found.add(field.number)
            if field.number == _GRAPH and field.kind == BYTES:
                self._graph(field.start, field.stop, "", 0)
            elif field.number == _FUNCTIONS and field.kind == BYTES:
                self._function(field.start, field.stop)
            elif field.number == _METADATA and field.kind == BYTES:
                key, value = read_pair(self.message, field)
                self.metadata[key] = value
        if _GRAPH not in found:
            raise self.message.corrupt("it has no graph, so it is no ONNX model", 0, self.message.nbytes)
        if _TRAINING in found:
            self.notes.append("the graphs for training are left out")

    def _graph(self, start: int, stop: int, scope: str, level: int) -> None:
        if level > _MOST_LEVELS:
            raise UnsupportedFeature(f"{self.message.path} nests graphs more than {_MOST_LEVELS} deep", help="no model that is known does")
        for field in self.message.fields(start, stop):
            if field.number == 1:
                self._node(field.start, field.stop, scope, level)
            elif field.number == 5:
                self._add(field.start, field.stop, scope)
            elif field.number == 15:
                raise UnsupportedFeature(f"{self.message.path} has a sparse initializer", help="make it dense with the onnx package")

    def _function(self, start: int, stop: int) -> None:
        fields = list(self.message.fields(start, stop))
        name = next((self.message.text(field) for field in fields if field.number == 1), "")
        for field in fields:
            if field.number == 7:
                self._node(field.start, field.stop, self._scope("", name), 1)

    def _node(self, start: int, stop: int, scope: str, level: int) -> None:
        name = kind = output = ""
        attributes = []
        for field in self.message.fields(start, stop):
            if field.number == 2 and not output:
                output = self.message.text(field)
            elif field.number == 3:
                name = self.message.text(field)
            elif field.number == 4:
                kind = self.message.text(field)
            elif field.number == 5:
                attributes.append((field.start, field.stop))
        for first, last in attributes:
            self._attribute(first, last, scope, (name, output, kind), level)

    def _attribute(self, start: int, stop: int, scope: str, node: tuple[str, str, str], level: int) -> None:
        name, output, kind = node
        fields = list(self.message.fields(start, stop))
        graphs = [field for field in fields if field.number in (6, 11)]
        if kind == "Constant":
            for field in fields:
                if field.number == 5:
                    self._add(field.start, field.stop, scope, output)
        if not graphs:
            return
        attribute = next((self.message.text(field) for field in fields if field.number == 1), "")
        for field in graphs:
            inner = self._scope(scope, f"{name or output}.{attribute}")
            self._graph(field.start, field.stop, inner, level + 1)

    def _scope(self, outer: str, name: str) -> str:
        """The path of a nested graph; a number makes it another one where nodes share a name, as ONNX allows."""
        scope, number = f"{outer}{name}/", 1
        while scope in self._scopes:
            number += 1
            scope = f"{outer}{name}_{number}/"
        self._scopes.add(scope)
        return scope

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
