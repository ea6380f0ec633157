"""`stack`: one tensor of several, along an axis of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from surgery.expr import Assemble, Expr, Reshape
from surgery.models import Field
from surgery.steps.groups import refuse_blocks
from surgery.steps.joining import Joining, whole_elements
from surgery.tensors import TensorSpec


class Stack(Joining):
    """One tensor of several, along a new axis: in the order of the patterns in `match`, then of the numbers that `to` does not use."""

    word: ClassVar[str] = "stack"
    example: ClassVar[str] = "{match: …, to: a, axis: 0}"
    joined: ClassVar[str] = "stacked"

    axis: int = Field(0, description="where the new axis is in the result; negative ones count from the last, -1")

    def join(self, name: str, members: Mapping[str, Expr]) -> Expr:
        specs = [expr.spec for expr in members.values()]
        if any(spec.shape != specs[0].shape for spec in specs):
            raise self.unfit(name, members, "they have several shapes", "correct `match`, or use `concat`")
        if any(spec.dtype != specs[0].dtype for spec in specs):
            raise self.unfit(name, members, "they have several dtypes", "`cast` them to one dtype first")
        rank = len(specs[0].shape) + 1
        if not -rank <= self.axis < rank:
            raise self.unfit(name, members, f"the result has {rank} axes, and no axis {self.axis}", f"use an axis from 0 to {rank - 1}")
        if self.axis in (-1, rank - 1):
            refuse_blocks(members)
        axis, inner = self.axis % rank, specs[0].shape
        parts = tuple(
            (tuple(number if at == axis else 0 for at in range(rank)), Reshape(expr, (*inner[:axis], 1, *inner[axis:])))
            for number, expr in enumerate(members.values())
        )
        shape = (*inner[:axis], len(specs), *inner[axis:])
        return whole_elements(self, name, members, Assemble(TensorSpec(specs[0].dtype, shape), parts))


STEP = Stack
