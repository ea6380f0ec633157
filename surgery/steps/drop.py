"""`drop`: removes tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from surgery.errors import RecipeError
from surgery.select import Selector, drop, select
from surgery.steps.base import State, Step


class Drop(Step, Selector):
    """Removes the selected tensors. Needs a selector, so that nothing goes by accident."""

    word: ClassVar[str] = "drop"

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        if not self.given():
            yield RecipeError("`drop` needs to be told what", code="needs-selector", help="add `match`, `keys` or `where`")

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        return drop(state, chosen.keys)._replace(faults=(*state.faults, *chosen.faults))


STEP = Drop
