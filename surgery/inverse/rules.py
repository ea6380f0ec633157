"""The rule that takes back what a rule of `rename` does: `^bert/(.*)$` → `\\1` becomes `^(.*)$` → `bert/\\1`.

Only patterns of literal text, anchors and plain groups have one, where `to` uses each group once. What it does to names that the first rule left
alone is not looked at here: the caller tries it on all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from surgery.inverse.families import families, literal, quoted
from surgery.patterns import compile_pattern
from surgery.replacement import compile_template
from surgery.steps.naming import NameRule

Rule = dict[str, Any]
Pair = tuple[str, str]
"""A name as it is now, and what it is to become."""

_TOKEN = re.compile(r"\\([^\w\s])|([\w/ :,;@%&=~<>!'\"#-])|(\((?:\?P<\w+>)?((?:[^()\\[\]]|\\.|\[[^\]]*\])*)\)(?![*+?{]))")
"""A literal, escaped or plain, or a group without groups."""


SEPARATORS = ("/", ".", "_")
_PART = re.compile(r"[^/._]*[/._]")
_DIGITS = re.compile(r"\d+")
_MOST_CONTEXTS = 6


def reversed_rule(rule: NameRule) -> Rule | None:
    """The rule that gives the old names back, None where the text of the rule does not tell."""
    if rule.match is None or rule.to is None:
        return None
    start, stop = rule.match.startswith("^"), rule.match.endswith("$") and not rule.match.endswith("\\$")
    tokens = _tokens(rule.match[start : len(rule.match) - stop])
    parts = compile_template(rule.to, compile_pattern(rule.match)).parts
    if tokens is None:
        return None
    groups = [body for kind, body in tokens if kind == "group"]
    used = [part for part in parts if isinstance(part, int)]
    if sorted(used) != list(range(1, len(groups) + 1)) or any(not isinstance(part, (int, str)) for part in parts):
        return None
    number = 0
    old = []
    for kind, body in tokens:
        number += kind == "group"
        old.append(f"\\{used.index(number) + 1}" if kind == "group" else literal(body))
    new = "".join(f"({groups[part - 1]})" if isinstance(part, int) else quoted(str(part)) for part in parts)
    more = {"all": True} if rule.all else {}
    return {"match": f"{'^' * start}{new}{'$' * stop}", "to": "".join(old), **more}


def _tokens(pattern: str) -> list[tuple[str, str]] | None:
    """The literals and groups that a pattern is made of, None where it has anything else."""
    tokens, at = [], 0
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        if found is None or (found[3] is not None and found[4].startswith("?")):
            return None
        tokens.append(("group", found[4]) if found[3] is not None else ("literal", found[1] or found[2]))
        at = found.end()
        if pattern[at : at + 1] in ("*", "+", "?", "{", "|"):
            return None
    return tokens


def by_ending(pairs: Sequence[Pair], depth: int) -> list[Rule]:
    """Rules for names that change at their ends, `(LayerNorm/)bias$` → `\\1beta`: the `depth` parts in front tell them from others."""
    contexts: dict[Pair, set[str]] = {}
    for now, then in pairs:
        if now != then:
            same = max(_common(now, then).rfind(separator) for separator in SEPARATORS)
            parts = _PART.findall(now[: same + 1])
            kept = "".join(parts[len(parts) - depth :]) if depth else ""
            contexts.setdefault((now[same + 1 :], then[same + 1 :]), set()).add(_DIGITS.sub(r"\\d+", quoted(kept)))
    rules = []
    for (now, then), fronts in contexts.items():
        front = f"({'|'.join(sorted(fronts))})" if depth else ""
        rules.append({"match": f"{front}{quoted(now)}$", "to": ("\\g<1>" if then[:1].isdigit() else "\\1") * bool(depth) + literal(then)})
        if max(len(fronts), len(contexts)) > _MOST_CONTEXTS or not now:
            return []
    return rules


def _common(one: str, other: str) -> str:
    """What both texts begin with."""
    return "".join(a for a, b in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def by_numbers(pairs: Sequence[Pair]) -> list[Rule]:
    """Rules for names that change, one for all that differ in numbers only, and a mapping for the rest."""
    rules: list[Rule] = []
    rest: dict[str, str] = {}
    for family in families([pair for pair in pairs if pair[0] != pair[1]]):
        to = family.template(1, 0)
        if len(family.rows) == 1 or to is None:
            rest |= {row[0]: row[1] for row in family.rows}
        else:
            rules.append({"match": family.pattern(0), "to": to})
    return [*rules, {"keys": rest}] if rest else rules


def mapping(pairs: Sequence[Pair]) -> list[Rule]:
    """One rule for all names that change, each by its exact name."""
    changed = {now: then for now, then in pairs if now != then}
    return [{"keys": changed}] if changed else []
