"""`rename`: new names, as sed's `s///` would give them, for the whole table at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, RootModel

from surgery.errors import PlanError, RecipeError, SurgeryError
from surgery.patterns import Clock
from surgery.select import timed_out
from surgery.steps.base import OneOrMany, State, Step
from surgery.steps.naming import NameRule, broken_promises, collision


class Rule(NameRule):
    """One rule: `match` and `to`, or exact names `keys: {old: new}`."""

    keys: dict[str, str] | None = Field(None, description="old key → new key, exact and simultaneous", min_length=1)

    def changes(self, names: Sequence[str], clock: Clock) -> list[tuple[int, str]]:
        """The positions of the names that the rule applies to, each with the new name."""
        if self.keys is not None:
            return [(position, self.keys[name]) for position, name in enumerate(names) if name in self.keys]
        pattern, template = self.compiled()
        return pattern.substitutions(names, template, self.all, clock)


class Rename(Step, RootModel[Annotated[list[Rule], Field(min_length=1), OneOrMany()]]):
    """New names. Rules run in order on each key and see what earlier ones made of it; then all keys change at once."""

    word: ClassVar[str] = "rename"

    def lint(self) -> Iterator[RecipeError]:
        for index, rule in enumerate(self.root):
            yield from rule.lint((index,))

    def rewrite(self, state: State) -> State:
        names, faults = apply_rules(self.root, state)
        table, collisions, replaced = state.table.rekey(names, state.step, replace=any(rule.replace for rule in self.root))
        state = state._replace(table=table, faults=(*state.faults, *faults)).lost(replaced)
        if collisions:
            raise collision(collisions)
        return state


def apply_rules(rules: list[Rule], state: State) -> tuple[dict[str, str], list[SurgeryError]]:
    """Old key → new key for every key that changes, and the rules that broke their promises."""
    keys, clock = list(state.table), Clock()
    names = list(keys)
    faults: list[SurgeryError] = []
    for index, rule in enumerate(rules):
        holds = rule.where.test() if rule.where else None
        try:
            changes = rule.changes(names, clock)
        except TimeoutError:
            raise timed_out(rule.match or "", (index, "match")) from None
        except PlanError as error:
            error.at = error.at or (index, "to")
            raise
        if holds:
            changes = [change for change in changes if holds(state.table[keys[change[0]]].expr.spec)]
        present = {names[position] for position, _ in changes} if rule.keys else ()
        for position, name in changes:
            names[position] = name
        faults += broken_promises(rule, len(changes), present, state, (index,))
    return {key: name for key, name in zip(keys, names, strict=True) if key != name}, faults


STEP = Rename
