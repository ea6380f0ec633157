"""`dequantize`: weights that are stored as small numbers beside their scales, as the numbers that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Annotated, ClassVar

from surgery.calculation import calculated_in, converted
from surgery.casting import check
from surgery.dtypes import DTYPES
from surgery.errors import PlanError, RecipeError, SurgeryError, listed, plural
from surgery.expr import Expr, Reshape
from surgery.math_nodes import Elementwise, Spread
from surgery.models import Field
from surgery.select import Selector, drop, select
from surgery.steps.base import State, Step
from surgery.steps.groups import lint_names, result_names
from surgery.table import Entry, Trail
from surgery.where import unknown_dtype


class Dequantize(Step, Selector):
    """Weights times their scales, worked out in float32 and rounded once. The scales, which nothing needs any more, are taken away.

    A tensor of scales has one number for each block of the last axes (the last blocks may be cut off), one for each row, expert or other
    leading axes, one for each element of axes where its own size is not 1, or a single one. Quantised types of GGUF need `cast` instead.
    """

    word: ClassVar[str] = "dequantize"
    example: ClassVar[str] = "{match: '\\.weight$', where: {dtype: float8_e4m3fn}, scale: .weight_scale_inv}"

    scale: str = Field(description="what the match becomes in the key of the scales, as `to` in `rename`; without `match` their whole key")
    block: list[Annotated[int, Field(ge=1)]] = Field([128, 128], min_length=1, description="size of a block along the last axes")
    dtype: str = Field("bfloat16", description="element type of the results")
    keep_scales: bool = Field(False, description="keep the scales, too")

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        for fault in lint_names(self, self.scale):
            fault.at = ("scale",)
            yield fault
        if self.dtype not in DTYPES:
            yield unknown_dtype(self.dtype, ("dtype",))

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        try:
            names = {key: name for key, (name,) in result_names(self, chosen.keys, [self.scale]).items()}
        except PlanError as fault:
            fault.at = ("scale",) if fault.at[:1] == ("to",) else fault.at
            raise
        absent = [key for key in chosen.keys if names[key] not in state.table]
        pairs = {key: (state.table[key].expr, state.table[names[key]].expr) for key in chosen.keys if names[key] in state.table}
        faults = [*self._missing(names, absent), *self._unfit_types(pairs), *self._unfit_shapes(names, pairs)]
        if faults:
            return state._replace(faults=(*state.faults, *faults))
        rows = {}
        for key, (weight, scale) in pairs.items():
            entry = state.table[key]
            rows[key] = Entry(self._product(weight, scale, key, state.step), Trail(state.step, key, entry.trail), entry.source)
        state = state.rows(state.table.plus(rows))
        return state if self.keep_scales else drop(state, list(dict.fromkeys(names.values())))

    def _missing(self, names: Mapping[str, str], absent: list[str]) -> Iterator[SurgeryError]:
        if absent:
            yield PlanError(
                f"`{absent[0]}` has no scale `{names[absent[0]]}`",
                code="missing-scale",
                at=("scale",),
                notes=[f"{plural(len(absent) - 1, 'more tensor')} without scales: {listed(absent[1:])}" if len(absent) > 1 else ""],
                help="select only what is quantised, `where: {dtype: float8_e4m3fn}`; or correct `scale`",
                data={"scales": {key: names[key] for key in absent}},
            )

    def _unfit_types(self, pairs: Mapping[str, tuple[Expr, Expr]]) -> Iterator[SurgeryError]:
        unfit = [f"{key} ({weight.spec} with {scale.spec})" for key, (weight, scale) in pairs.items() if not _numbers(weight) or not _numbers(scale)]
        if unfit:
            help = "`cast` dequantises the types of GGUF; take others away with `except`"
            yield PlanError(f"{plural(len(unfit), 'tensor')} cannot be multiplied", code="not-computable", notes=[listed(unfit)], help=help)
        lossy = check(DTYPES["float32"], DTYPES[self.dtype], "error", "")
        if lossy is not None:
            lossy.at, lossy.help = ("dtype",), "use a float type"
            yield lossy

    def _unfit_shapes(self, names: Mapping[str, str], pairs: Mapping[str, tuple[Expr, Expr]]) -> Iterator[SurgeryError]:
        unfit = [key for key, (weight, scale) in pairs.items() if self._spread(weight.spec.shape, scale) is None]
        if unfit:
            (weight, scale), more = pairs[unfit[0]], unfit[1:]
            shape = weight.spec.shape
            yield PlanError(
                f"`{names[unfit[0]]}` of shape {list(scale.spec.shape)} has no scale for each part of `{unfit[0]}` of shape {list(shape)}",
                code="unfit-tensors",
                at=("block",),
                notes=[
                    f"blocks of {self.block} make {list(self._grid(shape))}"
                    if len(shape) >= len(self.block)
                    else f"it has no blocks of {self.block}",
                    f"{plural(len(more), 'more tensor')} with scales that do not fit: {listed(more)}" if more else "",
                ],
                help="correct `block` or `scale`; scales for rows have the shape [rows] or [rows, 1]",
            )

    def _product(self, weight: Expr, scale: Expr, key: str, step: int) -> Expr:
        dtype = calculated_in([weight.spec.dtype, scale.spec.dtype])
        spread = self._spread(weight.spec.shape, converted(scale, dtype))
        assert spread is not None
        product = Elementwise("*", (converted(weight, dtype), spread))
        return converted(product, DTYPES[self.dtype], key, step)

    def _spread(self, shape: tuple[int, ...], scale: Expr) -> Expr | None:
        """The scales in a shape that goes together with the weight's; None where they do not fit."""
        scales = scale.spec.shape
        if prod(scales) == 1:
            return Reshape(scale, ())
        if len(shape) >= len(self.block) and scales == self._grid(shape):
            return Spread(scale, self._blocks(shape), shape)
        aligned = scales + (1,) * (len(shape) - len(scales))
        fits = len(aligned) == len(shape) and all(size in (1, whole) for size, whole in zip(aligned, shape, strict=True))
        return Reshape(scale, aligned) if fits else None

    def _blocks(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*[1] * (len(shape) - len(self.block)), *self.block)

    def _grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the scales, if there is one for each block."""
        return tuple(-(-size // block) for size, block in zip(shape, self._blocks(shape), strict=True))


def _numbers(expr: Expr) -> bool:
    return expr.spec.dtype.computable and expr.spec.dtype.kind not in ("complex", "bool")


STEP = Dequantize
