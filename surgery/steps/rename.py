"""`rename`: new names, as sed's `s///` would give them, for the whole table at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

    def renamer(self, clock: Clock) -> Callable[[str], str | None]:
        """Old name → new name, or None where the rule does not apply."""
        if self.keys is not None:
            return self.keys.get
        pattern, template = self.compiled()
        every = self.all
        return lambda key: pattern.substitute(key, template, every, clock)


class Rename(Step, RootModel[Annotated[list[Rule], Field(min_length=1), OneOrMany()]]):
    """New names. Rules run in order on each key and see what earlier ones made of it; then all keys change at once."""

    word: ClassVar[str] = "rename"

    def lint(self) -> Iterator[RecipeError]:
        for index, rule in enumerate(self.root):
            yield from rule.lint((index,))

    def rewrite(self, state: State) -> State:
        names, faults = apply_rules(self.root, state)
        table, collisions = state.table.rekey(names, state.step, replace=any(rule.replace for rule in self.root))
        state = state._replace(table=table, faults=(*state.faults, *faults))
        if collisions:
            raise collision(collisions)
        return state


def apply_rules(rules: list[Rule], state: State) -> tuple[dict[str, str], list[SurgeryError]]:
    """Old key → new key for every key that some rule touches, and the rules that broke their promises."""
    table, clock = state.table, Clock()
    names: dict[str, str] = {}
    faults: list[SurgeryError] = []
    for index, rule in enumerate(rules):
        rename = rule.renamer(clock)
        holds = rule.where.test() if rule.where else None
        touched = 0
        seen: set[str] = set()
        try:
            for key in table:
                name = names.get(key, key)
                new = rename(name)
                if new is None or (holds and not holds(table[key].expr.spec)):
                    continue
                touched += 1
                seen.add(name)
                names[key] = new
        except TimeoutError:
            raise timed_out(rule.match or "", (index, "match")) from None
        except PlanError as error:
            error.at = error.at or (index, "to")
            raise
        faults += broken_promises(rule, touched, seen, state, (index,))
    return names, faults


STEP = Rename
