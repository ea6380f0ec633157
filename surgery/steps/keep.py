"""`keep`: removes all other tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from surgery.errors import RecipeError
from surgery.select import Selector, drop, select
from surgery.steps.base import State, Step


class Keep(Step, Selector):
    """Keeps only the selected tensors. Needs a selector."""

    word: ClassVar[str] = "keep"

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        if not self.given():
            yield RecipeError("`keep` needs to be told what", code="needs-selector", help="add `match`, `keys` or `where`")

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        if chosen.faults:
            return state._replace(faults=(*state.faults, *chosen.faults))
        kept = set(chosen.keys)
        return drop(state, [key for key in state.table if key not in kept])


STEP = Keep
