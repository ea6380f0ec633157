"""Regular expressions of recipes.

Renaming is sed's `s///`: search anywhere, replace the first match (or each), a match that is empty right after another one
does not count. Patterns come from recipes that people share, so compiling is capped and matching is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any

import regex

from surgery.errors import RecipeError
from surgery.pattern_facts import Facts, plain_of, scan, unclosed

if TYPE_CHECKING:
    from surgery.replacement import Template

SECONDS_PER_STEP = 10.0
_SECONDS_PER_KEY = 1e-4
_LONGEST_PATTERN = 10_000
_CHECK_EVERY = 0x3FF


class Clock:
    """The time one step may spend in patterns."""

    __slots__ = ("_deadline", "_ticks")

    def __init__(self, seconds: float | None = None) -> None:
        self._deadline = monotonic() + (SECONDS_PER_STEP if seconds is None else seconds)
        self._ticks = 0

    @classmethod
    def over(cls, keys: int) -> Clock:
        """The time for a step on so many keys: many rules on a million keys take longer, though each of them is harmless."""
        return cls(SECONDS_PER_STEP + keys * _SECONDS_PER_KEY)

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

    `literal` is a text that every match contains (often empty), tested first because that is ten times cheaper. On keys longer than
    `safe_length` matching could take for ever and runs under a time limit; on others only the time between keys is watched.
    `plain` is set where the pattern is only a text, perhaps anchored.
    """

    __slots__ = ("_search", "compiled", "literal", "plain", "safe_length", "text")

    def __init__(self, text: str, compiled: Any, facts: Facts) -> None:
        self.text = text
        self.compiled = compiled
        self.literal = facts.literal
        self.plain = plain_of(text)
        self.safe_length = facts.safe_length
        self._search = compiled.search

    def search(self, key: str, clock: Clock) -> Any:
        """The first match anywhere in the key, or None. Raises TimeoutError."""
        if self.literal not in key:
            return None
        if len(key) > self.safe_length:
            return self._search(key, timeout=clock.left(), concurrent=False)
        clock.tick()
        return self._search(key)

    def substitutions(
        self, keys: Sequence[str], to: Template, every: bool, clock: Clock, accept: Callable[[Any], bool] | None = None
    ) -> list[tuple[int, str]]:
        """For each key that matches: its position, and the key with the first match (or every match) replaced.

        `accept` may refuse a key by its first match. Raises TimeoutError.
        """
        if accept is None and self.plain is not None and to.constant is not None and "\n" not in "".join(keys):
            return self.plain.substitutions(keys, to.constant, every)
        literal, search, expand = self.literal, self._search, to.expand
        found: list[tuple[int, str]] = []
        timed = max(map(len, keys), default=0) > self.safe_length
        for position, key in enumerate(keys):
            if literal not in key:
                continue
            if not position & _CHECK_EVERY:
                clock.left()
            match = search(key, timeout=clock.left(), concurrent=False) if timed else search(key)
            if match is None or (accept is not None and not accept(match)):
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
        limit = {"timeout": clock.left()} if len(key) > self.safe_length else {}
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
    facts = scan(text)
    try:
        compiled = regex.compile(text, regex.V0)
    except regex.error as fault:
        opened = unclosed(text)
        at = getattr(fault, "pos", None) if opened is None else opened
        raise RecipeError(str(getattr(fault, "msg", fault)), code="bad-pattern", offset=at, help=_hint(text, at)) from None
    except (RecursionError, MemoryError, OverflowError):
        raise RecipeError("this pattern is nested too deeply", code="bad-pattern") from None
    return Pattern(text, compiled, facts)


def _hint(text: str, at: int | None) -> str:
    if at is not None and at < len(text) and text[at] in "()[]{}*+?":
        return f"write `\\{text[at]}` for a literal `{text[at]}`"
    if text.count("(") > text.count(")"):
        return "write `\\(` for a literal parenthesis"
    return "patterns are those of Python's `regex` package; test it with `surgery lint`"
