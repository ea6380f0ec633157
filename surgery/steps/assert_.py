"""`assert`: facts are checked in the plan, values before the commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Self

from surgery.dtypes import DTYPES
from surgery.errors import PlanError, RecipeError, SurgeryError, listed
from surgery.models import Field, Model, model_validator
from surgery.select import Selector, missing, select
from surgery.steps.base import Rules, State, Step, given
from surgery.steps.mismatch import Misfit, dtype_misfit, mismatches, shape_misfit
from surgery.table import Table
from surgery.tasks import Check
from surgery.tensors import TensorSpec
from surgery.where import AnySize, Path, unknown_dtype

DEMANDS = ("keys", "match", "where", "count", "at_least", "shape", "dtype", "finite", "equal_to", "close_to", "sha256")


class Close(Model):
    """Another tensor, and how near its values must be: |a - b| <= atol + rtol * |b|."""

    key: str = Field(description="the other key")
    rtol: Annotated[float, Field(ge=0)] = Field(1e-5, description="relative tolerance")
    atol: Annotated[float, Field(ge=0)] = Field(1e-8, description="absolute tolerance")


class Assert(Step, Selector):
    """Demands facts of the selected tensors: shape, dtype and count are known in the plan, values are checked before the commit."""

    word: ClassVar[str] = "assert"
    RULES: ClassVar[Rules] = ({"anyOf": [given(word) for word in DEMANDS]},)
    shape: list[AnySize] | None = Field(None, description="sizes of the axes; -1 stands for any size")
    dtype: str | None = Field(None, description="element type")
    finite: bool | None = Field(None, description="true: no value is NaN or infinite")
    equal_to: str | None = Field(None, description="key of a tensor with the same spec and bits")
    close_to: Close | None = Field(None, description="{key, rtol, atol}: a tensor with nearly the same values")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="digest of the little-endian bytes in C order")

    @model_validator
    def _some_demand(self) -> Self:
        if all(getattr(self, word) is None for word in DEMANDS):
            raise ValueError(f"`assert` demands nothing: select keys that have to be there, or add {', '.join(f'`{word}`' for word in DEMANDS[3:])}")
        return self

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
        table = state.table
        misfits = (misfit for key in chosen.keys for misfit in self._misfits(key, table[key].spec, table))
        faults = [*mismatches(misfits), *self._without_values(chosen.keys, table)]
        checks = [check for key in chosen.keys for check in self._values(state, key)]
        return state._replace(checks=(*state.checks, *checks), faults=(*state.faults, *faults))

    def _misfits(self, key: str, spec: TensorSpec, table: Table) -> Iterator[Misfit]:
        """What the header of a tensor already contradicts."""
        if self.shape is not None:
            yield from shape_misfit(key, spec, self.shape, ("shape",), f"key `{key}`")
        if self.dtype is not None:
            yield from dtype_misfit(key, spec, DTYPES[self.dtype], ("dtype",))
        if self.equal_to is not None:
            other = table[self.equal_to].spec
            yield from shape_misfit(key, spec, other.shape, ("equal_to",), f"key `{key}`")
            yield from dtype_misfit(key, spec, other.dtype, ("equal_to",))
        if self.close_to is not None:
            yield from shape_misfit(key, spec, table[self.close_to.key].spec.shape, ("close_to", "key"), f"key `{key}`")

    def _without_values(self, keys: Sequence[str], table: Table) -> Iterator[SurgeryError]:
        """Tensors of types whose bytes or numbers cannot be looked at."""
        if self.equal_to is not None:
            yield from _not_computable([key for key in keys if not table[key].spec.dtype.numpy], table, ("equal_to",))
        if self.close_to is not None:
            both = table[self.close_to.key].spec.dtype.computable
            yield from _not_computable([key for key in keys if not (both and table[key].spec.dtype.computable)], table, ("close_to", "key"))
        if self.sha256 is not None:
            yield from _not_computable([key for key in keys if not table[key].spec.dtype.numpy], table, ("sha256",))

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


def _not_computable(keys: Sequence[str], table: Table, at: Path) -> Iterator[SurgeryError]:
    if keys:
        first, *others = [f"`{key}` ({table[key].spec})" for key in keys]
        more = f"nor those of {listed(others)}" if others else ""
        yield PlanError(f"the values of {first} cannot be compared", code="not-computable", at=at, notes=[more], help="leave it out with `except`")


STEP = Assert
