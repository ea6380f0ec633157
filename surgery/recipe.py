"""A recipe: from text to checked steps, each with its place in the file.

The order is: YAML → parameters → `${…}` → the steps' models → what steps can say without a checkpoint. All faults of a recipe
are reported together. Nothing here opens a checkpoint.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from surgery import steps as registry
from surgery.errors import RecipeError, SurgeryError, Where, gather, near
from surgery.located import LITERAL_KEYS, Document, parse
from surgery.parameters import resolve
from surgery.steps.base import Model, Step
from surgery.steps.load import Load
from surgery.steps.save import Save
from surgery.template import fill, references

Path = tuple[str | int, ...]


class Head(Model):
    """The top level of a recipe. Steps are checked one by one, each by its own model."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, title="surgery recipe")
    VERSION: ClassVar[int] = 1

    surgery: int = Field(description="version of the recipe language: 1", json_schema_extra={"const": 1})
    name: str = Field("", description="a short name")
    description: str = Field("", description="what the recipe is for")
    params: dict[str, dict[str, Any]] = Field(default_factory=dict, description="name → JSON Schema of its value")
    env: list[str] = Field(default_factory=list, description="environment variables that ${env.NAME} may read")
    steps: list[dict[str, Any]] = Field(min_length=1, description="the steps, in order")

    @field_validator("surgery")
    @classmethod
    def _version(cls, value: int) -> int:
        if value != cls.VERSION:
            raise ValueError(f"this version reads recipes of version {cls.VERSION}, not {value}")
        return value


class StepItem(NamedTuple):
    """A checked step with its place."""

    step: Step
    number: int
    label: str
    document: Document

    @property
    def path(self) -> Path:
        """Where the step stands in its document."""
        return ("steps", self.number, self.step.word)

    def locate(self, error: SurgeryError) -> SurgeryError:
        """Give an error that a step raised its position and the step's name."""
        at_key = not error.at or (len(error.at) > 1 and error.at[-2] in LITERAL_KEYS and isinstance(error.at[-1], str))
        where = place(self.document, (*self.path, *error.at), error.offset, key=at_key)
        error.located(where, f"{self.step.word} steps[{self.number}]" + (f" ({self.label})" if self.label else ""))
        return error


class Recipe(NamedTuple):
    """A recipe whose steps are checked as far as that is possible without a checkpoint."""

    name: str
    document: Document
    params: Mapping[str, Any]
    steps: tuple[StepItem, ...]


def load(
    text: str | bytes,
    name: str,
    params: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    texts: Mapping[str, str] | None = None,
    lint_only: bool = False,
) -> Recipe:
    """Read a recipe.

    `params` are typed values; `texts` are those of the command line, which become numbers or lists where the schema wants it.
    With `lint_only`, parameters may lack values: what depends on them is then not checked.

    Raises:
        RecipeError: every fault that needs no checkpoint, together (`others`).
    """
    document = parse(text, name)
    head = _head(document)
    values, regex_params, faults = resolve(head.params, params or {}, texts or {}, document, required=not lint_only)
    environment = environment or {}
    values |= {f"env.{key}": environment[key] for key in head.env if key in environment}
    values["recipe.dir"] = posixpath.dirname(name) or "."
    faults += _undeclared(document, head)
    if faults:
        raise gather(faults)
    try:
        filled, unresolved = fill(document.data["steps"], values, regex_params=regex_params)
    except RecipeError as error:
        raise error.located(place(document, ("steps", *error.at), error.offset, key=bool(error.data.get("key")))) from None
    items: list[StepItem] = []
    for index, raw in enumerate(filled):
        open_paths = {path[1:] for path in unresolved if path and path[0] == index}
        if open_paths and not lint_only:
            names = sorted({name for path in open_paths for name in references(_at(document.data["steps"][index], path))} - set(values))
            faults.append(_unset(document, index, next(iter(sorted(open_paths, key=str))), names))
            continue
        item, step_faults = _step(document, index, raw, open_paths)
        faults += step_faults
        items += [item] if item else []
    faults += _conflicts(items)
    if faults:
        raise gather(faults)
    return Recipe(head.name or posixpath.basename(name), document, values, tuple(items))


def _at(data: Any, path: Path) -> str:
    for part in path:
        data = data[part]
    return str(data)


def _unset(document: Document, index: int, path: Path, names: Sequence[str]) -> RecipeError:
    return RecipeError(
        f"`{names[0] if names else path}` has no value",
        code="missing-param",
        help="set the environment variable" if names and names[0].startswith("env.") else "pass it with `-p name=value`",
    ).located(place(document, ("steps", index, *path)))


def _head(document: Document) -> Head:
    if not isinstance(document.data, dict):
        raise RecipeError("a recipe is a mapping", help="start with `surgery: 1` and `steps:`").located(document.where(()))
    try:
        if isinstance(document.data.get("surgery"), bool):
            raise RecipeError("`surgery` is the version number 1", code="bad-value").located(document.where(("surgery",)))
        return Head.model_validate(document.data)
    except ValidationError as error:
        raise gather(faults_of(error, document, (), Head)) from None


def _undeclared(document: Document, head: Head) -> list[SurgeryError]:
    known = {*head.params, *(f"env.{name}" for name in head.env), "recipe.dir"}
    faults: list[SurgeryError] = []
    for path, text in _scalars(document.data["steps"], ("steps",)):
        try:
            unknown = sorted(references(text) - known)
        except RecipeError as error:
            error.located(place(document, path, error.offset))
            faults.append(error)
            continue
        for name in unknown:
            close = near(name, known)
            help = f"did you mean `${{{close[0]}}}`?" if close else f"declare it: `params: {{{name}: {{type: string}}}}`; a literal is `$${{{name}}}`"
            if name.startswith("env."):
                help = f"list it: `env: [{name.removeprefix('env.')}]`"
            faults.append(RecipeError(f"no parameter is called `{name}`", code="unknown-param", help=help).located(place(document, path)))
    return faults


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


def _step(document: Document, index: int, raw: Any, unresolved: set[Path]) -> tuple[StepItem | None, list[SurgeryError]]:
    path: Path = ("steps", index)
    words = [word for word in raw if word != "name"]
    label = raw.get("name", "")
    if len(words) != 1 or not isinstance(label, str):
        error = RecipeError(
            "a step is one word with its options", code="bad-step", help="write `- rename: {match: a, to: b}`; `name:` may stand beside it"
        )
        return None, [error.located(document.where((*path, words[1]), key=True) if len(words) > 1 else document.where(path))]
    word = words[0]
    try:
        model = registry.by_word(word)
    except KeyError:
        close = near(word, registry.WORDS)
        help = (f"did you mean `{close[0]}`? " if close else "") + "`surgery steps` lists them all"
        return None, [RecipeError(f"no step is called `{word}`", code="unknown-step", help=help).located(document.where((*path, word), key=True))]
    try:
        step = model.model_validate(raw[word])
    except ValidationError as error:
        found = faults_of(error, document, (*path, word), model)
        hidden = {(*path, *place_) for place_ in unresolved}
        return None, [fault for fault in found if not any(_within(fault.at, place_) for place_ in hidden)]
    item = StepItem(step, index, label, document)
    return item, [] if unresolved else [item.locate(fault) for fault in step.lint()]


def _within(at: Path, open_path: Path) -> bool:
    """A fault at or above an unresolved `${…}` says nothing yet."""
    return at[: len(open_path)] == open_path or open_path[: len(at)] == at


def _conflicts(items: Iterable[StepItem]) -> list[SurgeryError]:
    """Two saves to one path, and loading what the recipe itself saves."""
    saved: dict[str, StepItem] = {}
    faults: list[SurgeryError] = []
    for item in items:
        if not isinstance(item.step, (Load, Save)):
            continue
        path = posixpath.normpath(item.step.path)
        if path in saved:
            what = "saved twice" if isinstance(item.step, Save) else "loaded after this recipe saves it"
            error = RecipeError(
                f"`{item.step.path}` is {what}",
                code="path-conflict",
                at=("path",),
                notes=[f"first saved by steps[{saved[path].number}] at {saved[path].document.where(saved[path].path, key=True)}"],
                help="save under another path" if isinstance(item.step, Save) else "go on with the table, or use two recipes",
            )
            faults.append(item.locate(error))
        elif isinstance(item.step, Save):
            saved[path] = item
    return faults


def place(document: Document, path: Path, offset: int | None = None, *, key: bool = False) -> Where:
    """The position of a path, where parts that the models add (list wrappers, union tags) are passed over."""
    node: Any = document.data
    real: list[str | int] = []
    for part in path:
        if _inside(node, part):
            node = node[part]
            real.append(part)
    return document.where(tuple(real), key=key, offset=offset)


def _inside(node: Any, part: str | int) -> bool:
    return (isinstance(node, dict) and part in node) or (isinstance(node, list) and isinstance(part, int) and part < len(node))


_KINDS = {
    "string": "text",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "mapping": "a mapping",
}


def faults_of(error: ValidationError, document: Document, base: Path, model: type[BaseModel]) -> list[SurgeryError]:
    """What pydantic found, as recipe errors: one for each place, in the order of the file."""
    grouped: dict[Path, list[Any]] = {}
    for detail in error.errors(include_url=False, include_context=True):
        path = _real_path(document.data, (*base, *detail["loc"]))
        grouped.setdefault(path, []).append(detail)
    faults: list[SurgeryError] = []
    for path, details in grouped.items():
        if any(other[: len(path)] == path and other != path for other in grouped) and all(detail["type"].endswith("_type") for detail in details):
            continue  # the branch of a union that the value was never meant for; the fault lies deeper
        fault = _fault(path, details, document, base, model)
        fault.at = path
        faults.append(fault)
    return sorted(faults, key=lambda fault: (fault.where.line, fault.where.column) if fault.where else (0, 0))


def _real_path(data: Any, path: Path) -> Path:
    """The path without union tags and wrapper indexes; a last part that is not in the file (a missing field) stays."""
    real: list[str | int] = []
    for position, part in enumerate(path):
        if _inside(data, part):
            data = data[part]
            real.append(part)
        elif position == len(path) - 1 and isinstance(data, dict) and isinstance(part, str) and "[" not in part and part not in _KINDS:
            real.append(part)
    return tuple(real)


def _fault(path: Path, details: list[Any], document: Document, base: Path, model: type[BaseModel]) -> RecipeError:
    kinds = [detail["type"] for detail in details]
    name = path[-1] if path else ""
    subject = f"item {name} of `{path[-2]}`" if isinstance(name, int) and len(path) > 1 else f"`{name}`"
    if "extra_forbidden" in kinds:
        words = _fields(model)
        close = near(str(name), words)
        where = document.where(path, key=True)
        owner = f"`{base[-1]}`" if base else "a recipe"
        help = f"did you mean `{close[0]}`?" if close else f"{owner} knows {', '.join(words)}"
        return RecipeError(f"{owner} has no option `{name}`", code="unknown-option", help=help).located(where)
    if "missing" in kinds:
        owner = f"`{path[-2]}`" if len(path) > 1 and isinstance(path[-2], str) else f"`{base[-1]}`" if base else "the recipe"
        return RecipeError(f"{owner} lacks `{name}`", code="missing-option", help=f"add `{name}:`").located(document.where(path[:-1]))
    wanted = list(dict.fromkeys(_KINDS[kind.split("_")[0]] for kind in kinds if kind.split("_")[0] in _KINDS and kind.endswith("_type")))
    if wanted and len(wanted) == len({*kinds}):
        return RecipeError(f"{subject} wants {' or '.join(wanted)}", code="bad-value", notes=_about(model, name)).located(document.where(path))
    detail = details[-1]
    message = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"][:1].lower() + detail["msg"][1:]
    return RecipeError(message if detail["type"] == "value_error" else f"{subject}: {message}", code="bad-value", notes=_about(model, name)).located(
        document.where(path)
    )


def _fields(model: type[BaseModel]) -> list[str]:
    """The words a model knows; for a list of rules those of a rule."""
    fields = model.model_fields
    if list(fields) == ["root"]:
        from typing import get_args

        rule = get_args(fields["root"].annotation)
        return _fields(rule[0]) if rule else []
    return [field.alias or name for name, field in fields.items()]


def _about(model: type[BaseModel], name: str | int) -> list[str]:
    """What the model says about a field."""
    fields = model.model_fields.items()
    return [f"`{name}`: {field.description}" for field_name, field in fields if (field.alias or field_name) == name and field.description]
