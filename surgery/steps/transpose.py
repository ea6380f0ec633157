"""`transpose`: axes in another order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.expr import Transpose as Node
from surgery.models import Field
from surgery.select import Selector, select
from surgery.steps.base import State, Step
from surgery.steps.groups import refuse_blocks
from surgery.table import Entry, Trail
from surgery.tensors import TensorSpec


class Transpose(Step, Selector):
    """Axes in another order: axis i of the result is axis order[i] of the tensor. Without `order` the axes are reversed."""

    word: ClassVar[str] = "transpose"
    order: list[int] | None = Field(None, description="a permutation of the axes, such as [1, 0]")

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        if self.order is not None and sorted(self.order) != list(range(len(self.order))):
            yield RecipeError(
                f"{self.order} is no permutation of the axes",
                code="bad-order",
                at=("order",),
                help=f"use each of 0 to {len(self.order) - 1} once" if self.order else "leave `order` out to reverse the axes",
            )

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        specs = {key: state.table[key].expr.spec for key in chosen.keys}
        wrong = [f"{key} ({spec})" for key, spec in specs.items() if self.order is not None and len(spec.shape) != len(self.order)]
        if wrong:
            others = f"{plural(len(wrong), 'tensor')} {'has' if len(wrong) == 1 else 'have'}"
            raise PlanError(
                f"`order` has {plural(len(self.order or ()), 'axis', 'axes')}, and {others} another number",
                code="rank",
                at=("order",),
                notes=[listed(wrong)],
                help=f"select by rank too: `where: {{ndim: {len(self.order or ())}}}`",
            )
        unmovable = [f"{key} ({spec})" for key, spec in specs.items() if not spec.dtype.itemsize and len(spec.shape) > 1]
        if unmovable:
            raise PlanError("tensors whose elements have no fixed width cannot be transposed", code="not-computable", notes=[listed(unmovable)])
        refuse_blocks({key: state.table[key].expr for key, spec in specs.items() if self._order(spec)[-1:] != (len(spec.shape) - 1,)})
        rows = {}
        for key in chosen.keys:
            entry = state.table[key]
            rows[key] = Entry(Node(entry.expr, self._order(specs[key])), Trail(state.step, key, entry.trail), entry.source)
        return state.rows(state.table.plus(rows))

    def _order(self, spec: TensorSpec) -> tuple[int, ...]:
        return tuple(self.order) if self.order is not None else tuple(reversed(range(len(spec.shape))))


STEP = Transpose
