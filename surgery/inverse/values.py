"""What takes back the steps that change tensors in their places: axes, shapes and dtypes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from surgery.inverse.families import exact, selecting
from surgery.inverse.names import Steps, plain
from surgery.select import Facts, Selector
from surgery.steps.base import Step
from surgery.steps.cast import Cast
from surgery.steps.rearrange import Rearrange
from surgery.steps.transpose import Transpose
from surgery.table import Table

Groups = Mapping[Any, list[str]]


def changed(before: Table, after: Table) -> list[str]:
    """The keys whose tensor a step has changed."""
    return [key for key, entry in after.items() if key in before and entry.expr is not before[key].expr]


def selector_of(step: Selector) -> dict[str, Any]:
    """The selecting words of a step, as they stand in YAML."""
    facts = _facts(step)
    others = [_facts(one) for one in step.except_ or ()]
    return facts | plain(**{"except": others or None}, optional=step.optional)


def _facts(facts: Facts) -> dict[str, Any]:
    where = facts.where
    told = {} if where is None else plain(**{name: value for name, value in vars(where).items() if name != "named_groups"}) | dict(where.groups())
    return plain(match=facts.match, keys=facts.keys, where=told or None)


def transpose(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """The inverse order, for the same keys."""
    assert isinstance(step, Transpose)
    back = {} if step.order is None else {"order": [step.order.index(axis) for axis in range(len(step.order))]}
    yield from _same_or_each("transpose", step, {"": changed(before, after)}, lambda _: back)


def _same_or_each(word: str, step: Selector, groups: Groups, options: Callable[[Any], dict[str, Any]]) -> Iterator[Steps]:
    """A step with the old selector, if it has one group of keys to do with; then one for each group that selects it by patterns, then by keys."""
    groups = {mark: keys for mark, keys in groups.items() if keys}
    if len(groups) == 1:
        (mark,) = groups
        yield [{word: selector_of(step) | options(mark)}]
    yield [{word: selecting(keys) | options(mark)} for mark, keys in groups.items()]
    yield [{word: {"keys": [exact(key) for key in keys]} | options(mark)} for mark, keys in groups.items()]


def reshape(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """The old shapes."""
    assert isinstance(step, Selector)
    groups: dict[tuple[int, ...], list[str]] = {}
    for key in changed(before, after):
        groups.setdefault(before[key].spec.shape, []).append(key)
    yield from _same_or_each("reshape", step, groups, lambda shape: {"shape": list(shape)})


def rearrange(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """The sides of the pattern exchanged; where the sizes of axes do not follow from the new shape, with all of them."""
    assert isinstance(step, Rearrange)
    left, right = (side.strip() for side in step.pattern.split("->"))
    back = {"pattern": f"{right} -> {left}"}
    groups: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for key in changed(before, after):
        sizes = step.sizes_of(before[key].spec.shape)
        groups.setdefault(tuple(sorted(sizes.items())), []).append(key)
    everything = [key for keys in groups.values() for key in keys]
    yield from _same_or_each("rearrange", step, {"": everything}, lambda _: back | ({"axes": dict(step.axes)} if step.axes else {}))
    yield from _same_or_each("rearrange", step, groups, lambda sizes: back | {"axes": dict(sizes)})


def cast(step: Step, before: Table, after: Table) -> Iterator[Steps]:
    """The old dtypes; of floats that became integers the fractions are gone."""
    assert isinstance(step, Cast)
    groups: dict[str, list[str]] = {}
    for key in changed(before, after):
        groups.setdefault(before[key].spec.dtype.name, []).append(key)
    if len(groups) == 1:
        (old,) = groups
        yield [{"cast": {"where": {"dtype": step.dtype}, **_cast_options(step.dtype, old)}}]
    yield from _same_or_each("cast", step, groups, lambda old: _cast_options(step.dtype, old))


def _cast_options(now: str, old: str) -> dict[str, Any]:
    from surgery.dtypes import DTYPES

    rounding = "nearest" if DTYPES[now].is_float and DTYPES[old].kind in ("int", "uint") else None
    return plain(dtype=old, rounding=rounding)
