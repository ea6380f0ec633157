"""`slice`: some of the elements along an axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Self

from surgery.data_files import indices as index_list
from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.expr import Expr
from surgery.gather import Take
from surgery.models import Field, model_validator
from surgery.select import Selector, select
from surgery.steps.base import Reads, Rules, State, Step, absent, given
from surgery.steps.groups import changed, cut_out, described, refuse_axis, refuse_widths
from surgery.steps.paths import impossible_path

_SPAN = ("start", "stop", "step")


class Slice(Step, Selector):
    """Some of the elements along an axis: a range as Python's slices have it, or a list of indices. The others are gone."""

    word: ClassVar[str] = "slice"
    example: ClassVar[str] = "{match: …, axis: 0, start: 0, stop: 100}"
    RULES: ClassVar[Rules] = (
        {"anyOf": [{"allOf": [given("indices"), absent(*_SPAN)]}, {"allOf": [absent("indices")], "anyOf": [given(w) for w in _SPAN]}]},
    )

    axis: int = Field(0, description="the axis that is cut; negative ones count from the last, -1")
    start: int | None = Field(None, description="the first index; negative ones count from the end")
    stop: int | None = Field(None, description="the index behind the last one; negative ones count from the end")
    step: int | None = Field(None, description="from one index to the next; negative: backwards")
    indices: Annotated[list[int], Field(min_length=1)] | str | None = Field(
        None, description="the wanted indices, in any order, repeated or not; or a file with them as a JSON list"
    )

    @model_validator
    def _one_form(self) -> Self:
        span = [word for word in _SPAN if getattr(self, word) is not None]
        if bool(span) == (self.indices is not None):
            raise ValueError("write either `start`, `stop`, `step`, or `indices`")
        return self

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        if self.step == 0:
            yield RecipeError("a step of 0 goes nowhere", code="bad-slice", at=("step",), help="leave it out, or write -1 to go backwards")
        if isinstance(self.indices, str):
            yield from impossible_path(self.indices, ("indices",))

    def reads(self) -> Iterator[Reads]:
        if isinstance(self.indices, str):
            yield Reads(self.indices, None, False, ("indices",), parse=index_list)

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        tensors = {key: state.table[key].expr for key in chosen.keys}
        refuse_axis(tensors, self.axis)
        wanted = self._indices(state)
        self._refuse_range(tensors, wanted)
        made = {key: self._cut(expr, wanted) for key, expr in tensors.items()}
        refuse_widths(tensors, {key: [expr] for key, expr in made.items()})
        return changed(state, made)

    def _indices(self, state: State) -> Sequence[int] | None:
        return state.catalog.contents[self.indices, index_list] if isinstance(self.indices, str) else self.indices

    def _refuse_range(self, tensors: dict[str, Expr], indices: Sequence[int] | None) -> None:
        """Python would cut short what is out of range; a recipe that counts on elements that are not there is wrong."""
        wanted = [*(indices or ()), *(bound for bound in (self.start, self.stop) if bound is not None)]
        ends = 0 if indices is not None else 1
        wrong = {key: expr for key, expr in tensors.items() if any(not _there(at, expr.spec.shape[self.axis], ends) for at in wanted)}
        if wrong:
            size = next(iter(wrong.values())).spec.shape[self.axis]
            at = next(at for at in wanted if not _there(at, size, ends))
            raise PlanError(
                f"{plural(len(wrong), 'tensor')} {'has' if len(wrong) == 1 else 'have'} no index {at:,} along axis {self.axis}",
                code="out-of-range",
                at=("indices",) if indices is not None else ("stop",) if at == self.stop else ("start",),
                notes=[listed(described(wrong))],
                help=f"the axis of `{next(iter(wrong))}` has {size:,} elements, from 0; `pad` and `resize` make axes longer",
            )

    def _cut(self, expr: Expr, indices: Sequence[int] | None) -> Expr:
        axis = self.axis % len(expr.spec.shape)
        wanted = self._wanted(expr.spec.shape[axis], indices)
        if isinstance(wanted, range) and wanted.step == 1:
            return cut_out(expr, axis, wanted.start, wanted.start + len(wanted))
        return Take(expr, axis, wanted)

    def _wanted(self, size: int, indices: Sequence[int] | None) -> Sequence[int]:
        if indices is not None:
            return tuple(index % size for index in indices)
        return range(size)[slice(self.start, self.stop, self.step)]


def _there(at: int, size: int, ends: int) -> bool:
    """Whether an axis has an index; `ends` is 1 where the place behind the last element counts, too."""
    return -size <= at < size + ends


STEP = Slice
