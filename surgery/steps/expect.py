"""`expect`: compares the table with a target spec and reports as TensorFlow does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from surgery.errors import PlanError, RecipeError, SurgeryError, listed, plural
from surgery.models import Field
from surgery.select import missing
from surgery.steps.base import State
from surgery.steps.mismatch import mismatches
from surgery.steps.targets import Targets

Policy = Literal["error", "warn", "allow"]


class Expect(Targets):
    """Compares keys, shapes and dtypes with a target spec. With a selector, only the selected keys of both sides."""

    word: ClassVar[str] = "expect"
    example: ClassVar[str] = "{like: …}"
    missing: Policy = Field("error", description="keys of the target that the table lacks")
    unexpected: Policy = Field("error", description="keys of the table that the target lacks")
    mismatch: Policy = Field("error", description="other shape or dtype")

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_targets()

    def rewrite(self, state: State) -> State:
        wanted = self.select_wanted(state, self.wanted(state))
        present = self.selected(state)
        absent = [key for key in wanted if key not in state.table]
        if absent:
            note = f" of {self.target_name}" if self.like else ""
            state = _report(state, self.missing, missing(absent, state, at=(), wanted_by=note))
        for fault in mismatches(self.misfits(state, wanted)):
            state = _report(state, self.mismatch, fault)
        extra = [key for key in present if key not in wanted]
        if extra:
            state = _report(state, self.unexpected, _unexpected(extra, self.target_name))
        return state


def _report(state: State, policy: str, error: SurgeryError) -> State:
    if policy == "error":
        return state.fault(error)
    if policy == "warn":
        return state._replace(notes=(*state.notes, f"steps[{state.step}] (expect): {error.title}" + "".join(f"; {note}" for note in error.notes)))
    return state


def _unexpected(extra: list[str], target: str) -> PlanError:
    return PlanError(
        f"{plural(len(extra), 'key')} of the table {'is' if len(extra) == 1 else 'are'} not in {target}",
        code="unexpected-key",
        notes=[listed(extra, 20)],
        help="drop them, or set `unexpected: allow`",
        data={"keys": extra},
    )


STEP = Expect
