"""The top level of a recipe: its model, and the names that stand in a `${…}` without being declared there.

Serves the reading of recipes and whoever only wants to tell what a recipe is for. Steps are not looked into.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from surgery.directives import is_directive
from surgery.errors import RecipeError, SurgeryError, gather, near
from surgery.located import Document
from surgery.model_faults import faults_of, place
from surgery.models import Field, Model, ValidationError
from surgery.template import references

Path = tuple[str | int, ...]


class Head(Model):
    """The top level of a recipe. Steps and tests are checked one by one, each by its own model."""

    VERSION: ClassVar[int] = 1

    surgery: int = Field(description="version of the recipe language: 1")
    name: str = Field("", description="a short name")
    description: str = Field("", description="what the recipe is for")
    params: dict[str, dict[str, Any]] = Field({}, description="name → JSON Schema of its value")
    env: list[str] = Field([], description="environment variables that ${env.NAME} may read")
    inverse: str = Field("", description="the recipe that does the reverse, as `use` names it")
    tests: list[dict[str, Any]] = Field([], description="self-tests, run by `surgery test` without weights")
    steps: list[dict[str, Any]] = Field(min_length=1, description="the steps, in order")


def head_of(document: Document) -> Head:
    """The top level of a recipe. Raises RecipeError with all its faults."""
    if not isinstance(document.data, dict):
        raise RecipeError("a recipe is a mapping", help="start with `surgery: 1` and `steps:`").located(document.where(()))
    try:
        head = Head.model_validate(document.data)
    except ValidationError as error:
        faults = faults_of(error, document, (), Head)
        for fault in faults:
            if fault.at[:1] == ("steps",) and len(fault.at) == 2:
                fault.help = "write a step as `- drop: {match: …}`, or take the `-` away"
        raise gather(faults) from None
    if head.surgery != Head.VERSION:
        title = f"this version reads recipes of version {Head.VERSION}, not {head.surgery}"
        raise RecipeError(title, code="bad-value").located(document.where(("surgery",)))
    if head.tests:
        from surgery.cases import lint_cases

        faults = list(lint_cases(document))
        if faults:
            raise gather(faults)
    return head


def undeclared(document: Document, head: Head) -> list[SurgeryError]:
    """A fault for each `${…}` in the steps, and in the places of defaults, that cannot be read or names nothing."""
    known = {*head.params, *(f"env.{name}" for name in head.env), "recipe.dir"}
    faults: list[SurgeryError] = []
    elsewhere = {name: {"default": {"from": schema["default"]["from"]}} for name, schema in head.params.items() if is_directive(schema)}
    for path, text in (*_scalars(elsewhere, ("params",)), *_scalars(document.data["steps"], ("steps",))):
        try:
            unknown = sorted(references(text) - known)
        except RecipeError as error:
            error.located(place(document, path, error.offset))
            faults.append(error)
            continue
        for name in unknown:
            help = _declaration(name, known, path)
            faults.append(RecipeError(f"no parameter is called `{name}`", code="unknown-param", help=help).located(place(document, path)))
    return faults


def _declaration(name: str, known: Iterable[str], path: Path) -> str:
    """What to do about a name that stands in a `${…}` at `path` and is declared nowhere."""
    if name.startswith("env."):
        return f"list it: `env: [{name.removeprefix('env.')}]`"
    close = near(name, known)
    if close:
        return f"did you mean `${{{close[0]}}}`?"
    in_template = path[-1] == "to" and path[2] in ("rename", "copy")  # there a brace is written twice
    literal = f"$${{{{{name}}}}}" if in_template else f"$${{{name}}}"
    return f"declare it: `params: {{{name}: {{type: string}}}}`; a literal is `{literal}`"


def _scalars(data: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(data, str):
        yield path, data
    elif isinstance(data, dict):
        for key, value in data.items():
            if isinstance(key, str) and "${" in key:
                yield (*path, key), key
            yield from _scalars(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _scalars(value, (*path, index))


def path_params(document: Document) -> list[str]:
    """The parameters of type string and without a default that stand nowhere but in paths."""
    elsewhere = {name for path, text in _scalars(document.data["steps"], ()) if not _is_path(path) for name in references(text)}
    params = document.data.get("params") or {}
    return [name for name, schema in params.items() if schema.get("type") == "string" and "default" not in schema and name not in elsewhere]


def _is_path(path: Path) -> bool:
    return path[-1] in ("path", "like") or "with" in path  # which hands it to another recipe
