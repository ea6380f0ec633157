"""What steps share that make axes longer: the new elements, and where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from surgery.calculation import converted
from surgery.casting import check as castable
from surgery.dtypes import DTYPES, DType
from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.expr import Expr, Fill
from surgery.means import Mean
from surgery.steps.groups import described
from surgery.steps.targets import lint_init
from surgery.tensors import TensorSpec

FILL = "the new elements: zeros, {normal: {std: 0.02}} and what else `init_missing` takes, or mean: that of the old ones along the axis"
LONGEST = 1 << 40
"""More than this a size of an axis can only be by mistake."""


def lint_fill(fill: str | Mapping[str, Any]) -> Iterator[RecipeError]:
    """The fault of a `fill` that does not exist or has other options."""
    if fill != "mean":
        yield from lint_init(fill if isinstance(fill, str) else dict(fill), ("fill",))


def lint_lengths(lengths: Mapping[str, int | None]) -> Iterator[RecipeError]:
    """Lengths, by their fields, that no axis can have."""
    for word, length in lengths.items():
        if length is not None and length > LONGEST:
            yield RecipeError(f"no axis has {length:,} elements", code="bad-shape", at=(word,), help="write the number of elements, not of bytes")


def refuse_fill(tensors: Mapping[str, Expr], axis: int, fill: str | Mapping[str, Any]) -> None:
    """Raise PlanError for tensors that cannot get elements of this kind along an axis that they have."""
    from surgery.initializers import check, parse

    if fill == "mean":
        wrong = {key: expr for key, expr in tensors.items() if not holds_fractions(expr.spec.dtype) or not expr.spec.shape[axis]}
        title = f"{plural(len(wrong), 'tensor')} {'has' if len(wrong) == 1 else 'have'} no mean along axis {axis}"
    else:
        initializer = parse(fill)
        reasons = {key: check(initializer, expr.spec) for key, expr in tensors.items()}
        wrong = {key: tensors[key] for key, reason in reasons.items() if reason is not None}
        title = next((reason for reason in reasons.values() if reason is not None), "")
    if wrong:
        raise PlanError(title, code="bad-initializer", at=("fill",), notes=[listed(described(wrong))], help="choose another `fill`, or `cast` first")


def holds_fractions(dtype: DType) -> bool:
    """Whether float32 can be rounded to this type, as what was worked out has to be."""
    return dtype.is_float and dtype.computable and castable(DTYPES["float32"], dtype, "error", "") is None


def new_elements(expr: Expr, axis: int, count: int, fill: str | Mapping[str, Any], seed: int, key: str) -> Expr:
    """So many new elements for an axis, which is not negative; the maker has asked `refuse_fill`."""
    from surgery.initializers import parse

    shape = expr.spec.shape
    spec = TensorSpec(expr.spec.dtype, (*shape[:axis], count, *shape[axis + 1 :]))
    if fill != "mean":
        return Fill(spec, parse(fill), seed, key)
    return converted(Mean(expr, axis, count), spec.dtype, key)
