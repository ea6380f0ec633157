"""The `to` of a recipe: text with `\\1`, `\\g<name>` and `{n+8}`, compiled against the pattern whose groups it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from surgery.arithmetic import ArithmeticFault, Expression
from surgery.arithmetic import parse as parse_arithmetic
from surgery.errors import PlanError, RecipeError, plural
from surgery.keys import is_integer
from surgery.patterns import Pattern

_REFERENCE = re.compile(r"\\(\d{1,2}|g<([^>]*)>|.)|\{\{|\}\}|\{([^{}]*)\}|[{}]", re.DOTALL)


class Template:
    """A compiled `to`: text with `\\1`, `\\g<name>` and `{n+8}`.

    `parts` are what it is made of: literal texts, numbers of groups, and numbers to be worked out. `expand` gives the text for
    one match; `constant` is that text where it is always the same.
    """

    __slots__ = ("constant", "expand", "parts", "text")

    def __init__(self, text: str, parts: tuple[str | int | Number, ...]) -> None:
        self.text = text
        self.parts = parts
        self.constant = "".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else None
        self.expand = _expander(parts, self.constant)


@lru_cache(4096)
def compile_template(text: str, pattern: Pattern | None, bound: tuple[tuple[str, int], ...] = ()) -> Template:
    """Compile a `to` against the pattern whose groups it may name (None: no groups at all), and other names with their numbers.

    Raises:
        RecipeError: code `bad-template`, for groups that the pattern does not have and escapes that mean nothing.
    """
    groups = pattern.compiled.groups if pattern else 0
    named: Mapping[str, int] = pattern.compiled.groupindex if pattern else {}
    parts: list[str | int | Number] = []
    at = 0
    for token in _REFERENCE.finditer(text):
        parts.append(text[at : token.start()])
        parts.append(_part(token, groups, named, dict(bound)))
        at = token.end()
    parts.append(text[at:])
    merged: list[str | int | Number] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return Template(text, tuple(merged))


class Number(NamedTuple):
    """`{n+8:03}`: an integer made of named groups, with a minimum width. `bound` are names that have a number already."""

    expression: Expression
    width: int
    bound: Mapping[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The named groups that it is made of."""
        return tuple(name for name in self.expression.names if name not in self.bound)

    def text(self, match: Any) -> str:
        """The number for one match. Raises PlanError with code `bad-number`."""
        return self.text_of([match.group(name) for name in self.names], match.string)

    def text_of(self, groups: Sequence[str | None], key: str) -> str:
        """The number for the texts of the named groups, in the order of `names`. Raises PlanError, which tells the key."""
        values = dict(self.bound)
        for name, found in zip(self.names, groups, strict=True):
            if not is_integer(found):
                help = f"let it match digits: `(?P<{name}>\\d+)`"
                raise PlanError(f"group `{name}` is {found!r}, not an integer, in {key!r}", code="bad-number", help=help)
            values[name] = int(found)
        try:
            value = self.expression.evaluate(values)
        except ArithmeticFault as fault:
            raise PlanError(f"{fault} in {key!r}", code="bad-number") from None
        if value < 0:
            raise PlanError(f"the number would be {value} for {key!r}", code="bad-number", help="keys hold no negative numbers")
        return f"{value:0{self.width}}"


def _part(token: re.Match[str], groups: int, named: Mapping[str, int], bound: Mapping[str, int]) -> str | int | Number:
    whole, reference, name, number = token[0], token[1], token[2], token[3]
    if whole in ("{{", "}}"):
        return whole[0]
    if number is not None:
        body, _, width = number.partition(":")
        try:
            expression = parse_arithmetic(body)
        except ArithmeticFault as fault:
            raise _bad(token, f"{fault} in `{{{number}}}`", "write `{{` for a literal brace") from None
        unknown = sorted(expression.names - set(named) - set(bound))
        if unknown:
            raise _bad(token, f"the pattern has no group named `{unknown[0]}`", f"name it in the pattern: `(?P<{unknown[0]}>\\d+)`")
        if width and not re.fullmatch(r"0?\d{1,2}", width):
            raise _bad(token, f"`:{width}` is no width", "write `{n:03}` for three digits")
        found = Number(expression, int(width or 0), bound)
        return found if found.names else found.text_of([], whole)
    if reference is None:
        raise _bad(token, f"a single `{whole}`", f"write `{whole}{whole}` for a literal brace")
    if reference.isdigit():
        if int(reference) > groups:
            raise _bad(token, f"the pattern has {plural(groups, 'group')}, no \\{reference}", "put parentheses around what it should stand for")
        return int(reference)
    if name is not None:
        if name not in named and not (name.isdigit() and int(name) <= groups):
            raise _bad(token, f"the pattern has no group named `{name}`", f"name it in the pattern: `(?P<{name}>…)`")
        return named[name] if name in named else int(name)
    if reference == "\\":
        return "\\"
    raise _bad(token, f"`{whole}` means nothing here", "write `\\\\` for a backslash")


def _bad(token: re.Match[str], message: str, help: str) -> RecipeError:
    return RecipeError(message, code="bad-template", offset=token.start(), help=help)


def _expander(parts: tuple[str | int | Number, ...], constant: str | None) -> Callable[[Any], str]:
    """A function from match to text; the common shapes avoid the general loop, which is called per key."""
    if constant is not None:
        return lambda match: constant
    if not any(isinstance(part, Number) for part in parts):
        template = "".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in parts)
        wanted = [part for part in parts if isinstance(part, int)]

        def plain(match: Any) -> str:
            found = match.group(*wanted)
            if found is None or (len(wanted) > 1 and None in found):
                found = tuple(match.group(index) or "" for index in wanted)
            text: str = template % found
            return text

        return plain

    def general(match: Any) -> str:
        out = []
        for part in parts:
            if isinstance(part, str):
                out.append(part)
            elif isinstance(part, int):
                out.append(match.group(part) or "")
            else:
                out.append(part.text(match))
        return "".join(out)

    return general
