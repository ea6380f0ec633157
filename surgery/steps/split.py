"""`split`: several tensors from one, cut along an axis."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Annotated, ClassVar, Self

from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.expr import Expr, Slice
from surgery.models import Field, model_validator
from surgery.select import Selector, select
from surgery.steps.base import Rules, State, Step, absent, given
from surgery.steps.groups import described, lint_names, put_in_place, refuse_axis, refuse_widths, result_names


class Split(Step, Selector):
    """Several tensors from one, cut along an axis. They take its place in the table; parts along the first axis are copied byte for byte."""

    word: ClassVar[str] = "split"
    example: ClassVar[str] = "{match: …, axis: 0, parts: 2, to: [a, b]}"
    RULES: ClassVar[Rules] = ({"anyOf": [{"allOf": [given("parts"), absent("sizes")]}, {"allOf": [given("sizes"), absent("parts")]}]},)

    axis: int = Field(0, description="the axis that is cut; negative ones count from the last, -1")
    parts: Annotated[int, Field(ge=1)] | None = Field(None, description="this many equal parts")
    sizes: list[Annotated[int, Field(ge=0)]] | None = Field(None, min_length=1, description="the size of each part along the axis")
    to: list[str] = Field(min_length=1, description="for each part what the match becomes, as in `rename`; without `match` its whole key")
    keep_inputs: bool = Field(False, description="keep the tensor that is split, too")

    @model_validator
    def _one_measure(self) -> Self:
        if (self.parts is None) == (self.sizes is None):
            raise ValueError("write either `parts` or `sizes`")
        return self

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        yield from lint_names(self, self.to)
        parts = self.parts or len(self.sizes or ())
        if len(self.to) != parts:
            yield RecipeError(
                f"`to` has {plural(len(self.to), 'name')} for {plural(parts, 'part')}",
                code="bad-split",
                at=("to",),
                help="list one for each part, in order; `drop` the parts that nobody wants",
            )

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        inputs = {key: state.table[key].expr for key in chosen.keys}
        refuse_axis(inputs, self.axis)
        self._refuse_sizes(inputs)
        parts = {key: tuple(self._parts(expr)) for key, expr in inputs.items()}
        refuse_widths(inputs, parts)
        names = result_names(self, chosen.keys, self.to)
        results = {key: list(zip(names[key], parts[key], strict=True)) for key in inputs}
        return put_in_place(state, results, keep_inputs=self.keep_inputs)

    def _refuse_sizes(self, inputs: dict[str, Expr]) -> None:
        uneven = {key: expr for key, expr in inputs.items() if sum(self._sizes(expr)) != expr.spec.shape[self.axis]}
        if not uneven:
            return
        count, first = plural(len(uneven), "tensor"), next(iter(uneven.values())).spec.shape[self.axis]
        raise PlanError(
            f"{count} cannot be cut into {self.parts:,} equal parts along axis {self.axis}"
            if self.parts is not None
            else f"`sizes` add up to {sum(self.sizes or ()):,}, and axis {self.axis} of {count} has another size",
            code="indivisible",
            at=("parts",) if self.parts is not None else ("sizes",),
            notes=[listed(described(uneven))],
            help=f"give `sizes` that add up to {first:,}, or select other tensors",
        )

    def _sizes(self, expr: Expr) -> list[int]:
        """The size of each part along the axis; of equal parts that leave a rest, without the rest."""
        return list(self.sizes) if self.sizes is not None else [expr.spec.shape[self.axis] // len(self.to)] * len(self.to)

    def _parts(self, expr: Expr) -> Iterator[Slice]:
        shape, axis = expr.spec.shape, self.axis % len(expr.spec.shape)
        sizes = self._sizes(expr)
        for start, size in zip(accumulate(sizes, initial=0), sizes, strict=False):
            origin = tuple(start if at == axis else 0 for at in range(len(shape)))
            yield Slice(expr, origin, (*shape[:axis], size, *shape[axis + 1 :]))


STEP = Split
