"""What the models find in a document, said as faults of the recipe: in YAML's words, each with its place in the file.

Serves whoever checks plain data by a model: recipes, target specs. Knows no step and no format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from surgery.errors import RecipeError, SurgeryError, Where, near, plural
from surgery.kinds import Fault
from surgery.located import Document
from surgery.models import Model, ValidationError
from surgery.units import SIZE

Path = tuple[str | int, ...]

_KINDS = {
    "string": "text",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}


def place(document: Document, path: Path, offset: int | None = None, *, key: bool = False) -> Where:
    """The position of a path, where the index that a model adds to a single item is passed over."""
    return document.where(_real_path(document.data, path), key=key, offset=offset)


def faults_of(error: ValidationError, document: Document, base: Path, model: type[Model], what: str = "the recipe") -> list[SurgeryError]:
    """What a model found, as recipe errors: one for each place, in the order of the file.

    `model` checked the value at `base`; `what` is what messages call the document.
    """
    grouped: dict[Path, list[Fault]] = {}
    for detail in error.faults:
        path = _real_path(document.data, (*base, *detail.at), absent=detail.kind == "missing")
        grouped.setdefault(path, []).append(detail)
    faults: list[SurgeryError] = []
    for path, details in grouped.items():
        if any(other[: len(path)] == path and other != path for other in grouped) and all(detail.kind.endswith("_type") for detail in details):
            continue  # the branch of a union that the value was never meant for; the fault lies deeper
        fault = _fault(_Found(path, details, document, base, model, what))
        fault.at = path
        faults.append(fault)
    return sorted(faults, key=lambda fault: (fault.where.line, fault.where.column) if fault.where else (0, 0))


def words(model: type[Model]) -> list[str]:
    """The words a model knows; for a list of rules those of a rule."""
    if list(model.fields()) == ["root"]:
        return [word for inner in _models(model.fields()["root"].annotation) for word in words(inner)]
    return [field.alias or name for name, field in model.fields().items() if not field.rest]


def _real_path(data: Any, path: Path, *, absent: bool = False) -> Path:
    """The path without the indexes of single items; with `absent`, the last part is a field that is not in the file."""
    real: list[str | int] = []
    for part in path[:-1] if absent else path:
        if _has(data, part):
            data = data[part]
            real.append(part)
    return (*real, path[-1]) if absent else tuple(real)


def _has(data: Any, part: str | int) -> bool:
    return (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int) and part < len(data))


class _Found(NamedTuple):
    """All that a model says about one place."""

    path: Path
    details: list[Fault]
    document: Document
    base: Path
    model: type[Model]
    what: str

    @property
    def owner(self) -> str:
        """What holds the value, as messages call it."""
        names = [part for part in self.path[:-1] if isinstance(part, str)]
        return f"`{names[-1]}`" if names else self.what

    @property
    def subject(self) -> str:
        """What the value is called in messages."""
        if not self.path:
            return self.what
        return f"item {self.path[-1]} of {self.owner}" if isinstance(self.path[-1], int) else f"`{self.path[-1]}`"

    def models(self, path: Path) -> list[type[Model]]:
        """The models that may have checked the value at a path."""
        kinds: list[Any] = [self.model]
        for part in path[len(self.base) :]:
            kinds = [inner for kind in kinds for inner in _inside(kind, part)]
        return [model for kind in kinds for model in _models(kind)]

    def about(self) -> list[str]:
        """What the model says about the field, or about the field whose item it is."""
        path = self.path
        while path and isinstance(path[-1], int):
            path = path[:-1]
        fields = [item for model in self.models(path[:-1]) for item in model.fields().items()] if len(path) > len(self.base) else []
        return [f"`{path[-1]}`: {field.description}" for name, field in fields if (field.alias or name) == path[-1] and field.description][:1]


def _inside(kind: Any, part: str | int) -> Iterator[Any]:
    """The types of what stands under `part` in a value of a type; a list may also be written as its single item."""
    arguments = get_args(kind)
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _inside(arguments[0], part)
    elif origin in (Union, UnionType):
        for branch in arguments:
            yield from _inside(branch, part)
    elif origin is list:
        yield from [arguments[0]] if isinstance(part, int) else _inside(arguments[0], part)
    elif origin in (dict, Mapping):
        yield arguments[1]
    elif isinstance(kind, type) and issubclass(kind, Model):
        for name, field in kind.fields().items():
            if name == "root":
                yield from _inside(field.annotation, part)
            elif (field.alias or name) == part:
                yield field.annotation


def _models(kind: Any) -> Iterator[type[Model]]:
    """The models among the branches of a type; of a list those of its items."""
    if isinstance(kind, type) and issubclass(kind, Model):
        yield kind
    elif get_origin(kind) in (Annotated, Union, UnionType, list):
        for branch in get_args(kind):
            yield from _models(branch)


def _fault(found: _Found) -> RecipeError:
    kinds = {detail.kind for detail in found.details}
    where = found.document.where(found.path)
    if "extra_forbidden" in kinds:
        known = list(dict.fromkeys(word for model in found.models(found.path[:-1]) for word in words(model)))
        close = near(str(found.path[-1]), known)
        help = f"did you mean `{close[0]}`?" if close else f"{found.owner} knows {', '.join(known)}"
        where = found.document.where(found.path, key=True)
        return RecipeError(f"{found.owner} has no option `{found.path[-1]}`", code="unknown-option", help=help).located(where)
    if "missing" in kinds:
        help = f"add `{found.path[-1]}:`"
        return RecipeError(f"{found.owner} lacks `{found.path[-1]}`", code="missing-option", help=help).located(found.document.where(found.path[:-1]))
    exact = next((detail for detail in found.details if not detail.kind.endswith("_type")), None)
    title, help = _type_fault(found, where) if exact is None else _value_fault(found.subject, exact)
    return RecipeError(title, code="bad-value", notes=found.about(), help=help).located(where)


def _type_fault(found: _Found, where: Where) -> tuple[str, str]:
    """First line and help for a value of another type."""
    wanted = list(dict.fromkeys(_KINDS[detail.kind.removesuffix("_type")] for detail in found.details))
    value, help = found.details[0].value, ""
    written = where.text[where.column - 1 : where.column - 1 + where.width]
    example = getattr(found.model, "example", "")
    if found.path == found.base and example:
        help = f"write `{found.base[-1]}: {example.replace('…', value, 1) if isinstance(value, str) else example}`"
    elif "text" in wanted and isinstance(value, (int, float)) and "${" not in written:
        help = f"put it in quotes: '{written}'"
    return f"{found.subject} wants {' or '.join(wanted)}", help


def _value_fault(subject: str, detail: Fault) -> tuple[str, str]:
    """First line and help for a value of the right type that cannot be."""
    kind, _, value, facts = detail
    if kind == "value_error":
        return str(facts["error"]), ""
    if kind in ("too_short", "too_long"):
        number = facts["max_length"] if kind == "too_long" else facts["min_length"]
        return (
            f"{subject} wants {'at most' if kind == 'too_long' else 'at least'} {plural(number, 'item')}, not {len(value)}"
            if value
            else f"{subject} is empty"
        ), ""
    if kind == "string_pattern_mismatch":
        return (f"`{value}` is no size; write 20MB, 5GB or 2GiB" if facts["pattern"] == SIZE else f"{subject} does not fit `{facts['pattern']}`"), ""
    if kind == "greater_than_equal":
        return f"{subject} is {value}, and the least is {facts['ge']}", ""
    close = near(str(value), facts["texts"])
    *first, last = (f"`{text}`" for text in facts["texts"])
    expected = f"{', '.join(first)} or {last}" if first else last
    return f"{subject} wants {expected}", f"did you mean `{close[0]}`?" if close else ""
