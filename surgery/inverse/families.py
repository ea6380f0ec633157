"""Names that differ in their numbers only, as one rule: `h.0.w` → `layer/0/w`, `h.1.w` → `layer/1/w`, … become `^h\\.(\\d+)\\.w$` → `layer/\\1/w`.

A number that is the same in all rows stays a literal. Whether a rule does no more than it should is for the caller to try.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

Row = tuple[str, ...]
"""Names that belong together, one in each column: an input and its results, or a new name and the old one."""

_NUMBER = re.compile(r"\d+")
_SPECIAL = re.compile(r"[][\\.^$*+?{}()|#&~-]")


def quoted(text: str) -> str:
    """A regular expression for this very text."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def literal(text: str) -> str:
    """A `to` for this very text."""
    return text.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}")


class Family(NamedTuple):
    """Rows that are alike but for their numbers."""

    rows: tuple[Row, ...]

    def _varying(self, column: int) -> list[tuple[str, ...] | None]:
        """For each number of a column its texts in all rows; None where they are all the same."""
        found = zip(*(_NUMBER.findall(row[column]) for row in self.rows), strict=True)
        return [texts if len(set(texts)) > 1 else None for texts in found]

    def pattern(self, column: int) -> str:
        """A regular expression for the names of a column, with a group for each number that varies."""
        groups = [None if texts is None else r"(\d+)" for texts in self._varying(column)]
        return f"^{_woven(self.rows[0][column], groups, quoted)}$"

    def template(self, column: int, by: int, index: Sequence[str] = ()) -> str | None:
        """A `to` that makes the names of a column of those of column `by`; None where its numbers are others.

        `index` are the texts that `{i}` stands for, one for each row.
        """
        known = [texts for texts in self._varying(by) if texts is not None]
        parts: list[str | None] = []
        for texts in self._varying(column):
            if texts is not None and texts not in known and texts != tuple(index):
                return None
            parts.append(None if texts is None else "{i}" if texts not in known else f"\\{known.index(texts) + 1}")
        return _woven(self.rows[0][column], parts, literal)


def _woven(text: str, parts: Sequence[str | None], between: Callable[[str], str]) -> str:
    """A text whose numbers are replaced by the parts that are given, and the rest is put through a function."""
    out, at = [], 0
    for number, part in zip(_NUMBER.finditer(text), parts, strict=True):
        if part is not None:
            out += [between(text[at : number.start()]), part]
            at = number.end()
    return "".join([*out, between(text[at:])])


def families(rows: Sequence[Row]) -> Iterator[Family]:
    """The rows in families, in the order of their first ones."""
    found: dict[Row, list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(_NUMBER.sub("0", name) for name in row), []).append(row)
    return (Family(tuple(alike)) for alike in found.values())


def selecting(keys: Sequence[str]) -> dict[str, list[str] | str]:
    """Words that select these keys: patterns for those that differ in numbers, exact keys for the others.

    The patterns may select more.
    """
    alike = list(families([(key,) for key in keys]))
    if all(len(family.rows) == 1 for family in alike):
        return {"keys": [exact(key) for key in keys]}
    patterns = [family.pattern(0) for family in alike]
    return {"match": patterns[0] if len(patterns) == 1 else patterns}


def exact(key: str) -> str:
    """An item of `keys` that means this very key."""
    return key.replace("\\", "\\\\").replace("*", "\\*")
