"""What can be told of a pattern by reading it: what makes it cheap, and what makes it dangerous. Knows no engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from surgery.errors import RecipeError

_MOST_REPEATS = 1000
_STEPS = 10_000_000
"""Going back and forth this often takes a second or less; n repeats go back over a key of length k about k^n times."""
_LONGEST = 1 << 60


class Plain(NamedTuple):
    """A pattern that is `text`, `^text` or `text$`: string methods know the answer, ten times faster than the engine."""

    text: str
    anchor: str

    def substitutions(self, keys: Sequence[str], new: str, every: bool) -> list[tuple[int, str]]:
        """As `Pattern.substitutions`, for keys without a newline (before which `$` matches too)."""
        old, most = self.text, -1 if every else 1
        if self.anchor == "^":
            return [(position, new + key[len(old) :]) for position, key in enumerate(keys) if key.startswith(old)]
        if self.anchor == "$":
            return [(position, key[: len(key) - len(old)] + new) for position, key in enumerate(keys) if key.endswith(old)]
        return [(position, key.replace(old, new, most)) for position, key in enumerate(keys) if old in key]


def plain_of(pattern: str) -> Plain | None:
    """The pattern as plain text, or None where it is more than that."""
    anchor = "^" if pattern.startswith("^") else "$" if re.search(r"(?<!\\)\$\Z", pattern) else ""
    body = pattern.removeprefix("^") if anchor == "^" else pattern.removesuffix(anchor)
    text = re.sub(r"\\([^\w\s])", r"\1", body)
    if (not body and not anchor) or re.search(r"[.^$*+?{}\[\]()|\\]", re.sub(r"\\[^\w\s]", "", body)):
        return None
    return Plain(text, anchor)


class Facts(NamedTuple):
    """A text that every match contains (often empty), and the length of keys up to which matching is surely fast (0: never sure)."""

    literal: str
    safe_length: int


_COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")


def scan(text: str) -> Facts:
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
            plain &= not (follower.isdigit() or follower in "gNuUx")  # a number or name follows that would pass for text
            if follower in "pPNx":
                closing = text.find("}", at) if text[at : at + 1] == "{" else -1
                at = closing + 1 if closing >= 0 else at
            continue
        if char == "[":
            end = _class_end(text, at)
            plain &= "[" not in text[at + 1 : end]  # a class in a class, such as [[:alpha:]], ends elsewhere
            at = end
            runs.append("")
            continue
        if char == "(":
            depth += 1
            nested.append(1)
            ordinary = re.match(r"\((?!\?)|\(\?(:|P?<[A-Za-z_]|<?[=!])", text[at:])
            plain &= ordinary is not None  # flags, comments, recursion, conditions
            risky |= ordinary is None
            runs.append("")
        elif char == ")":
            depth = max(0, depth - 1)
            inner = nested.pop() if len(nested) > 1 else 1
            follower = text[at + 1 : at + 2]
            count = _COUNT.match(text, at + 1)
            if count:
                inner *= _repeats(count, at + 1)
            risky |= follower in ("*", "+", "?") or count is not None
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
            unbounded += bool(count[2])
            _drop_last(runs, keep=int(count[1] or 0) > 0)
            at = count.end()
            continue
        elif char in ".^$":
            runs.append("")
        elif depth == 0:
            runs[-1] += char
        at += 1
    literal = "" if alternatives or not plain else max(runs, key=len)
    return Facts(literal, 0 if risky else int(_STEPS ** (1 / unbounded)) if unbounded else _LONGEST)


def unclosed(text: str) -> int | None:
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
