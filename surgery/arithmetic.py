"""Integer expressions of recipes: `{n+8}` in `to:` and `${{ heads * head_dim }}`.

A grammar of our own instead of Python's, so that nothing but arithmetic can be written: names, non-negative integers,
`+ - * // % ( )` and a leading minus. `//` and `%` round down, as in Python. Knows neither recipes nor regular expressions.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

LIMIT = 10**18
"""The largest magnitude of a number, an operand and a result."""

_MAX_TOKENS = 256
_MAX_DEPTH = 32
_TOKEN = re.compile(r"\s*(?:(?P<number>[0-9]+)|(?P<name>[^\W\d]\w*)|(?P<symbol>//|[-+*%()]))")
_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}

_Run = Callable[[Mapping[str, int]], int]


class ArithmeticFault(ValueError):
    """An expression that cannot be read or has no value; `offset` counts characters from the start of its text."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


class Expression(NamedTuple):
    """A compiled expression.

    `evaluate` takes a value for each of `names` (others are ignored) and raises ArithmeticFault for a missing name, a
    division by zero, and an operand or result beyond LIMIT.
    """

    text: str
    names: frozenset[str]
    evaluate: _Run


def parse(text: str) -> Expression:
    """Compile an expression.

    Raises:
        ArithmeticFault: not in the grammar, a number beyond LIMIT, more than 256 tokens or 32 levels of nesting.
    """
    parser = _Parser(text)
    run = parser.sum(0)
    parser.expect_end()
    return Expression(text, frozenset(parser.names), run)


class _Token(NamedTuple):
    kind: str  # number, name, symbol, end
    text: str
    offset: int


def _tokens(text: str) -> list[_Token]:
    tokens = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            offset = position + len(text[position:]) - len(text[position:].lstrip())
            raise ArithmeticFault(f"`{text[offset]}` is not part of an integer expression (names, integers, + - * // % and parentheses are)", offset)
        kind = found.lastgroup or ""
        tokens.append(_Token(kind, found[kind], found.start(kind)))
        if len(tokens) > _MAX_TOKENS:
            raise ArithmeticFault(f"the expression has more than {_MAX_TOKENS} parts", tokens[-1].offset)
        position = found.end()
    return [*tokens, _Token("end", "", end)]


class _Parser:
    """Recursive descent, one method per level of the grammar; each returns a closure."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.position = 0
        self.names: set[str] = set()

    @property
    def current(self) -> _Token:
        return self.tokens[self.position]

    def advance(self) -> _Token:
        token = self.current
        self.position += 1
        return token

    def sum(self, depth: int) -> _Run:
        run = self.product(depth)
        while self.current.text in ("+", "-"):
            token = self.advance()
            run = _binary(token, run, self.product(depth))
        return run

    def product(self, depth: int) -> _Run:
        run = self.factor(depth)
        while self.current.text in ("*", "//", "%"):
            token = self.advance()
            run = _binary(token, run, self.factor(depth))
        return run

    def factor(self, depth: int) -> _Run:
        if depth > _MAX_DEPTH:
            raise ArithmeticFault(f"the expression nests more than {_MAX_DEPTH} levels", self.current.offset)
        if self.current.kind == "end":
            raise ArithmeticFault("the expression ends where a name or a number is wanted", self.current.offset)
        token = self.advance()
        if token.kind == "number":
            return _constant(token)
        if token.kind == "name":
            self.names.add(token.text)
            return _variable(token)
        if token.text == "-":
            negated = self.factor(depth + 1)
            return lambda values: -negated(values)
        if token.text == "(":
            inner = self.sum(depth + 1)
            if self.current.text != ")":
                raise ArithmeticFault("this parenthesis is never closed", token.offset)
            self.advance()
            return inner
        raise ArithmeticFault(f"`{token.text}` stands where a name or a number is wanted", token.offset)

    def expect_end(self) -> None:
        if self.current.kind != "end":
            raise ArithmeticFault(f"an operator is missing before `{self.current.text}`", self.current.offset)


def _constant(token: _Token) -> _Run:
    digits = token.text.lstrip("0") or "0"
    if len(digits) > 19 or int(digits) > LIMIT:
        raise ArithmeticFault("the number is larger than 10**18", token.offset)
    value = int(digits)
    return lambda values: value


def _variable(token: _Token) -> _Run:
    _, name, offset = token

    def run(values: Mapping[str, int]) -> int:
        if name not in values:
            raise ArithmeticFault(f"`{name}` has no value", offset)
        return _bounded(values[name], offset)

    return run


def _binary(token: _Token, left: _Run, right: _Run) -> _Run:
    _, symbol, offset = token
    apply = _OPERATORS[symbol]

    def run(values: Mapping[str, int]) -> int:
        try:
            return _bounded(apply(left(values), right(values)), offset)
        except ZeroDivisionError:
            raise ArithmeticFault("division by zero", offset) from None

    return run


def _bounded(value: int, offset: int) -> int:
    if -LIMIT <= value <= LIMIT:
        return value
    raise ArithmeticFault("a value beyond 10**18 comes out here", offset)
