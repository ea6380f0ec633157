"""A T5X `assignment_map` as a recipe, with the meaning of `t5x.state_utils.apply_assignment_map`.

Its patterns are about the *model's* names, and the replacement tells the checkpoint's. From the checkpoint to the model a rule
therefore has to be turned round, which is possible where all that its pattern leaves open stands in the replacement too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from surgery.errors import RecipeError
from surgery.importers.draft import Draft, Inexpressible, Step, literal_pattern, literal_to
from surgery.patterns import compile_pattern
from surgery.replacement import compile_template

_PIECE = re.compile(r"\\(\d{1,2}|g<\w+>|.)|\((?:\?P<(\w+)>|(\?:))?|([\[\])|*+?{}^$.])|([^\\()\[\]|*+?{}^$.]+)", re.DOTALL)
_REFERENCE = re.compile(r"\\(\d{1,2}|g<\w+>|.)", re.DOTALL)


class _Rule(NamedTuple):
    """A pattern of the model's names, and what it reads in the checkpoint; None where it reads nothing."""

    pattern: str
    replacement: str | None

    @property
    def whole(self) -> str:
        """The pattern anchored, as `re.fullmatch` reads it."""
        return f"^(?:{self.pattern})$" if "|" in self.pattern else f"^{self.pattern}$"


def read(text: str, name: str, reverse: bool) -> Draft:
    """The recipe for a JSON list of pairs, pattern and replacement or null; `reverse` goes from the model's names to the checkpoint's.

    Raises:
        RecipeError: this is no assignment map.
    """
    given = [_Rule(pattern, replacement) for pattern, replacement in _given(text)]
    about = "A T5X assignment map: the names of the " + ("checkpoint for those of the model." if reverse else "model for those of the checkpoint.")
    steps, unexpressed = (_to_checkpoint if reverse else _to_model)(given)
    return Draft(name, about, steps, len(given), unexpressed)


def _given(text: str) -> Iterator[tuple[str, str | None]]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise RecipeError(f"this is no JSON: {fault}", code="bad-value", help="write `json.dumps(assignment_map)` into the file") from None
    for pair in data if isinstance(data, list) else [None]:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], str | None)):
            help = "write [[pattern, replacement], …], with null for a replacement that skips"
            raise RecipeError("an assignment map of T5X is a JSON list of pairs", code="bad-value", help=help)
        yield pair[0], pair[1]


def _to_checkpoint(rules: Sequence[_Rule]) -> tuple[list[Step], list[str]]:
    """First match wins: a key that has been renamed carries a mark, which no later pattern may take."""
    marked = _overlap([rule.pattern for rule in rules] + [rule.replacement for rule in rules if rule.replacement is not None])
    guard, mark = ("(?!=>)", "=>") if marked else ("", "")
    changes: list[Mapping[str, Any]] = []
    dropped, unexpressed = [], []
    for rule in rules:
        try:
            _refuse(rule)
            match = rule.whole.replace("^", f"^{guard}", 1)
            if rule.replacement is not None:
                changes.append({"match": match, "to": mark + _as_to(rule), "optional": True})
            elif marked:
                changes.append({"match": match, "to": r"=>!\g<0>", "optional": True})
            else:
                dropped.append(match)
        except Inexpressible as reason:
            unexpressed.append(_told(rule, reason))
    steps: list[Step] = [{"rename": changes}] if changes else []
    if marked:
        steps += [{"drop": {"match": "^=>!", "optional": True}}, {"rename": [{"match": "^=>", "to": "", "optional": True}]}]
    return steps + ([{"drop": {"match": dropped, "optional": True}}] if dropped else []), unexpressed


def _to_model(rules: Sequence[_Rule]) -> tuple[list[Step], list[str]]:
    unexpressed: list[str] = []
    turned: list[tuple[int, str, str]] = []
    for index, rule in enumerate(rules):
        try:
            _refuse(rule)
            if rule.replacement is not None:
                turned.append((index, *_turned(rule)))
        except Inexpressible as reason:
            unexpressed.append(_told(rule, reason))
    skipped = [rule.whole for rule in rules if rule.replacement is None and _is_pattern(rule.pattern)]
    touched = [rule.pattern for rule in rules] + [rule.replacement for rule in rules if rule.replacement is not None]
    if not _overlap(touched):
        renamed: list[Step] = [{"rename": [{"match": match, "to": to} for _, match, to in turned]}] if turned else []
        return renamed + ([{"drop": {"match": skipped, "optional": True}}] if skipped else []), unexpressed
    steps: list[Step] = [{"copy": [{"match": match, "to": f"={index}>{to}"} for index, match, to in turned]}] if turned else []
    read = [match for _, match, _ in turned] + [pattern.replace("^", r"^(?!=\d+>)", 1) for pattern in skipped]
    steps += [{"drop": {"match": read, "optional": True}}] if read else []
    # A name that an earlier rule gives to the model is not taken from a later one.
    beaten = [
        rules[earlier].whole.replace("^", f"^={index}>", 1)
        for index, _, _ in turned
        for earlier in range(index)
        if _is_pattern(rules[earlier].pattern) and _overlap([rules[earlier].pattern, rules[index].pattern])
    ]
    steps += [{"drop": {"match": beaten, "optional": True}}] if beaten else []
    return steps + ([{"rename": [{"match": r"^=\d+>", "to": ""}]}] if turned else []), unexpressed


def _told(rule: _Rule, reason: Exception) -> str:
    return f"{json.dumps(list(rule))}, {reason}"


def _overlap(patterns: Sequence[str]) -> bool:
    """Whether two of them could fit one name: judged by the plain text at their start, and True where that does not tell."""
    starts = [re.sub(r"\\([^\w\s])", r"\1", re.match(r"(?:[^\\()\[\]|*+?{}^$.]|\\[^\w\s])*", text)[0]) for text in patterns]  # type: ignore[index]
    starts = ["" if "|" in re.sub(r"\(.*?\)", "", text) else start for text, start in zip(patterns, starts, strict=True)]
    return any(one.startswith(other) or other.startswith(one) for one, other in combinations(starts, 2))


def _is_pattern(text: str) -> bool:
    try:
        compile_pattern(text)
    except RecipeError:
        return False
    return True


def _refuse(rule: _Rule) -> None:
    """Raise Inexpressible where a recipe takes no such pattern or replacement."""
    try:
        pattern = compile_pattern(rule.whole)
        if rule.replacement is not None:
            compile_template(_as_to(rule), pattern)
    except RecipeError as error:
        raise Inexpressible(error.title) from None


def _as_to(rule: _Rule) -> str:
    """The replacement, in which braces are text, as a `to`."""
    return (rule.replacement or "").replace("{", "{{").replace("}", "}}")


def _turned(rule: _Rule) -> tuple[str, str]:
    """The rule from the checkpoint's names to the model's, as `match` and `to`."""
    pieces = list(_pieces(rule.pattern))
    groups = [piece for piece in pieces if isinstance(piece, _Group)]
    numbers: dict[int, int] = {}
    match = ""
    at = 0
    for token in _REFERENCE.finditer(rule.replacement or ""):
        match += literal_pattern((rule.replacement or "")[at : token.start()])
        at = token.end()
        if token[1] == "\\":
            match += r"\\"
            continue
        group = next(number for number, group in enumerate(groups, 1) if token[1] in (str(number), f"g<{number}>", f"g<{group.name}>"))
        match += f"\\{numbers[group]}" if group in numbers else f"({groups[group - 1].body})"
        numbers.setdefault(group, len(numbers) + 1)
    match += literal_pattern((rule.replacement or "")[at:])
    if len(numbers) < len(groups):
        raise Inexpressible("the replacement does not tell what a group of the pattern stands for, so many names would read one tensor")
    order = iter(range(1, len(groups) + 1))
    return f"^{match}$", "".join(literal_to(piece) if isinstance(piece, str) else f"\\{numbers[next(order)]}" for piece in pieces)


class _Group(NamedTuple):
    name: str
    body: str


def _pieces(pattern: str) -> Iterator[str | _Group]:
    """A pattern as plain texts and groups. Raises Inexpressible where anything else is left open outside of groups."""
    at = 0
    while at < len(pattern):
        token = _PIECE.match(pattern, at)
        if token is None or token[3] or token[4] or (token[1] and token[1].isalnum()):
            raise Inexpressible(f"`{token[0] if token else pattern[at:]}` in the pattern leaves open which names are meant: put it into a group")
        if token[0].startswith("("):
            end = _closing(pattern, token.end())
            body = pattern[token.end() : end]
            if re.search(r"(?<!\\)\((?!\?[:=!])", body) or pattern[end + 1 : end + 2] in ("*", "+", "?", "{"):
                raise Inexpressible("groups in groups, or repeated ones, cannot be turned round")
            yield _Group(token[2] or "", body)
            at = end + 1
        else:
            yield token[1] or token[0]
            at = token.end()


def _closing(pattern: str, at: int) -> int:
    depth = 1
    while depth:
        step = 2 if pattern[at] == "\\" else 1
        depth += {"(": 1, ")": -1}.get(pattern[at], 0)
        at += step
    return at - 1
