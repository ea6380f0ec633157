"""What takes back the steps that give names, copy, and drop. Each yields candidates, the most general first; the caller tries them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from surgery.inverse.families import exact, selecting
from surgery.inverse.rules import Pair, Rule, by_ending, by_numbers, mapping, reversed_rule
from surgery.patterns import Clock
from surgery.steps.base import Step
from surgery.steps.copy import Copy
from surgery.steps.rename import Rename, RenameRule
from surgery.steps.scope import Scope
from surgery.steps.tie import Tie
from surgery.table import Table
from surgery.tensors import TensorSpec
from surgery.where import texts

Steps = list[dict[str, Any]]
"""Steps as they stand in YAML, each a word with its options."""


_DEEPEST = 3
"""Parts of a name in front of its end that are looked at to tell it from others."""


def plain(**fields: Any) -> dict[str, Any]:
    """Options without those that have no value."""
    return {name: value for name, value in fields.items() if value is not None and value is not False}


def rename(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """Rule by rule, the last one first; and the names as they are."""
    pairs = renamed(before, after)
    rules = _rule_by_rule(cast(Rename, step), before, [old for _, old in pairs])
    if rules is not None:
        yield one_step(rules)
    yield one_step(by_numbers(pairs))
    yield one_step(mapping(pairs))


def renamed(before: Table, after: Table) -> list[Pair]:
    """Each key behind a step that only renames, with the one that it had."""
    olds = {id(entry.expr): key for key, entry in before.items()}
    number = {id(entry.trail): key for key, entry in before.items()}
    return [(key, key if entry is before.get(key) else number.get(id(entry.trail.before), olds[id(entry.expr)])) for key, entry in after.items()]


def _rule_by_rule(step: Rename, before: Table, olds: Sequence[str]) -> list[Rule] | None:
    """For each rule what takes it back: itself reversed, else by numbers, else the names; None where rules hide each other."""
    names, back = list(olds), list[Rule]()
    clock = Clock.over(len(names) + 1)
    for rule in step.root:
        changes, _ = rule.apply(names, lambda at: before[olds[at]].spec, clock)
        now = list(names)
        for at, name in changes:
            now[at] = name
        pairs = list(zip(now, names, strict=True))
        if len(set(now)) < len(now):
            return None
        reverse = reversed_rule(rule)
        if not changes:
            back[:0] = [reverse | {"optional": True}] if reverse and _renames([reverse], now) == now else []
            continue
        candidates = [[reverse] if reverse else [], *(by_ending(pairs, depth) for depth in range(_DEEPEST)), by_numbers(pairs), mapping(pairs)]
        fitting = [rules for rules in candidates if _renames(rules, now) == names]
        if not fitting:
            return None
        back[:0] = min(fitting, key=_length)
        names = now
    return back


def _length(rules: Iterable[Rule]) -> int:
    """How much there is to read: rules, and the names of mappings."""
    return sum(len(rule.get("keys", ("",))) for rule in rules)


def _renames(rules: Sequence[Rule], names: Sequence[str]) -> list[str]:
    """What rules make of names."""
    found, clock = list(names), Clock.over(len(names) + 1)
    for data in rules:
        rule = RenameRule.model_validate(data)
        if next(rule.lint(()), None) is not None:
            return []
        changes, _ = rule.apply(list(found), _no_spec, clock)
        for at, name in changes:
            found[at] = name
    return found


def _no_spec(position: int) -> TensorSpec:
    raise AssertionError("rules made here have no `where`")


def one_step(rules: Sequence[Rule]) -> Steps:
    """The rules as one step, none where there is nothing to do."""
    return [{"rename": rules[0] if len(rules) == 1 else list(rules)}] if rules else []


def scope(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """Prefixes the other way round."""
    assert isinstance(step, Scope)
    separators = {"from": step.separator.to, "to": step.separator.from_} if step.separator else None
    strips = texts(step.strip)
    first = [{"scope": {"separator": separators}}] if separators else []
    if step.add is not None:
        yield [*first, {"scope": {"strip": step.add}}]
    elif len(strips) == 1 and not step.repeat:
        yield [*first, {"scope": {"add": strips[0]}}]
    elif step.from_ is not None and step.to:
        yield [*first, {"scope": {"from": step.to, "to": step.from_}}]
    elif step.from_ is not None:
        yield [*first, {"scope": {"add": step.from_}}]
    elif not strips:
        yield first
    pairs = renamed(before, after)
    yield one_step(by_numbers(pairs))
    yield one_step(mapping(pairs))


def copy(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """Without the copies; where only a copy is left, it gets the name of what it was made from."""
    assert isinstance(step, Copy)
    copies = {key: entry.trail.key for key, entry in after.items() if entry is not before.get(key)}
    needed = {old: key for key, old in reversed(copies.items()) if old not in after}
    back = {key: old for old, key in needed.items()}
    yield from without([key for key in copies if key not in back], one_step([{"keys": back}]) if back else [])


def unscoped(pairs: Sequence[Pair]) -> Iterator[Steps]:
    """First names, where a load has put all under one scope or has given others."""
    prefixes = {now[: len(now) - len(first)] for now, first in pairs if now != first and now.endswith(first)} - {""}
    yield from ([{"scope": {"strip": prefix}}] for prefix in prefixes if len(prefixes) == 1)
    yield one_step(by_numbers(pairs))
    yield one_step(mapping(pairs))
    yield from without([now for now, first in pairs if now != first])


def without(keys: Sequence[str], then: Sequence[dict[str, Any]] = ()) -> Iterator[Steps]:
    """The steps that drop these keys, by patterns and by exact keys, and go on."""
    if not keys:
        yield list(then)
        return
    yield [{"drop": selecting(keys)}, *then]
    yield [{"drop": {"keys": [exact(key) for key in keys]}}, *then]


def made(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """Without the tensors that the step made."""
    yield from without([key for key in after if key not in before])


def tie(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """Duplicates for what was dropped, which was proven to be equal; without duplicates that were made."""
    assert isinstance(step, Tie)
    dropped = {id(entry.expr): key for key, entry in before.items() if key not in after}
    if step.keys is not None and dropped:
        group = [key for key in step.keys if key in before]
        yield [{"tie": {"keys": group, "policy": "duplicate"}}]
    yield from without([key for key in after if key not in before])


def nothing(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """Nothing is to be done."""
    yield []
