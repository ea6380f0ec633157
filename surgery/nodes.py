"""What a tensor is made of, as frozen nodes: the base class, and the nodes that make or join values.

Each node answers four questions: what comes out (`spec`), which region of its children it needs for a region of itself
(`needs`), how to compute that region (`compute`), and whether it is the same bytes under another address (`view`).
Nothing here reads a byte. A region is one half-open `(start, stop)` pair per axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from surgery.dtypes import numpy_dtype
from surgery.errors import ApplyError
from surgery.regions import Region, extent_of
from surgery.tensors import Extent, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from surgery.initializers import Initializer

    Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


class Expr:
    """A node. Subclasses are immutable and set `spec` and `children` when they are made."""

    __slots__ = ("children", "spec")
    spec: TensorSpec
    children: tuple[Expr, ...]
    allocates: ClassVar[bool] = True
    """Whether `compute` makes a new array, and not a window into the one that it gets."""
    streams: ClassVar[bool] = False
    """Whether `compute` takes its inputs one after the other, and keeps none of them."""

    def needs(self, region: Region) -> tuple[Region, ...]:
        """For each child, the region of it that `region` of this node depends on."""
        raise NotImplementedError

    def inputs(self, region: Region) -> Iterable[tuple[Expr, Region]]:
        """What `compute` gets for a region: the arrays of these, in this order. Each child once, unless a node says otherwise."""
        return zip(self.children, self.needs(region), strict=True)

    def examples(self, region: Region) -> Iterable[tuple[Expr, Region]]:
        """Those of the `inputs` of a region that tell what it costs: of such as come one after the other the first, since no other is larger."""
        return islice(self.inputs(region), 1 if self.streams else None)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        """The values of `region`, an array of its shape, from the arrays of its `inputs`."""
        raise NotImplementedError

    def view(self) -> tuple[Extent, ...] | None:
        """The stored ranges whose bytes, one after the other, are this tensor; None if it has to be computed."""
        return None

    def leaves(self) -> Iterator[Expr]:
        """The nodes without children below this one, itself included."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


class Fill(Expr):
    """A new tensor. Its values depend on spec, initializer, seed and key only, whatever regions are asked for.

    The maker has asked `initializers.check`. `key` is the name the tensor was made under, and stays when it is renamed.
    """

    __slots__ = ("initializer", "key", "seed")

    def __init__(self, spec: TensorSpec, initializer: Initializer, seed: int, key: str) -> None:
        self.spec = spec
        self.children = ()
        self.initializer = initializer
        self.seed = seed
        self.key = key

    def needs(self, region: Region) -> tuple[Region, ...]:
        return ()

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        from surgery.initializers import fill

        return fill(self.initializer, self.spec, self.seed, self.key, region)


class Assemble(Expr):
    """Parts laid side by side into one tensor, each with its origin: partitioned variables, and whatever is joined.

    The parts must cover the shape without overlap; the maker has checked that.
    """

    __slots__ = ("origins",)

    def __init__(self, spec: TensorSpec, parts: tuple[tuple[tuple[int, ...], Expr], ...]) -> None:
        self.spec = spec
        ordered = sorted(parts, key=lambda part: part[0])
        self.origins = tuple(origin for origin, _ in ordered)
        self.children = tuple(child for _, child in ordered)

    def _overlap(self, region: Region) -> Iterator[Region]:
        """For each part, the region of the whole where it meets `region` (perhaps empty)."""
        for origin, child in zip(self.origins, self.children, strict=True):
            meet = []
            for (start, stop), low, size in zip(region, origin, child.spec.shape, strict=True):
                first, last = max(start, low), min(stop, low + size)
                meet.append((first, max(first, last)))
            yield tuple(meet)

    def needs(self, region: Region) -> tuple[Region, ...]:
        needed = []
        for meet, origin in zip(self._overlap(region), self.origins, strict=True):
            empty = any(start == stop for start, stop in meet)
            needed.append(tuple((0, 0) if empty else (start - low, stop - low) for (start, stop), low in zip(meet, origin, strict=True)))
        return tuple(needed)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        out = np.empty(extent_of(region), numpy_dtype(self.spec.dtype))
        for meet, part in zip(self._overlap(region), inputs, strict=True):
            if part.size:
                out[tuple(slice(start - base, stop - base) for (start, stop), (base, _) in zip(meet, region, strict=True))] = part
        return out

    def view(self) -> tuple[Extent, ...] | None:
        if self.spec.dtype.bits % 8 or self.spec.dtype.bits == 0:
            return None
        joined = next((axis for axis, size in enumerate(self.spec.shape) if size != 1), 0)
        pieces: list[Extent] = []
        for child in self.children:
            stored = child.view()
            if stored is None or child.spec.shape[joined + 1 :] != self.spec.shape[joined + 1 :]:
                return None
            pieces += stored
        return tuple(pieces)


class Cast(Expr):
    """Another element type. Floats round to nearest even; the policies say what happens where a value does not fit.

    `overflow`: "error" (a finite value that would leave the range), "saturate", "inf", "wrap" (integers).
    `rounding`: how floats become integers: "nearest" (half to even), "floor", "ceil", "zero"; "" where it cannot happen.
    Errors name the key `label`, and in their `data` the number of the step.
    """

    __slots__ = ("label", "overflow", "rounding", "step")

    def __init__(self, child: Expr, spec: TensorSpec, overflow: str = "error", rounding: str = "", label: str = "", step: int | None = None) -> None:
        self.children = (child,)
        self.spec = spec
        self.overflow = overflow
        self.rounding = rounding
        self.label = label
        self.step = step

    def needs(self, region: Region) -> tuple[Region, ...]:
        return (region,)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        from surgery.casting import cast

        try:
            return cast(inputs[0], self.spec.dtype, overflow=self.overflow, rounding=self.rounding, label=self.label)
        except ApplyError as fault:
            fault.data["step"] = self.step
            raise
