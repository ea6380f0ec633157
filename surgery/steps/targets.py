"""What `init_missing` and `expect` share: the wanted tensors, from `like` or `variables`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

from surgery.dtypes import DTYPES
from surgery.errors import RecipeError
from surgery.expr import Expr
from surgery.models import Field, Model, model_validator
from surgery.select import Selector, select
from surgery.steps.base import Reads, Rules, State, Step, Wanted, absent, given
from surgery.steps.mismatch import Misfit, target_misfit
from surgery.steps.paths import impossible_path
from surgery.table import Entry, Table, Trail
from surgery.tensors import TensorSpec
from surgery.where import Path, unknown_dtype

NO_SPEC = TensorSpec(DTYPES["variant"], ())
Init = str | dict[str, Any]


class Variable(Model):
    """One wanted tensor."""

    shape: list[Annotated[int, Field(ge=0)]] = Field(description="sizes of the axes; [] is a scalar")
    dtype: str = Field("float32", description="element type")
    init: Init | None = Field(None, description="how to make it where it is missing")


class Blank(Expr):
    """A tensor of which only the spec is known: a row of a target spec while it is being selected from."""

    __slots__ = ()

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.children = ()


class Targets(Step, Selector):
    """A target spec: another checkpoint (headers only), or variables spelled out."""

    RULES: ClassVar[Rules] = ({"anyOf": [{"allOf": [given("like"), absent("variables")]}, {"allOf": [given("variables"), absent("like")]}]},)

    like: str | None = Field(None, description="a checkpoint, an index, or a YAML file with `variables:`")
    variables: dict[str, Variable] | None = Field(None, min_length=1, description="key → {shape, dtype, init}")

    @model_validator
    def _one_target(self) -> Self:
        if (self.like is None) == (self.variables is None):
            raise ValueError("write either `like` or `variables`")
        return self

    def lint_targets(self) -> Iterator[RecipeError]:
        """Faults of the spelled-out variables."""
        yield from self.lint_selector()
        if self.like is not None:
            yield from impossible_path(self.like, ("like",))
        yield from lint_variables(self.variables or {}, ("variables",))

    def reads(self) -> Iterator[Reads]:
        if self.like is not None:
            yield Reads(self.like, None, True, ("like",))

    def wanted(self, state: State) -> Mapping[str, Wanted]:
        """The target spec, before any selecting."""
        if self.like is not None:
            return state.catalog.targets[self.like]
        return as_wanted(self.variables or {})

    def selected(self, state: State) -> list[str]:
        """The selected keys of the table; that a word touches nothing here is no fault, since it may be about missing keys."""
        return select(self.model_copy(optional=True, count=None, at_least=None), state).keys

    def select_wanted(self, state: State, wanted: Mapping[str, Wanted]) -> Mapping[str, Wanted]:
        """The selected part of a target spec."""
        source = "" if self.like is None or self.like.endswith((".yaml", ".yml")) else self.like
        rows = {key: Entry(Blank(target.spec or NO_SPEC), Trail(state.step, key), source) for key, target in wanted.items()}
        chosen = select(self, state.rows(Table(rows)))
        if chosen.faults:
            raise chosen.faults[0]
        return {key: wanted[key] for key in chosen.keys}

    def misfits(self, state: State, wanted: Mapping[str, Wanted]) -> Iterator[Misfit]:
        """The tensors of the table that are not as a target spec wants them."""
        for key, target in wanted.items():
            if key in state.table and target.spec is not None:
                yield from target_misfit(key, state.table[key], target.spec)

    @property
    def target_name(self) -> str:
        """What the target is called in messages."""
        return self.like or "`variables`"


def lint_variables(variables: Mapping[str, Variable], at: Path) -> Iterator[RecipeError]:
    """Unknown dtypes and initializers among spelled-out variables."""
    for key, variable in variables.items():
        if variable.dtype not in DTYPES:
            yield unknown_dtype(variable.dtype, (*at, key, "dtype"))
        if variable.init is not None:
            yield from lint_init(variable.init, (*at, key, "init"))


def lint_init(init: Init, at: Path) -> Iterator[RecipeError]:
    """The fault of an initializer that does not exist or has other options."""
    from surgery.initializers import parse

    try:
        parse(init)
    except RecipeError as error:
        error.at = (*at, *error.at)
        yield error


def as_wanted(variables: Mapping[str, Variable]) -> Mapping[str, Wanted]:
    """Spelled-out variables as a target spec."""
    return {key: Wanted(TensorSpec(DTYPES[value.dtype], tuple(value.shape)), value.init) for key, value in variables.items()}


class VariablesFile(Model):
    """A target spec in a file of its own; `surgery inspect --spec` writes one."""

    variables: dict[str, Variable] = Field(min_length=1, description="key → {shape, dtype, init}")
