"""A formula over tensors as an expression: which shapes go together, and numbers that need no tensor worked out at once. Pure.

All tensors have been brought to one float type before. What has no tensor in it is a number of Python's, a float64, until it meets one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from math import exp, inf, isfinite, log, sqrt

from surgery.dtypes import DTYPES, DType
from surgery.expr import Cast, Expr, Transpose
from surgery.formula import REDUCTIONS, FormulaFault, Name, Number, Operation, Term
from surgery.math_nodes import Constant, Elementwise, MatMul, broadcast
from surgery.reductions import Reduce
from surgery.tensors import TensorSpec

Value = float | Expr

_ON_NUMBERS: Mapping[str, Callable[..., float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "negative": operator.neg,
    "abs": abs,
    "sqrt": sqrt,
    "exp": exp,
    "log": log,
    "where": lambda condition, chosen, other: chosen if condition else other,
    "clip": lambda value, low, high: min(max(value, low), high),
}
_HIGHEST = {"float32": 3.4028235677973366e38, "float64": inf}
"""From here on a number rounds to infinity."""


def calculated_in(dtypes: Iterable[DType]) -> DType:
    """The type to calculate in: float64 if a tensor has that, or integers that float32 could not hold, else float32."""
    wide = any(dtype.bits == 64 or (dtype.kind in ("int", "uint") and dtype.bits == 32) for dtype in dtypes)
    return DTYPES["float64" if wide else "float32"]


def converted(expr: Expr, dtype: DType, label: str = "", step: int | None = None) -> Expr:
    """A tensor in another type; itself where it has that type. `label` and `step` are the key and the step that errors name."""
    return expr if expr.spec.dtype == dtype else Cast(expr, TensorSpec(dtype, expr.spec.shape), label=label, step=step)


def calculate(term: Term, text: str, values: Mapping[str, Value], dtype: DType) -> Expr:
    """The tensor that a formula makes of tensors, all of which have this dtype, and numbers; `text` is what the formula was read from.

    Raises:
        FormulaFault: shapes that do not go together, an axis that is not there, a number without a value.
    """
    return _Calculator(text, values, dtype).tensor(term)


class _Calculator:
    """Works from the leaves up; one method for each kind of operation."""

    def __init__(self, text: str, values: Mapping[str, Value], dtype: DType) -> None:
        self.text = text
        self.values = values
        self.dtype = dtype

    def tensor(self, term: Term) -> Expr:
        value = self.value(term)
        if isinstance(value, Expr):
            return value
        if abs(value) >= _HIGHEST[self.dtype.name]:
            raise FormulaFault(f"{value:.9g} is more than {self.dtype} can hold", term.span.start)
        return Constant(TensorSpec(self.dtype, ()), float(value))

    def value(self, term: Term) -> Value:
        if isinstance(term, Number):
            return term.value
        if isinstance(term, Name):
            return self.values[term.name]
        if term.word in REDUCTIONS:
            return self.reduced(term)
        if term.word == "@":
            return self.product(term)
        if term.word == "T":
            child = self.tensor(term.operands[0])
            return Transpose(child, tuple(reversed(range(len(child.spec.shape)))))
        if term.word == "dim":
            shape = self.tensor(term.operands[0]).spec.shape
            return float(shape[self.axis(term, (term.axes or (0,))[0], shape)])
        return self.elementwise(term)

    def elementwise(self, term: Operation) -> Value:
        values = [self.value(operand) for operand in term.operands]
        numbers = [value for value in values if not isinstance(value, Expr)]
        if len(numbers) == len(values):
            return self.number(term, numbers)
        operands = tuple(self.tensor(operand) for operand in term.operands)
        if broadcast(operand.spec.shape for operand in operands) is None:
            raise self.unfit(term, operands, "sizes of an axis are equal, or one of them is 1")
        return Elementwise(term.word, operands)

    def number(self, term: Operation, values: list[float]) -> float:
        try:
            value = _ON_NUMBERS[term.word](*values)
        except (ArithmeticError, ValueError):
            value = inf
        if isinstance(value, complex) or not isfinite(value):
            numbers = ", ".join(f"{number:g}" for number in values)
            raise FormulaFault(f"`{self.said(term)}` has no value that float64 can hold, where the numbers are {numbers}", term.span.start)
        return float(value)

    def product(self, term: Operation) -> Expr:
        left, right = (self.tensor(operand) for operand in term.operands)
        a, b = left.spec.shape, right.spec.shape
        if len(a) < 2 or len(b) < 2:
            raise self.unfit(term, (left, right), "`@` needs two axes or more on both sides")
        if a[-1] != b[-2] or broadcast((a[:-2], b[:-2])) is None:
            raise self.unfit(term, (left, right), "`@` needs [n, k] @ [k, m]; `.T` turns a matrix round")
        return MatMul(left, right)

    def reduced(self, term: Operation) -> Expr:
        child = self.tensor(term.operands[0])
        shape = child.spec.shape
        axes = tuple(range(len(shape))) if term.axes is None else tuple(sorted(self.axis(term, axis, shape) for axis in term.axes))
        if len(set(axes)) < len(axes):
            raise FormulaFault(f"`{self.said(term)}` names an axis twice", term.span.start)
        if term.word != "sum" and any(shape[axis] == 0 for axis in axes):
            raise FormulaFault(f"`{self.said(term)}`: a tensor of shape {_shown(shape)} has no {term.word}", term.span.start)
        return Reduce(term.word, child, axes, term.keepdims)

    def axis(self, term: Operation, axis: int, shape: tuple[int, ...]) -> int:
        if not -len(shape) <= axis < len(shape):
            raise FormulaFault(f"`{self.said(term)}`: a tensor of shape {_shown(shape)} has no axis {axis}", term.span.start)
        return axis % len(shape)

    def unfit(self, term: Operation, operands: tuple[Expr, ...], help: str) -> FormulaFault:
        between = f" {term.word} " if len(operands) == 2 else ", "
        shapes = between.join(_shown(operand.spec.shape) for operand in operands)
        return FormulaFault(f"`{self.said(term)}`: the shapes {shapes} do not go together", term.span.start, help)

    def said(self, term: Term) -> str:
        """The part of the formula that a term was read from."""
        return self.text[slice(*term.span)]


def _shown(shape: tuple[int, ...]) -> str:
    return str(list(shape))
