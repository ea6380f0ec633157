"""`cast`: another element type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from surgery.dtypes import DTYPES
from surgery.errors import PlanError, RecipeError
from surgery.expr import Cast as Node
from surgery.models import Field
from surgery.select import Selector, select
from surgery.steps.base import State, Step
from surgery.table import Entry, Trail
from surgery.tensors import TensorSpec
from surgery.where import unknown_dtype


class Cast(Step, Selector):
    """Another element type. Without a selector every floating tensor; integers and bools only when selected."""

    word: ClassVar[str] = "cast"
    example: ClassVar[str] = "{dtype: …}"
    dtype: str = Field(description="the new element type, such as bfloat16")
    overflow: Literal["error", "saturate", "inf", "wrap"] = Field("error", description="what becomes of values outside the range")
    rounding: Literal["nearest", "floor", "ceil", "zero"] | None = Field(None, description="how floats become integers")

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        if self.dtype not in DTYPES:
            yield unknown_dtype(self.dtype, ("dtype",))

    def rewrite(self, state: State) -> State:
        from surgery.casting import check

        chosen = select(self, state, default=lambda spec: spec.dtype.is_float)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        dtype = DTYPES[self.dtype]
        faults: dict[str, PlanError] = {}
        affected: dict[str, list[str]] = {}
        rows = {}
        for key in chosen.keys:
            entry = state.table[key]
            spec = entry.expr.spec
            if spec.dtype == dtype:
                continue
            fault = faults.get(spec.dtype.name) or check(spec.dtype, dtype, self.overflow, self.rounding or "")
            if fault is not None:
                faults[spec.dtype.name] = fault
                affected.setdefault(spec.dtype.name, []).append(key)
                continue
            node = Node(entry.expr, TensorSpec(dtype, spec.shape), self.overflow, self.rounding or "", key)
            rows[key] = Entry(node, Trail(state.step, key, entry.trail), entry.source)
        for name, fault in faults.items():
            fault.at = fault.at or ("dtype",)
            fault.notes = (*fault.notes, f"{len(affected[name]):,} selected, such as `{affected[name][0]}`")
            state = state.fault(fault)
        return state.rows(state.table.plus(rows))


STEP = Cast
