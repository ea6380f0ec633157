"""Forth and back: an inverse recipe planned on the outputs of a plan, without writing either, and what that proves.

Each tensor that comes back is an expression over the very source it has to be equal to. Where that is a view of the source's own bytes, equality
is known from headers; else both are compared block by block before the commit, as `assert` does.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from surgery.casting import is_lossless
from surgery.dtypes import DType
from surgery.errors import PlanError, SurgeryError, listed, plural
from surgery.expr import Cast, Expr, Reshape, Slice, Stored, Transpose
from surgery.formats.base import Indexed
from surgery.gather import Take
from surgery.head import head_of, path_params
from surgery.inverse import Inverse, invert
from surgery.inverse.text import recipe_text
from surgery.library import Source
from surgery.located import parse
from surgery.logical import LogicalPlan
from surgery.logical import plan as plan_logically
from surgery.nodes import Assemble
from surgery.recipe import Recipe, load
from surgery.steps.base import Catalog
from surgery.steps.load import Load
from surgery.table import Table
from surgery.tasks import Check


class WayBack(NamedTuple):
    """An inverse recipe with what it gives for each source, by location; and for a written one its text."""

    name: str
    tables: Mapping[str, Table]
    text: str = ""
    lost: Sequence[str] = ()


class Proof(NamedTuple):
    """Tensors of the sources as `(location, key)`: those that are the same bytes, those that are to be compared, and the others."""

    same: tuple[tuple[str, str], ...]
    checks: tuple[Check, ...]
    rounded: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]
    misfits: tuple[str, ...]

    def fault(self) -> PlanError:
        """The error for tensors that come back with other keys, dtypes or shapes."""
        return PlanError(
            f"{plural(len(self.misfits), 'tensor')} would not come back as {'it was' if len(self.misfits) == 1 else 'they were'}",
            code="no-inverse",
            notes=[listed(self.misfits)],
            help="correct the inverse recipe; `surgery invert` prints one that is worked out of the plan",
        )

    def as_json(self) -> dict[str, Any]:
        """The keys of each kind, for programs."""
        return {
            "exact": len(self.same) + len(self.checks),
            "same_bytes": len(self.same),
            "rounded": [key for _, key in self.rounded],
            "missing": [key for _, key in self.missing],
        }

    def __str__(self) -> str:
        total = len(self.same) + len(self.checks) + len(self.rounded) + len(self.missing) + len(self.misfits)
        parts = [
            f"{len(self.same) + len(self.checks):,} of {plural(total, 'tensor')} come back to the last bit ({len(self.same):,} as the same bytes)"
        ]
        parts += [f"rounded: {listed([key for _, key in self.rounded])}"] if self.rounded else []
        parts += [f"not given back: {listed([key for _, key in self.missing])}"] if self.missing else []
        return "; ".join(parts)


def written(plan: LogicalPlan, catalog: Catalog) -> WayBack:
    """The inverse worked out of a plan, and read again from its own text."""
    inverse = invert(plan, catalog)
    text = recipe_text(_head(plan, inverse), inverse.steps, _lost(inverse))
    name = f"inverse of {plan.recipe.name}"
    recipe = load(text, name, {param: f"{param}.safetensors" for param in inverse.writes})
    return WayBack(name, _tables(recipe, plan, list(inverse.reads.values()), list(inverse.writes.values())), text, _lost(inverse))


def _head(plan: LogicalPlan, inverse: Inverse) -> dict[str, Any]:
    reads = {name: {"type": "string", "default": path} for name, path in inverse.reads.items()}
    writes = {name: {"type": "string", "description": f"where {posixpath.basename(path)} goes"} for name, path in inverse.writes.items()}
    return {"surgery": 1, "name": f"{posixpath.splitext(plan.recipe.name)[0]}-inverse", "params": reads | writes}


def _lost(inverse: Inverse) -> list[str]:
    return [f"steps[{lost.item.number}] ({lost.item.step.word}) has no inverse for {listed(list(lost.keys))}." for lost in inverse.lost]


def named(plan: LogicalPlan, source: Source) -> WayBack:
    """The inverse that a recipe names, with the parameters that both have. Raises SurgeryError where it does not fit the outputs."""
    document = parse(source.text, source.name)
    values = plan.recipe.params
    params = {name: values[name] for name in head_of(document).params if name in values}
    params |= {name: f"{name}.safetensors" for name in path_params(document)}
    back = load(source.text, source.name, params)
    return WayBack(source.name, _tables(back, plan, [output.path for output in plan.outputs], list(plan.sources)))


def _tables(recipe: Recipe, plan: LogicalPlan, reads: Sequence[str], writes: Sequence[str]) -> dict[str, Table]:
    """What a recipe saves, in the order of these locations, where its loads read these outputs of a plan."""
    outputs = {
        output.path: Indexed(output.format, output.path, {key: entry.expr for key, entry in output.table.items()}, {}, ()) for output in plan.outputs
    }
    loads = [item for item in recipe.steps if isinstance(item.step, Load)]
    if len(loads) != len(reads):
        title = f"the inverse {recipe.name} has {plural(len(loads), 'load')} for {plural(len(reads), 'output')}"
        raise PlanError(title, code="no-inverse", help="let it load each output, in the order of the saves")
    moved = {item.number: item.step.model_copy(path=path, format=None) for item, path in zip(loads, reads, strict=True)}
    steps = tuple(item._replace(step=moved.get(item.number, item.step)) for item in recipe.steps)
    back = plan_logically(recipe._replace(steps=steps), Catalog(outputs, {}))
    if len(back.outputs) != len(writes):
        title = f"the inverse {recipe.name} has {plural(len(back.outputs), 'save')} for {plural(len(writes), 'source')}"
        raise PlanError(title, code="no-inverse", help="let it save each source, in the order of the loads")
    return {location: output.table for location, output in zip(writes, back.outputs, strict=True)}


def prove(plan: LogicalPlan, way: WayBack) -> Proof:
    """What is known of the tensors that come back, and what has to be compared."""
    same, rounded, missing = list[tuple[str, str]](), list[tuple[str, str]](), list[tuple[str, str]]()
    checks, misfits = list[Check](), list[str]()
    for location, source in plan.sources.items():
        table = way.tables.get(location, Table())
        misfits += [f"{key} is none of {location}" for key in table if key not in source.tensors]
        for key, first in source.tensors.items():
            if key not in table:
                missing.append((location, key))
            elif table[key].spec != first.spec:
                misfits.append(f"{key} ({table[key].spec}; {first.spec} in {location})")
            elif table[key].expr is first or (first.view() is not None and table[key].expr.view() == first.view()):
                same.append((location, key))
            elif carried(table[key].expr) is None:
                rounded.append((location, key))
            else:
                checks.append(Check("equal", -1, key, table[key].expr, f"the one in {location}", first))
    return Proof(tuple(same), tuple(checks), tuple(rounded), tuple(missing), tuple(misfits))


def proven(plan: LogicalPlan, catalog: Catalog, source: Source | None) -> tuple[Proof, str]:
    """The proof of the inverse that a recipe names, or else of one that is worked out, and what it is called in the plan.

    A named inverse with parameters that the recipe does not have may need other values than their defaults. Where it does not fit, the one that is
    worked out is proven instead. Raises SurgeryError where none fits.
    """
    if source is None:
        return _fitting(plan, written(plan, catalog)), "inverse"
    try:
        return _fitting(plan, named(plan, source)), "inverse"
    except SurgeryError:
        own = _own_params(plan, source)
        if not own:
            raise
        name = plan.recipe.document.data["inverse"]
        return _fitting(plan, written(plan, catalog)), f"inverse, worked out of the plan since {name} has {listed(own)} to be told"


def _fitting(plan: LogicalPlan, way: WayBack) -> Proof:
    proof = prove(plan, way)
    if proof.misfits:
        raise proof.fault()
    return proof


def _own_params(plan: LogicalPlan, source: Source) -> list[str]:
    document = parse(source.text, source.name)
    return sorted(set(head_of(document).params) - set(plan.recipe.params) - set(path_params(document)))


def carried(expr: Expr) -> DType | None:
    """A dtype whose values are all that a tensor can have; None where values may have been rounded on the way or computed."""
    if isinstance(expr, Stored):
        return expr.spec.dtype
    if not isinstance(expr, (Cast, Transpose, Reshape, Slice, Take, Assemble)):
        return None
    found = {carried(child) for child in expr.children}
    if len(found) != 1:
        return expr.spec.dtype if found and None not in found and not isinstance(expr, Cast) else None
    (dtype,) = found
    return None if dtype is None or not is_lossless(dtype, expr.spec.dtype) else dtype
