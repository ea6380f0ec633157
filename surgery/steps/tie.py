"""`tie`: tensors that are one and the same, as a declared policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal, Self

from surgery.errors import PlanError, RecipeError, SurgeryError, listed, plural
from surgery.models import Field, model_validator
from surgery.select import Selector, drop, missing, select
from surgery.steps.base import Rules, State, Step, absent, given
from surgery.steps.groups import described, lint_names, result_names
from surgery.table import Entry, Trail
from surgery.tasks import Check
from surgery.where import Texts, texts


class Tie(Step, Selector):
    """Says what becomes of tied tensors, and proves that they are equal. The first key that is there stays as it is."""

    word: ClassVar[str] = "tie"
    example: ClassVar[str] = "{keys: [a, b], policy: drop}"
    RULES: ClassVar[Rules] = ({"anyOf": [{"allOf": [given("match", "to")]}, {"allOf": [given("keys"), absent("match", "to")]}]},)

    keys: Annotated[list[str], Field(min_length=2)] | None = Field(None, description="exact keys of one tensor, the preferred one first")
    to: Texts | None = Field(None, description="with `match`: the other keys of each selected tensor, as `rename` would call it")
    policy: Literal["drop", "duplicate", "error"] = Field(
        "drop", description="drop: only the first stays; duplicate: every key gets the tensor; error: refuse if there is more than one"
    )
    by: Literal["value", "storage"] = Field(
        "value", description="value: all bits are compared before the commit, unless they are the same bytes; storage: these they have to be"
    )

    @model_validator
    def _one_form(self) -> Self:
        if (self.match is None) != (self.to is None) or (self.keys is None and self.match is None):
            raise ValueError("write either `keys: [a, b]`, or `match` and `to`")
        return self

    def lint(self) -> Iterator[RecipeError]:
        if self.match is not None and self.to is not None:
            yield from self.lint_selector()
            yield from lint_names(self, self.to)

    def rewrite(self, state: State) -> State:
        if self.keys is not None and self.match is None:
            groups = [list(dict.fromkeys(self.keys))]
        else:
            chosen = select(self, state)
            state = state._replace(faults=(*state.faults, *chosen.faults))
            names = result_names(self, chosen.keys, texts(self.to))
            groups = [list(dict.fromkeys((key, *names[key]))) for key in chosen.keys]
        for group in groups:
            state = self._tied(state, group)
        return state

    def _tied(self, state: State, group: Sequence[str]) -> State:
        present = [key for key in group if key in state.table]
        if not present:
            return state if self.optional else state.fault(missing(group, state, at=("keys", 0)))
        first, *others = present
        tensors = {key: state.table[key].expr for key in present}
        if others and self.policy == "error":
            return state.fault(
                _tied_fault(
                    f"{plural(len(present), 'key')} of one tensor are there",
                    described(tensors),
                    "`policy: drop` keeps the first of them, if they are equal",
                )
            )
        for key in others:
            state = self._equal(state, first, key)
        if self.policy != "duplicate":
            return drop(state, others)
        entry = state.table[first]
        copies = {key: Entry(entry.expr, Trail(state.step, first, entry.trail), entry.source) for key in group if key not in state.table}
        return state.rows(state.table.plus(copies))

    def _equal(self, state: State, first: str, other: str) -> State:
        """The state with the proof that two tensors are equal, or with the fault that they are not."""
        one, two = state.table[first].expr, state.table[other].expr
        pair = described({first: one, other: two})
        if one.spec != two.spec:
            return state.fault(_tied_fault(f"`{other}` is not tied to `{first}`", pair, "leave it out of the tie, or `cast` or `reshape` it first"))
        if one is two or (one.view() is not None and one.view() == two.view()):
            return state
        if self.by == "storage":
            help = "`by: value` compares what they hold"
            return state.fault(_tied_fault(f"`{other}` and `{first}` do not share their bytes", pair, help))
        if not one.spec.dtype.numpy:
            return state.fault(PlanError(f"the values of `{other}` cannot be compared", code="not-computable", notes=[listed(pair)]))
        return state._replace(checks=(*state.checks, Check("equal", state.step, other, two, first, one)))


def _tied_fault(title: str, notes: Sequence[str], help: str) -> SurgeryError:
    return PlanError(title, code="not-tied", notes=[listed(notes)], help=help)


STEP = Tie
