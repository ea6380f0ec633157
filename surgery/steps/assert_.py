"""`assert`: facts are checked in the plan, values before the commit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from surgery.dtypes import DTYPES
from surgery.errors import MismatchError, RecipeError
from surgery.select import Selector, missing, select, unknown_dtype
from surgery.steps.base import Model, State, Step
from surgery.steps.expect import tf_text
from surgery.tasks import Check


class Close(Model):
    """Another tensor, and how near its values must be: |a - b| <= atol + rtol * |b|."""

    key: str = Field(description="the other key")
    rtol: Annotated[float, Field(ge=0)] = Field(1e-5, description="relative tolerance")
    atol: Annotated[float, Field(ge=0)] = Field(1e-8, description="absolute tolerance")


class Assert(Step, Selector):
    """Demands facts of the selected tensors: shape, dtype and count are known in the plan, values are checked before the commit."""

    word: ClassVar[str] = "assert"
    shape: list[int] | None = Field(None, description="sizes of the axes; -1 stands for any size")
    dtype: str | None = Field(None, description="element type")
    finite: bool | None = Field(None, description="true: no value is NaN or infinite")
    equal_to: str | None = Field(None, description="key of a tensor with the same spec and bits")
    close_to: Close | None = Field(None, description="{key, rtol, atol}: a tensor with nearly the same values")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="digest of the little-endian bytes in C order")

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        if self.dtype is not None and self.dtype not in DTYPES:
            yield unknown_dtype(self.dtype, ("dtype",))

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        for key in chosen.keys:
            state = self._facts(state, key)
        for field, other in (("equal_to", self.equal_to), ("close_to", self.close_to.key if self.close_to else None)):
            if other is not None and other not in state.table:
                at = (field, "key") if field == "close_to" else (field,)
                return state.fault(missing([other], state, at=at))
        checks = [check for key in chosen.keys for check in self._values(state, key)]
        return state._replace(checks=(*state.checks, *checks))

    def _facts(self, state: State, key: str) -> State:
        spec = state.table[key].expr.spec
        shape = self.shape
        if shape is not None and (len(shape) != len(spec.shape) or any(want not in (-1, size) for want, size in zip(shape, spec.shape, strict=True))):
            state = state.fault(
                MismatchError(
                    f"Assign requires shapes of both tensors to match. lhs shape= {shape} rhs shape= {list(spec.shape)}",
                    code="shape-mismatch",
                    sentence=True,
                    at=("shape",),
                    notes=[f"key `{key}`"],
                    data={"key": key, "wanted": shape, "found": list(spec.shape)},
                )
            )
        if self.dtype is not None and spec.dtype.name != self.dtype:
            state = state.fault(
                MismatchError(
                    f"tensor_name = {key}; expected dtype {tf_text(DTYPES[self.dtype])} does not equal original dtype {tf_text(spec.dtype)}",
                    code="dtype-mismatch",
                    sentence=True,
                    at=("dtype",),
                    data={"key": key, "wanted": self.dtype, "found": spec.dtype.name},
                )
            )
        return state

    def _values(self, state: State, key: str) -> Iterator[Check]:
        expr, step, table = state.table[key].expr, state.step, state.table
        if self.finite and expr.spec.dtype.kind in ("float", "complex"):
            yield Check("finite", step, key, expr)
        if self.equal_to is not None:
            yield Check("equal", step, key, expr, self.equal_to, table[self.equal_to].expr)
        if self.close_to is not None:
            close = self.close_to
            yield Check("close", step, key, expr, close.key, table[close.key].expr, close.rtol, close.atol)
        if self.sha256 is not None:
            yield Check("sha256", step, key, expr, digest=self.sha256)


STEP = Assert
