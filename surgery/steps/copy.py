"""`copy`: the same tensor under further keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field, RootModel

from surgery.errors import PlanError, RecipeError, SurgeryError
from surgery.patterns import Clock
from surgery.select import Texts, texts, timed_out
from surgery.steps.base import OneOrMany, State, Step
from surgery.steps.naming import NameRule, broken_promises, collision
from surgery.table import Entry, Table, Trail


class Rule(NameRule):
    """One rule: `match` and `to`, or exact names `keys: {old: new}` or `{old: [new, …]}`."""

    keys: dict[str, Texts] | None = Field(None, description="key → further key, or a list of them", min_length=1)

    def copies(self, table: Table, clock: Clock) -> list[tuple[str, str]]:
        """Pairs of key and further key."""
        holds = self.where.test() if self.where else lambda spec: True
        if self.keys is not None:
            return [(key, new) for key, further in self.keys.items() if key in table for new in texts(further) if holds(table[key].expr.spec)]
        pattern, template = self.compiled()
        keys = list(table)
        pairs = ((keys[position], new) for position, new in pattern.substitutions(keys, template, self.all, clock))
        return [(key, new) for key, new in pairs if holds(table[key].expr.spec)]


class Copy(Step, RootModel[Annotated[list[Rule], Field(min_length=1), OneOrMany()]]):
    """The same tensor under further keys. All rules see the table as it was before the step."""

    word: ClassVar[str] = "copy"

    def lint(self) -> Iterator[RecipeError]:
        for index, rule in enumerate(self.root):
            yield from rule.lint((index,))

    def rewrite(self, state: State) -> State:
        table, clock = state.table, Clock()
        rows: dict[str, Entry] = {}
        origin: dict[str, str] = {}
        clashes: dict[str, tuple[str, ...]] = {}
        faults: list[SurgeryError] = []
        for index, rule in enumerate(self.root):
            try:
                pairs = rule.copies(table, clock)
            except TimeoutError:
                raise timed_out(rule.match or "", (index, "match")) from None
            except PlanError as error:
                error.at = error.at or (index, "to")
                raise
            faults += broken_promises(rule, len(pairs), table, state, (index,))
            for key, new in pairs:
                if new in origin or (new in table and not rule.replace):
                    clashes[new] = (*clashes.get(new, (origin.get(new, new),)), key)
                    continue
                origin[new] = key
                entry = table[key]
                rows[new] = Entry(entry.expr, Trail(state.step, key, entry.trail), entry.source)
        state = state._replace(faults=(*state.faults, *faults))
        if clashes:
            raise collision(clashes)
        return state.lost([key for key in rows if key in table]).rows(table.plus(rows))


STEP = Copy
