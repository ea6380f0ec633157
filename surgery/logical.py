"""Plan: carry the steps out on tables. Pure: a function of the recipe and the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from surgery.errors import SurgeryError, gather
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
    return LogicalPlan(recipe, sources, state.outputs, state.checks, state.dropped, tuple(_left_over(state)), state.notes, state.table)


def _left_over(state: State) -> list[tuple[str, str]]:
    """Loaded tensors still in the table that no save took."""
    tables = [output.table for output in state.outputs]
    unsaved = [entry for key, entry in state.table.items() if entry.source and not any(table.get(key) is entry for table in tables)]
    if not unsaved:
        return []
    written = {(entry.source, entry.root.key) for table in tables for entry in table.values()}
    rest = ((entry.source, entry.root.key) for entry in unsaved)
    return [origin for origin in dict.fromkeys(rest) if origin not in written]
