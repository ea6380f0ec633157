"""Values for tensors that no checkpoint has: what `init:` in a recipe means, and how it is computed.

Element i of a tensor (in C order) depends on nothing but (seed, key, i), so blocks, their order and the machine never change
a value. The exception is `orthogonal`, which is computed whole and by LAPACK. Values are made in float64 and rounded once.
Names and defaults are those of Keras 3 (keras.initializers); TensorFlow has the same distributions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from math import isfinite, prod, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from surgery.casting import cast, int_range
from surgery.dtypes import DType, numpy_dtype
from surgery.errors import ApplyError, RecipeError, near
from surgery.randomness import random_bits, standard_normal
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from surgery.regions import Region

    Array = np.ndarray[Any, np.dtype[Any]]

_NORMAL = {"mean": 0.0, "std": 0.05}
_FAN = {"fan": ("in", "out")}
_SCALED = {"glorot": ("avg", 1.0), "he": ("in", 2.0), "lecun": ("in", 1.0)}
"""Which fan divides the variance, and the variance times that fan. Source: keras VarianceScaling."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "zeros": {},
    "ones": {},
    "constant": {"value": 0.0},
    "eye": {},
    "normal": _NORMAL,
    "truncated_normal": _NORMAL,
    "uniform": {"min": -0.05, "max": 0.05},
    **{f"{name}_{shape}": _FAN for name in _SCALED for shape in ("uniform", "normal")},
    "orthogonal": {"gain": 1.0},
}
"""Name → its options with their defaults. `std` of a truncated normal is that of the normal before it is cut at two of them."""

_TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a unit normal cut at ±2. Source: keras VarianceScaling."""
_PIECE = 1 << 15
"""Elements made at once: about 256 KiB per temporary, which stay in the cache."""


class Initializer(NamedTuple):
    """A name and all of its options; make it with `parse`."""

    name: str
    options: Mapping[str, Any]

    def __str__(self) -> str:
        shown = ", ".join(f"{option}={_text(value)}" for option, value in self.options.items())
        return f"{self.name}({shown})" if shown else self.name


def _text(value: Any) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else f"{value}"


def parse(init: str | Mapping[str, Any]) -> Initializer:
    """The initializer that a recipe's `init:` means: a name, `{name: {option: number}}`, or `{constant: number}`.

    Raises:
        RecipeError: code `bad-initializer`; unknown names and options, values of the wrong type or range.
    """
    if isinstance(init, str):
        init = {init: {}}
    if not isinstance(init, Mapping) or len(init) != 1:
        raise _bad("an initializer is a name, or one name with its options", help="for example `init: {normal: {std: 0.02}}`")
    ((name, given),) = init.items()
    if name not in DEFAULTS:
        guess = near(str(name), DEFAULTS)
        known = f"there are {', '.join(DEFAULTS)}"
        raise _bad(f"no initializer is called `{name}`", help=f"did you mean `{guess[0]}`?" if guess else known, at=(str(name),))
    if name == "constant" and not isinstance(given, Mapping):
        given = {"value": given}
    if not isinstance(given, Mapping):
        raise _bad(f"the options of `{name}` are a mapping", help=f"it has {_known(name)}", at=(name,))
    for option, value in given.items():
        if option not in DEFAULTS[name]:
            guess = near(str(option), DEFAULTS[name])
            raise _bad(
                f"`{name}` has no option `{option}`",
                help=f"did you mean `{guess[0]}`?" if guess else f"it has {_known(name)}",
                at=(name, str(option)),
            )
        _check_option(name, option, value)
    options = {**DEFAULTS[name], **{option: tuple(value) if option == "fan" else value for option, value in given.items()}}
    if name == "uniform" and options["min"] > options["max"]:
        raise _bad(f"`min` {options['min']} is above `max` {options['max']}", help="exchange them", at=(name,))
    return Initializer(name, options)


def _check_option(name: str, option: str, value: Any) -> None:
    if option == "fan":
        if not isinstance(value, list | tuple) or list(value) not in (["in", "out"], ["out", "in"]):
            raise _bad("`fan` names the axes", help="use `[in, out]` (TensorFlow, Keras) or `[out, in]` (PyTorch)", at=(name, option))
        return
    if not isinstance(value, int | float) or (isinstance(value, bool) and name != "constant"):
        raise _bad(f"`{option}` of `{name}` is a number", at=(name, option))
    if name != "constant" and not isfinite(value):
        raise _bad(f"`{option}` of `{name}` is a finite number", at=(name, option))
    if option == "std" and value < 0:
        raise _bad("a standard deviation is not negative", at=(name, option))


def _known(name: str) -> str:
    return ", ".join(f"`{option}`" for option in DEFAULTS[name]) or "no options"


def _bad(title: str, *, help: str = "", at: tuple[str, ...] = ()) -> RecipeError:
    return RecipeError(title, code="bad-initializer", help=help, at=at)


def check(initializer: Initializer, spec: TensorSpec) -> str | None:
    """Why this initializer cannot make a tensor of this spec, in a few words; None if it can."""
    name, dtype = initializer.name, spec.dtype
    if not dtype.computable:
        return f"values of {dtype} cannot be made"
    if name == "eye" and len(spec.shape) != 2:
        return f"eye makes matrices, and the shape is {list(spec.shape)}"
    if name == "orthogonal" and len(spec.shape) < 2:
        return f"orthogonal needs two axes or more, and the shape is {list(spec.shape)}"
    if name in ("zeros", "ones", "constant", "eye"):
        wanted: tuple[Any, ...] = {"zeros": (0,), "ones": (1,), "eye": (0, 1)}.get(name) or (initializer.options["value"],)
        misfit = next((value for value in wanted if not _holds(dtype, value)), None)
        return None if misfit is None else f"{dtype} cannot hold {misfit}"
    if not dtype.is_float or dtype.name == "float8_e8m0fnu":
        return f"{name} makes real numbers of either sign, and the dtype is {dtype}"
    return None


def _holds(dtype: DType, value: float) -> bool:
    if dtype.kind in ("bool", "int", "uint"):
        low, high = (0, 1) if dtype.kind == "bool" else int_range(dtype)
        return low <= value <= high and value == int(value)
    try:
        _constant(value, dtype)
    except (ApplyError, OverflowError):
        return False
    return True


def _constant(value: float, dtype: DType) -> Array:
    """A scalar array; integers do not pass through float64."""
    import numpy as np

    if dtype.kind in ("bool", "int", "uint"):
        return np.array(int(value)).astype(numpy_dtype(dtype))
    return cast(np.array(float(value)), dtype)


def fill(initializer: Initializer, spec: TensorSpec, seed: int, key: str, region: Region) -> Array:
    """The values of `region` of the tensor `key`: an array of the region's shape and of `spec.dtype`.

    `uniform` lies in [min, max) before it is rounded to the dtype. `orthogonal` makes the whole tensor for every region (the last one
    is kept) and needs about four times its float64 size.

    Raises:
        ApplyError: a random value leaves the dtype's range (code `overflow`).
    """
    import numpy as np

    shape = tuple(stop - start for start, stop in region)
    if 0 in shape:
        return np.empty(shape, numpy_dtype(spec.dtype))
    name, options = initializer
    if name in ("zeros", "ones", "constant"):
        value = {"zeros": 0, "ones": 1}.get(name, options.get("value", 0))
        return np.full(shape, _constant(value, spec.dtype))
    if name == "eye":
        rows, columns = (np.arange(start, stop) for start, stop in region)
        return cast((rows[:, None] == columns).astype(np.uint8), spec.dtype)
    if name == "orthogonal":
        whole = _orthogonal(spec.shape, float(options["gain"]), seed, key)
        return cast(whole[tuple(slice(start, stop) for start, stop in region)], spec.dtype, label=key)
    return _random(initializer, spec, seed, key, region).reshape(shape)


def _random(initializer: Initializer, spec: TensorSpec, seed: int, key: str, region: Region) -> Array:
    """The region as one axis, made piece by piece."""
    import numpy as np

    distribution, centre, width = _distribution(initializer, spec.shape)
    out = np.empty(prod(stop - start for start, stop in region), numpy_dtype(spec.dtype))
    done = 0
    for positions in _positions(spec.shape, region):
        bits = random_bits(seed, key, positions)
        if distribution == "uniform":
            values = (bits >> 11).astype(np.float64) * 2.0**-53 * width + centre
        else:
            values = standard_normal(bits, truncated=distribution == "truncated_normal") * width + centre
        out[done : done + len(values)] = cast(values, spec.dtype, label=key)
        done += len(values)
    return out


def _distribution(initializer: Initializer, shape: tuple[int, ...]) -> tuple[str, float, float]:
    """Its family with two numbers: mean and standard deviation, or for "uniform" the least value and the width."""
    name, options = initializer
    if name == "uniform":
        return name, float(options["min"]), float(options["max"]) - float(options["min"])
    if name in ("normal", "truncated_normal"):
        return name, float(options["mean"]), float(options["std"])
    family, _, kind = name.partition("_")
    mode, scale = _SCALED[family]
    fan_in, fan_out = fans(shape, options["fan"])
    variance = scale / max(1.0, fan_in if mode == "in" else (fan_in + fan_out) / 2)
    if kind == "uniform":
        limit = sqrt(3 * variance)
        return "uniform", -limit, 2 * limit
    return "truncated_normal", 0.0, sqrt(variance) / _TRUNCATED_STD


def fans(shape: tuple[int, ...], order: tuple[str, str] = ("in", "out")) -> tuple[int, int]:
    """Inputs and outputs of a unit: `[*receptive, in, out]` as in Keras, or with ("out", "in") `[out, in, *receptive]` as in PyTorch.

    Source: keras `compute_fans`; torch.nn.init `_calculate_fan_in_and_fan_out`.
    """
    if len(shape) < 2:
        size = shape[0] if shape else 1
        return size, size
    if order == ("in", "out"):
        receptive = prod(shape[:-2])
        return shape[-2] * receptive, shape[-1] * receptive
    receptive = prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def _positions(shape: tuple[int, ...], region: Region) -> Iterator[Array]:
    """The C-order positions of a region's elements in a tensor of this shape, in pieces of about `_PIECE`."""
    import numpy as np

    from surgery.regions import extent_of, strides_of

    strides, sizes = strides_of(shape), extent_of(region)
    run = next((axis for axis in range(len(shape), 0, -1) if sizes[axis - 1] != shape[axis - 1]), 0)  # axes behind it are whole
    length = prod(sizes[max(run - 1, 0) :])
    outer = sizes[: max(run - 1, 0)]
    base = sum(start * stride for (start, _), stride in zip(region, strides, strict=True))
    at_once = max(1, _PIECE // max(length, 1))
    for row in range(0, prod(outer), at_once):
        rows = np.arange(row, min(row + at_once, prod(outer)), dtype=np.uint64)
        starts = np.full(len(rows), base, np.uint64)
        for index, stride in zip(np.unravel_index(rows.astype(np.int64), outer) if outer else (), strides, strict=False):
            starts += index.astype(np.uint64) * np.uint64(stride)
        for low in range(0, length, _PIECE):
            within = np.arange(low, min(low + _PIECE, length), dtype=np.uint64)
            yield np.add.outer(starts, within).reshape(-1)


@lru_cache(maxsize=1)
def _orthogonal(shape: tuple[int, ...], gain: float, seed: int, key: str) -> Array:
    """Rows or columns (whichever are fewer) orthonormal times `gain`, uniformly distributed, with all axes but the last as one.

    Source: keras Orthogonal (QR of a normal matrix, signs of R's diagonal taken out).
    """
    import numpy as np

    rows, columns = prod(shape[:-1]), shape[-1]
    tall = (max(rows, columns), min(rows, columns))
    bits = random_bits(seed, key, np.arange(rows * columns, dtype=np.uint64))
    orthonormal, triangle = np.linalg.qr(standard_normal(bits).reshape(tall))
    orthonormal *= np.where(np.diagonal(triangle) < 0, -1.0, 1.0)
    if rows < columns:
        orthonormal = orthonormal.T
    whole: Array = (gain * orthonormal).reshape(shape)
    whole.flags.writeable = False
    return whole
