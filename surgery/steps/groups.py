"""What steps share that make other tensors of some: the keys that `to` gives to the results, and the results put in the place of their inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate

from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.expr import Assemble, Expr, Slice
from surgery.patterns import Clock, Pattern, compile_pattern
from surgery.replacement import Template, compile_template
from surgery.select import Selector, timed_out
from surgery.steps.base import State
from surgery.steps.naming import collision
from surgery.table import Entry, Table, Trail
from surgery.tensors import TensorSpec
from surgery.where import Path, Texts, in_groups, placed, texts

Bound = tuple[tuple[str, int], ...]
"""Names that a template may use beside the groups of a pattern, with their numbers."""


def lint_names(selector: Selector, to: Texts, bound: Bound = ()) -> Iterator[RecipeError]:
    """Faults of the templates in `to`: what they refer to has to be in each pattern of the selector."""
    try:
        patterns = _patterns(selector)
    except RecipeError:  # which `lint_selector` tells
        return
    for at, text in placed(to, ("to",)):
        try:
            for pattern in patterns:
                compile_template(text, pattern, bound)
        except RecipeError as error:
            error.at = at
            yield error


def result_names(selector: Selector, keys: Sequence[str], to: Sequence[str], bounds: Sequence[Bound] = ()) -> dict[str, tuple[str, ...]]:
    """For each selected key its name by each template, as `rename` would give it; where a list is matched, by the first pattern that fits.

    A selector without `match` leaves nothing to replace: the templates are then whole keys. `bounds` are further names for each template.

    Raises:
        PlanError: a number that is none (`bad-number`), or patterns that take too long.
    """
    groups = selector.where.groups() if selector.where else {}
    accept = partial(in_groups, groups) if groups else None
    clock = Clock.over(len(keys))

    def template(text: str, index: int, pattern: Pattern | None) -> Template:
        return compile_template(text, pattern, bounds[index] if bounds else ())

    names: dict[str, tuple[str, ...]] = {}
    for pattern in _patterns(selector):
        rest = [key for key in keys if key not in names]
        if pattern is None:
            whole = tuple(template(text, index, None).constant or "" for index, text in enumerate(to))
            return dict.fromkeys(rest, whole)
        columns = []
        for index, text in enumerate(to):
            try:
                columns.append(pattern.substitutions(rest, template(text, index, pattern), False, clock, accept))
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


def refuse_axis(inputs: Mapping[str, Expr], axis: int, at: Path = ("axis",)) -> None:
    """Raise PlanError for tensors that do not have an axis, or whose quantised blocks lie along it."""
    wrong = described({key: expr for key, expr in inputs.items() if not -len(expr.spec.shape) <= axis < len(expr.spec.shape)})
    if wrong:
        raise PlanError(
            f"{plural(len(wrong), 'tensor')} {'has' if len(wrong) == 1 else 'have'} no axis {axis}",
            code="rank",
            at=at,
            notes=[listed(wrong)],
            help=f"select by rank too: `where: {{ndim: {axis + 1 if axis >= 0 else -axis}}}`",
        )
    refuse_blocks({key: expr for key, expr in inputs.items() if axis in (-1, len(expr.spec.shape) - 1)})


def refuse_blocks(changed_at_the_end: Mapping[str, Expr]) -> None:
    """Raise PlanError where tensors whose last axis is to be cut, moved or made anew consist of quantised blocks, which lie along it."""
    blocks = {key: expr for key, expr in changed_at_the_end.items() if expr.spec.dtype.block > 1}
    if blocks:
        raise PlanError(
            "quantised blocks lie along the last axis, which has to stay as it is",
            code="not-computable",
            notes=[listed(described(blocks))],
            help="`cast` them to float32 before",
        )


def refuse_widths(inputs: Mapping[str, Expr], parts: Mapping[str, Sequence[Expr]]) -> None:
    """Raise PlanError where elements of no fixed width would have to be told apart, or bit-packed ones other than as whole bytes."""
    mixed = {key: expr for key, expr in inputs.items() if not expr.spec.dtype.itemsize and any(not _in_bytes(part) for part in parts[key])}
    if mixed:
        raise PlanError(
            "tensors whose elements are no whole bytes cannot be split here",
            code="not-computable",
            notes=[listed(described(mixed))],
            help="take them out: `except: [{where: {dtype: …}}]`",
        )


def _in_bytes(part: Expr) -> bool:
    return bool(part.spec.dtype.bits) and part.view() is not None


def side_by_side(parts: Sequence[Expr], axis: int) -> Expr:
    """Tensors of one dtype laid along an axis, which is not negative; the maker has checked that they fit."""
    shape = parts[0].spec.shape
    starts = accumulate((part.spec.shape[axis] for part in parts), initial=0)
    placed = tuple((tuple(start if at == axis else 0 for at in range(len(shape))), part) for start, part in zip(starts, parts, strict=False))
    size = sum(part.spec.shape[axis] for part in parts)
    return Assemble(TensorSpec(parts[0].spec.dtype, (*shape[:axis], size, *shape[axis + 1 :])), placed)


def cut_out(expr: Expr, axis: int, start: int, stop: int) -> Expr:
    """The elements `start` to `stop` along an axis, which is not negative."""
    shape = expr.spec.shape
    origin = tuple(start if at == axis else 0 for at in range(len(shape)))
    return Slice(expr, origin, (*shape[:axis], stop - start, *shape[axis + 1 :]))


def described(tensors: Mapping[str, Expr]) -> list[str]:
    """Each tensor with its dtype and shape."""
    return [f"{key} ({expr.spec})" for key, expr in tensors.items()]


def changed(state: State, tensors: Mapping[str, Expr]) -> State:
    """The state with other tensors under these keys, made by its step."""
    table = state.table
    rows = {key: Entry(expr, Trail(state.step, key, table[key].trail), table[key].source) for key, expr in tensors.items()}
    return state.rows(table.plus(rows))
