"""What steps share that make other tensors of some: the keys that `to` gives to the results, and the results put in the place of their inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from surgery.errors import PlanError, RecipeError
from surgery.expr import Expr
from surgery.patterns import Clock, Pattern, compile_pattern
from surgery.replacement import compile_template
from surgery.select import Selector, timed_out
from surgery.steps.base import State
from surgery.steps.naming import collision
from surgery.table import Entry, Table, Trail
from surgery.where import in_groups, texts


def lint_names(selector: Selector, to: Sequence[str]) -> Iterator[RecipeError]:
    """Faults of the templates in `to`: what they refer to has to be in each pattern of the selector."""
    try:
        patterns = _patterns(selector)
    except RecipeError:  # which `lint_selector` tells
        return
    for index, text in enumerate(to):
        try:
            for pattern in patterns:
                compile_template(text, pattern)
        except RecipeError as error:
            error.at = ("to", index)
            yield error


def result_names(selector: Selector, keys: Sequence[str], to: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """For each selected key its name by each template, as `rename` would give it; where a list is matched, by the first pattern that fits.

    A selector without `match` leaves nothing to replace: the templates are then whole keys.

    Raises:
        PlanError: a number that is none (`bad-number`), or patterns that take too long.
    """
    groups = selector.where.groups() if selector.where else {}
    accept = partial(in_groups, groups) if groups else None
    clock = Clock.over(len(keys))
    names: dict[str, tuple[str, ...]] = {}
    for pattern in _patterns(selector):
        rest = [key for key in keys if key not in names]
        if pattern is None:
            whole = tuple(compile_template(text, None).constant or "" for text in to)
            return dict.fromkeys(rest, whole)
        columns = []
        for index, text in enumerate(to):
            try:
                columns.append(pattern.substitutions(rest, compile_template(text, pattern), False, clock, accept))
            except TimeoutError:
                raise timed_out(pattern.text, ("match",)) from None
            except PlanError as error:
                error.at = ("to", index)
                raise
        for row in zip(*columns, strict=True):
            names[rest[row[0][0]]] = tuple(name for _, name in row)
    return names


def _patterns(selector: Selector) -> list[Pattern] | list[None]:
    return [compile_pattern(text) for text in texts(selector.match)] or [None]


def put_in_place(state: State, results: Mapping[str, Sequence[tuple[str, Expr]]], *, keep_inputs: bool) -> State:
    """The state with each input's results, as pairs of key and expression, where the input was; or right behind it, if that is kept.

    Raises:
        KeyCollisionError: two tensors would get one key.
    """
    rows: dict[str, Entry] = {}
    origin: dict[str, str] = {}
    clashes: dict[str, list[str]] = {}
    for new, old, entry in _in_order(state, results, keep_inputs):
        if new in rows:
            clashes.setdefault(new, [origin.get(new, new)]).append(old)
            continue
        rows[new] = entry
        if new != old:
            origin[new] = old
    if clashes:
        raise collision(clashes, help="capture what tells them apart, such as `layer_(\\d+)`, and use it in `to`; or `drop` one first")
    return state.rows(Table(rows))


def _in_order(state: State, results: Mapping[str, Sequence[tuple[str, Expr]]], keep_inputs: bool) -> Iterator[tuple[str, str, Entry]]:
    """Each row of the new table, behind the key it comes from."""
    for key, entry in state.table.items():
        made = results.get(key)
        if made is None or keep_inputs:
            yield key, key, entry
        for new, expr in made or ():
            yield new, key, Entry(expr, Trail(state.step, key, entry.trail), entry.source)
