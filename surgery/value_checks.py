"""What `assert` demands of values, looked at before the commit, block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from surgery.errors import ApplyError
from surgery.expr import Expr, Read, blocks, evaluate
from surgery.regions import Region, whole
from surgery.tasks import Check

if TYPE_CHECKING:
    from surgery.expr import Array

_CHECK_BYTES = 16 << 20


def check_values(check: Check, read: Read) -> None:
    """A demand of `assert` on values. Raises ApplyError with the first position that breaks it."""
    import hashlib

    import numpy as np

    digest = hashlib.sha256()
    for region in _regions(check.expr):
        values = evaluate(check.expr, region, read)
        if check.kind == "finite":
            _demand(check, region, np.isfinite(_wide(values)), values, "is not finite")
        elif check.kind == "equal":
            assert check.other is not None
            other = evaluate(check.other, region, read)
            same = values == other if values.dtype == object else _bits(values) == _bits(other)
            _demand(check, region, same, values, f"differs from `{check.other_key}`")
        elif check.kind == "close":
            assert check.other is not None
            first, second = _wide(values), _wide(evaluate(check.other, region, read))
            near = np.isclose(first, second, rtol=check.rtol, atol=check.atol)
            _demand(check, region, near, values, f"is not close to `{check.other_key}`")
        elif values.dtype == object:
            digest.update(b"".join(values.reshape(-1).tolist()))
        else:
            digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    if check.kind == "sha256" and digest.hexdigest() != check.digest:
        raise _broken(check, f"has sha256 {digest.hexdigest()}, not {check.digest}")


def _regions(expr: Expr) -> list[Region]:
    return list(blocks(expr, _CHECK_BYTES)) if expr.spec.dtype.itemsize else [whole(expr.spec.shape)]


def _wide(values: Array) -> Array:
    """Values in a type numpy can test: the small floats have no isfinite of their own everywhere."""
    import numpy as np

    return values if values.dtype.kind in "fc" and values.dtype.itemsize >= 4 else values.astype(np.float64)


def _bits(values: Array) -> Array:
    import numpy as np

    flat = np.ascontiguousarray(values)
    return flat.reshape(*flat.shape, 1).view(np.uint8).reshape(*flat.shape, flat.dtype.itemsize).view(f"V{flat.dtype.itemsize}")[..., 0]


def _demand(check: Check, region: Any, holds: Array, values: Array, what: str) -> None:
    import numpy as np

    if bool(np.all(holds)):
        return
    inside = np.unravel_index(int(np.argmin(np.asarray(holds).reshape(-1))), values.shape) if values.shape else ()
    where = [int(index) + start for index, (start, _) in zip(inside, region, strict=True)]
    raise _broken(check, f"{what}: value {values[inside]} at {where}")


def _broken(check: Check, what: str) -> ApplyError:
    return ApplyError(
        f"`{check.key}` {what}",
        code="assert",
        help="nothing was written; look at the values with `surgery inspect --key`",
        data={"key": check.key, "check": check.kind, "step": check.step},
    )
