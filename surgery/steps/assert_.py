"""`assert`: facts are checked in the plan, values before the commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from surgery.dtypes import DTYPES, DType
from surgery.errors import MismatchError, PlanError, RecipeError, SurgeryError
from surgery.select import Path, Selector, missing, select, unknown_dtype
from surgery.steps.base import Model, State, Step
from surgery.steps.expect import tf_shape, tf_text
from surgery.tasks import Check
from surgery.tensors import TensorSpec


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
        for field, other in (("equal_to", self.equal_to), ("close_to", self.close_to.key if self.close_to else None)):
            if other is not None and other not in state.table:
                at = (field, "key") if field == "close_to" else (field,)
                return state.fault(missing([other], state, at=at))
        faults = [fault for key in chosen.keys for fault in self._facts(state, key)]
        checks = [check for key in chosen.keys for check in self._values(state, key)]
        return state._replace(checks=(*state.checks, *checks), faults=(*state.faults, *faults))

    def _facts(self, state: State, key: str) -> Iterator[SurgeryError]:
        """What the headers already contradict."""
        spec = state.table[key].spec
        if self.shape is not None:
            yield from _other_shape(key, spec, self.shape, ("shape",))
        if self.dtype is not None:
            yield from _other_dtype(key, spec, DTYPES[self.dtype], ("dtype",))
        if self.equal_to is not None:
            other = state.table[self.equal_to].spec
            yield from _other_shape(key, spec, other.shape, ("equal_to",))
            yield from _other_dtype(key, spec, other.dtype, ("equal_to",))
            yield from _without_values(key, spec, bool(spec.dtype.numpy), ("equal_to",))
        if self.close_to is not None:
            other = state.table[self.close_to.key].spec
            yield from _other_shape(key, spec, other.shape, ("close_to", "key"))
            yield from _without_values(key, spec, spec.dtype.computable and other.dtype.computable, ("close_to", "key"))
        if self.sha256 is not None:
            yield from _without_values(key, spec, bool(spec.dtype.numpy), ("sha256",))

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


def _other_shape(key: str, spec: TensorSpec, wanted: Sequence[int], at: Path) -> Iterator[SurgeryError]:
    if len(wanted) != len(spec.shape) or any(want not in (-1, size) for want, size in zip(wanted, spec.shape, strict=True)):
        yield MismatchError(
            f"Assign requires shapes of both tensors to match. lhs shape= {tf_shape(wanted)} rhs shape= {tf_shape(spec.shape)}",
            code="shape-mismatch",
            sentence=True,
            at=at,
            notes=[f"key `{key}`"],
            data={"key": key, "wanted": list(wanted), "found": list(spec.shape)},
        )


def _other_dtype(key: str, spec: TensorSpec, wanted: DType, at: Path) -> Iterator[SurgeryError]:
    if spec.dtype != wanted:
        yield MismatchError(
            f"tensor_name = {key}; expected dtype {tf_text(wanted)} does not equal original dtype {tf_text(spec.dtype)}",
            code="dtype-mismatch",
            sentence=True,
            at=at,
            data={"key": key, "wanted": wanted.name, "found": spec.dtype.name},
        )


def _without_values(key: str, spec: TensorSpec, has_values: bool, at: Path) -> Iterator[SurgeryError]:
    if not has_values:
        yield PlanError(f"the values of `{key}` ({spec}) cannot be compared", code="not-computable", at=at, help="leave it out with `except`")


STEP = Assert
