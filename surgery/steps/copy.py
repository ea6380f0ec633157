"""`copy`: the same tensor under further keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from surgery.errors import RecipeError, SurgeryError
from surgery.kinds import OneOrMany
from surgery.models import Field
from surgery.patterns import Clock
from surgery.steps.base import State, Step
from surgery.steps.naming import NameRule, blamed_on, broken_promises, collision, collision_help
from surgery.table import Entry, Trail


class CopyRule(NameRule):
    """One rule: `match` and `to`, or exact names `keys: {old: new}` or `{old: [new, …]}`."""

    keys: dict[str, str | list[str]] | None = Field(None, description="key → further key, or a list of them, which may be empty", min_length=1)


class Copy(Step):
    """The same tensor under further keys. All rules see the table as it was before the step."""

    word: ClassVar[str] = "copy"
    example: ClassVar[str] = "{match: …, to: …}"
    root: Annotated[list[CopyRule], Field(min_length=1), OneOrMany()] = Field()

    def lint(self) -> Iterator[RecipeError]:
        for index, rule in enumerate(self.root):
            yield from rule.lint((index,))

    def rewrite(self, state: State) -> State:
        table, keys = state.table, list(state.table)
        rows: dict[str, Entry] = {}
        origin: dict[str, str] = {}
        clashes: dict[str, list[str]] = {}
        faults: list[SurgeryError] = []
        clock = Clock.over(len(keys))
        for index, rule in enumerate(self.root):
            with blamed_on(rule, index):
                changes, absent = rule.apply(keys, lambda position: table[keys[position]].spec, clock)
            faults += broken_promises(rule, len(changes), absent, state, (index,))
            for position, new in changes:
                key = keys[position]
                if new in origin or (new in table and not rule.replace):
                    clashes.setdefault(new, [origin.get(new, new)]).append(key)
                    continue
                origin[new] = key
                entry = table[key]
                rows[new] = Entry(entry.expr, Trail(state.step, key, entry.trail), entry.source)
        state = state._replace(faults=(*state.faults, *faults))
        if clashes:
            raise collision(clashes, help=collision_help(self.root))
        return state.lost([key for key in rows if key in table]).rows(table.plus(rows))


STEP = Copy
