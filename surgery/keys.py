"""Keys as text: globs, numeric order, and near names for a key that is missing.

Pure functions over strings; knows nothing of tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeGuard

_NUMBER = re.compile(r"(\d+)")
_TOKEN = re.compile(r"[^/._:]+")
_CANDIDATES = 400


def natural(key: str) -> tuple[tuple[str, int], ...]:
    """A sort key in which numbers count as numbers: expert 9 comes before expert 10."""
    parts = _NUMBER.split(key)
    return tuple((text, int(number)) for text, number in zip(parts[::2], [*parts[1::2], "-1"], strict=True))


_MOST_DIGITS = 18


def is_integer(text: str | None) -> TypeGuard[str]:
    """Whether what a group of a pattern found is a number: digits of ASCII, few enough for 64 bits. None: the group found nothing."""
    return text is not None and text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def is_glob(text: str) -> bool:
    """True if the text has a star that is not escaped."""
    return "*" in text.replace("\\\\", "").replace("\\*", "")


def literal(text: str) -> str:
    """The exact key that a glob without stars stands for: `\\*` is a star, `\\\\` a backslash."""
    return re.sub(r"\\([*\\])", r"\1", text)


_TEXT, _WITHIN, _ANY, _SCOPES = "text", "*", "**", "**/"
_FEW_STARS = 2
_LONG_KEY = 2000


class Glob:
    """A compiled glob. `fullmatch` takes time linear in the key however many stars there are."""

    __slots__ = ("_pieces", "_regex", "_stars")

    def __init__(self, text: str) -> None:
        self._pieces = _pieces(text)
        self._stars = sum(kind != _TEXT for kind, _ in self._pieces)
        self._regex = re.compile("".join(_EXPRESSIONS[kind](part) for kind, part in self._pieces), re.DOTALL)

    def fullmatch(self, key: str) -> bool:
        """True if the glob covers the whole key."""
        if self._stars <= _FEW_STARS and len(key) <= _LONG_KEY:
            return self._regex.fullmatch(key) is not None
        return self._follow(key)

    def _follow(self, key: str) -> bool:
        """All ways at once: with many stars an expression would go back again and again."""
        reached = {0}
        for kind, part in self._pieces:
            if kind == _TEXT:
                reached = {at + len(part) for at in reached if key.startswith(part, at)}
            elif kind == _WITHIN:
                reached = {end for at in _starts_of_runs(reached, key) for end in range(at, _segment_end(key, at) + 1)}
            elif reached:
                ends = range(min(reached), len(key) + 1)
                reached = set(ends) if kind == _ANY else reached | {end for end in ends if end > min(reached) and key[end - 1] == part}
        return len(key) in reached


def _segment_end(key: str, at: int) -> int:
    return min((end for end in (key.find("/", at), key.find(".", at)) if end >= 0), default=len(key))


def _starts_of_runs(reached: set[int], key: str) -> list[int]:
    """One position for each segment: a star from the first reaches all that stars from later ones in it do."""
    first: dict[int, int] = {}
    for at in reached:
        end = _segment_end(key, at)
        first[end] = min(at, first.get(end, at))
    return list(first.values())


_EXPRESSIONS: dict[str, Callable[[str], str]] = {
    _TEXT: re.escape,
    _WITHIN: lambda part: "[^/.]*",
    _ANY: lambda part: ".*",
    _SCOPES: lambda part: f"(?:.*{re.escape(part)})?",
}


def _pieces(text: str) -> list[tuple[str, str]]:
    """The glob as texts and stars; `**/` at the start of a segment is one piece, with its separator."""
    pieces: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        kind, part, length = _TEXT, text[at], 1
        if text[at] == "\\" and text[at + 1 : at + 2] in ("*", "\\"):
            part, length = text[at + 1], 2
        elif text.startswith("**", at):
            starts_segment = at == 0 or text[at - 1] in "/."
            separated = starts_segment and text[at + 2 : at + 3] in ("/", ".")
            kind, part, length = (_SCOPES, text[at + 2], 3) if separated else (_ANY, "", 2)
        elif text[at] == "*":
            kind, part = _WITHIN, ""
        if kind == _TEXT and pieces and pieces[-1][0] == _TEXT:
            pieces[-1] = (_TEXT, pieces[-1][1] + part)
        elif kind == _TEXT or not pieces or pieces[-1] != (kind, part):
            pieces.append((kind, part))
        at += length
    return pieces


@lru_cache(4096)
def glob(text: str) -> Glob:
    """Compile a glob: `*` stops at `/` and `.`; `**` does not, and as a whole segment it also matches nothing (`**/x` matches `x`)."""
    return Glob(text)


def near_names(missing: str, keys: Iterable[str], most: int = 3) -> list[str]:
    """The keys most like a missing one.

    Similarity is only measured on a narrowed set (same last part, or same beginning), so that a million keys cost a
    few passes of plain string tests.
    """
    from difflib import SequenceMatcher

    pool = list(keys)
    tokens = _TOKEN.findall(missing)
    if not tokens:
        return []
    last = tokens[-1]
    half = missing[: max(1, len(missing) // 2)]
    lowered = missing.lower()
    wanted = [key for key in pool if key.endswith(last)][:_CANDIDATES]
    wanted += [key for key in pool if key.startswith(half)][:_CANDIDATES]
    wanted += [key for key in pool if missing in key or (len(key) > 2 and key in missing)][:_CANDIDATES]
    if len(pool) <= _CANDIDATES:
        wanted = pool
    matcher = SequenceMatcher(b=lowered, autojunk=False)
    scored = []
    for key in dict.fromkeys(wanted):
        matcher.set_seq1(key.lower())
        if matcher.real_quick_ratio() >= 0.6 and matcher.quick_ratio() >= 0.6 and (ratio := matcher.ratio()) >= 0.6:
            scored.append((-ratio, key))
    return [key for _, key in sorted(scored)[:most]]
