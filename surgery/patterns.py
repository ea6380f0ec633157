"""Regular expressions of recipes, and the `to` that goes with them.

Renaming is sed's `s///`: search anywhere, replace the first match (or each), a match that is empty right after another one
does not count. Patterns come from recipes that people share, so compiling is capped and matching is timed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any, NamedTuple

import regex

from surgery.arithmetic import ArithmeticFault, Expression
from surgery.arithmetic import parse as parse_arithmetic
from surgery.errors import PlanError, RecipeError, plural

SECONDS_PER_STEP = 10.0
_LONGEST_PATTERN = 10_000
_MOST_REPEATS = 1000
_LONG_KEY = 1000
_CHECK_EVERY = 0x3FF


class Clock:
    """The time one step may spend in patterns."""

    __slots__ = ("_deadline", "_ticks")

    def __init__(self, seconds: float = SECONDS_PER_STEP) -> None:
        self._deadline = monotonic() + seconds
        self._ticks = 0

    def tick(self) -> None:
        """Call once a key: looks at the time now and then."""
        self._ticks += 1
        if not self._ticks & _CHECK_EVERY:
            self.left()

    def left(self) -> float:
        """Seconds left. Raises TimeoutError when there are none."""
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Pattern:
    """A compiled pattern with what is known of it beforehand.

    `literal` is a text that every match contains (often empty), tested first because that is ten times cheaper. `risky`
    patterns can take exponential time and run under a time limit; the others are only watched between keys. `plain` is set
    where the pattern is only a text, perhaps anchored.
    """

    __slots__ = ("_search", "compiled", "literal", "plain", "risky", "text")

    def __init__(self, text: str, compiled: Any, facts: _Facts) -> None:
        self.text = text
        self.compiled = compiled
        self.literal = facts.literal
        self.plain = _plain(text)
        self.risky = facts.risky
        self._search = compiled.search

    def search(self, key: str, clock: Clock) -> Any:
        """The first match anywhere in the key, or None. Raises TimeoutError."""
        if self.literal not in key:
            return None
        if self.risky or len(key) > _LONG_KEY:
            return self._search(key, timeout=clock.left(), concurrent=False)
        clock.tick()
        return self._search(key)

    def substitutions(self, keys: Sequence[str], to: Template, every: bool, clock: Clock) -> list[tuple[int, str]]:
        """For each key that matches: its position, and the key with the first match (or every match) replaced. Raises TimeoutError."""
        if self.plain is not None and to.constant is not None and not any(key.endswith("\n") for key in keys):
            return self.plain.substitutions(keys, to.constant, every)
        literal, search, expand = self.literal, self._search, to.expand
        found: list[tuple[int, str]] = []
        timed = self.risky or any(len(key) > _LONG_KEY for key in keys)
        for position, key in enumerate(keys):
            if literal not in key:
                continue
            if not position & _CHECK_EVERY:
                clock.left()
            match = search(key, timeout=clock.left(), concurrent=False) if timed else search(key)
            if match is None:
                continue
            if every:
                found.append((position, self._every(key, expand, clock)))
            else:
                start, stop = match.span()
                found.append((position, key[:start] + expand(match) + key[stop:]))
        return found

    def _every(self, key: str, expand: Callable[[Any], str], clock: Clock) -> str:
        """Each match replaced; as in sed, an empty match right behind another one does not count."""
        out, at, previous = [], 0, -1
        limit = {"timeout": clock.left()} if self.risky or len(key) > _LONG_KEY else {}
        for found in self.compiled.finditer(key, **limit):
            start, stop = found.span()
            if start == stop == previous:
                continue
            out += [key[at:start], expand(found)]
            at = previous = stop
        return "".join([*out, key[at:]])


@lru_cache(4096)
def compile_pattern(text: str) -> Pattern:
    """Compile a recipe's pattern.

    Raises:
        RecipeError: code `bad-pattern`; `offset` is the position of the fault in the pattern.
    """
    if len(text) > _LONGEST_PATTERN:
        raise RecipeError(f"this pattern has {len(text):,} characters; {_LONGEST_PATTERN:,} are allowed", code="bad-pattern")
    facts = _scan(text)
    try:
        compiled = regex.compile(text, regex.V0)
    except regex.error as fault:
        unclosed = _unclosed(text)
        at = getattr(fault, "pos", None) if unclosed is None else unclosed
        raise RecipeError(str(getattr(fault, "msg", fault)), code="bad-pattern", offset=at, help=_hint(text, at)) from None
    except (RecursionError, MemoryError, OverflowError):
        raise RecipeError("this pattern is nested too deeply", code="bad-pattern") from None
    return Pattern(text, compiled, facts)


def _unclosed(text: str) -> int | None:
    """The offset of a group that is opened and never closed: the parser only tells where it gave up."""
    opened, at = [], 0
    while at < len(text):
        if text[at] == "[":
            at = _class_end(text, at)
            continue
        if text[at] == "(":
            opened.append(at)
        elif text[at] == ")" and opened:
            opened.pop()
        at += 2 if text[at] == "\\" else 1
    return opened[-1] if opened else None


def _hint(text: str, at: int | None) -> str:
    if at is not None and at < len(text) and text[at] in "()[]{}*+?":
        return f"write `\\{text[at]}` for a literal `{text[at]}`"
    if text.count("(") > text.count(")"):
        return "write `\\(` for a literal parenthesis"
    return "patterns are those of Python's `regex` package; test it with `surgery lint`"


class _Plain(NamedTuple):
    """A pattern that is `text`, `^text` or `text$`: string methods know the answer, ten times faster than the engine."""

    text: str
    anchor: str

    def substitutions(self, keys: Sequence[str], new: str, every: bool) -> list[tuple[int, str]]:
        """As `Pattern.substitutions`, for keys that do not end with a newline (before which `$` matches too)."""
        old, most = self.text, -1 if every else 1
        if self.anchor == "^":
            return [(position, new + key[len(old) :]) for position, key in enumerate(keys) if key.startswith(old)]
        if self.anchor == "$":
            return [(position, key[: len(key) - len(old)] + new) for position, key in enumerate(keys) if key.endswith(old)]
        return [(position, key.replace(old, new, most)) for position, key in enumerate(keys) if old in key]


def _plain(pattern: str) -> _Plain | None:
    """The pattern as plain text, or None where it is more than that."""
    anchor = "^" if pattern.startswith("^") else "$" if re.search(r"(?<!\\)\$\Z", pattern) else ""
    body = pattern.removeprefix("^") if anchor == "^" else pattern.removesuffix(anchor)
    text = re.sub(r"\\([^\w\s])", r"\1", body)
    if (not body and not anchor) or re.search(r"[.^$*+?{}\[\]()|\\]", re.sub(r"\\[^\w\s]", "", body)):
        return None
    return _Plain(text, anchor)


class _Facts(NamedTuple):
    literal: str
    risky: bool


_COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")


def _scan(text: str) -> _Facts:
    """One pass over a pattern for what makes it cheap or dangerous; refuses fuzzy matching and huge counted repeats."""
    runs: list[str] = [""]
    depth, at, unbounded = 0, 0, 0
    alternatives, risky, plain = False, False, True
    nested: list[int] = [1]  # largest product of counted repeats inside each open group
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            follower = text[at + 1]
            risky |= follower.isdigit() or follower in "gkR"
            if depth == 0 and not follower.isalnum():
                runs[-1] += follower
            elif depth == 0:
                runs.append("")
            at += 2
            if follower in "pPNuUx":  # \p{…}, \N{…}, \x41: a name or number follows
                closing = text.find("}", at) if text[at : at + 1] == "{" else -1
                at = closing + 1 if closing >= 0 else at
                plain = plain and follower in "pP"
            continue
        if char == "[":
            at = _class_end(text, at)
            runs.append("")
            continue
        if char == "(":
            depth += 1
            nested.append(1)
            plain &= re.match(r"\(\?[a-zA-Z0-9&]*[:)]", text[at:]) is None or text.startswith("(?:", at)
            risky |= text.startswith(("(?R", "(?0", "(?&", "(?P>", "(?1"), at)
            runs.append("")
        elif char == ")":
            depth = max(0, depth - 1)
            inner = nested.pop() if len(nested) > 1 else 1
            follower = text[at + 1 : at + 2]
            count = _COUNT.match(text, at + 1)
            if count:
                inner *= _repeats(count, at + 1)
            if follower in ("*", "+") or (count and count[2] and not count[3]):
                risky = True
            if inner > _MOST_REPEATS:
                raise RecipeError(f"counted repeats multiply to {inner:,}; {_MOST_REPEATS:,} are allowed", code="bad-pattern", offset=at)
            nested[-1] = max(nested[-1], inner)
            runs.append("")
        elif char == "|":
            alternatives |= depth == 0
            runs.append("")
        elif char in "*?+":
            unbounded += char != "?"
            _drop_last(runs, keep=char == "+")
        elif char == "{":
            count = _COUNT.match(text, at)
            if count is None or count[0] in ("{}", "{,}"):
                raise RecipeError(
                    "`{` starts neither a repeat count nor a literal",
                    code="bad-pattern",
                    offset=at,
                    help="write `\\{` for a literal brace; fuzzy matching is not allowed in recipes",
                )
            times = _repeats(count, at)
            nested[-1] = max(nested[-1], times)
            unbounded += bool(count[2] and not count[3])
            _drop_last(runs, keep=int(count[1] or 0) > 0)
            at = count.end()
            continue
        elif char in ".^$":
            runs.append("")
        elif depth == 0:
            runs[-1] += char
        at += 1
    literal = "" if alternatives or not plain else max(runs, key=len)
    return _Facts(literal, risky or unbounded > 4)


def _class_end(text: str, at: int) -> int:
    """The offset behind a character class that starts at `at` (a `]` right at the start is a member)."""
    at += 2 if text.startswith("[^", at) else 1
    first = True
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "]" and not first:
            return at + 1
        first = False
        at += 1
    return at


def _repeats(count: re.Match[str], at: int) -> int:
    times = int(count[3] or count[1] or 1)
    if times > _MOST_REPEATS:
        raise RecipeError(f"a repeat of {times:,}; {_MOST_REPEATS:,} are allowed", code="bad-pattern", offset=at)
    return max(times, 1)


def _drop_last(runs: list[str], keep: bool) -> None:
    """A quantifier: the character before it is optional, or (keep) there at least once."""
    if runs[-1]:
        last = runs[-1][-1]
        runs[-1] = runs[-1][:-1]
        if keep:
            runs[-1] += last
    runs.append("")


_REFERENCE = re.compile(r"\\(\d{1,2}|g<([^>]*)>|.)|\{\{|\}\}|\{([^{}]*)\}|[{}]", re.DOTALL)


class Template:
    """A compiled `to`: text with `\\1`, `\\g<name>` and `{n+8}`.

    `expand` gives the text for one match; `constant` is that text where it is always the same.
    """

    __slots__ = ("constant", "expand", "text")

    def __init__(self, text: str, expand: Callable[[Any], str], constant: str | None) -> None:
        self.text = text
        self.expand = expand
        self.constant = constant


@lru_cache(4096)
def compile_template(text: str, pattern: Pattern | None) -> Template:
    """Compile a `to` against the pattern whose groups it may name (None: no groups at all).

    Raises:
        RecipeError: code `bad-template`, for groups that the pattern does not have and escapes that mean nothing.
    """
    groups = pattern.compiled.groups if pattern else 0
    named: Mapping[str, int] = pattern.compiled.groupindex if pattern else {}
    parts: list[str | int | _Number] = []
    at = 0
    for token in _REFERENCE.finditer(text):
        parts.append(text[at : token.start()])
        parts.append(_part(token, groups, named))
        at = token.end()
    parts.append(text[at:])
    merged: list[str | int | _Number] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    constant = "".join(map(str, merged)) if all(isinstance(part, str) for part in merged) else None
    return Template(text, _expander(tuple(merged), constant), constant)


class _Number(NamedTuple):
    """`{n+8:03}`: an integer made of named groups, with a minimum width."""

    expression: Expression
    width: int

    def text(self, match: Any) -> str:
        values = {}
        for name in self.expression.names:
            found = match.group(name)
            if found is None or not found.isascii() or not found.isdigit():
                help = f"let it match digits: `(?P<{name}>\\d+)`"
                raise PlanError(f"group `{name}` is {found!r}, not an integer, in {match.string!r}", code="bad-number", help=help)
            values[name] = int(found)
        try:
            value = self.expression.evaluate(values)
        except ArithmeticFault as fault:
            raise PlanError(f"{fault} in {match.string!r}", code="bad-number") from None
        if value < 0:
            raise PlanError(f"the number would be {value} for {match.string!r}", code="bad-number", help="keys hold no negative numbers")
        return f"{value:0{self.width}}"


def _part(token: re.Match[str], groups: int, named: Mapping[str, int]) -> str | int | _Number:
    whole, reference, name, number = token[0], token[1], token[2], token[3]
    if whole in ("{{", "}}"):
        return whole[0]
    if number is not None:
        body, _, width = number.partition(":")
        try:
            expression = parse_arithmetic(body)
        except ArithmeticFault as fault:
            raise _bad(token, f"{fault} in `{{{number}}}`", "write `{{` for a literal brace") from None
        unknown = sorted(expression.names - set(named))
        if unknown:
            raise _bad(token, f"the pattern has no group named `{unknown[0]}`", f"name it in the pattern: `(?P<{unknown[0]}>\\d+)`")
        if width and not re.fullmatch(r"0?\d{1,2}", width):
            raise _bad(token, f"`:{width}` is no width", "write `{n:03}` for three digits")
        return _Number(expression, int(width or 0))
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


def _expander(parts: tuple[str | int | _Number, ...], constant: str | None) -> Callable[[Any], str]:
    """A function from match to text; the common shapes avoid the general loop, which is called per key."""
    if constant is not None:
        return lambda match: constant
    if not any(isinstance(part, _Number) for part in parts):
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
