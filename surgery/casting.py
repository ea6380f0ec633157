"""Values in another element type, rounded once, with nothing out of range let through silently.

Serves the plan (`check`: may this pair of types be cast at all) and apply (`cast`: the values). numpy and ml_dtypes clamp, wrap
or produce NaN without a word, and ml_dtypes rounds float64 twice, through float32; both are dealt with here.
"""

from __future__ import annotations

from functools import cache
from math import frexp, isnan, ldexp
from typing import TYPE_CHECKING, Any, NamedTuple

from surgery.dtypes import DTYPES, DType, numpy_dtype
from surgery.errors import ApplyError, PlanError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

OVERFLOW = ("error", "saturate", "inf", "wrap")
ROUNDING = ("nearest", "floor", "ceil", "zero")

_FINITE_ONLY = frozenset(DTYPES[f"float{name}"] for name in ("8_e4m3fn", "8_e4m3fnuz", "8_e4m3b11fnuz", "8_e5m2fnuz", "8_e8m0fnu", "4_e2m1fn"))
_ONE_ZERO = frozenset(dtype for dtype in _FINITE_ONLY if dtype.name.endswith("fnuz"))
_WITHOUT_NAN = frozenset({DTYPES["float4_e2m1fn"]})
_POSITIVE_ONLY = frozenset({DTYPES["float8_e8m0fnu"]})
_PIECE = 1 << 16
"""Elements converted at once: temporaries stay in the cache, which doubles the speed and bounds the memory."""


def check(source: DType, target: DType, overflow: str, rounding: str) -> PlanError | None:
    """Why a cast between these types is refused whatever the values are, or None.

    A policy that has nothing to do is no fault; one that would not be followed is.
    """
    if source == target:
        return None
    if target.block > 1:
        help = "save as float16 or bfloat16, and quantise that with llama.cpp"
        return PlanError(f"{source} cannot be cast to {target}", code="no-cast", notes=["nothing is quantised into blocks here"], help=help)
    for dtype, help in ((source, "select other keys"), (target, "use another dtype")):
        if not dtype.computable:
            notes = [f"{dtype} has no values to compute with"]
            return PlanError(f"{source} cannot be cast to {target}", code="no-cast", notes=notes, help=help)
    return _check_loss(source, target, rounding) or _check_overflow(source, target, overflow)


def _check_loss(source: DType, target: DType, rounding: str) -> PlanError | None:
    if rounding not in ("", *ROUNDING):
        return PlanError(f"no rounding is called `{rounding}`", code="bad-policy", help=f"there are {', '.join(ROUNDING)}")
    if rounding not in ("", "nearest") and target.kind in ("float", "complex"):
        return PlanError(f"`rounding: {rounding}` is for floats that become integers, not for {target}", code="bad-policy", help="leave it out")
    if source.kind == "complex" and target.kind != "complex":
        return PlanError(f"{source} to {target} loses the imaginary parts", code="lossy-cast", help="cast to complex64 or complex128")
    if target.kind == "bool" and source.kind == "float":
        return PlanError(f"{source} to bool loses values", code="lossy-cast", help="cast to an integer type first, with `rounding: nearest`")
    if source.kind == "float" and target.kind in ("int", "uint") and not rounding:
        return PlanError(
            f"{source} to {target} loses values and needs a policy",
            code="lossy-cast",
            help="add `rounding: nearest` and `overflow: saturate`, or use a float type",
        )
    return None


def _check_overflow(source: DType, target: DType, overflow: str) -> PlanError | None:
    reason = ""
    if overflow not in OVERFLOW:
        reason = f"no overflow policy is called `{overflow}`"
    elif overflow == "inf" and (target in _FINITE_ONLY or target.kind not in ("float", "complex")):
        reason = f"`overflow: inf` needs a type with infinities, and {target} has none"
    elif overflow == "wrap" and (source.kind not in ("bool", "int", "uint") or target.kind not in ("int", "uint")):
        reason = f"`overflow: wrap` is for integers, not for {source} to {target}"
    elif overflow == "saturate" and target.kind == "bool":
        reason = "`overflow: saturate` has no meaning for bool: a value is 0 or 1, or wrong"
    return (
        PlanError(reason, code="bad-policy", help="use `overflow: error`" + ("" if target.kind == "bool" else " or `overflow: saturate`"))
        if reason
        else None
    )


def is_lossless(source: DType, target: DType) -> bool:
    """Whether each value of a type is one of another, so that a cast there and back changes nothing."""
    if source == target:
        return True
    if not (source.computable and target.computable):
        return False
    if source.kind in ("bool", "int", "uint") and target.kind in ("bool", "int", "uint"):
        (low, high), (least, most) = _span(source), _span(target)
        return least <= low and high <= most
    if source.kind == "float" and target.kind in ("float", "complex"):
        return _fits(source, _part(target))
    if source.kind == "complex" and target.kind == "complex":
        return source.bits <= target.bits
    return source.kind != "float" and target.kind == "float" and max(map(abs, _span(source))) <= 2 ** (_finfo(target).nmant + 1)


def _span(dtype: DType) -> tuple[int, int]:
    return (0, 1) if dtype.kind == "bool" else int_range(dtype)


def _finfo(dtype: DType) -> Any:
    import ml_dtypes

    return ml_dtypes.finfo(numpy_dtype(dtype))


def _fits(source: DType, target: DType) -> bool:
    """Whether a float type has all the digits and exponents of another, and its infinities, NaN and zeros."""
    one, other = _finfo(source), _finfo(target)
    special = (source in _FINITE_ONLY or target not in _FINITE_ONLY) and target not in _WITHOUT_NAN | _POSITIVE_ONLY
    zeros = source in _ONE_ZERO | _POSITIVE_ONLY or target not in _ONE_ZERO
    digits = one.nmant <= other.nmant and one.max <= other.max
    return bool(special and zeros and digits and one.smallest_subnormal >= other.smallest_subnormal)


def cast(array: Array, dtype: DType, *, overflow: str = "error", rounding: str = "", label: str = "") -> Array:
    """The values of `array` as little-endian `dtype`; the array itself where it has that type already.

    To floats rounds once, to nearest even (float8_e8m0fnu: ties go up); subnormals stay. NaN stays NaN. `overflow` and `rounding` are those of
    `surgery.expr.Cast`; saturation clamps infinities too. `label` is the key that errors name. The result lies in memory as
    the array does. Needs the result and, for an array that has holes, a copy of the input.

    Raises:
        PlanError: what `check` finds.
        ApplyError: code `overflow` with the worst value that does not fit under "error" (to bool: neither 0 nor 1), or code `nan-cast`.
    """
    import numpy as np

    target = numpy_dtype(dtype)
    if array.dtype == target:
        return array
    source = DTYPES["string" if array.dtype.kind == "O" else array.dtype.name]
    fault = check(source, dtype, overflow, rounding)
    if fault is not None:
        raise fault
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))  # in the order of memory: a transposed array stays one
    in_order = array.transpose(axes)
    flat = np.ascontiguousarray(in_order).reshape(-1)
    out = np.empty(flat.shape, target)
    misfits: list[float | int] = []
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start in range(0, flat.size, _PIECE):
            try:
                out[start : start + _PIECE] = _convert(flat[start : start + _PIECE], source, dtype, overflow, rounding)
            except _MisfitError as misfit:
                misfits.append(misfit.value)
    if misfits:
        raise _refusal(max(misfits, key=_badness), dtype, label)
    return out.reshape(in_order.shape).transpose(sorted(range(array.ndim), key=axes.__getitem__))


class _MisfitError(Exception):
    """A value of the piece that the target cannot hold."""

    def __init__(self, values: Array) -> None:
        super().__init__()
        self.value: float | int = max(values.max().item(), values.min().item(), key=_badness)


def _badness(value: float | int) -> tuple[bool, float | int]:
    """Orders NaN above everything, then by magnitude."""
    return isnan(value), abs(value)


def _refusal(value: float | int, dtype: DType, label: str) -> ApplyError:
    subject = f"`{label}`" if label else "a tensor"
    data = {"key": label, "value": str(value)}
    if isnan(value):
        return ApplyError(
            f"{subject} has a NaN, which {dtype} cannot hold", code="nan-cast", help="use a type with NaN, or mend the source", data=data
        )
    low, high = (0, 1) if dtype.kind == "bool" else int_range(dtype) if dtype.kind in ("int", "uint") else _reach(_part(dtype), "f8")[2:]
    ways = "use a wider type"
    if dtype.kind != "bool":
        infinite = "" if dtype.kind in ("int", "uint") or dtype in _FINITE_ONLY else " or `overflow: inf`"
        ways += f", or give `cast` the policy `overflow: saturate`{infinite}"
    shown = value if isinstance(value, int) else f"{value:.9g}"
    return ApplyError(
        f"{subject} has the value {shown}, which {dtype} cannot hold",
        code="overflow",
        notes=[f"{dtype} holds {low:.9g} to {high:.9g}" if isinstance(low, float) else f"{dtype} holds {low} to {high}"],
        help=ways,
        data=data,
    )


def _convert(piece: Array, source: DType, target: DType, overflow: str, rounding: str) -> Array:
    if target.kind == "complex":
        parts = piece.view(piece.real.dtype) if source.kind == "complex" else _as_float(piece, source, _part(target))
        values = _to_float(parts, _part(target), overflow)
        return values.view(numpy_dtype(target)) if source.kind == "complex" else values
    if target.kind == "float":
        return _to_float(_as_float(piece, source, target), target, overflow)
    if source.kind == "float":
        return _round_to_int(_as_float(piece, source, target), target, overflow, rounding)
    plain = piece.astype(_storage(source), copy=False)
    return _to_bool(plain) if target.kind == "bool" else _to_int(plain, target, overflow)


def _part(dtype: DType) -> DType:
    """The type of the real and of the imaginary part; a real type itself."""
    return DTYPES[f"float{dtype.bits // 2}"] if dtype.kind == "complex" else dtype


def _storage(dtype: DType) -> str:
    """numpy's own integer type of the same stored width, for ml_dtypes' sub-byte types and bool."""
    return "uint8" if dtype.kind == "bool" else f"{dtype.kind}{dtype.bits}"


def int_range(dtype: DType) -> tuple[int, int]:
    """The least and the greatest value of an integer type (of int4: -8 and 7)."""
    width = int(dtype.name.lstrip("uint"))
    return (0, (1 << width) - 1) if dtype.kind == "uint" else (-(1 << width - 1), (1 << width - 1) - 1)


def _as_float(piece: Array, source: DType, target: DType) -> Array:
    """The same values as float32 or float64; of 64-bit integers whatever rounds to the same `target`."""
    if source.kind == "float":
        return piece.astype("f8" if source.bits == 64 else "f4", copy=False)
    plain = piece.astype(_storage(source), copy=False)
    if plain.dtype.itemsize < 8 or target.bits == 64:
        return plain.astype("f4" if plain.dtype.itemsize <= 2 else "f8")
    return _odd_float64(plain)


def _odd_float64(integers: Array) -> Array:
    """64-bit integers as float64, inexact ones rounded to odd at bit 11, so that rounding again to at most 40 bits is right."""
    import numpy as np

    low = integers & 0x7FF
    coarse = (integers - low) | ((low != 0).astype(integers.dtype) << 11)
    exact = np.abs(integers.astype("f8")) < 2.0**53
    return np.where(exact, integers, coarse).astype("f8")


def _odd_float32(values: Array) -> Array:
    """float64 as float32 rounded to odd (inexact results end in a set bit), so that rounding again to at most 22 bits is right.

    Source: Boldo and Melquiond, "When double rounding is odd" (2005).
    """
    import numpy as np

    near = values.astype("f4")
    back = near.astype("f8")
    bits = near.view("i4")
    wrong = (back != values) & (values == values) & (bits & 1 == 0)
    towards = np.where(np.abs(back) > np.abs(values), np.int32(-1), np.int32(1))
    return np.where(wrong, bits + towards, bits).view("f4")


class _Reach(NamedTuple):
    """`low` to `high` are the values that round into a type's finite range, `lowest` to `highest` is that range."""

    low: float
    high: float
    lowest: float
    highest: float


@cache
def _reach(dtype: DType, computed: str) -> _Reach:
    """The reach of a float type, `low` and `high` as numbers of the type `computed` ("f4" or "f8")."""
    import ml_dtypes
    import numpy as np

    info = ml_dtypes.finfo(numpy_dtype(dtype))
    highest = float(info.max)
    ulp = ldexp(1.0, frexp(highest)[1] - 1 - info.nmant)
    number = np.dtype(computed).type
    with np.errstate(over="ignore", under="ignore"):
        limit = number(highest + ulp / 2)
        tie_stays = highest / ulp % 2 == 0  # a last bit of 0, as in float8_e4m3fn's 448
        high = float(limit if tie_stays else np.nextafter(limit, number(0)))
        if dtype in _POSITIVE_ONLY:
            return _Reach(float(np.nextafter(number(0), number(1))), high, float(info.min), highest)
    return _Reach(-high, high, -highest, highest)


def _to_float(values: Array, target: DType, overflow: str) -> Array:
    import numpy as np

    if target.bits == 64:
        values = values.astype("f8", copy=False)
    reach = _reach(target, values.dtype.str[1:])
    if target in _WITHOUT_NAN and np.isnan(values).any():
        raise _MisfitError(values[np.isnan(values)])
    if overflow == "saturate":
        values = np.clip(values, reach.lowest, reach.highest)
    elif overflow == "error" and not (values.max() <= reach.high and values.min() >= reach.low):
        bad = (values > reach.high) | (values < reach.low)
        if target not in _FINITE_ONLY:
            bad &= np.isfinite(values)
        if bad.any():
            raise _MisfitError(values[bad])
    if values.dtype.itemsize == 8 and target.name not in ("float16", "float32", "float64"):
        values = _odd_float32(values)
    return values.astype(numpy_dtype(target), copy=False)


def _round_to_int(values: Array, target: DType, overflow: str, rounding: str) -> Array:
    import numpy as np

    if np.isnan(values).any():
        raise _MisfitError(values[np.isnan(values)])
    integral = {"nearest": np.rint, "floor": np.floor, "ceil": np.ceil, "zero": np.trunc}[rounding](values)
    low, high = int_range(target)
    over, under = integral >= float(high + 1), integral < float(low)  # powers of two: exact in either float type
    beyond = over | under
    if overflow == "error" and beyond.any():
        raise _MisfitError(values[beyond])
    result = np.where(beyond, 0, integral).astype(_storage(target))
    result[over], result[under] = high, low
    return result.astype(numpy_dtype(target), copy=False)


def _to_int(values: Array, target: DType, overflow: str) -> Array:
    import numpy as np

    low, high = int_range(target)
    least, greatest = int(values.min()), int(values.max())
    if overflow != "wrap" and (least < low or greatest > high):
        own = np.iinfo(values.dtype)
        low, high = max(low, int(own.min)), min(high, int(own.max))
        if overflow == "error":
            raise _MisfitError(values[(values < low) | (values > high)])
        values = np.clip(values, low, high)
    return values.astype(_storage(target)).astype(numpy_dtype(target), copy=False)


def _to_bool(values: Array) -> Array:
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        raise _MisfitError(values[wrong])
    return values.astype(bool)
