"""Values that parameters take from other files where none is given: `default: {from: 'config.json#/num_attention_heads'}`.

Serves the reading of recipes, between the values that are given and `${…}`. What storage holds is asked through `Storage`; which formats
keep metadata, and where, is none of its business.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from surgery.directives import Directive, Place, at_pointer
from surgery.errors import CorruptFile, NotFoundError, RecipeError, SourceError, SurgeryError
from surgery.formats.base import Disk
from surgery.located import Document
from surgery.parameters import about, settled, value_fault
from surgery.template import fill, references

_MOST_BYTES = 16 << 20


class Storage(NamedTuple):
    """What may be looked at: files, and the metadata of the checkpoint at a path (raises SurgeryError)."""

    disk: Disk
    metadata: Callable[[str], Mapping[str, str]]


class _Absent(Exception):
    """There is nothing at a place; the text tells what was looked for where."""


def look_up(
    directives: Mapping[str, Directive],
    schemas: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Any],
    document: Document,
    storage: Storage,
    load: str,
) -> tuple[dict[str, Any], list[SurgeryError]]:
    """The values of the parameters that have these directives, and all faults. Places may need `values`, and what is found at others.

    Files are looked for beside the checkpoint at `load`, which may have `${…}` in it; "" where there is none.
    """
    search = _Search(schemas, dict(values), load, storage)
    found: dict[str, Any] = {}
    faults: list[SurgeryError] = []
    waiting = dict(directives)
    while waiting and not faults:
        ready = [name for name, wanted in waiting.items() if not search.needs(wanted) & waiting.keys()]
        for name in ready:
            try:
                found[name] = search.values[name] = search.value(name, waiting[name])
            except SurgeryError as error:
                faults.append(error.located(document.where(("params", name, *error.at))))
        if not ready:
            faults += [_circular(name, min(search.needs(wanted) & waiting.keys()), document) for name, wanted in waiting.items()]
        waiting = {name: wanted for name, wanted in waiting.items() if name not in ready}
    return found, faults


def _circular(name: str, needed: str, document: Document) -> RecipeError:
    return RecipeError(
        f"where `{name}` has its value depends on `{needed}`, and in the end on itself",
        code="bad-schema",
        help=f"name the file outright, or pass a value: `-p {name}=…`",
    ).located(document.where(("params", name, "default")))


class _Search:
    """One run of `look_up`; what was read stays, as several parameters mostly stand in one file."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]], values: dict[str, Any], load: str, storage: Storage) -> None:
        self.values = values
        self._schemas = schemas
        self._load = load
        self._storage = storage
        self._contents: dict[str, Any] = {}
        self._metadata: dict[str, Mapping[str, str]] = {}

    def needs(self, wanted: Directive) -> set[str]:
        """The names of the values that its places are made of."""
        names = {name for place in wanted.places for text in place.parts for name in references(text)}
        names |= {place.file for place in wanted.places if self._names_parameter(place)}
        return names | references(self._load) if any(place.relative for place in wanted.places) else names

    def _names_parameter(self, place: Place) -> bool:
        return place.key is not None and place.file in self._schemas

    def value(self, name: str, wanted: Directive) -> Any:
        """What stands at the first place that there is, or the fallback. Raises SurgeryError, also where that does not fit the schema."""
        schema = self._schemas[name]
        absent: list[str] = []
        for index, place in enumerate(wanted.places):
            try:
                value = self._fitting(name, place)
                if value is not None or not value_fault(None, schema):
                    return value
                absent.append(f"{place.text} is null")
            except _Absent as nothing:
                absent.append(str(nothing))
            except SurgeryError as error:
                error.at = ("default", "from", index) if wanted.many else ("default", "from")
                raise
        if wanted.fallback:
            return settled(wanted.fallback[0], schema)
        help = f"pass it: `-p {name}=…`"
        notes = [*about(name, schema), *dict.fromkeys(absent)]
        raise RecipeError(f"the parameter `{name}` has no value", code="missing-param", notes=notes, help=help, data={"param": name})

    def _fitting(self, name: str, place: Place) -> Any:
        """What stands at a place, null whether it fits or not."""
        schema = self._schemas[name]
        value = self._from_file(place) if place.key is None else self._from_metadata(place, place.key, schema)
        fault = "" if value is None else value_fault(value, schema)
        if fault:
            notes = [*about(name, schema), f"this stands at {place.text}"]
            raise RecipeError(f"the parameter `{name}`: {fault}", code="bad-param", notes=notes, help=f"pass another: `-p {name}=…`")
        return settled(value, schema)

    def _from_file(self, place: Place) -> Any:
        path = self._filled(place.file)
        if place.relative:
            if not self._load:
                raise _Absent(f"no checkpoint is loaded that {path} could lie beside")
            path = posixpath.join(self._folder(self._filled(self._load)), path)
        pointer = self._filled(place.pointer or "")
        try:
            return at_pointer(self._content(path), pointer)
        except KeyError:
            raise _Absent(f"{path} has no `{pointer}`") from None

    def _folder(self, checkpoint: str) -> str:
        disk = self._storage.disk
        if disk.is_folder(checkpoint):
            return checkpoint
        whole = disk.is_file(checkpoint) or "#" not in checkpoint
        return posixpath.dirname(checkpoint if whole else checkpoint.rpartition("#")[0])

    def _content(self, path: str) -> Any:
        if path not in self._contents:
            if not self._storage.disk.is_file(path):
                raise _Absent(f"there is no {self._nearest_absent(path)}")
            self._contents[path] = read_json(path, self._storage.disk)
        return self._contents[path]

    def _nearest_absent(self, path: str) -> str:
        """A file that is not there, or the folder that it would need."""
        folder = posixpath.dirname(path)
        return f"folder {folder}" if folder and not self._storage.disk.is_folder(folder) else path

    def _from_metadata(self, place: Place, key: str, schema: Mapping[str, Any]) -> Any:
        path = self._text(place.file, self.values.get(place.file)) if self._names_parameter(place) else self._filled(place.file)
        key = self._filled(key)
        if path not in self._metadata:
            try:
                self._metadata[path] = self._storage.metadata(path)
            except NotFoundError:
                raise _Absent(f"there is no checkpoint {path}") from None
        text = self._metadata[path].get(key)
        if text is None:
            raise _Absent(f"{path} has no metadata `{key}`")
        value = _plain(text)
        if place.pointer is not None:
            pointer = self._filled(place.pointer)
            try:
                return at_pointer(value, pointer)
            except KeyError:
                raise _Absent(f"the metadata `{key}` of {path} has no `{pointer}`") from None
        return text if value_fault(value, schema) else value

    def _filled(self, text: str) -> str:
        filled, open_paths = fill({"from": text}, self.values)
        if open_paths:
            raise _Absent(f"`{min(references(text) - self.values.keys())}`, which {text} needs, has no value")
        return self._text(text, filled["from"])

    def _text(self, what: str, value: Any) -> str:
        if value is None:
            raise _Absent(f"`{what}` has no value")
        if not isinstance(value, str):
            raise RecipeError(f"`{what}` is {json.dumps(value)[:80]}, not a path", code="bad-param", help="pass the path of a checkpoint")
        return value


def _plain(text: str) -> Any:
    """The text of metadata as JSON, which most formats keep; other text is itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def read_json(path: str, disk: Disk) -> Any:
    """The content of a small JSON file.

    Raises:
        CorruptFile: it is no JSON; the note tells where.
        SourceError: it is too large (`not-a-file`), or cannot be read.
    """
    file, read = disk.open(path)
    if file.nbytes > _MOST_BYTES:
        raise SourceError(f"{path} is too large to be read for a value", code="not-a-file", notes=[f"{file.nbytes:,} bytes"])
    try:
        return json.loads(read(0, file.nbytes))
    except json.JSONDecodeError as error:
        raise CorruptFile(f"{path} is no JSON", notes=[f"{path}:{error.lineno}:{error.colno}: {error.msg}"], help="correct the file") from None
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} is no JSON", notes=[str(error)], help="correct the file") from None
