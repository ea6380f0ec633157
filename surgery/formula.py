"""The formulas of `compute`: text to a tree of operations, by a grammar of our own in which nothing but arithmetic can be written.

Operators bind as in Python: comparisons, `+ -`, `* / @`, `-x`, `**` (from the right), `.T`. Knows no tensor: what shapes go together is not
looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import NamedTuple

_MAX_TOKENS = 256
_MAX_DEPTH = 32
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<transposed>\.T\b)|(?P<name>[^\W\d]\w*)|(?P<symbol>\*\*|[<>=!]=|[-+*/@()<>=,]))",
    re.ASCII,
)
_COMPARE, _MINUS = 1, 4
_BINDING = {"+": 2, "-": 2, "*": 3, "/": 3, "@": 3, "**": 5} | dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), _COMPARE)
_FROM_THE_RIGHT = {"**"}
_OPERANDS = {"abs": 1, "sqrt": 1, "exp": 1, "log": 1, "where": 3, "clip": 3}
REDUCTIONS = ("sum", "mean", "max", "min")
_FUNCTIONS = (*_OPERANDS, *REDUCTIONS, "dim")
"""Words with a parenthesis behind them; without one they may be names of tensors."""


class FormulaFault(ValueError):
    """A formula that cannot be read, or does not fit its tensors; `offset` counts characters from the start of its text."""

    def __init__(self, message: str, offset: int, help: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.help = help


class Span(NamedTuple):
    """The characters of a formula that a part of it was read from."""

    start: int
    stop: int


class Number(NamedTuple):
    """A number as it was written."""

    value: float
    span: Span


class Name(NamedTuple):
    """The name of a tensor."""

    name: str
    span: Span


class Operation(NamedTuple):
    """An operator or a function with its operands.

    `word` is the operator, "negative", "T", or the function's name. `axes` are those of a reduction (None: all), or the one of `dim`.
    """

    word: str
    operands: tuple[Term, ...]
    span: Span
    axes: tuple[int, ...] | None = None
    keepdims: bool = False


Term = Number | Name | Operation


def parse(text: str) -> Term:
    """Read a formula.

    Raises:
        FormulaFault: not in the grammar, a number that float64 cannot hold, more than 256 parts or 32 levels of nesting.
    """
    parser = _Parser(text)
    term = parser.expression(0, 0)
    if parser.current.kind != "end":
        raise FormulaFault(f"an operator is missing before `{parser.current.text}`", parser.current.start)
    return term


def names(term: Term) -> Iterator[Name]:
    """Every place where a formula names a tensor, from left to right."""
    if isinstance(term, Name):
        yield term
    elif isinstance(term, Operation):
        for operand in term.operands:
            yield from names(operand)


class _Token(NamedTuple):
    kind: str  # number, name, transposed, symbol, end
    text: str
    start: int

    @property
    def stop(self) -> int:
        return self.start + len(self.text)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            offset = position + len(text[position:]) - len(text[position:].lstrip())
            raise FormulaFault(f"`{text[offset]}` is not part of a formula", offset, "there are names, numbers, + - * / ** @ .T, functions and ( )")
        kind = found.lastgroup or ""
        tokens.append(_Token(kind, found[kind], found.start(kind)))
        if len(tokens) > _MAX_TOKENS:
            raise FormulaFault(f"the formula has more than {_MAX_TOKENS} parts", tokens[-1].start, "use several `compute` steps")
        position = found.end()
    return [*tokens, _Token("end", "", end)]


class _Parser:
    """A Pratt parser: `expression` reads what binds at least as strongly as `binding`."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.position = 0

    @property
    def current(self) -> _Token:
        return self.tokens[self.position]

    def advance(self) -> _Token:
        token = self.current
        self.position += 1
        return token

    def demand(self, symbol: str, message: str, offset: int) -> _Token:
        if self.current.text != symbol:
            raise FormulaFault(message, offset)
        return self.advance()

    def expression(self, binding: int, depth: int) -> Term:
        if depth > _MAX_DEPTH:
            raise FormulaFault(f"the formula nests more than {_MAX_DEPTH} levels", self.current.start, "use several `compute` steps")
        left = self.prefix(depth)
        while (strength := _BINDING.get(self.current.text, -1)) >= max(binding, 0):
            token = self.advance()
            right = self.expression(strength + (token.text not in _FROM_THE_RIGHT), depth + 1)
            left = Operation(token.text, (left, right), Span(left.span.start, right.span.stop))
            if strength == _COMPARE and _BINDING.get(self.current.text) == _COMPARE:
                raise FormulaFault("comparisons cannot be chained", self.current.start, "multiply them: `(0 < x) * (x < 1)`")
        return left

    def prefix(self, depth: int) -> Term:
        if self.current.text == "-":
            start = self.advance().start
            operand = self.expression(_MINUS, depth + 1)
            return Operation("negative", (operand,), Span(start, operand.span.stop))
        term = self.atom(depth)
        while self.current.kind == "transposed":
            term = Operation("T", (term,), Span(term.span.start, self.advance().stop))
        return term

    def atom(self, depth: int) -> Term:
        if self.current.kind == "end":
            raise FormulaFault("the formula ends where a name or a number is wanted", self.current.start)
        token = self.advance()
        if token.kind == "number":
            return _number(token)
        if token.kind == "name":
            return self.call(token, depth) if self.current.text == "(" else Name(token.text, Span(token.start, token.stop))
        if token.text == "(":
            inner = self.expression(0, depth + 1)
            closing = self.demand(")", "this parenthesis is never closed", token.start)
            return inner._replace(span=Span(token.start, closing.stop))
        raise FormulaFault(f"`{token.text}` stands where a name or a number is wanted", token.start)

    def call(self, word: _Token, depth: int) -> Operation:
        """The operands and options of a function, from its opening parenthesis on."""
        if word.text not in _FUNCTIONS:
            raise FormulaFault(f"no function is called `{word.text}`", word.start, f"there are {', '.join(_FUNCTIONS)}")
        opening = self.advance()
        operands: list[Term] = []
        options: dict[str, tuple[int, ...] | bool] = {}
        while self.current.text != ")":
            if operands or options:
                self.demand(",", "this parenthesis is never closed" if self.current.kind == "end" else "a comma is missing", self.here(opening))
            if self.current.kind == "name" and self.tokens[self.position + 1].text == "=":
                self.option(word.text, options)
            elif options:
                raise FormulaFault("an operand stands behind an option", self.current.start)
            elif word.text == "dim" and operands:
                options["axis"] = (self.integer(),)
            else:
                operands.append(self.expression(0, depth + 1))
        span = Span(word.start, self.advance().stop)
        return _operation(word, operands, options, span)

    def here(self, opening: _Token) -> int:
        return opening.start if self.current.kind == "end" else self.current.start

    def option(self, function: str, options: dict[str, tuple[int, ...] | bool]) -> None:
        name = self.advance()
        allowed = {"axis", "keepdims"} if function in REDUCTIONS else {"axis"} if function == "dim" else set()
        if name.text not in allowed:
            raise FormulaFault(f"`{function}` has no option `{name.text}`", name.start)
        if name.text in options:
            raise FormulaFault(f"`{name.text}` stands here twice", name.start)
        self.advance()
        options[name.text] = self.truth() if name.text == "keepdims" else self.axes() if function != "dim" else (self.integer(),)

    def truth(self) -> bool:
        token = self.advance()
        if token.text.lower() not in ("true", "false"):
            raise FormulaFault("`keepdims` is true or false", token.start)
        return token.text.lower() == "true"

    def axes(self) -> tuple[int, ...]:
        """One axis, or several in parentheses."""
        if self.current.text != "(":
            return (self.integer(),)
        opening, found = self.advance(), list[int]()
        while self.current.text != ")":
            found.append(self.integer())
            if self.current.text != ")":
                self.demand(",", "these axes need commas between them and a parenthesis behind", opening.start)
        self.advance()
        return tuple(found)

    def integer(self) -> int:
        minus = self.current.text == "-"
        if minus:
            self.advance()
        token = self.advance() if self.current.kind != "end" else self.current
        if not token.text.isdigit() or len(token.text) > 3:
            raise FormulaFault("an axis is an integer, such as 0 or -1", token.start)
        return -int(token.text) if minus else int(token.text)


def _number(token: _Token) -> Number:
    value = float(token.text)
    if not isfinite(value):
        raise FormulaFault("the number is larger than float64 can hold", token.start)
    return Number(value, Span(token.start, token.stop))


def _operation(word: _Token, operands: list[Term], options: Mapping[str, tuple[int, ...] | bool], span: Span) -> Operation:
    """A call whose operands are as many as the function takes."""
    wanted = _OPERANDS.get(word.text, 1)
    if len(operands) != wanted:
        help = "for the larger of two write `where(a > b, a, b)`" if word.text in ("max", "min") else ""
        raise FormulaFault(f"`{word.text}` takes {wanted} operand{'s' * (wanted > 1)}, here are {len(operands)}", word.start, help)
    axes = options.get("axis")
    if word.text == "dim" and axes is None:
        raise FormulaFault("`dim` needs an axis", word.start, "write `dim(x, 0)` for the size of the first axis")
    assert not isinstance(axes, bool)
    return Operation(word.text, tuple(operands), span, axes, options.get("keepdims") is True)
