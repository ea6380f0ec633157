"""`compute`: tensors worked out from others by a formula."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from surgery.calculation import Value, calculate, calculated_in, converted
from surgery.casting import check
from surgery.dtypes import DTYPES
from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.expr import Expr
from surgery.formula import FormulaFault, Term, names, parse
from surgery.models import Field
from surgery.steps.base import State
from surgery.steps.groups import put_in_place
from surgery.steps.letting import Letting
from surgery.steps.numbers import Numbered, numbers_for
from surgery.where import Path, unknown_dtype

_MOST_NODES = 10_000
_DEEPEST = 150


class Compute(Letting):
    """Tensors worked out from others by a formula over the names in `let`. For which `to` gives one key, those belong together.

    A pattern without groups, where `to` uses some, is one tensor for all results. A result takes the place of the first of its tensors.

    In `expr`: names, numbers, + - * / ** @ .T, comparisons (1 or 0), abs, sqrt, exp, log, where(condition, a, b), clip(x, low, high),
    dim(x, axis), and sum, mean, max, min with axis= (one, or several in parentheses) and keepdims=true. Shapes go together as in numpy.
    All is worked out in float32; in float64 if a tensor is that, or an integer of 32 or 64 bits.
    """

    word: ClassVar[str] = "compute"
    example: ClassVar[str] = "{let: {w: …}, expr: w + 1, to: a}"

    expr: str = Field(description="the formula, such as w + 0.5 * (b @ a)")
    numbers: dict[str, Numbered] = Field({}, description="name → a number of the formula that depends on the result")
    dtype: str | None = Field(None, description="element type of the results; else that of the first name in `let`")

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_let()
        yield from self._lint_names()
        if self.dtype is not None and self.dtype not in DTYPES:
            yield unknown_dtype(self.dtype, ("dtype",))

    def _lint_names(self) -> Iterator[RecipeError]:
        """Faults of the formula and of the names that it, `let` and `numbers` use."""
        places: dict[str, Path] = {name: ("let", name) for name in self.let}
        for name, number in self.numbers.items():
            yield from number.lint(("numbers", name))
            if name in places:
                yield RecipeError(f"`{name}` is a tensor already", code="bad-formula", at=("numbers", name), help="give the number another name")
            places.setdefault(name, ("numbers", name))
        for name, at in places.items():
            if not (name.isidentifier() and name.isascii()):
                yield RecipeError(f"`{name}` cannot be a name in a formula", code="bad-formula", at=at, help="use letters, digits and _")
        yield from self._lint_uses(places)

    def _lint_uses(self, places: Mapping[str, Path]) -> Iterator[RecipeError]:
        """Names that only the formula has, or that it lacks."""
        try:
            used = {name.name: name.span.start for name in names(parse(self.expr))}
        except FormulaFault as fault:
            yield RecipeError(fault.message, code="bad-formula", at=("expr",), offset=fault.offset, help=fault.help)
            return
        for name, offset in used.items():
            if name not in places:
                help = f"it has {listed(list(self.let))}"
                yield RecipeError(f"`let` has no `{name}`", code="bad-formula", at=("expr",), offset=offset, help=help)
        for name, at in places.items():
            if name not in used:
                help = "take it out; `drop` its tensors" if name in self.let else "take it out"
                yield RecipeError(f"`expr` does not use `{name}`", code="bad-formula", at=at, help=help)

    def rewrite(self, state: State) -> State:
        groups, faults = self.tensors(state)
        state = state._replace(faults=(*state.faults, *faults))
        results: dict[str, list[tuple[str, Expr]]] = {key: [] for keys in groups.values() for key in keys.values()}
        formula, misfits, numbers = parse(self.expr), dict[str, PlanError](), numbers_for(self.numbers, groups)
        for name, keys in groups.items():
            try:
                made = self._made(formula, name, {each: state.table[key].expr for each, key in keys.items()}, numbers[name], state.step)
            except PlanError as fault:
                fault.notes = (*fault.notes, listed([f"{each}: {key} ({state.table[key].expr.spec})" for each, key in keys.items()]))
                misfits[name] = fault
            else:
                results[next(iter(keys.values()))].append((name, made))
        return put_in_place(_refused(state, misfits), results, keep_inputs=self.keep_inputs)

    def _made(self, formula: Term, name: str, tensors: Mapping[str, Expr], numbers: Mapping[str, float], step: int) -> Expr:
        """The tensor of one group. Raises PlanError for types that cannot be calculated with, and shapes that do not go together."""
        unfit = [f"{each} ({expr.spec})" for each, expr in tensors.items() if not expr.spec.dtype.computable or expr.spec.dtype.kind == "complex"]
        if unfit:
            help = "`cast` quantised blocks to float32 before; take others away with `except`"
            raise PlanError(f"`{name}` cannot be calculated of {listed(unfit)}", code="not-computable", at=("let",), help=help)
        dtype = calculated_in(expr.spec.dtype for expr in tensors.values())
        target = DTYPES[self.dtype] if self.dtype else tensors[next(iter(self.let))].spec.dtype
        lossy = check(dtype, target, "error", "")
        if lossy is not None:
            lossy.at, lossy.help = ("dtype",) if self.dtype else (), "set `dtype` to a float type; `cast` can make another of it"
            raise lossy
        try:
            values: dict[str, Value] = {**{each: converted(expr, dtype) for each, expr in tensors.items()}, **numbers}
            made = calculate(formula, self.expr, values, dtype)
        except FormulaFault as fault:
            raise PlanError(fault.message, code="unfit-tensors", at=("expr",), offset=fault.offset, help=fault.help) from None
        return _within_limits(converted(made, target, name, step))


def _refused(state: State, misfits: Mapping[str, PlanError]) -> State:
    """The state with the first of the faults of each kind, and how many others there are."""
    alike: dict[tuple[str, int | None], list[str]] = {}
    for name, fault in misfits.items():
        alike.setdefault((fault.code, fault.offset), []).append(name)
    for first, *others in alike.values():
        fault = misfits[first]
        more = f"{plural(len(others), 'more result')} like `{first}`: {listed(others)}" if others else ""
        fault.notes = (*fault.notes, *([more] if more else []))
        state = state.fault(fault)
    return state


def _within_limits(expr: Expr) -> Expr:
    """The expression, unless what it is made of has grown beyond reason. Raises PlanError."""
    rest, seen = [(expr, 1)], 0
    while rest:
        node, depth = rest.pop()
        seen += 1
        if seen > _MOST_NODES or depth > _DEEPEST:
            help = "save in between, and load that again"
            raise PlanError("too many steps calculate with the results of others", code="not-computable", at=("expr",), help=help)
        rest += [(child, depth + 1) for child in node.children]
    return expr


STEP = Compute
