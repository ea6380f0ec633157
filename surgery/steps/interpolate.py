"""`interpolate`: a table of positions for another grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Annotated, ClassVar, Literal, Self

from surgery.calculation import calculated_in, converted
from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.expr import Expr, Reshape
from surgery.gather import Take
from surgery.models import Field, model_validator
from surgery.resampling import Method, Resample, taps
from surgery.select import Selector, select
from surgery.steps.base import Rules, State, Step, absent, given
from surgery.steps.groups import changed, cut_out, described, refuse_axis, refuse_widths, side_by_side
from surgery.steps.lengthen import holds_fractions

_MOST = 1 << 20
"""Positions along an axis; weights of all of them are held at once."""


class Interpolate(Step, Selector):
    """A table of positions for another grid, with the values of `torch.nn.functional.interpolate`.

    The grid is several `axes` of the tensor, or lies flattened (in C order) along one `axis`, behind class tokens that stay: for a ViT
    `{axis: 1, prefix: 1, size: [24, 24]}`; timm adds `antialias: true`. A table of relative positions (Swin) has a grid of 2·window-1.
    Worked out in float32 (float64 of float64), the last axis first; `nearest` only copies, and takes any type.
    """

    word: ClassVar[str] = "interpolate"
    example: ClassVar[str] = "{match: …, axis: 1, prefix: 1, grid: [14, 14], size: [24, 24]}"
    RULES: ClassVar[Rules] = ({"anyOf": [{"allOf": [given("axes"), absent("axis", "grid")]}, {"allOf": [given("axis"), absent("axes")]}]},)

    size: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, description="the sizes of the new grid")
    axes: Annotated[list[int], Field(min_length=1)] | None = Field(None, description="the axes of the grid, one for each size")
    axis: int | None = Field(None, description="the one axis along which the grid lies flattened")
    grid: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] | None = Field(
        None, description="with `axis`: the sizes of the old grid; else all are equal"
    )
    prefix: Annotated[int, Field(ge=0)] = Field(0, description="with `axis`: so many elements before the grid stay as they are")
    suffix: Annotated[int, Field(ge=0)] = Field(0, description="with `axis`: so many elements behind the grid stay as they are")
    mode: Literal["cubic", "linear", "nearest"] = Field("cubic", description="cubic is torch's bicubic, linear its bilinear, for any number of axes")
    align_corners: bool = Field(False, description="the first and last elements keep their values, as torch's option")
    antialias: bool = Field(False, description="when it gets smaller, all elements count, as torch's option; cubic is then PIL's")

    @model_validator
    def _one_form(self) -> Self:
        if (self.axes is None) == (self.axis is None) or (self.axes is not None and self.grid is not None):
            raise ValueError("write either `axes`, or `axis` and perhaps `grid`")
        return self

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        for word in ("axes", "grid"):
            given = getattr(self, word)
            if given is not None and len(given) != len(self.size):
                yield RecipeError(f"`{word}` has {len(given)} and `size` {plural(len(self.size), 'number')}", code="bad-axes", at=(word,))
        if max(self.size) > _MOST:
            yield RecipeError(f"no grid has {max(self.size):,} positions along an axis", code="bad-shape", at=("size",))
        if self.axes is not None and (self.prefix or self.suffix):
            help = "write `axis`, also where the grid has one axis only"
            yield RecipeError("with `axes` there is nothing before or behind the grid", code="bad-axes", at=("axes",), help=help)
        if self.mode == "nearest" and (self.align_corners or self.antialias):
            word = "align_corners" if self.align_corners else "antialias"
            yield RecipeError(f"`nearest` has no `{word}`", code="bad-option", at=(word,), help="leave it out, or choose another `mode`")

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        tensors = {key: state.table[key].expr for key in chosen.keys}
        for axis in self.axes if self.axes is not None else [self.axis or 0]:
            refuse_axis(tensors, axis, ("axes",) if self.axes is not None else ("axis",))
        self._refuse_types(tensors)
        self._refuse_grids(tensors)
        made = {
            key: self._flattened(expr, key, state.step) if self.axes is None else self._resampled(expr, self._own_axes(expr), key, state.step)
            for key, expr in tensors.items()
        }
        refuse_widths(tensors, {key: [expr] for key, expr in made.items()})
        return changed(state, made)

    def _refuse_types(self, tensors: Mapping[str, Expr]) -> None:
        wrong = {key: expr for key, expr in tensors.items() if self.mode != "nearest" and not holds_fractions(expr.spec.dtype)}
        if wrong:
            raise PlanError(
                f"nothing lies between the values of {plural(len(wrong), 'tensor')}",
                code="not-computable",
                at=("mode",),
                notes=[listed(described(wrong))],
                help="`cast` to a float type before, or use `mode: nearest`",
            )

    def _refuse_grids(self, tensors: Mapping[str, Expr]) -> None:
        """Raise PlanError for tensors in which no such grid lies."""
        wrong = {key: expr for key, expr in tensors.items() if not self._fits(expr)}
        if not wrong:
            return
        key, expr = next(iter(wrong.items()))
        if self.axes is not None:
            title, help = f"`axes` of {plural(len(wrong), 'tensor')} have no elements, or one is named twice", "correct `axes`"
        else:
            sizes = " x ".join(map(str, self.grid)) if self.grid else f"{len(self.size)} equal sides"
            around = f", {self.prefix:,} before and {self.suffix:,} behind" if self.prefix or self.suffix else ""
            title = f"`{key}` has {expr.spec.shape[self.axis or 0]:,} elements along axis {self.axis}, which is no grid of {sizes}{around}"
            help = "correct `grid`, and say with `prefix` and `suffix` what is no part of it"
        raise PlanError(
            title,
            code="bad-shape",
            at=("grid",) if self.grid else ("axis",) if self.axes is None else ("axes",),
            notes=[listed(described(wrong))],
            help=help,
        )

    def _fits(self, expr: Expr) -> bool:
        if self.axes is None:
            return bool(self._grid(expr))
        own = self._own_axes(expr)
        return len(set(own)) == len(own) and all(expr.spec.shape[axis] for axis in own)

    def _own_axes(self, expr: Expr) -> list[int]:
        return [axis % len(expr.spec.shape) for axis in self.axes or ()]

    def _grid(self, expr: Expr) -> list[int]:
        """The sizes of the old grid along the axis; empty if there is none."""
        length = expr.spec.shape[self.axis or 0] - self.prefix - self.suffix
        side = round(max(length, 0) ** (1 / len(self.size)))
        grid = self.grid or [side] * len(self.size)
        return grid if length > 0 and prod(grid) == length else []

    def _flattened(self, expr: Expr, key: str, step: int) -> Expr:
        shape, axis = expr.spec.shape, (self.axis or 0) % len(expr.spec.shape)
        grid, behind = self._grid(expr), shape[axis] - self.suffix
        unfolded = Reshape(cut_out(expr, axis, self.prefix, behind), (*shape[:axis], *grid, *shape[axis + 1 :]))
        made = self._resampled(unfolded, range(axis, axis + len(grid)), key, step)
        if made is unfolded:
            return expr
        folded = Reshape(made, (*shape[:axis], prod(self.size), *shape[axis + 1 :]))
        around = [(0, self.prefix), (behind, shape[axis])]
        before, after = ([cut_out(expr, axis, *span)] if span[0] < span[1] else [] for span in around)
        return side_by_side([*before, folded, *after], axis) if before or after else folded

    def _resampled(self, expr: Expr, axes: Sequence[int], key: str, step: int) -> Expr:
        """The tensor with these axes of other sizes; itself where they have them."""
        method = Method(self.mode, self.align_corners, self.antialias)
        changes = [(axis, size) for axis, size in sorted(zip(axes, self.size, strict=True), reverse=True) if expr.spec.shape[axis] != size]
        if self.mode == "nearest":
            for axis, size in changes:
                expr = Take(expr, axis, tuple(taps(method, expr.spec.shape[axis], size).sources[0].tolist()))
            return expr
        made = converted(expr, calculated_in([expr.spec.dtype]))
        for axis, size in changes:
            made = Resample(made, axis, size, method)
        return converted(made, expr.spec.dtype, key, step) if changes else expr


STEP = Interpolate
