"""A recipe: from text to checked steps, each with its place in the file.

The order is: YAML → parameters → `${…}` → the steps' models → what steps can say without a checkpoint. All faults of a recipe
are reported together. Nothing here opens a checkpoint.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from surgery import steps as registry
from surgery.errors import RecipeError, SurgeryError, gather, near
from surgery.located import LITERAL_KEYS, Document, parse
from surgery.model_faults import faults_of, place
from surgery.models import Field, Model, ValidationError
from surgery.parameters import resolve
from surgery.steps.base import Step
from surgery.steps.load import Load
from surgery.steps.save import Save
from surgery.template import fill, references

Path = tuple[str | int, ...]


class Head(Model):
    """The top level of a recipe. Steps are checked one by one, each by its own model."""

    VERSION: ClassVar[int] = 1

    surgery: int = Field(description="version of the recipe language: 1")
    name: str = Field("", description="a short name")
    description: str = Field("", description="what the recipe is for")
    params: dict[str, dict[str, Any]] = Field({}, description="name → JSON Schema of its value")
    env: list[str] = Field([], description="environment variables that ${env.NAME} may read")
    steps: list[dict[str, Any]] = Field(min_length=1, description="the steps, in order")


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
    return head


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


def _step(document: Document, index: int, raw: Any, unresolved: set[Path]) -> tuple[StepItem | None, list[SurgeryError]]:
    path: Path = ("steps", index)
    words = [word for word in raw if word != "name"]
    label = raw.get("name", "")
    if len(words) != 1:
        return None, [_not_one_word(document, path, words)]
    if not isinstance(label, str):
        return None, [RecipeError("`name` wants text", code="bad-value", help="put it in quotes").located(document.where((*path, "name")))]
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


def _not_one_word(document: Document, path: Path, words: Sequence[str]) -> SurgeryError:
    slips = [word for word in words if word not in registry.WORDS and near(word, ["name"])]
    if slips:
        error = RecipeError(f"a step has no option `{slips[0]}`", code="unknown-option", help="did you mean `name`?")
        return error.located(document.where((*path, slips[0]), key=True))
    error = RecipeError(
        "a step is one word with its options", code="bad-step", help="write `- rename: {match: a, to: b}`; `name:` may stand beside it"
    )
    return error.located(document.where((*path, words[1]), key=True) if len(words) > 1 else document.where(path))


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
