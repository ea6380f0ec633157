"""A recipe: from text to checked steps, each with its place in the file.

The order is: YAML → parameters → `${…}` → the steps' models → what steps can say without a checkpoint. A `use` gives way to the
steps of the recipe it names, which is read in the same order. All faults are reported together. Nothing here opens a checkpoint.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from surgery import library
from surgery.defaults import Storage, look_up
from surgery.directives import directive, is_directive
from surgery.errors import RecipeError, SurgeryError, Where, gather, near
from surgery.head import Head, Path, head_of, undeclared
from surgery.items import StepItem, conflicts, read_step, told
from surgery.library import Source
from surgery.located import Document, parse
from surgery.manifest import Evidence
from surgery.model_faults import place
from surgery.parameters import about, resolve
from surgery.steps.load import Load
from surgery.steps.use import Use
from surgery.template import fill, references

MOST_DEEP = 16
MOST_USES = 1000

Find = Callable[[str, str], Source]
"""What finds the recipe that a `use` names, seen from the folder of the one that asks."""


class Used(NamedTuple):
    """A recipe as one `use` had it."""

    document: Document
    params: Mapping[str, Any]


class Recipe(NamedTuple):
    """A recipe whose steps are checked as far as that is possible without a checkpoint.

    `used` are those it is made of besides itself; `evidence` is what was learnt of storage while values of parameters were looked up.
    """

    name: str
    document: Document
    params: Mapping[str, Any]
    steps: tuple[StepItem, ...]
    used: tuple[Used, ...] = ()
    evidence: Evidence = Evidence({})


def load(
    text: str | bytes,
    name: str,
    params: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    texts: Mapping[str, str] | None = None,
    find: Find = library.find,
    lint_only: bool = False,
    storage: Storage | None = None,
) -> Recipe:
    """Read a recipe.

    `params` are typed values; `texts` are those of the command line, which become numbers or lists where the schema wants it.
    `find` gives the texts of the recipes that it uses. With `lint_only`, parameters may lack values: what depends on them is then not
    checked. So do those that stand in other files where no `storage` is given.

    Raises:
        RecipeError: every fault that needs no checkpoint, together (`others`).
    """
    document = parse(text, name)
    head = head_of(document)
    values, patterns, faults = resolve(head.params, params or {}, texts or {}, document, required=not lint_only)
    faults += undeclared(document, head)
    if faults:
        raise gather(faults)
    reading = _Reading(environment or {}, find, lint_only, storage)
    values |= reading.surroundings(document, head)
    found, faults = reading.looked_up(document, head, values)
    if faults:
        raise gather(faults)
    scope = _Scope(document, head, values | found, patterns)
    reading.steps(scope)
    faults = [*reading.faults, *conflicts(reading.items)]
    if faults:
        raise gather(faults)
    return Recipe(head.name or posixpath.basename(name), document, scope.values, tuple(reading.items), tuple(reading.used))


class _Scope(NamedTuple):
    """A document that is read, with the values that stand for its `${…}`; for a used one also the `use` and the scope of that.

    `waiting` are parameters whose value in `with` has no value itself, each with its place in the step that is the `use`;
    `sought` are those that stand in no file where their default says, with what was looked for where.
    """

    document: Document
    head: Head
    values: Mapping[str, Any]
    patterns: frozenset[str]
    use: StepItem | None = None
    user: _Scope | None = None
    waiting: Mapping[str, Path] = {}
    sought: Mapping[str, Sequence[str]] = {}

    @property
    def used_by(self) -> tuple[Where, ...]:
        """The `use` steps that lead here, the nearest first."""
        return (self.use.where, *self.use.used_by) if self.use else ()

    @property
    def chain(self) -> list[str]:
        """The names of the documents from the recipe itself to this one."""
        return [*(self.user.chain if self.user else ()), posixpath.normpath(self.document.name)]

    def label(self, own: str) -> str:
        """What a step is called in messages: by the label of the `use` too."""
        return " / ".join(label for label in (self.use.label if self.use else "", own) if label)


class _Reading:
    """One run of `load`: the steps of all documents in order, and all faults."""

    def __init__(self, environment: Mapping[str, str], find: Find, lint_only: bool, storage: Storage | None) -> None:
        self.environment = environment
        self.find = find
        self.lint_only = lint_only
        self.storage = storage
        self.items: list[StepItem] = []
        self.used: list[Used] = []
        self.faults: list[SurgeryError] = []
        self.count = 0

    def surroundings(self, document: Document, head: Head) -> dict[str, Any]:
        """The values that are no parameters."""
        told = {f"env.{key}": self.environment[key] for key in head.env if key in self.environment}
        return {**told, "recipe.dir": posixpath.dirname(document.name) or "."}

    def looked_up(
        self, document: Document, head: Head, values: Mapping[str, Any], without: Set[str] = frozenset()
    ) -> tuple[dict[str, Any], list[SurgeryError]]:
        """The values of parameters that stand in other files, and all faults; `without` are the steps of the document that are left out."""
        if self.storage is None:
            return {}, []
        wanted = {name: found for name, schema in head.params.items() if name not in values and (found := directive(schema))}
        own = [raw["load"].get("path") for raw in document.data["steps"] if isinstance(raw.get("load"), dict) and not without & _names(raw)]
        before = [item.step.path for item in reversed(self.items) if isinstance(item.step, Load)]
        load = next((path for path in (*own, *before) if isinstance(path, str)), "")
        return look_up(wanted, head.params, values, document, self.storage, load)

    def steps(self, scope: _Scope, without: Set[str] = frozenset()) -> set[str]:
        """Read the steps of a document but those in `without`; returns which of these there are."""
        left_out: set[str] = set()
        for index, raw in enumerate(scope.document.data["steps"]):
            named = without & _names(raw)
            left_out |= named
            if named:
                continue
            try:
                filled, unresolved = fill(raw, scope.values, regex_params=scope.patterns)
            except RecipeError as error:
                where = place(scope.document, ("steps", index, *error.at), error.offset, key=bool(error.data.get("key")))
                self.faults.append(told(error.located(where), scope.used_by))
                continue
            if not self.lacks_value(scope, index, unresolved):
                left_out |= self.step(scope, index, filled, unresolved, without)
        return left_out

    def step(self, scope: _Scope, index: int, raw: Any, unresolved: set[Path], without: Set[str]) -> set[str]:
        """Check a step and take it in; for a `use`, read what it names, and return what `without` leaves out there."""
        step, faults = read_step(scope.document, index, raw, unresolved)
        self.faults += [told(fault, scope.used_by) for fault in faults]
        number, self.count = self.count, self.count + (not isinstance(step, Use))
        if step is None:
            return set()
        item = StepItem(step, number, scope.label(raw.get("name", "")), scope.document, index, scope.used_by)
        waiting = {str(path[2]): path for path in unresolved if _in_with(path)}
        found = [] if len(unresolved) > len(waiting) else [item.locate(fault) for fault in step.lint()]
        self.faults += found
        if not isinstance(step, Use):
            self.items.append(item)
            return set()
        return self.use(item, step, scope, waiting, without) if not found and len(waiting) == len(unresolved) else set()

    def use(self, item: StepItem, use: Use, scope: _Scope, waiting: Mapping[str, Path], without: Set[str]) -> set[str]:
        """Read the recipe that a `use` names; returns what `without` leaves out there."""
        before = len(self.faults)
        try:
            source = self.found(use.recipe, scope)
        except RecipeError as error:
            error.at = ("recipe",)
            self.faults.append(item.locate(error))
            return set()
        try:
            inner = self.opened(source, item, use, scope, waiting, without | use.left_out)
        except SurgeryError as error:
            self.faults += [told(fault, (item.where, *item.used_by)) for fault in _apart(error)]
            return set()
        self.used.append(Used(inner.document, inner.values))
        left_out = self.steps(inner, without | use.left_out)
        if len(self.faults) == before:
            self.faults += [item.locate(_nothing_left_out(word, use, inner.document)) for word in sorted(use.left_out - left_out)]
        return left_out

    def found(self, reference: str, scope: _Scope) -> Source:
        """The text of a recipe to be used. Raises RecipeError where there is none, or where this would never end."""
        source = self.find(reference, posixpath.dirname(scope.document.name))
        chain = scope.chain
        if posixpath.normpath(source.name) in chain:
            circle = " → ".join([*chain[chain.index(posixpath.normpath(source.name)) :], posixpath.normpath(source.name)])
            raise RecipeError("a recipe uses itself", code="use-cycle", notes=[circle], help="take one of these `use` away")
        if len(chain) > MOST_DEEP or len(self.used) >= MOST_USES:
            limit = f"{MOST_USES:,} recipes" if len(self.used) >= MOST_USES else f"{MOST_DEEP} recipes in a row"
            raise RecipeError(f"more than {limit} are used", code="use-limit", help="put their steps into fewer files")
        return source

    def opened(self, source: Source, item: StepItem, use: Use, user: _Scope, waiting: Mapping[str, Path], without: Set[str]) -> _Scope:
        """The scope of a used recipe. Raises SurgeryError with all faults of its top level and of `with`, and of files that it takes values from."""
        document = parse(source.text, source.name)
        head = head_of(document)
        given = {name: value for name, value in use.with_.items() if name not in waiting}
        values, patterns, faults = resolve(head.params, use.with_, {}, document, required=False)
        faults = [fault for fault in faults if fault.code != "bad-param" or fault.data["param"] not in waiting]
        for fault in faults:
            if fault.data.get("param") in use.with_:
                _blame_with(fault, item)
        faults += undeclared(document, head)
        if faults:
            raise gather(faults)
        known = {name: value for name, value in values.items() if name in given or name not in use.with_}
        known |= self.surroundings(document, head)
        found, faults = self.looked_up(document, head, {**dict.fromkeys(use.with_), **known}, without)
        sought = {fault.data["param"]: fault.notes for fault in faults if fault.code == "missing-param"}
        if len(sought) < len(faults):
            raise gather([fault for fault in faults if fault.code != "missing-param"])
        return _Scope(document, head, known | found, patterns, item, user, waiting, sought)

    def lacks_value(self, scope: _Scope, index: int, unresolved: Iterable[Path]) -> bool:
        """Whether a step cannot be read since a `${…}` has no value; reports that, once for each parameter of a `use`."""
        for path in sorted(unresolved, key=str):
            fault = None if _in_with(path) else self.unset(scope, index, path)
            if fault is not None:
                known = {(other.title, other.where) for other in self.faults}
                self.faults += [fault] if (fault.title, fault.where) not in known else []
                return True
        return False

    def unset(self, scope: _Scope, index: int, path: Path) -> SurgeryError | None:
        """The fault of a text without a value, at the `use` that should have given it; None where a lint may pass over it."""
        raw = scope.document.data["steps"][index]
        name = min(_references(raw, path) - set(scope.values))
        if scope.user is None or scope.use is None or name not in scope.head.params:
            return None if self.lint_only else told(_unset(scope.document, index, path, name), scope.used_by)
        if name in scope.waiting:
            return self.unset(scope.user, scope.use.position, scope.waiting[name])
        if self.lint_only and is_directive(scope.head.params[name]):
            return None
        options = scope.user.document.data["steps"][scope.use.position][Use.word]
        wanted = scope.document.where(("steps", index, *path))
        return scope.use.locate(_not_given(scope, name, wanted, "with" if "with" in options else "recipe"))


def _names(raw: Mapping[str, Any]) -> set[str]:
    """What `without` may call a step: its word and its label."""
    return {text for text in (*(word for word in raw if word != "name"), raw.get("name")) if isinstance(text, str)}


def _in_with(path: Path) -> bool:
    return path[:2] == (Use.word, "with")


def _references(raw: Any, path: Path) -> frozenset[str]:
    """The names that the text at a path uses, or the mapping key there."""
    value = raw
    for part in path:
        value = value[part]
    return references(str(path[-1])) | (references(value) if isinstance(value, str) else frozenset())


def _unset(document: Document, index: int, path: Path, name: str) -> RecipeError:
    return RecipeError(
        f"`{name}` has no value",
        code="missing-param",
        help="set the environment variable" if name.startswith("env.") else "pass it with `-p name=value`",
    ).located(place(document, ("steps", index, *path)))


def _not_given(scope: _Scope, name: str, wanted: Where, option: str) -> RecipeError:
    return RecipeError(
        f"the parameter `{name}` of {scope.document.name} has no value",
        code="missing-param",
        at=(option,),
        notes=[*scope.sought.get(name, about(name, scope.head.params[name])), f"wanted at {wanted}"],
        help=f"give it, `with: {{{name}: …}}`, or leave out the step that wants it, such as `without: [load, save]`",
    )


def _nothing_left_out(word: str, use: Use, document: Document) -> RecipeError:
    known = sorted({name for raw in document.data["steps"] for name in _names(raw)})
    close = near(word, known)
    return RecipeError(
        f"{document.name} has no step `{word}` to be left out",
        code="nothing-matched",
        at=("without",) if isinstance(use.without, str) else ("without", use.without.index(word)),
        help=f"did you mean `{close[0]}`?" if close else f"its steps are {', '.join(known)}",
    )


def _blame_with(fault: SurgeryError, use: StepItem) -> None:
    """Move a parameter's fault from where it is declared to the `with` that gives it."""
    unknown = fault.code == "unknown-param"
    declared = f"declared at {fault.where}" if fault.where else ""
    fault.where = use.document.where((*use.path, "with", fault.data["param"]), key=unknown)
    fault.notes = tuple(note for note in (*fault.notes, declared) if note)
    fault.help = fault.help if unknown else "give another value"


def _apart(error: SurgeryError) -> list[SurgeryError]:
    """All faults of one exception, each for itself."""
    faults = [error, *error.others]
    error.others = ()
    return faults
