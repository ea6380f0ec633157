"""`pad`: an axis made longer by new elements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

from surgery.errors import RecipeError
from surgery.expr import Expr
from surgery.models import Field, model_validator
from surgery.select import Selector, select
from surgery.steps.base import Rules, State, Step, given
from surgery.steps.groups import changed, cut_out, refuse_axis, side_by_side
from surgery.steps.lengthen import FILL, lint_fill, lint_lengths, new_elements, refuse_fill


class Pad(Step, Selector):
    """An axis made longer: so many new elements before the old ones, behind them, or both."""

    word: ClassVar[str] = "pad"
    example: ClassVar[str] = "{match: …, axis: 0, after: 8}"
    RULES: ClassVar[Rules] = ({"anyOf": [given("before"), given("after")]},)

    axis: int = Field(0, description="the axis that becomes longer; negative ones count from the last, -1")
    before: Annotated[int, Field(ge=0)] | None = Field(None, description="so many new elements before the old ones")
    after: Annotated[int, Field(ge=0)] | None = Field(None, description="so many new elements behind the old ones")
    fill: str | dict[str, Any] = Field("zeros", description=FILL)
    seed: int = Field(0, description="seed of random fills; seed and key give the same bits everywhere")

    @model_validator
    def _some_length(self) -> Self:
        if self.before is None and self.after is None:
            raise ValueError("write `before` or `after`")
        return self

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        yield from lint_fill(self.fill)
        yield from lint_lengths({"before": self.before, "after": self.after})

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        tensors = {key: state.table[key].expr for key in chosen.keys}
        refuse_axis(tensors, self.axis)
        refuse_fill(tensors, self.axis, self.fill)
        return changed(state, {key: self._padded(expr, key) for key, expr in tensors.items()})

    def _padded(self, expr: Expr, key: str) -> Expr:
        before, after, axis = self.before or 0, self.after or 0, self.axis % len(expr.spec.shape)
        if not before + after:
            return expr
        new = new_elements(expr, axis, before + after, self.fill, self.seed, key)
        return side_by_side([cut_out(new, axis, 0, before), expr, cut_out(new, axis, before, before + after)], axis)


STEP = Pad
