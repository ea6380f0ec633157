"""`rename`: new names, as sed's `s///` would give them, for the whole table at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field, RootModel

from surgery.errors import RecipeError, SurgeryError
from surgery.patterns import Clock
from surgery.steps.base import OneOrMany, State, Step
from surgery.steps.naming import NameRule, apply_in_turn, broken_promises, collision, collision_help


class Rule(NameRule):
    """One rule: `match` and `to`, or exact names `keys: {old: new}`."""

    keys: dict[str, str] | None = Field(None, description="old key → new key, exact and simultaneous", min_length=1)


class Rename(Step, RootModel[Annotated[list[Rule], Field(min_length=1), OneOrMany()]]):
    """New names. Rules run in order on each key and see what earlier ones made of it; then all keys change at once."""

    word: ClassVar[str] = "rename"
    example: ClassVar[str] = "{match: …, to: …}"

    def lint(self) -> Iterator[RecipeError]:
        for index, rule in enumerate(self.root):
            yield from rule.lint((index,))

    def rewrite(self, state: State) -> State:
        keys = list(state.table)
        names = list(keys)
        winners: set[str] = set()
        faults: list[SurgeryError] = []
        applied = apply_in_turn(self.root, names, lambda position: state.table[keys[position]].spec, Clock())
        for index, (rule, result) in enumerate(zip(self.root, applied, strict=True)):
            if rule.replace or winners:  # the last rule that touches a key decides whether it may replace another
                touched = {keys[position] for position, _ in result.changes}
                winners = winners | touched if rule.replace else winners - touched
            for position, name in result.changes:
                names[position] = name
            faults += broken_promises(rule, result, state, (index,))
        renamed = {key: name for key, name in zip(keys, names, strict=True) if key != name}
        table, collisions, replaced = state.table.rekey(renamed, state.step, winners=winners)
        after = state._replace(table=table, faults=(*state.faults, *faults)).lost(replaced)
        if collisions:
            raise collision(collisions, help=collision_help(self.root))
        return after


STEP = Rename
