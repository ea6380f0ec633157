"""`unstack`: a tensor for each index along an axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.expr import Expr, Reshape, Slice
from surgery.models import Field
from surgery.patterns import compile_pattern
from surgery.select import Selector, select
from surgery.steps.base import State, Step
from surgery.steps.groups import described, lint_names, put_in_place, refuse_axis, refuse_widths, result_names
from surgery.where import placed

_ANY = (("i", 1),)
_MOST = 100_000
"""Tensors of one: nobody wants more, and who names the wrong axis of a vocabulary should learn it at once."""


class Unstack(Step, Selector):
    """A tensor for each index along an axis, which they no longer have. In `to`, `{i}` is the index, from 0."""

    word: ClassVar[str] = "unstack"
    example: ClassVar[str] = "{match: …, to: 'expert.{i}', axis: 0}"

    axis: int = Field(0, description="the axis that is taken apart; negative ones count from the last, -1")
    to: str = Field(description="what the match becomes for each index, `{i}`; without `match` the whole key")
    keep_inputs: bool = Field(False, description="keep the tensor that is taken apart, too")

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        for at, text in placed(self.match, ("match",)):
            try:
                named = "i" in compile_pattern(text).compiled.groupindex
            except RecipeError:  # which `lint_selector` tells
                continue
            if named:
                yield RecipeError(
                    "the group `i` would hide the index, which `to` calls `{i}`", code="bad-pattern", at=at, help="give it another name"
                )
        yield from lint_names(self, self.to, _ANY)

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        inputs = {key: state.table[key].expr for key in chosen.keys}
        refuse_axis(inputs, self.axis)
        _refuse_sizes(inputs, self.axis)
        results: dict[str, list[tuple[str, Expr]]] = {}
        parts = {key: tuple(self._parts(expr)) for key, expr in inputs.items()}
        refuse_widths(inputs, parts)
        for size in sorted({expr.spec.shape[self.axis] for expr in inputs.values()}):
            keys = [key for key in inputs if inputs[key].spec.shape[self.axis] == size]
            names = result_names(self, keys, [self.to] * size, [(("i", index),) for index in range(size)])
            _refuse_one_name(names)
            results |= {key: list(zip(names[key], parts[key], strict=True)) for key in keys}
        return put_in_place(state, results, keep_inputs=self.keep_inputs)

    def _parts(self, expr: Expr) -> Iterator[Expr]:
        shape, axis = expr.spec.shape, self.axis % len(expr.spec.shape)
        rest = (*shape[:axis], *shape[axis + 1 :])
        for index in range(shape[axis]):
            origin = tuple(index if at == axis else 0 for at in range(len(shape)))
            yield Reshape(Slice(expr, origin, (*shape[:axis], 1, *shape[axis + 1 :])), rest)


def _refuse_one_name(names: Mapping[str, Sequence[str]]) -> None:
    for key, given in names.items():
        if len(given) > 1 and len(set(given)) == 1:
            title = f"the {len(given):,} tensors of `{key}` would all become `{given[0]}`"
            raise PlanError(title, code="bad-template", at=("to",), help="write `{i}` where the index goes")


def _refuse_sizes(inputs: Mapping[str, Expr], axis: int) -> None:
    wrong = {key: expr for key, expr in inputs.items() if not 1 <= expr.spec.shape[axis] <= _MOST}
    if wrong:
        first = next(iter(wrong.values())).spec.shape[axis]
        raise PlanError(
            f"{plural(len(wrong), 'tensor')} cannot be taken apart along axis {axis}: its size is {first:,}",
            code="indivisible",
            at=("axis",),
            notes=[listed(described(wrong))],
            help="correct `axis`, or `drop` tensors without elements" if not first else f"correct `axis`; at most {_MOST:,} tensors are made of one",
        )


STEP = Unstack
