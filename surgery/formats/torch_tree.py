"""What a pickled value holds, laid flat: tensors by dotted path, and as metadata whatever JSON can say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import NoneType
from typing import Any, NamedTuple

from surgery.errors import listed, plural
from surgery.formats.numpy_pickle import NumpyArray
from surgery.formats.pickle_machine import Global, Stub
from surgery.formats.tape import Span
from surgery.formats.torch_objects import Storage, Tensor, Unreadable, tensor_of_array

_MOST_DEPTH = 100
_MOST_VISITS = 250_000
_MOST_CHARACTERS = 64 << 20
"""Of all paths and of all metadata; a pickle may refer to one long text any number of times."""
_LONGEST_NAME = 200
"""Of those that notes tell."""
_SCRIPTED = "__torch__."
"""Begins the classes of TorchScript archives: objects of them are modules."""
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")

Path = tuple["Path | None", str] | None
"""The way to a value: that to its container, and its name there."""


class Flat(NamedTuple):
    """The tensors and the metadata of a value, and in words what is neither."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    notes: tuple[str, ...]


def flatten(value: object, alone: str) -> Flat:
    """Lay a value flat; a value that is a tensor itself gets the key `alone`.

    Mappings, lists and the states of objects of unknown classes are looked through; of the latter, tensors only are kept. Metadata is the
    JSON of the largest parts without tensors. Raises ValueError where two tensors get one key, and for values that are too deep or too many.
    """
    walk = _Walk()
    if isinstance(value, Tensor | NumpyArray):
        walk.visit(value, (None, alone), 0)
        return Flat(walk.tensors, {}, tuple(walk.notes()))
    if walk.visit(value, None, 0) and value is not None:
        for name, child in children(value):
            walk.keep((None, name), child)
    return Flat(walk.tensors, walk.metadata, (*walk.notes(), *_roots(value, walk.tensors)))


def select(value: object, path: str) -> object:
    """The part of a value at a dotted path; at each step the longest name that fits. Raises KeyError with the names that there are."""
    while path:
        inner = dict(children(value))
        name = path
        while name not in inner and "." in name:
            name = name.rpartition(".")[0]
        if name not in inner:
            raise KeyError(list(inner))
        value, path = inner[name], path[len(name) + 1 :]
    return value


def children(value: object) -> Iterator[tuple[str, object]]:
    """The parts of a container by name, positions and other keys as text; those of an object are its state, modules without their bookkeeping."""
    if isinstance(value, Stub):
        value = _attributes(value)
    if isinstance(value, dict):
        for position, (key, child) in enumerate(value.items()):
            yield key if type(key) is str else str(key) if type(key) in (int, float, bool, NoneType) else f"?{position}", child
    elif type(value) is list or type(value) is tuple:
        for position, child in enumerate(value):
            yield str(position), child


def _attributes(stub: Stub) -> dict[Any, object]:
    state = stub.state
    if type(state) is tuple and len(state) == 2 and type(state[1]) is dict:
        state = (state[0] or {}) | state[1] if type(state[0] or {}) is dict else state[1]
    attributes = state if type(state) is dict else {}
    inner = [part for name in _MODULE_PARTS if type(part := attributes.get(name)) is dict]
    if not inner:
        return attributes | stub.items
    passing = attributes.get("_non_persistent_buffers_set")
    left_out = [name for name in passing if type(name) is str] if type(passing) is list else []
    return {name: child for part in inner for name, child in part.items() if name not in left_out}


class _Walk:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.metadata: dict[str, str] = {}
        self.unreadable: list[str] = []
        self.classes: dict[str, int] = {}
        self.unnamed = 0
        self.entered: set[int] = set()
        self.barren: set[int] = set()
        self.visits = _MOST_VISITS
        self.characters = _MOST_CHARACTERS

    def visit(self, value: object, path: Path, depth: int) -> bool:
        """Collect what is below; True where the value is plain, that is JSON can say it and no part was collected. Circles are not entered twice."""
        self.visits -= 1
        if depth > _MOST_DEPTH or self.visits < 0:
            raise ValueError(f"values nested deeper than {_MOST_DEPTH}" if depth > _MOST_DEPTH else f"more than {_MOST_VISITS:,} values")
        if value is None or isinstance(value, bool | int | float | str):
            return _is_sayable(value)
        if isinstance(value, NumpyArray):
            value = tensor_of_array(value)
        if isinstance(value, Tensor):
            self._found(path, value)
        elif isinstance(value, Unreadable):
            self.unreadable.append(f"`{self._key(path)[:_LONGEST_NAME]}` {value.reason}")
        elif id(value) not in self.entered:
            self.entered.add(id(value))
            plain = (type(value) is dict or type(value) is list or type(value) is tuple) and self._visit_parts(value, path, depth)
            if isinstance(value, Stub | Global | Storage | bytes | Span):
                self._visit_object(value, path, depth)
            self.entered.remove(id(value))
            return plain
        return False

    def _visit_parts(self, value: dict[Any, object] | list[object] | tuple[object, ...], path: Path, depth: int) -> bool:
        names = type(value) is not dict or all(type(key) in (str, int) for key in value)
        plain = [(name, child) for name, child in children(value) if self.visit(child, (path, name), depth + 1)]
        if len(plain) == len(value) and names and len({name for name, _ in plain}) == len(plain) and all(_is_sayable(name) for name, _ in plain):
            return True
        for name, child in plain:
            self.keep((path, name), child)
        return False

    def _visit_object(self, value: Stub | Global | Storage | bytes | Span, path: Path, depth: int) -> None:
        """Look for tensors in an object; once is enough where there are none, as objects know each other in circles."""
        if id(value) in self.barren:
            return
        before = len(self.tensors)
        if isinstance(value, Stub):
            for inner, child in children(value):
                self.visit(child, (path, inner), depth + 1)
        if len(self.tensors) == before:
            self.barren.add(id(value))
        name = _class_of(value)
        if not name.startswith(_SCRIPTED):
            self.classes[name] = self.classes.get(name, 0) + 1

    def keep(self, path: Path, value: object) -> None:
        """Take a plain value as metadata."""
        key = self._key(path)
        if not _is_sayable(key) or key in self.metadata:
            self.unnamed += 1
            return
        text = []
        for piece in json.JSONEncoder(ensure_ascii=False).iterencode(value):
            self._spend(len(piece))
            text.append(piece)
        self.metadata[key] = "".join(text)

    def _found(self, path: Path, tensor: Tensor) -> None:
        key = self._key(path)
        if key in self.tensors:
            raise ValueError(f"two tensors called `{key[:200]}`")
        self.tensors[key] = tensor

    def _key(self, path: Path) -> str:
        names = []
        while path is not None:
            path, name = path
            names.append(name)
            self._spend(len(name) + 1)
        return ".".join(reversed(names))

    def _spend(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            raise ValueError(f"more than {_MOST_CHARACTERS:,} characters of names and text")

    def notes(self) -> Iterator[str]:
        """What was left out, in words."""
        if self.unreadable:
            yield f"{plural(len(self.unreadable), 'tensor')} left out: {listed(self.unreadable)}"
        if self.unnamed:
            yield f"{plural(self.unnamed, 'value')} left out: their names are not UTF-8, or those of others"
        if self.classes:
            told = [f"{name} ({count:,})" if count > 1 else name for name, count in self.classes.items()]
            yield f"objects of these classes are not read, but for tensors in them: {listed(told)}"


def _class_of(value: Stub | Global | Storage | bytes | Span) -> str:
    if isinstance(value, Stub | Global):
        return value.name[:_LONGEST_NAME]
    if isinstance(value, Storage):
        return value.type_name[:_LONGEST_NAME]
    return "str" if isinstance(value, Span) and value.is_text else "bytes"


def _is_sayable(value: object) -> bool:
    """Whether a scalar can stand in UTF-8."""
    return not isinstance(value, str) or value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _roots(value: object, tensors: dict[str, Tensor]) -> Iterator[str]:
    """A note on the parts that hold tensors, if there are such parts."""
    if type(value) is dict and tensors and not any(isinstance(child, Tensor | NumpyArray) for child in value.values()):
        names = [name for name, child in children(value) if isinstance(child, dict | list | Stub)]
        told = [f"{name} ({plural(count, 'tensor')})" for name in names if (count := sum(key.startswith(f"{name}.") for key in tensors))]
        if told:
            yield f"tensors lie in {listed(told)}; `PATH#{told[0].split(' ')[0]}` reads one of them alone"
