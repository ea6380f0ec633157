"""Renaming all keys at once: as texts with a key on each line, which a rule splits where it matches and joins again.

A fast path for `Pattern.substitutions`, which has the last word wherever keys are odd, patterns rich, or a line has two matches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from operator import contains

from surgery.errors import PlanError
from surgery.pattern_facts import Plain
from surgery.patterns import Clock, Pattern
from surgery.replacement import Number, Template
from surgery.twins import line_pattern

_KEYS_PER_BLOCK = 1024
"""Few enough for their text to stay in the processor's cache, and to look at the clock between two blocks."""

Swept = tuple[str, int] | None
"""A text with its matches replaced and their number; None where a line has two, or a number is none."""


class Names:
    """The names of all tensors while rules change them one after the other."""

    def __init__(self, names: Sequence[str]) -> None:
        self._blocks = [_packed(names[start : start + _KEYS_PER_BLOCK]) for start in range(0, len(names), _KEYS_PER_BLOCK)]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(map(_unpacked, self._blocks))

    def substitute(self, pattern: Pattern, to: Template, every: bool, clock: Clock) -> int:
        """Replace in each name the first match, or every match; returns in how many names there is one. Raises TimeoutError, PlanError."""
        sweep = None if every else _sweeper(pattern, to)
        touched = 0
        for at, block in enumerate(self._blocks):
            clock.left()
            swept = sweep(block) if sweep is not None and isinstance(block, str) else None
            self._blocks[at], count = swept or _one_by_one(block, pattern, to, every, clock)
            touched += count
        return touched


def _packed(names: Sequence[str]) -> str | list[str]:
    """A name on each line, where names are ASCII and have one line."""
    text = "\n".join(names)
    return text if text.isascii() and text.count("\n") == len(names) - 1 else list(names)


def _unpacked(block: str | list[str]) -> list[str]:
    return block.split("\n") if isinstance(block, str) else block


def _one_by_one(block: str | list[str], pattern: Pattern, to: Template, every: bool, clock: Clock) -> tuple[str | list[str], int]:
    names = list(_unpacked(block))
    found = pattern.substitutions(names, to, every, clock)
    for position, name in found:
        names[position] = name
    return (_packed(names) if found else block), len(found)


def _sweeper(pattern: Pattern, to: Template) -> Callable[[str], Swept] | None:
    """The rule as a function of a text; None where lines might not stay lines, or the pattern is more than can be swept."""
    written = "".join(part for part in to.parts if isinstance(part, str))
    if not (written + pattern.text).isascii() or "\n" in written + pattern.text or 0 in to.parts:
        return None
    if pattern.plain is not None and to.constant is not None:
        return _plain_sweeper(pattern.plain, to.constant)
    return _regular_sweeper(pattern, to)


def _plain_sweeper(plain: Plain, new: str) -> Callable[[str], Swept]:
    def at_start(text: str) -> Swept:
        lines = "\n" + text
        return lines.replace("\n" + plain.text, "\n" + new)[1:], lines.count("\n" + plain.text)

    def at_end(text: str) -> Swept:
        lines = text + "\n"
        return lines.replace(plain.text + "\n", new + "\n")[:-1], lines.count(plain.text + "\n")

    def anywhere(text: str) -> Swept:
        pieces = text.split(plain.text)
        return (new.join(pieces), len(pieces) - 1) if _in_lines_of_their_own(pieces) else None

    return {"^": at_start, "$": at_end, "": anywhere}[plain.anchor]


def _regular_sweeper(pattern: Pattern, to: Template) -> Callable[[str], Swept] | None:
    lines = line_pattern(pattern.text)
    if lines is None:
        return None
    split, step, literal, safe_length = lines.split, lines.groups + 1, pattern.literal, pattern.safe_length
    number_of = lines.groupindex

    def sweep(text: str) -> Swept:
        if literal not in text:
            return text, 0
        if len(text) > safe_length and max(map(len, text.split("\n"))) > safe_length:
            return None
        pieces = split(text)  # the text before a match, its groups, the text before the next one, …
        if not _in_lines_of_their_own(pieces[::step]):
            return None
        count = (len(pieces) - 1) // step
        columns: list[Sequence[str]] = [pieces[:-1:step]]
        for part in to.parts:
            if isinstance(part, str):
                columns.append([part] * count)
            elif isinstance(part, int):
                columns.append(pieces[part::step])
            else:
                numbers = _numbers(part, count, [pieces[number_of[name] :: step] for name in part.names])
                if numbers is None:
                    return None
                columns.append(numbers)
        return "".join(_woven(columns, pieces[-1])), count

    return sweep


def _in_lines_of_their_own(pieces: Sequence[str]) -> bool:
    """Whether there is a line's end between any two matches."""
    return all(map(contains, pieces[1:-1], repeat("\n")))


def _numbers(part: Number, count: int, groups: Sequence[Sequence[str]]) -> list[str] | None:
    """What a number becomes for each match; None where one is none, which the slow path can explain."""
    rows = list(zip(*groups, strict=True)) if groups else [()] * count
    try:
        text_of = {row: part.text_of(row, "") for row in set(rows)}
    except PlanError:
        return None
    return [text_of[row] for row in rows]


def _woven(columns: Sequence[Sequence[str]], last: str) -> list[str]:
    """The first of each column, then the second of each, and at the end what is behind the last match."""
    out = [last] * (len(columns) * len(columns[0]) + 1)
    for at, column in enumerate(columns):
        out[at : -1 : len(columns)] = column
    return out
