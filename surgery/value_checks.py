"""What `assert` demands of values, looked at before the commit, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from surgery.blocking import blocks, working_bytes
from surgery.errors import ApplyError
from surgery.expr import Expr, Read, evaluate, is_encoded
from surgery.regions import Region, extent_of, whole
from surgery.tasks import Check

if TYPE_CHECKING:
    from surgery.expr import Array

_LARGEST_PART = 16 << 20
"""More at once takes memory and gains nothing."""
_PIECE = 1 << 16
"""Elements tested at once, which bounds what the tests need beside the values."""


class _Both(Expr):
    """Two tensors that are compared region by region, so that `blocks` and `working_bytes` reckon with both."""

    __slots__ = ()

    def __init__(self, first: Expr, second: Expr) -> None:
        self.spec = first.spec
        self.children = (first, second)

    def needs(self, region: Region) -> tuple[Region, ...]:
        return region, region


def check_values(check: Check, read: Read, budget: int) -> None:
    """A demand of `assert` on values, with about `budget` bytes. Raises ApplyError with the first position that breaks it."""
    import hashlib

    digest = hashlib.sha256()
    for region in _parts(_inputs(check), budget):
        values = _flat(check.expr, region, read)
        if check.kind != "sha256":
            _demand(check, region, values, None if check.other is None else _flat(check.other, region, read))
        elif values.dtype == object:
            digest.update(b"".join(values.tolist()))
        else:
            digest.update(values.view("u1").data)
    if check.kind == "sha256" and digest.hexdigest() != check.digest:
        raise _broken(check, f"has sha256 {digest.hexdigest()}, not {check.digest}")


def check_bytes(check: Check, budget: int) -> int:
    """The most memory that arrays of `check_values` take."""
    inputs = _inputs(check)
    return max(working_bytes(inputs, region) for region in _parts(inputs, budget))


def _inputs(check: Check) -> Expr:
    return check.expr if check.other is None else _Both(check.expr, check.other)


def _parts(inputs: Expr, budget: int) -> Iterator[Region]:
    everything = whole(inputs.spec.shape)
    return iter([everything]) if is_encoded(inputs) else blocks(inputs, everything, min(budget, _LARGEST_PART))


def _flat(expr: Expr, region: Region, read: Read) -> Array:
    import numpy as np

    return np.ascontiguousarray(evaluate(expr, region, read)).reshape(-1)


def _demand(check: Check, region: Region, values: Array, other: Array | None) -> None:
    import numpy as np

    for start in range(0, values.size, _PIECE):
        piece = values[start : start + _PIECE]
        holds, what = _test(check, piece, piece if other is None else other[start : start + _PIECE])
        if not holds.all():
            first = int(np.argmin(holds))
            inside = np.unravel_index(start + first, extent_of(region))
            where = [int(index) + low for index, (low, _) in zip(inside, region, strict=True)]
            raise _broken(check, f"{what}: value {piece[first]} at {where}")


def _test(check: Check, values: Array, other: Array) -> tuple[Array, str]:
    """Where the demand holds, and what is said of a value for which it does not."""
    import numpy as np

    if check.kind == "finite":
        return np.isfinite(_wide(values, "f4")), "is not finite"
    if check.kind == "equal":
        return values == other if values.dtype == object else _bits(values) == _bits(other), f"differs from `{check.other_key}`"
    near = np.isclose(_wide(values, "f8"), _wide(other, "f8"), rtol=check.rtol, atol=check.atol)
    return near, f"is not close to `{check.other_key}`"


def _wide(values: Array, small: str) -> Array:
    """Values in a type numpy can test: not all of the small floats have an isfinite of their own. They are `small` then."""
    return values if values.dtype.kind in "fc" and values.dtype.itemsize >= 4 else values.astype(small)


def _bits(values: Array) -> Array:
    return values.view(f"V{values.dtype.itemsize}")


def _broken(check: Check, what: str) -> ApplyError:
    return ApplyError(
        f"`{check.key}` {what}",
        code="assert",
        help="nothing was written; look at the values with `surgery inspect --key`",
        data={"key": check.key, "check": check.kind, "step": check.step},
    )
