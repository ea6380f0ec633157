"""Which outputs are their source under other names, so that no tensor has to move. Serves the formats that can be relabelled."""

from __future__ import annotations

from collections.abc import Mapping

from surgery.errors import PlanError, listed, plural
from surgery.expr import Stored
from surgery.formats.base import Bundle, Indexed
from surgery.tensors import Extent

_WRITE_ANEW = "leave `in_place` out: then the checkpoint is written anew"


def stored_under_new_names(bundle: Bundle, source: Indexed) -> Mapping[str, Extent]:
    """Where the tensor of each key lies, for an output that has each tensor of the source once, as it is stored, and no other.

    Raises:
        PlanError: with code `not-in-place`. Dropped tensors would stay in the file; two keys may not share bytes.
    """
    rest = {id(expr): key for key, expr in source.tensors.items()}
    found: dict[str, Extent] = {}
    for key, expr in bundle.tensors.items():
        if id(expr) not in rest:
            known = any(expr is other for other in source.tensors.values())
            reason = "shares its bytes with another key" if known else f"is not a tensor of {source.location} as it is stored there"
            raise not_in_place(bundle, f"`{key}` {reason}", key)
        if not isinstance(expr, Stored):
            raise not_in_place(bundle, f"`{key}` is stored in slices, whose entries have names of their own", key)
        found[key] = expr.extent
        del rest[id(expr)]
    if rest:
        dropped = list(rest.values())
        raise not_in_place(bundle, f"{plural(len(dropped), 'tensor')} would be dropped, and their bytes would stay: {listed(dropped)}", dropped[0])
    return found


def not_in_place(bundle: Bundle, note: str, key: str = "") -> PlanError:
    """The fault of an output that has to be written anew."""
    return PlanError(
        f"`{bundle.path}` cannot be renamed in place",
        code="not-in-place",
        at=("in_place",),
        notes=[note],
        help=_WRITE_ANEW,
        data={"keys": [key]} if key else {},
    )
