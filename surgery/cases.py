"""What stands under `tests:` in a recipe: small inputs, and what is expected of the outputs. Only the form; `selftest` runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from surgery.dtypes import DTYPES
from surgery.errors import RecipeError, SurgeryError, Where
from surgery.initializers import parse
from surgery.kinds import OneOrMany
from surgery.located import Document
from surgery.model_faults import faults_of, place
from surgery.models import Field, Model, ValidationError, model_validator
from surgery.steps.base import Rules, absent
from surgery.steps.targets import Variable, lint_variables
from surgery.where import Path, unknown_dtype

COUNTED = "arange"
Shape = list[Annotated[int, Field(ge=0)]]
Positive = Annotated[float, Field(ge=0)]


class Tensor(Model):
    """A tensor of a test: its values by `fill`, or written out."""

    shape: Shape | None = Field(None, description="sizes of the axes; [] is a scalar; may be left out where values are written out")
    dtype: str = Field("float32", description="element type")
    fill: Any = Field(COUNTED, description="arange (0, 1, 2, …), {arange: 10} (from 10 on), an initializer such as {normal: {std: 1}}, or the values")

    def lint(self, at: Path) -> Iterator[RecipeError]:
        """Faults of dtype, shape and filling."""
        yield from lint_dtype(self.dtype, (*at, "dtype"))
        yield from lint_fill(self.fill, self.shape, (*at, "fill"))
        if self.shape is None and not isinstance(self.fill, (list, int, float)):
            yield RecipeError("the tensor has no shape", code="bad-shape", at=at, help="add `shape: [2, 3]`, or write the values out: `fill: [1, 2]`")


class ExpectedTensor(Model):
    """What is expected of a tensor: all that is given has to hold, to the last bit unless `rtol` or `atol` is given."""

    RULES: ClassVar[Rules] = (
        {"minProperties": 1},
        {"anyOf": [absent("values", "fill"), absent("values", "input"), absent("fill", "input")]},
    )

    shape: Shape | None = Field(None, description="sizes of the axes")
    dtype: str | None = Field(None, description="element type")
    values: Any = Field(None, description="the values, as nested lists or as one list in C order")
    fill: Any = Field(None, description="the values, said as in `inputs`")
    input: str | None = Field(None, description="the tensor of an input, by its key there, that it has the values of")
    rtol: Positive | None = Field(None, description="how far values may be off, as a part of the expected one")
    atol: Positive | None = Field(None, description="how far values may be off")

    @model_validator
    def _one_kind(self) -> Self:
        if sum(given is not None for given in (self.values, self.fill, self.input)) > 1:
            raise ValueError("`values`, `fill` and `input` exclude each other")
        return self

    def lint(self, at: Path) -> Iterator[RecipeError]:
        """Faults of dtype and values."""
        if self.dtype is not None:
            yield from lint_dtype(self.dtype, (*at, "dtype"))
        if self.values is not None:
            yield from _lint_values(self.values, self.shape, (*at, "values"))
        if self.fill is not None:
            yield from lint_fill(self.fill, self.shape, (*at, "fill"))


class Expectation(Model):
    """What is expected of a save: all of its keys, and some of its tensors."""

    keys: list[str] | None = Field(None, description="exactly these keys, in any order")
    tensors: dict[str, ExpectedTensor] = Field({}, description="key → what is expected of the tensor")


class Case(Model):
    """A test of the recipe, run by `surgery test` without weights: small inputs stand in for what is loaded."""

    RULES: ClassVar[Rules] = (
        {"anyOf": [absent("expect"), absent("error")]},
        {"anyOf": [absent("error"), {"properties": {"inverse": {"const": False}}}]},
    )

    name: str = Field(min_length=1, description="what is tested")
    params: dict[str, Any] = Field({}, description="values of parameters; paths need none")
    inputs: list[dict[str, Tensor]] = Field([], description="for each `load`, in order, key → tensor; a load of numbered files takes several")
    targets: list[dict[str, Variable]] = Field([], description="for each path of a `like`, in order, key → {shape, dtype}")
    files: dict[str, Any] = Field({}, description="files beside the inputs by their names, such as config.json: text, or JSON as a mapping or list")
    expect: Annotated[list[Expectation], Field(min_length=1), OneOrMany()] | None = Field(
        None, description="what is expected of the save, or a list with one for each; without a save of the table"
    )
    error: str | None = Field(None, description="the code of the error that is expected, such as missing-key")
    inverse: bool = Field(False, description="the inverse recipe has to give the inputs back, bit by bit")

    @model_validator
    def _one_outcome(self) -> Self:
        if self.error is not None and (self.expect is not None or self.inverse):
            raise ValueError("`error` excludes `expect` and `inverse`: there is no output then")
        return self

    def lint(self, at: Path) -> Iterator[RecipeError]:
        """Faults of tensors and targets."""
        for index, tensors in enumerate(self.inputs):
            for key, tensor in tensors.items():
                yield from tensor.lint((*at, "inputs", index, key))
        for index, variables in enumerate(self.targets):
            yield from lint_variables(variables, (*at, "targets", index))
        for index, expectation in enumerate(self.expect or ()):
            for key, expected in expectation.tensors.items():
                yield from expected.lint((*at, "expect", index, "tensors", key))


def lint_cases(document: Document) -> Iterator[SurgeryError]:
    """The faults of all tests of a recipe, each with its place."""
    for index, data in enumerate(document.data["tests"]):
        at: Path = ("tests", index)
        try:
            case = Case.model_validate(data)
        except ValidationError as error:
            yield from faults_of(error, document, at, Case)
        else:
            yield from (fault.located(place(document, fault.at)) for fault in case.lint(at))


def cases_of(document: Document) -> list[Case]:
    """The tests of a recipe in which no fault was found."""
    return [Case.model_validate(data) for data in document.data.get("tests") or ()]


class Result(NamedTuple):
    """How a test ended: `differences` say what is not as expected; where there are none it has passed."""

    recipe: str
    name: str
    where: Where
    differences: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all is as expected."""
        return not self.differences


def lint_dtype(name: str, at: Path) -> Iterator[RecipeError]:
    """The fault of a dtype that does not exist, or that no test can make values of."""
    if name not in DTYPES:
        yield unknown_dtype(name, at)
    elif not DTYPES[name].computable:
        yield RecipeError(f"a test cannot make values of {name}", code="unknown-dtype", at=at, help="use another dtype")


def lint_fill(fill: Any, shape: Sequence[int] | None, at: Path) -> Iterator[RecipeError]:
    """The fault of a filling: values that do not fit the shape, or no known initializer."""
    if isinstance(fill, (list, int, float)):
        yield from _lint_values(fill, shape, at)
    elif fill != COUNTED and counted_from(fill) is None:
        try:
            parse(fill)
        except RecipeError as error:
            error.at = (*at, *error.at)
            yield error


def counted_from(fill: Any) -> int | None:
    """Where `arange` begins; None for another filling."""
    if fill == COUNTED:
        return 0
    start = fill.get(COUNTED) if isinstance(fill, Mapping) and len(fill) == 1 else None
    return start if isinstance(start, int) and not isinstance(start, bool) and start >= 0 else None


def _lint_values(values: Any, shape: Sequence[int] | None, at: Path) -> Iterator[RecipeError]:
    found = shape_of(values)
    if found is None:
        title, help = "values are numbers, true and false, in lists of equal lengths", "write `[1, 2]` or `[[1, 2], [3, 4]]`"
        yield RecipeError(title, code="bad-shape", at=at, help=help)
    elif shape is not None and found != tuple(shape) and found != (prod(shape),):
        title = f"values of the shape {list(found)} do not fit the shape {list(shape)}"
        yield RecipeError(title, code="bad-shape", at=at, help="write them as nested lists, or as one list in C order")


def shape_of(values: Any) -> tuple[int, ...] | None:
    """The shape of nested lists of numbers; None where they are uneven or hold something else."""
    if isinstance(values, (int, float)):
        return ()
    if not isinstance(values, list):
        return None
    shapes = {shape_of(value) for value in values}
    if len(shapes) > 1 or None in shapes:
        return None
    return (len(values), *(next(iter(shapes), None) or ()))
