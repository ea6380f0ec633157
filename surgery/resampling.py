"""The node that resamples an axis, as torch.nn.functional.interpolate does: several axes are done one after the other. Opens nothing.

Positions and weights are reckoned in the type of the values, float32 or float64, and multiplied and added in one rounding, as torch does
it: where a position is almost whole, other digits would choose another element. Source: torch, ATen/native/UpSample.h, cpu/UpSampleKernel.cpp.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from surgery.dtypes import numpy_dtype
from surgery.nodes import Expr
from surgery.regions import Region, extent_of
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from surgery.nodes import Array

_SHARPNESS = -0.75
"""The parameter of cubic convolution. Source: torch, as in OpenCV."""
_SHARPNESS_ANTIALIASED = -0.5
"""The same where antialiasing is asked for. Source: torch, as in PIL."""


class Method(NamedTuple):
    """How values between elements are made: `mode` is nearest, linear or cubic. Nearest knows neither of the two flags."""

    mode: str
    align_corners: bool = False
    antialias: bool = False


class Taps(NamedTuple):
    """What an element of the result is the weighted sum of: `sources` are indices along the old axis; both are arrays [taps, new size]."""

    sources: np.ndarray[Any, np.dtype[np.int64]]
    weights: Array


class Resample(Expr):
    """An axis of another length, each element a weighted sum of neighbours along it. The child is float32 or float64, and the axis not empty."""

    __slots__ = ("axis", "method")

    def __init__(self, child: Expr, axis: int, size: int, method: Method) -> None:
        shape = child.spec.shape
        self.children = (child,)
        self.axis = axis
        self.method = method
        self.spec = TensorSpec(child.spec.dtype, (*shape[:axis], size, *shape[axis + 1 :]))

    def _taps(self) -> Taps:
        return taps(self.method, self.children[0].spec.shape[self.axis], self.spec.shape[self.axis], self.spec.dtype.name)

    def needs(self, region: Region) -> tuple[Region, ...]:
        if 0 in extent_of(region):
            return (((0, 0),) * len(region),)
        sources = self._taps().sources[:, slice(*region[self.axis])]
        return ((*region[: self.axis], (int(sources.min()), int(sources.max()) + 1), *region[self.axis + 1 :]),)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        out = np.zeros(extent_of(region), numpy_dtype(self.spec.dtype))
        if not out.size:
            return out
        (low, _), along = self.needs(region)[0][self.axis], slice(*region[self.axis])
        column = (-1, *(1,) * (len(region) - self.axis - 1))
        sources, weights = self._taps()
        with np.errstate(all="ignore"):
            for source, weight in zip(sources[:, along], weights[:, along], strict=True):
                out += inputs[0].take(source - low, self.axis) * weight.reshape(column)
        return out


@lru_cache(maxsize=32)
def taps(method: Method, old: int, new: int, dtype: str = "float32") -> Taps:
    """The neighbours and weights for an axis of `old` elements that gets `new` ones; neither is 0."""
    import numpy as np

    real = np.dtype(dtype).type
    steps = (old - 1, max(new - 1, 1)) if method.align_corners else (old, new)
    scale = real(steps[0]) / real(steps[1]) if new > 1 or not method.align_corners else real(0)
    places = np.arange(new).astype(real)
    if method.mode == "nearest":
        nearest = np.minimum((places * scale).astype(np.int64), old - 1)
        return Taps(nearest[None], np.ones((1, new), real))
    if method.antialias:
        return _antialiased(method, old, scale, places)
    positions = places * scale if method.align_corners else _fused(places + real(0.5), scale, -0.5)
    return _cubic(old, positions) if method.mode == "cubic" else _linear(old, np.maximum(positions, 0))


def _linear(old: int, positions: Array) -> Taps:
    import numpy as np

    low = np.minimum(np.floor(positions).astype(np.int64), old - 1)
    share = np.clip(positions - low.astype(positions.dtype), 0, 1)
    return Taps(np.stack([low, np.minimum(low + 1, old - 1)]), np.stack([1 - share, share]))


def _cubic(old: int, positions: Array) -> Taps:
    import numpy as np

    low = np.minimum(np.floor(positions).astype(np.int64), old - 1)
    share = np.clip(positions - low.astype(positions.dtype), 0, 1)
    steps = np.arange(-1, 3)[:, None]
    return Taps(np.clip(low + steps, 0, old - 1), _cubic_weight(np.stack([share + 1, share, 1 - share, 2 - share]), _SHARPNESS))


def _cubic_weight(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel for distances from 0 on."""
    import numpy as np

    inner = _fused(_fused(distance, a + 2, -(a + 3)) * distance, distance, 1)
    outer = _fused(_fused(_fused(distance, a, -5 * a), distance, 8 * a), distance, -4 * a)
    return np.where(distance < 1, inner, np.where(distance < 2, outer, 0)).astype(distance.dtype)


def _fused(values: Array, factor: Any, more: float) -> Array:
    """`values * factor + more` with one rounding, of float32; of float64 with two."""
    import numpy as np

    fused: Array = (values.astype(np.float64) * factor + more).astype(values.dtype)
    return fused


def _antialiased(method: Method, old: int, scale: Any, places: Array) -> Taps:
    """A kernel as wide as the elements of the result are in the old axis; what lies beyond its ends is left out, and the rest weighs more."""
    import numpy as np

    real = places.dtype.type
    stretch = max(scale, real(1))
    reach = real(2 if method.mode == "cubic" else 1) * stretch
    centres = scale * (places + real(0.5))
    low = np.maximum((centres - reach + real(0.5)).astype(np.int64), 0)
    high = np.minimum((centres + reach + real(0.5)).astype(np.int64), old)
    sources = low + np.arange(int((high - low).max()))[:, None]
    distance = np.abs((sources.astype(real) - centres + real(0.5)) * (real(1) / stretch))
    weights = _cubic_weight(distance, _SHARPNESS_ANTIALIASED) if method.mode == "cubic" else np.maximum(1 - distance, 0)
    weights = np.where(sources < high, weights, 0).astype(real)
    return Taps(np.minimum(sources, high - 1), weights / weights.sum(0))
