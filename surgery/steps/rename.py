"""`rename`: new names, as sed's `s///` would give them, for the whole table at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from surgery.errors import RecipeError, SurgeryError
from surgery.kinds import OneOrMany
from surgery.models import Field
from surgery.patterns import Clock, compile_pattern
from surgery.replacement import compile_template
from surgery.steps.base import State, Step
from surgery.steps.naming import NameRule, blamed_on, broken_promises, collision, collision_help
from surgery.sweep import Names


class RenameRule(NameRule):
    """One rule: `match` and `to`, or exact names `keys: {old: new}`."""

    keys: dict[str, str] | None = Field(None, description="old key → new key, exact and simultaneous", min_length=1)


class Rename(Step):
    """New names. Rules run in order on each key and see what earlier ones made of it; then all keys change at once."""

    word: ClassVar[str] = "rename"
    example: ClassVar[str] = "{match: …, to: …}"
    root: Annotated[list[RenameRule], Field(min_length=1), OneOrMany()] = Field()

    def lint(self) -> Iterator[RecipeError]:
        for index, rule in enumerate(self.root):
            yield from rule.lint((index,))

    def rewrite(self, state: State) -> State:
        keys = list(state.table)
        names, clock = Names(keys), Clock.over(len(keys))
        winners: set[str] = set()
        faults: list[SurgeryError] = []
        for index, rule in enumerate(self.root):
            absent: Sequence[str] = ()
            with blamed_on(rule, index):
                if rule.match is not None and rule.to is not None and not (rule.where or rule.having or rule.replace or winners):
                    pattern = compile_pattern(rule.match)
                    touched = names.substitute(pattern, compile_template(rule.to, pattern), rule.all, clock)
                else:
                    current = list(names)
                    changes, absent = rule.apply(current, lambda position: state.table[keys[position]].spec, clock)
                    for position, name in changes:
                        current[position] = name
                    names, touched = Names(current), len(changes)
                    changed = {keys[position] for position, _ in changes}
                    winners = winners | changed if rule.replace else winners - changed  # the last rule that touches a key decides
            faults += broken_promises(rule, touched, absent, state, (index,))
        table, collisions, replaced = state.table.rekey(dict(zip(keys, names, strict=True)), state.step, winners=winners)
        after = state._replace(table=table, faults=(*state.faults, *faults)).lost(replaced)
        if collisions:
            raise collision(collisions, help=collision_help(self.root))
        return after


STEP = Rename
