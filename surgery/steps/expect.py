"""`expect`: compares the table with a target spec and reports as TensorFlow does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Literal

from surgery.errors import PlanError, RecipeError, SurgeryError, listed, plural
from surgery.expr import Expr, Transpose
from surgery.models import Field
from surgery.select import missing
from surgery.steps.base import State
from surgery.steps.mismatch import mismatches
from surgery.steps.targets import Targets
from surgery.table import Entry, Table
from surgery.tensors import TensorSpec

_WORD = re.compile(r"[^/._]+")

Policy = Literal["error", "warn", "allow"]


class Expect(Targets):
    """Compares keys, shapes and dtypes with a target spec. With a selector, only the selected keys of both sides."""

    word: ClassVar[str] = "expect"
    example: ClassVar[str] = "{like: …}"
    missing: Policy = Field("error", description="keys of the target that the table lacks")
    unexpected: Policy = Field("error", description="keys of the table that the target lacks")
    mismatch: Policy = Field("error", description="other shape or dtype")
    untransposed: Policy = Field(
        "error", description="square matrices that were `kernel` and became `weight`, or the other way, and were not transposed"
    )

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
        square = [key for key, target in wanted.items() if key in state.table and _untransposed(key, state.table[key], target.spec)]
        if square:
            state = _report(state, self.untransposed, _as_they_were(square, state.table))
        extra = [key for key in present if key not in wanted]
        if extra:
            state = _report(state, self.unexpected, _unexpected(extra, self.target_name))
        return state


def _untransposed(key: str, entry: Entry, wanted: TensorSpec | None) -> bool:
    """Whether a name went from one convention to the other (`kernel` is [in, out], `weight` [out, in]) and a matrix that fits both did not."""
    shape = entry.spec.shape
    if wanted is None or len(shape) != 2 or shape[0] != shape[1] or shape != wanted.shape or shape[0] < 2:
        return False
    before, after = (set(_WORD.findall(name)) & {"kernel", "weight"} for name in (entry.root.key, key))
    return len(before) == len(after) == 1 and before != after and not _transposes(entry.expr)


def _transposes(expr: Expr) -> bool:
    return isinstance(expr, Transpose) or any(_transposes(child) for child in expr.children)


def _as_they_were(keys: list[str], table: Table) -> PlanError:
    first = keys[0]
    return PlanError(
        f"`{first}` {table[first].spec} was `{table[first].root.key}` and is not transposed; its shape fits either way",
        code="untransposed",
        notes=[f"{plural(len(keys) - 1, 'more square matrix', 'more square matrices')}: {listed(keys[1:])}" if keys[1:] else ""],
        help="a `kernel` is [in, out], a `weight` [out, in]: `transpose` it before it is renamed; if not here, set `untransposed: allow`",
        data={"keys": keys},
    )


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
