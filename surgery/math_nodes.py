"""The nodes that calculate: constants, functions of elements, products of matrices, scales spread over blocks.

All take and give one float type, float32 or float64. A value depends on the elements that it is made of and on nothing else: neither on the
region that is asked for, nor on how arrays lie in memory. Whatever could depend on that is done in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from surgery.dtypes import numpy_dtype
from surgery.nodes import Expr
from surgery.regions import Region, extent_of
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from surgery.nodes import Array

_TILE = (32, 512)
"""Rows and columns of a product that are computed by one call; positions are counted from the tensor's first element."""
_DEPTH = 512
"""So many products are added up by that call."""


class Constant(Expr):
    """One number, rounded to the type of its spec, whose shape is `()`."""

    __slots__ = ("value",)

    def __init__(self, spec: TensorSpec, value: float) -> None:
        self.spec = spec
        self.children = ()
        self.value = value

    def needs(self, region: Region) -> tuple[Region, ...]:
        return ()

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        return np.array(self.value, numpy_dtype(self.spec.dtype))


def broadcast(shapes: Iterable[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape that tensors have together, by numpy's rules; None if they do not go together."""
    out: list[int] = []
    for shape in shapes:
        longer, shorter = (out, list(shape)) if len(out) >= len(shape) else (list(shape), out)
        padded = [1] * (len(longer) - len(shorter)) + shorter
        if any(a != b and 1 not in (a, b) for a, b in zip(longer, padded, strict=True)):
            return None
        out = [b if a == 1 else a for a, b in zip(longer, padded, strict=True)]
    return tuple(out)


class Elementwise(Expr):
    """A function of the elements at one place of each operand, by its name in FUNCTIONS. Shapes go together by numpy's rules.

    A comparison gives 1 or 0. The maker has checked that types are equal and that shapes go together.
    """

    __slots__ = ("function",)

    def __init__(self, function: str, operands: tuple[Expr, ...]) -> None:
        shape = broadcast(operand.spec.shape for operand in operands)
        assert shape is not None
        self.function = function
        self.children = operands
        self.spec = TensorSpec(operands[0].spec.dtype, shape)

    def needs(self, region: Region) -> tuple[Region, ...]:
        return tuple(_under(child.spec.shape, region) for child in self.children)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        shape, dtype = extent_of(region), numpy_dtype(self.spec.dtype)
        if 0 in shape:
            return np.empty(shape, dtype)
        with np.errstate(all="ignore"):
            values: Array = np.asarray(FUNCTIONS[self.function](*inputs)).astype(dtype, copy=False)
        return values


def _under(shape: tuple[int, ...], region: Region) -> Region:
    """The region of an operand that is spread over a region of the whole."""
    if 0 in extent_of(region):
        return ((0, 0),) * len(shape)
    behind = region[len(region) - len(shape) :]
    return tuple((0, 1) if size == 1 else pair for size, pair in zip(shape, behind, strict=True))


def _plain(name: str) -> Callable[..., Array]:
    """A function of numpy whose results are rounded as IEEE 754 demands it."""

    def apply(*operands: Array) -> Array:
        import numpy as np

        values: Array = getattr(np, name)(*operands)
        return values

    return apply


def _in_float64(name: str) -> Callable[..., Array]:
    """A function of numpy whose last bit depends on processor and memory layout: in float64, which leaves float32 with all bits right."""

    def apply(*operands: Array) -> Array:
        import numpy as np

        wide = [np.ascontiguousarray(operand, np.float64) if operand.ndim else operand.astype(np.float64) for operand in operands]
        values: Array = getattr(np, name)(*wide)
        return values

    return apply


def _where(condition: Array, chosen: Array, other: Array) -> Array:
    import numpy as np

    return np.where(condition != 0, chosen, other)


def _clip(values: Array, low: Array, high: Array) -> Array:
    import numpy as np

    raised = np.where(values < low, low, values)
    return np.where(raised > high, high, raised)


FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    "+": _plain("add"),
    "-": _plain("subtract"),
    "*": _plain("multiply"),
    "/": _plain("divide"),
    "**": _in_float64("power"),
    "negative": _plain("negative"),
    "abs": _plain("abs"),
    "sqrt": _plain("sqrt"),
    "exp": _in_float64("exp"),
    "log": _in_float64("log"),
    "<": _plain("less"),
    "<=": _plain("less_equal"),
    ">": _plain("greater"),
    ">=": _plain("greater_equal"),
    "==": _plain("equal"),
    "!=": _plain("not_equal"),
    "where": _where,
    "clip": _clip,
}
"""What `Elementwise` can do with its operands."""


class MatMul(Expr):
    """The matrix product of the last two axes; axes before them go together by numpy's rules. The maker has checked shapes and types.

    Products are added up in float64, in tiles and steps at fixed places, and rounded once: whatever region is asked for, the same calls are made.
    """

    __slots__ = ()

    def __init__(self, left: Expr, right: Expr) -> None:
        leading = broadcast((left.spec.shape[:-2], right.spec.shape[:-2]))
        assert leading is not None
        self.children = (left, right)
        self.spec = TensorSpec(left.spec.dtype, (*leading, left.spec.shape[-2], right.spec.shape[-1]))

    def needs(self, region: Region) -> tuple[Region, ...]:
        left, right = (child.spec.shape for child in self.children)
        if 0 in extent_of(region):
            return ((0, 0),) * len(left), ((0, 0),) * len(right)
        *leading, rows, columns = region
        inner = (0, left[-1])
        rows, columns = (_aligned(pair, tile, size) for pair, tile, size in zip((rows, columns), _TILE, self.spec.shape[-2:], strict=True))
        return (*_under(left[:-2], tuple(leading)), rows, inner), (*_under(right[:-2], tuple(leading)), inner, columns)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        out = np.zeros(extent_of(region), numpy_dtype(self.spec.dtype))
        if not out.size:
            return out
        leading = out.shape[:-2]
        left, right = (np.broadcast_to(array, (*leading, *array.shape[-2:])) for array in inputs)
        corner = tuple(low // tile * tile for (low, _), tile in zip(region[-2:], _TILE, strict=True))
        for index in np.ndindex(leading):
            for place, product in _products(left[index], right[index]):
                _paste(out[index], product, tuple(low + at - start for low, at, (start, _) in zip(corner, place, region[-2:], strict=True)))
        return out


def _aligned(pair: tuple[int, int], tile: int, size: int) -> tuple[int, int]:
    """The whole tiles that a range of an axis touches."""
    return pair[0] // tile * tile, min(-(-pair[1] // tile) * tile, size)


def _products(left: Array, right: Array) -> Iterator[tuple[tuple[int, int], Array]]:
    """The tiles of a product in float64, each with the place of its first element."""
    import numpy as np

    with np.errstate(all="ignore"):
        for row in range(0, left.shape[0], _TILE[0]):
            for column in range(0, right.shape[1], _TILE[1]):
                total = np.zeros((min(_TILE[0], left.shape[0] - row), min(_TILE[1], right.shape[1] - column)))
                for step in range(0, left.shape[1], _DEPTH):
                    a = np.ascontiguousarray(left[row : row + _TILE[0], step : step + _DEPTH], np.float64)
                    b = np.ascontiguousarray(right[step : step + _DEPTH, column : column + _TILE[1]], np.float64)
                    total += a @ b
                yield (row, column), total


def _paste(out: Array, tile: Array, place: tuple[int, ...]) -> None:
    """Write the part of a tile that lies within `out`; `place` is where its first element belongs, perhaps outside."""
    import numpy as np

    (top, bottom), (first, last) = ((max(at, 0), min(at + size, whole)) for at, size, whole in zip(place, tile.shape, out.shape, strict=True))
    with np.errstate(over="ignore"):
        out[top:bottom, first:last] = tile[top - place[0] : bottom - place[0], first - place[1] : last - place[1]]


class Spread(Expr):
    """Each element repeated over a block of places: along axis i the element of place p is `p // blocks[i]`. The last blocks may be cut off."""

    __slots__ = ("blocks",)

    def __init__(self, child: Expr, blocks: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self.children = (child,)
        self.blocks = blocks
        self.spec = TensorSpec(child.spec.dtype, shape)

    def needs(self, region: Region) -> tuple[Region, ...]:
        if 0 in extent_of(region):
            return (((0, 0),) * len(region),)
        return (tuple((start // block, -(-stop // block)) for (start, stop), block in zip(region, self.blocks, strict=True)),)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        if 0 in extent_of(region):
            return np.empty(extent_of(region), inputs[0].dtype)
        values: Array = inputs[0]
        for axis, ((start, stop), block) in enumerate(zip(region, self.blocks, strict=True)):
            if block > 1:
                places: np.ndarray[Any, np.dtype[Any]] = np.arange(start, stop) // block - start // block
                values = values.take(places, axis)
        return values
