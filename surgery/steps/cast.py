"""`cast`: another element type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar, Literal

from surgery.dtypes import DTYPES, DType
from surgery.errors import RecipeError, SurgeryError, UnsupportedFeature, plural
from surgery.expr import Cast as Node
from surgery.expr import Expr
from surgery.formats.base import required
from surgery.models import Field
from surgery.quantised import Dequantised
from surgery.select import Selector, select
from surgery.steps.base import State, Step
from surgery.table import Entry, Trail
from surgery.tensors import TensorSpec
from surgery.where import unknown_dtype


class Cast(Step, Selector):
    """Another element type. Without a selector every floating tensor; integers, bools and quantised blocks only when selected."""

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
        chosen = select(self, state, default=lambda spec: spec.dtype.is_float)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        dtype = DTYPES[self.dtype]
        faults: dict[str, SurgeryError] = {}
        affected: dict[str, list[str]] = {}
        rows = {}
        for key in chosen.keys:
            entry = state.table[key]
            spec = entry.expr.spec
            if spec.dtype == dtype:
                continue
            fault = faults.get(spec.dtype.name) or self._fault(spec.dtype)
            if fault is not None:
                faults[spec.dtype.name] = fault
                affected.setdefault(spec.dtype.name, []).append(key)
                continue
            rows[key] = Entry(self._converted(entry.expr, key, state.step), Trail(state.step, key, entry.trail), entry.source)
        for name, fault in faults.items():
            fault.at = fault.at or ("dtype",)
            fault.notes = (*fault.notes, f"{len(affected[name]):,} selected, such as `{affected[name][0]}`")
            state = state.fault(fault)
        decoded = Counter(state.table[key].expr.spec.dtype for key in rows if state.table[key].expr.spec.dtype.block > 1)
        notes = (f"{plural(count, 'tensor')} of {source} dequantised: a block becomes {source.block} numbers" for source, count in decoded.items())
        return state._replace(notes=(*state.notes, *notes)).rows(state.table.plus(rows))

    def _fault(self, source: DType) -> SurgeryError | None:
        """Why this type cannot be cast; that of blocks is float32, if there is a decoder for them."""
        from surgery.casting import check
        from surgery.ggml_blocks import is_decodable, needs_package

        target = DTYPES[self.dtype]
        if target.block > 1 or not is_decodable(source):
            return check(source, target, self.overflow, self.rounding or "")
        if needs_package(source):
            try:
                required("gguf", "gguf")
            except UnsupportedFeature as fault:
                return fault
        return check(DTYPES["float32"], target, self.overflow, self.rounding or "")

    def _converted(self, expr: Expr, key: str, step: int) -> Expr:
        numbers = Dequantised(expr) if expr.spec.dtype.block > 1 else expr
        spec = TensorSpec(DTYPES[self.dtype], numbers.spec.shape)
        return numbers if numbers.spec == spec else Node(numbers, spec, self.overflow, self.rounding or "", key, step)


STEP = Cast
