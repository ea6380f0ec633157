"""What a step is: the YAML fields as a model, and one pure `rewrite` from state to state.

A step never sees data and never opens a file: it names what it `reads`, and finds the headers of that in the catalog.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from surgery.errors import RecipeError, SurgeryError
from surgery.formats.base import Indexed
from surgery.table import Table
from surgery.tasks import Check
from surgery.tensors import TensorSpec

TEMPLATE_PATTERN = r"\$\{"


Rules = tuple[dict[str, Any], ...]


class Model(BaseModel):
    """The base of everything that is read from YAML: strict types, unknown words refused, frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)

    RULES: ClassVar[Rules] = ()
    """JSON Schema of what a class demands of its fields together, made of `given` and `absent`; holds for subclasses too."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        for name, field in schema.get("properties", {}).items():
            schema["properties"][name] = or_template(field)
        if isinstance(schema.get("additionalProperties"), dict):
            schema["additionalProperties"] = or_template(schema["additionalProperties"])
        rules = [rule for base in reversed(cls.__mro__) for rule in vars(base).get("RULES", ())]
        return schema | ({"allOf": rules} if rules else {})


def given(*names: str) -> dict[str, Any]:
    """The schema of a mapping in which all of these fields have a value."""
    return {"required": list(names), "properties": {name: {"not": {"type": "null"}} for name in names}}


def absent(*names: str) -> dict[str, Any]:
    """The schema of a mapping in which none of these fields has a value."""
    return {"properties": {name: {"type": "null"} for name in names}}


def or_template(schema: dict[str, Any]) -> dict[str, Any]:
    """A field's schema that also takes text with a `${…}` in it, since that is replaced before types are checked."""
    if schema.get("type") == "string" and not {"enum", "const", "pattern"} & set(schema):
        return schema
    about = {"description", "title", "default"}
    bare = {key: value for key, value in within(schema).items() if key not in about}
    described = {key: value for key, value in schema.items() if key in about}
    return {**described, "anyOf": [bare, {"type": "string", "pattern": TEMPLATE_PATTERN}]}


def within(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema with `or_template` for the values inside it: list items and values of mappings."""
    inside: dict[str, Any] = {}
    for word, value in schema.items():
        if word in ("items", "additionalProperties") and isinstance(value, dict):
            inside[word] = or_template(value)
        else:
            inside[word] = [within(branch) for branch in value] if word == "anyOf" else value
    return inside


class OneOrMany:
    """Annotation for a list field that may also be written as its single item."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(lambda value: [value] if isinstance(value, dict) else value, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


class Wanted(NamedTuple):
    """One tensor of a target spec. `spec` is None where the target tells names only."""

    spec: TensorSpec | None
    init: str | Mapping[str, Any] | None = None


class Reads(NamedTuple):
    """A path that has to be probed before planning; `at` is the field that names it."""

    path: str
    format: str | None
    target_spec: bool
    at: tuple[str | int, ...]


class Catalog(NamedTuple):
    """All that was learnt from headers: checkpoints and target specs, by the path as the recipe writes it."""

    checkpoints: Mapping[str, Indexed]
    targets: Mapping[str, Mapping[str, Wanted]]


class Output(NamedTuple):
    """A save: what the table was at that point, and how it is to be written."""

    step: int
    path: str
    format: str
    table: Table
    metadata: Mapping[str, str | None]
    options: Mapping[str, Any]
    overwrite: bool
    carry: tuple[str, ...]
    edit: Mapping[str, Mapping[str, Any]]


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


class Step(BaseModel):
    """A step of a recipe. Fields are the YAML fields, the docstring is the help text.

    Steps written as a mapping derive from `Step` and `Model`, those written as a list from `Step` and pydantic's RootModel.
    """

    model_config = ConfigDict(strict=True, frozen=True, defer_build=True)
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
