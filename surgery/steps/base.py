"""What a step is: the YAML fields as a model, and one pure `rewrite` from state to state.

A step never sees data and never opens a file: it names what it `reads`, and finds the headers of that in the catalog.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from surgery.data_files import Parse
from surgery.errors import RecipeError, SurgeryError
from surgery.formats.base import Indexed
from surgery.models import Model
from surgery.table import Table
from surgery.tasks import Check
from surgery.tensors import TensorSpec

Rules = tuple[dict[str, Any], ...]
"""JSON Schema of what a class demands of its fields together, made of `given` and `absent`: its `RULES`, which hold for subclasses too."""


def given(*names: str) -> dict[str, Any]:
    """The schema of a mapping in which all of these fields have a value."""
    return {"required": list(names), "properties": {name: {"not": {"type": "null"}} for name in names}}


def absent(*names: str) -> dict[str, Any]:
    """The schema of a mapping in which none of these fields has a value."""
    return {"properties": {name: {"type": "null"} for name in names}}


class Wanted(NamedTuple):
    """One tensor of a target spec. `spec` is None where the target tells names only."""

    spec: TensorSpec | None
    init: str | Mapping[str, Any] | None = None


class Reads(NamedTuple):
    """A path that has to be probed before planning; `at` is the field that names it, `root` are parts of which the first is meant that exists.

    With `parse` it is a small file of data.
    """

    path: str
    format: str | None
    target_spec: bool
    at: tuple[str | int, ...]
    root: tuple[str, ...] = ()
    parse: Parse | None = None


class Found(NamedTuple):
    """A checkpoint that a path stands for, by its path in the catalog; `prefix` begins the keys of the part of it that is meant."""

    path: str
    prefix: str = ""


class Catalog(NamedTuple):
    """All that was learnt from headers: checkpoints and target specs by their paths.

    `found` has what a path stands for that is several files, or of which a part is meant; any other stands for itself.
    `contents` are those of small files of data, by path and by what parsed them.
    """

    checkpoints: Mapping[str, Indexed]
    targets: Mapping[str, Mapping[str, Wanted]]
    found: Mapping[Reads, tuple[Found, ...]] = {}
    contents: Mapping[tuple[str, Parse], Any] = {}

    def of(self, reads: Reads) -> tuple[Found, ...]:
        """The checkpoints that are meant, in their order."""
        return self.found.get(reads, (Found(reads.path),))


class Output(NamedTuple):
    """A save: what the table was at that point, and how it is to be written.

    `in_place` is the location of the loaded checkpoint whose files are to get other keys where they lie, "" for an output of its own.
    """

    step: int
    path: str
    format: str
    table: Table
    metadata: Mapping[str, str | None]
    options: Mapping[str, Any]
    overwrite: bool
    carry: tuple[str, ...]
    edit: Mapping[str, Mapping[str, Any]]
    manifest: bool = True
    in_place: str = ""


class Dropped(NamedTuple):
    """Keys that a step removed on purpose."""

    step: int
    keys: tuple[str, ...]


class State(NamedTuple):
    """What a step gets and gives: the table, and the records that grow beside it.

    `faults` are errors that do not make the rest of the plan meaningless; planning goes on and reports them together.
    """

    table: Table
    catalog: Catalog
    step: int = 0
    outputs: tuple[Output, ...] = ()
    checks: tuple[Check, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    faults: tuple[SurgeryError, ...] = ()
    notes: tuple[str, ...] = ()

    def fault(self, error: SurgeryError) -> State:
        """This state with one more fault."""
        return self._replace(faults=(*self.faults, error))

    def lost(self, keys: Sequence[str]) -> State:
        """This state, remembering that the step took these keys away."""
        return self._replace(dropped=(*self.dropped, Dropped(self.step, tuple(keys)))) if keys else self

    def rows(self, table: Table) -> State:
        """This state with another table."""
        return self._replace(table=table)


class Step(Model):
    """A step of a recipe. Fields are the YAML fields, the docstring is the help text."""

    word: ClassVar[str]
    example: ClassVar[str] = "{match: …}"
    """The options that help shows; a text that was given instead of a mapping is put in for the `…`."""

    def lint(self) -> Iterator[RecipeError]:
        """Faults that need no checkpoint. Only called when every `${…}` of the step has a value."""
        yield from ()

    def reads(self) -> Iterator[Reads]:
        """The paths whose headers the planner needs."""
        yield from ()

    def rewrite(self, state: State) -> State:
        """What the table becomes. Raises SurgeryError where planning cannot go on."""
        raise NotImplementedError
