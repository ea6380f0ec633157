"""`reshape`: the same elements under another shape."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Annotated, ClassVar

from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.expr import Reshape as Node
from surgery.models import Field
from surgery.select import Selector, select
from surgery.steps.base import State, Step
from surgery.steps.groups import changed, described, refuse_blocks


class Reshape(Step, Selector):
    """The same elements, in C order, under another shape; the bytes stay as they are. One size may be -1: what is left."""

    word: ClassVar[str] = "reshape"
    example: ClassVar[str] = "{match: …, shape: [-1, 64]}"
    shape: list[Annotated[int, Field(ge=-1)]] = Field(description="the new sizes; -1 once, for what is left")

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        if self.shape.count(-1) > 1:
            yield RecipeError("only one size can be -1", code="bad-shape", at=("shape",), help="write out the others")

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        tensors = {key: state.table[key].expr for key in chosen.keys}
        shapes = {key: self._filled(expr.spec.shape) for key, expr in tensors.items()}
        wrong = {key: expr for key, expr in tensors.items() if shapes[key] is None}
        if wrong:
            raise PlanError(
                f"{plural(len(wrong), 'tensor')} cannot have the shape {self.shape}".replace(", ", ","),
                code="bad-shape",
                at=("shape",),
                notes=[listed(described(wrong))],
                help="the product of the sizes stays the same; select other tensors, or let one size be -1",
            )
        refuse_blocks({key: expr for key, expr in tensors.items() if (shapes[key] or ())[-1:] != expr.spec.shape[-1:]})
        return changed(state, {key: Node(expr, shapes[key] or ()) for key, expr in tensors.items()})

    def _filled(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The wanted shape for a tensor of this one, None if the elements do not fit."""
        size, known = prod(shape), prod(wanted for wanted in self.shape if wanted != -1)
        if -1 not in self.shape:
            return tuple(self.shape) if known == size else None
        if known == 0 or size % known:
            return None
        return tuple(size // known if wanted == -1 else wanted for wanted in self.shape)


STEP = Reshape
