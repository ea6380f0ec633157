"""The way back: a recipe that makes a plan's inputs of its outputs. Pure; works on the tables of a plan.

The steps are gone through from the last to the first. For each there are candidates that take it back, the most general first; each is tried on
the table that is there at that point, and has to give keys, dtypes and shapes as they were. What none gives back is lost, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from surgery import steps as registry
from surgery.errors import SurgeryError
from surgery.formats import by_name
from surgery.formats.base import Indexed, Origin, read_only
from surgery.inverse import groups, names, values
from surgery.inverse.families import exact
from surgery.inverse.names import Steps
from surgery.items import StepItem
from surgery.logical import LogicalPlan
from surgery.models import ValidationError
from surgery.steps.base import Catalog, Output, State, Step
from surgery.steps.load import Load
from surgery.steps.save import Save
from surgery.table import Entry, Table, Trail
from surgery.tensors import TensorSpec

Undo = Callable[[Step, Table, Table], Iterator[Steps]]
"""The candidates for taking back a step, of the tables before and behind it; of the latter only what can be had."""

UNDO: Mapping[str, Undo] = {
    "rename": names.rename,
    "scope": names.scope,
    "copy": names.copy,
    "tie": names.tie,
    "init_missing": names.made,
    "drop": names.nothing,
    "keep": names.nothing,
    "expect": names.nothing,
    "assert": names.nothing,
    "cast": values.cast,
    "transpose": values.transpose,
    "reshape": values.reshape,
    "rearrange": values.rearrange,
    "split": groups.taken_apart,
    "unstack": groups.taken_apart,
    "concat": groups.joined,
    "stack": groups.joined,
}
"""Steps that can be taken back as far as their results are there; others change values for good."""


class Lost(NamedTuple):
    """Tensors that were there before a step, and that the way back does not give."""

    item: StepItem
    keys: tuple[str, ...]


class Inverse(NamedTuple):
    """The way back: steps as they stand in YAML, with `${source}` and `${target}`, `${source_2}` and so on for paths.

    `reads` and `writes` say by parameter which outputs of the forward recipe are read, and which of its sources are written again.
    """

    steps: Steps
    reads: Mapping[str, str]
    writes: Mapping[str, str]
    lost: tuple[Lost, ...]


def invert(plan: LogicalPlan, catalog: Catalog) -> Inverse:
    """Work a plan backwards."""
    states = [State(Table(), catalog)]
    for item in plan.recipe.steps:
        states.append(item.step.rewrite(states[-1]._replace(step=item.number)))
    back = _Back(plan)
    for item, before, after in reversed(list(zip(plan.recipe.steps, states[:-1], states[1:], strict=True))):
        if isinstance(item.step, Save):
            back.read(after.outputs[-1])
        elif isinstance(item.step, Load):
            back.write(item, before.table, after.table)
        else:
            back.undo(item, before.table, after.table)
    return Inverse(back.steps, back.reads, back.writes, tuple(back.finally_lost()))


class _Back:
    """The way back while it is being worked out: the table that is there, and the steps that have led to it."""

    def __init__(self, plan: LogicalPlan) -> None:
        self.plan = plan
        self.state = State(Table(), Catalog({}, {}))
        self.steps: Steps = []
        self.reads: dict[str, str] = {}
        self.writes: dict[str, str] = {}
        self.lost: list[tuple[StepItem, Mapping[str, Origin]]] = []
        self.given: set[Origin] = set()

    def finally_lost(self) -> Iterator[Lost]:
        """What was lost at a step and does not come back by another way, such as a copy; in the order of the steps."""
        for item, origins in reversed(self.lost):
            keys = tuple(key for key, origin in origins.items() if origin.location and origin not in self.given)
            if keys:
                yield Lost(item, keys)

    def read(self, output: Output) -> None:
        """What a step has saved is read; tensors that a later save has too are there already."""
        new = [key for key in output.table if key not in self.state.table]
        if not new:
            return
        name = _numbered("source", self.reads)
        self.reads[name] = output.path
        self.steps.append({"load": {"path": f"${{{name}}}", **({} if len(new) == len(output.table) else {"keys": [exact(key) for key in new]})}})
        rows = {key: Entry(output.table[key].expr, Trail(output.step, key), output.path) for key in new}
        self.state = self.state.rows(self.state.table.plus(rows))

    def write(self, item: StepItem, before: Table, after: Table) -> None:
        """What a step has loaded gets its first names back and is written; what was there before goes on."""
        loaded = {key: entry for key, entry in after.items() if entry is not before.get(key)}
        for location in reversed(dict.fromkeys(entry.source for entry in loaded.values())):
            source = self.plan.sources[location]
            firsts = {key: entry.root.key for key, entry in loaded.items() if entry.source == location}
            taken = set(firsts.values())
            self.lost.append((item, {key: Origin(location, key) for key in source.tensors if key not in taken}))
            self._write_source(source, firsts)

    def _write_source(self, source: Indexed, firsts: Mapping[str, str]) -> None:
        """Write the tensors of a source, whose keys were changed when they were loaded, and drop them where others are left."""
        pairs = [(key, firsts.get(key, key)) for key in self.state.table]
        wanted = {first: source.tensors[first].spec if key in firsts else self.state.table[key].spec for key, first in pairs}
        self._choose(names.unscoped(pairs), wanted)
        own = [first for key, first in pairs if key in firsts and first in self.state.table]
        self.given |= {Origin(source.location, first) for first in own}
        rest = [key for key, _ in pairs if key not in firsts]
        name = _numbered("target", self.writes)
        self.writes[name] = source.location
        format = {} if by_name(source.format).layout is read_only else {"format": source.format}
        self.steps.append({"save": {"path": f"${{{name}}}", **format, **({"keys": [exact(key) for key in own]} if rest else {})}})
        if rest:
            self._choose(names.without(own), {key: wanted[key] for key in rest})

    def undo(self, item: StepItem, before: Table, after: Table) -> None:
        """Take back a step that is neither a load nor a save."""
        there = after.only(self.state.table)
        candidates = UNDO[item.step.word](item.step, before, there) if item.step.word in UNDO else iter(())
        gone = names.without([key for key, entry in there.items() if key not in before or entry.expr is not before[key].expr])
        self._choose((*candidates, *gone), {key: entry.spec for key, entry in before.items()})
        gone_here = [key for key in _within_reach(before, after, there) if key not in self.state.table]
        self.lost.append((item, {key: Origin(before[key].source, before[key].root.key) for key in gone_here}))

    def _choose(self, candidates: Iterable[Steps], wanted: Mapping[str, TensorSpec]) -> None:
        """Go on with the first of the candidates that give most of the wanted tensors, and nothing else."""
        best: tuple[Steps, State] | None = None
        for steps in candidates:
            after = _carried_out(steps, self.state)
            if after is None or any(wanted.get(key) != entry.spec for key, entry in after.table.items()):
                continue
            if best is None or len(after.table) > len(best[1].table):
                best = steps, after
            if len(after.table) == len(wanted):
                break
        assert best is not None, "to drop what cannot be had is always possible"
        self.steps += best[0]
        self.state = best[1]


def _carried_out(steps: Steps, state: State) -> State | None:
    """What steps make of a state, None where they do not fit it."""
    for step in steps:
        ((word, data),) = step.items()
        try:
            model = registry.by_word(word).model_validate(data)
            if next(iter(model.lint()), None) is not None:
                return None
            state = model.rewrite(state)
        except (ValidationError, SurgeryError):
            return None
        if state.faults:
            return None
    return state._replace(checks=())


def _within_reach(before: Table, after: Table, there: Table) -> list[str]:
    """The keys before a step that it has lost itself: nothing came of them, or what came of them is there."""
    made_of: dict[str, bool] = {}
    for key, entry in after.items():
        old = key if entry is before.get(key) else entry.trail.key
        made_of[old] = made_of.get(old, False) or key in there
    return [key for key in before if made_of.get(key, True)]


def _numbered(name: str, taken: Mapping[str, str]) -> str:
    return f"{name}_{len(taken) + 1}" if taken else name
