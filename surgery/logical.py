"""Plan: carry the steps out on tables. Pure: a function of the recipe and the catalog."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NamedTuple

from surgery.errors import SurgeryError, gather
from surgery.expr import Expr
from surgery.formats.base import Indexed
from surgery.recipe import Recipe
from surgery.steps.base import Catalog, Dropped, Output, State
from surgery.table import Table
from surgery.tasks import Check


class LogicalPlan(NamedTuple):
    """What becomes of the tensors: a table for each output, the checks on values, and what is left over.

    `left_over` are loaded keys that no step dropped and no save wrote, as `(checkpoint, key)`.
    """

    recipe: Recipe
    sources: Mapping[str, Indexed]
    outputs: tuple[Output, ...]
    checks: tuple[Check, ...]
    dropped: tuple[Dropped, ...]
    left_over: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    table: Table


def plan(recipe: Recipe, catalog: Catalog) -> LogicalPlan:
    """Rewrite the table step by step.

    Faults that leave the later steps meaningful are collected; a collision ends the planning, since all later names would
    be guesses.

    Raises:
        SurgeryError: all faults together, the first one first.
    """
    state = State(Table(), catalog)
    for item in recipe.steps:
        before = len(state.faults)
        try:
            after = item.step.rewrite(state._replace(step=item.number))
        except SurgeryError as error:
            faults = [*state.faults, item.locate(error)]
            raise gather(faults) from None
        for fault in after.faults[before:]:
            item.locate(fault)
        state = after
    if state.faults:
        raise gather(state.faults)
    sources = {indexed.location: indexed for indexed in catalog.checkpoints.values()}
    told = (f"{location}: {note}" for location, indexed in sources.items() for note in indexed.notes)
    return LogicalPlan(recipe, sources, state.outputs, state.checks, state.dropped, tuple(_left_over(state)), (*told, *state.notes), state.table)


def _left_over(state: State) -> list[tuple[str, str]]:
    """Loaded tensors still in the table that no save took."""
    tables = [output.table for output in state.outputs]
    if any(table is state.table for table in tables):
        return []
    saved = {id(entry) for table in tables for entry in table.values()}
    unsaved = [entry for entry in state.table.values() if entry.source and id(entry) not in saved]
    if not unsaved:
        return []
    written = {id(entry.expr) for table in tables for entry in table.values()}
    rest = ((entry.source, entry.root.key) for entry in unsaved if not _stands_in(entry.expr, written))
    return list(dict.fromkeys(rest))


def _stands_in(expr: Expr, written: Set[int]) -> bool:
    """Whether all of a tensor was written: itself under another name, or what it was before the last steps changed it."""
    return id(expr) in written or (bool(expr.children) and all(_stands_in(child, written) for child in expr.children))
