"""`concat`: one tensor of several, laid side by side along an axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from surgery.expr import Expr
from surgery.models import Field
from surgery.steps.groups import side_by_side
from surgery.steps.joining import Joining, whole_elements


class Concat(Joining):
    """One tensor of several, side by side along an axis: in the order of the patterns in `match`, then of the numbers that `to` does not use."""

    word: ClassVar[str] = "concat"
    example: ClassVar[str] = "{match: …, to: a, axis: 0}"
    joined: ClassVar[str] = "concatenated"

    axis: int = Field(0, description="the axis along which they are laid; negative ones count from the last, -1")

    def join(self, name: str, members: Mapping[str, Expr]) -> Expr:
        specs = [expr.spec for expr in members.values()]
        rank = len(specs[0].shape)
        if any(len(spec.shape) != rank for spec in specs) or not -rank <= self.axis < rank:
            raise self.unfit(name, members, f"they need the same number of axes, and an axis {self.axis}", "use `reshape` first, or `stack`")
        axis = self.axis % rank
        if any(spec.shape[:axis] + spec.shape[axis + 1 :] != specs[0].shape[:axis] + specs[0].shape[axis + 1 :] for spec in specs):
            raise self.unfit(name, members, f"their shapes may differ along axis {self.axis} only", "correct `match` or `axis`, or `transpose` first")
        if any(spec.dtype != specs[0].dtype for spec in specs):
            raise self.unfit(name, members, "they have several dtypes", "`cast` them to one dtype first")
        return whole_elements(self, name, members, side_by_side(list(members.values()), axis))


STEP = Concat
