"""`expect`: compares the table with a target spec and reports as TensorFlow does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from pydantic import Field

from surgery.dtypes import DType
from surgery.errors import MismatchError, PlanError, RecipeError, SurgeryError, listed, plural
from surgery.select import missing
from surgery.steps.base import State
from surgery.steps.targets import Targets
from surgery.table import Entry
from surgery.tensors import TensorSpec

Policy = Literal["error", "warn", "allow"]
_TF_TEXT = {"float32": "float", "float64": "double", "float16": "half"}


class Expect(Targets):
    """Compares keys, shapes and dtypes with a target spec. With a selector, only the selected keys of both sides."""

    word: ClassVar[str] = "expect"
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
        for key, target in wanted.items():
            if key in state.table and target.spec is not None:
                fault = mismatch(key, state.table[key], target.spec)
                if fault is not None:
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


def mismatch(key: str, entry: Entry, wanted: TensorSpec) -> MismatchError | None:
    """TensorFlow's sentence for another shape or dtype than wanted, or None."""
    have = entry.expr.spec
    came = f"`{key}` comes from {entry.root.key} in {entry.source}" if entry.source else f"`{key}` was made by steps[{entry.root.step}]"
    if have.shape != wanted.shape:
        transposed = len(have.shape) == 2 and have.shape == wanted.shape[::-1]
        return MismatchError(
            f"Assign requires shapes of both tensors to match. lhs shape= {tf_shape(wanted.shape)} rhs shape= {tf_shape(have.shape)}",
            code="shape-mismatch",
            sentence=True,
            notes=[came],
            help="`transpose` it" if transposed else "change its shape, or drop it and let `init_missing` make it",
            data={"key": key, "wanted": list(wanted.shape), "found": list(have.shape)},
        )
    if have.dtype != wanted.dtype:
        return MismatchError(
            f"tensor_name = {key}; expected dtype {tf_text(wanted.dtype)} does not equal original dtype {tf_text(have.dtype)}",
            code="dtype-mismatch",
            sentence=True,
            notes=[came],
            help=f"`cast: {{keys: '{key}', dtype: {wanted.dtype.name}}}` before this step",
            data={"key": key, "wanted": wanted.dtype.name, "found": have.dtype.name},
        )
    return None


def tf_shape(shape: Iterable[int]) -> str:
    """A shape as TensorFlow's messages write it: no blank behind the comma."""
    return f"[{','.join(map(str, shape))}]"


def tf_text(dtype: DType) -> str:
    """The name of a dtype in TensorFlow's messages."""
    return _TF_TEXT.get(dtype.name, dtype.name)


def _unexpected(extra: list[str], target: str) -> PlanError:
    return PlanError(
        f"{plural(len(extra), 'key')} of the table {'is' if len(extra) == 1 else 'are'} not in {target}",
        code="unexpected-key",
        notes=[listed(extra, 20)],
        help="drop them, or set `unexpected: allow`",
        data={"keys": extra},
    )


STEP = Expect
