"""What takes back the steps that make several tensors of one, or one of several: each is the other's inverse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from surgery.inverse.families import Family, exact, families, literal
from surgery.inverse.names import Steps, one_step, plain, without
from surgery.inverse.rules import by_numbers, mapping
from surgery.steps.base import Step
from surgery.steps.groups import result_names
from surgery.steps.joining import Joining, group
from surgery.steps.split import Split
from surgery.steps.stack import Stack
from surgery.steps.unstack import Unstack
from surgery.table import Table

_NUMBER = re.compile(r"\d+")


def taken_apart(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """What joins the results of `split` and `unstack`; without them where the whole was kept."""
    assert isinstance(step, (Split, Unstack))
    results: dict[str, list[str]] = {}
    for key, entry in after.items():
        if entry is not before.get(key):
            results.setdefault(entry.trail.key, []).append(key)
    if step.keep_inputs:
        yield from without([key for keys in results.values() for key in keys])
        return
    wholes = {whole: names for whole, names in _in_order(step, before, list(results)).items() if set(names) <= set(results[whole])}
    gone = [key for whole, keys in results.items() if whole not in wholes for key in keys]
    word = "concat" if isinstance(step, Split) else "stack"
    more = {"axis": step.axis}
    for start in without(gone):
        if isinstance(step, Unstack):
            yield [*start, *_stacked(wholes, more)]
        yield [*start, *_joined(word, wholes, more)]
        yield [*start, *({word: {"keys": [exact(key) for key in names], "to": literal(whole), **more}} for whole, names in wholes.items())]


def _in_order(step: Split | Unstack, before: Table, wholes: Sequence[str]) -> dict[str, list[str]]:
    """For each input of the step the keys of its results, in their order along the axis."""
    if isinstance(step, Split):
        return {whole: list(names) for whole, names in result_names(step, wholes, step.to).items()}
    found = {}
    for whole in wholes:
        size = before[whole].spec.shape[step.axis]
        names = result_names(step, [whole], [step.to] * size, [(("i", index),) for index in range(size)])
        found[whole] = list(names[whole])
    return found


def _joined(word: str, wholes: Mapping[str, Sequence[str]], more: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The steps that join, one for all wholes that differ in numbers only."""
    by_length: dict[int, list[tuple[str, ...]]] = {}
    for whole, names in wholes.items():
        by_length.setdefault(len(names), []).append((*names, whole))
    for length, rows in by_length.items():
        for family in families(rows):
            yield {word: _joining(family, length) | dict(more)}


def _stacked(wholes: Mapping[str, Sequence[str]], more: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The steps that stack by the number in the names that is the index, one for all wholes that differ in numbers only."""
    for family in families([(name, whole) for whole, names in wholes.items() for name in names]):
        yield {"stack": {"match": family.pattern(0), "to": family.template(1, 0) or literal(family.rows[0][1])} | dict(more)}


def _joining(family: Family, length: int) -> dict[str, Any]:
    """What selects the parts and names the whole."""
    whole = family.rows[0][length]
    if len(family.rows) == 1:
        return {"keys": [exact(key) for key in family.rows[0][:length]], "to": literal(whole)}
    patterns = [family.pattern(column) for column in range(length)]
    return {"match": patterns, "to": family.template(length, 0) or literal(whole)}


def joined(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """What takes apart the results of `concat` and `stack`; without them where the parts were kept."""
    assert isinstance(step, Joining)
    wholes = [key for key, entry in after.items() if entry is not before.get(key)]
    if step.keep_inputs:
        yield from without(wholes)
        return
    from surgery.select import select
    from surgery.steps.base import Catalog, State

    chosen = select(step, State(before, Catalog({}, {}))).keys
    members = {name: [member.key for member in found] for name, found in group(step, chosen, step.to).items() if name in wholes}
    axis = {"axis": getattr(step, "axis")}  # noqa: B009
    if isinstance(step, Stack):
        yield from _unstacked(members, axis)
        return
    rows: dict[tuple[int, ...], list[tuple[str, ...]]] = {}
    for whole, names in members.items():
        rows.setdefault(tuple(before[name].spec.shape[axis["axis"]] for name in names), []).append((*names, whole))
    yield [{"split": _splitting(family, sizes) | axis} for sizes, alike in rows.items() for family in families(alike)]
    yield [
        {"split": {"keys": exact(row[-1]), "to": [literal(name) for name in row[:-1]], **_measure(sizes), **axis}}
        for sizes, alike in rows.items()
        for row in alike
    ]


def _splitting(family: Family, sizes: Sequence[int]) -> dict[str, Any]:
    last = len(sizes)
    to = [family.template(column, last) for column in range(last)]
    if len(family.rows) == 1 or None in to:
        return {"keys": exact(family.rows[0][last]), "to": [literal(name) for name in family.rows[0][:last]], **_measure(sizes)}
    return {"match": family.pattern(last), "to": to, **_measure(sizes)}


def _measure(sizes: Sequence[int]) -> dict[str, Any]:
    return {"parts": len(sizes)} if len(set(sizes)) == 1 else {"sizes": list(sizes)}


def _unstacked(members: Mapping[str, Sequence[str]], axis: Mapping[str, int]) -> Iterator[Steps]:
    """`unstack` with the index in its place in the names; where they have none, under numbers behind the whole and then renamed."""
    rows: list[tuple[str, ...]] = [(indexed, whole) for whole, names in members.items() if (indexed := _indexed(names))]
    if len(rows) == len(members):
        yield [{"unstack": step | dict(axis)} for family in families(rows) for step in _unstacking(family)]
        yield [{"unstack": {"keys": exact(whole), "to": _with_index(indexed), **axis}} for indexed, whole in rows]
    pairs = [(f"{whole}.{index}", name) for whole, names in members.items() for index, name in enumerate(names)]
    apart: Steps = [{"unstack": {"keys": exact(whole), "to": literal(whole) + ".{i}", **axis}} for whole in members]
    yield [*apart, *one_step(by_numbers(pairs))]
    yield [*apart, *one_step(mapping(pairs))]


_INDEX = "\0"
"""Stands for the index in a name that is looked at together with others."""


def _indexed(names: Sequence[str]) -> str:
    """The name that all of these are but for their index, which counts from 0; "" where there is none."""
    for number in _NUMBER.finditer(names[0]):
        start, stop = names[0][: number.start()], names[0][number.end() :]
        if len(names) > 1 and all(name == f"{start}{index}{stop}" for index, name in enumerate(names)):
            return f"{start}{_INDEX}{stop}"
    return ""


def _with_index(name: str) -> str:
    return literal(name).replace(_INDEX, "{i}")


def _unstacking(family: Family) -> Iterator[dict[str, Any]]:
    to = family.template(0, 1)
    if len(family.rows) > 1 and to is not None:
        yield {"match": family.pattern(1), "to": to.replace(_INDEX, "{i}")}
    else:
        yield from (plain(keys=exact(whole), to=_with_index(indexed)) for indexed, whole in family.rows)
