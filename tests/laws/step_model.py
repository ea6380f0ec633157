"""Steps as numpy does them on a dictionary of arrays: the other side of the laws of whole recipes.

A `Draft` draws one step after the other that fits the arrays as they are, carries it out, and keeps what a recipe would say.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import einops
import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
FLOATS = list(CODES)[:6]
INTEGERS = list(CODES)[6:11]


class RefusedError(Exception):
    """What the step would do has to be refused."""


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def write_safetensors(path: Path, tensors: Mapping[str, Array]) -> None:
    header, data = {}, b""
    for key, array in tensors.items():
        raw = array.tobytes()
        header[key] = {"dtype": CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def read_safetensors(path: Path) -> dict[str, Array]:
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    names = {code: name for name, code in CODES.items()}
    out = {}
    for key, entry in header.items():
        if key != "__metadata__":
            start, stop = (8 + size + offset for offset in entry["data_offsets"])
            out[key] = np.frombuffer(raw[start:stop], dtype_of(names[entry["dtype"]])).reshape(entry["shape"])
    return out


def as_type(array: Array, name: str) -> Array:
    """A cast as numpy and ml_dtypes do it; a finite value that leaves the range is refused."""
    target = dtype_of(name)
    if array.dtype == target:
        return array
    with np.errstate(all="ignore"):
        wide = array if array.dtype.name in ("float64", *INTEGERS) else array.astype(np.float32)
        made = wide.astype(target)
        back = made.astype(np.float64) if name not in INTEGERS else made
    if name in FLOATS:
        source = wide.astype(np.float64)
        if (np.isfinite(source) & ~np.isfinite(back)).any() or (name == "float8_e4m3fn" and np.isinf(source).any()):
            raise RefusedError("range")
    elif not np.array_equal(wide.astype(object), made.astype(object)):
        raise RefusedError("range")
    return made


def mean_of(array: Array, axis: int) -> Array:
    wide = np.float64 if array.dtype == np.float64 else np.float32
    with np.errstate(all="ignore"):
        return as_type(array.astype(np.float64).mean(axis, keepdims=True).astype(wide), array.dtype.name)


class Draft:
    """A recipe while it grows, beside the arrays that it has led to."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.steps: list[dict[str, Any]] = []
        self.table: dict[str, Array] = {}
        self.count = 0

    def new(self) -> str:
        self.count += 1
        return f"n{self.count}"

    def some(self, fit: Callable[[Array], bool] = lambda array: True) -> str | None:
        keys = [key for key, array in self.table.items() if fit(array)]
        return self.random.choice(keys) if keys else None

    def add(self, word: str, **options: Any) -> None:
        self.steps.append({word: options})

    def begin(self) -> dict[str, Array]:
        for number in range(self.random.randint(1, 3)):
            array = self.array(self.random.choice(list(CODES)), self.shape())
            self.table[f"a.{number}.w"] = array
            for other in range(self.random.choice([0, 0, 1, 2])):
                self.table[f"a.{number}.w{other}"] = self.array(array.dtype.name, array.shape)
        return dict(self.table)

    def shape(self) -> tuple[int, ...]:
        return tuple(self.random.choice([0, 1, 1, 2, 3, 4, 6, 8]) for _ in range(self.random.choice([0, 1, 2, 2, 2, 3, 4])))

    def array(self, name: str, shape: tuple[int, ...]) -> Array:
        rng = np.random.default_rng(self.random.randrange(1 << 30))
        if name == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        if name in INTEGERS:
            return rng.integers(0 if name == "uint8" else -8, 9, shape).astype(name)
        values = (rng.integers(-64, 65, shape) / 8).astype(np.float32)
        if self.random.random() < 0.15:
            odd = [np.nan, np.inf, -np.inf, -0.0, 1e9, 6e4, 1e-7, 447.9, 1 + 2**-9]
            values = np.where(rng.random(shape) < 0.2, rng.choice(odd, shape), values).astype(np.float32)
        with np.errstate(all="ignore"):
            return np.asarray(values).astype(dtype_of(name))

    def step(self) -> None:
        """One more step, if one is found that something is there for."""
        draw = self.random.choice(
            [
                self.rename, self.scope, self.drop, self.copy, self.cast, self.cast, self.transpose, self.reshape, self.rearrange, self.slice,
                self.pad, self.resize, self.split, self.concat, self.stack, self.unstack, self.compute, self.compute, self.tie, self.dequantize,
            ]
        )  # fmt: skip
        draw()

    def rename(self) -> None:
        if key := self.some():
            new = self.new()
            self.add("rename", keys={key: new})
            self.table = {new if name == key else name: array for name, array in self.table.items()}

    def scope(self) -> None:
        self.add("scope", add="s.")
        self.table = {f"s.{key}": array for key, array in self.table.items()}

    def drop(self) -> None:
        if len(self.table) > 2 and (key := self.some()):
            self.add("drop", keys=key)
            del self.table[key]

    def copy(self) -> None:
        if key := self.some():
            new = self.new()
            self.add("copy", keys={key: new})
            self.table[new] = self.table[key]

    def cast(self) -> None:
        key = self.some()
        if key is None:
            return
        array = self.table[key]
        name = self.random.choice(list(CODES))
        if name == "bool" or (array.dtype.name in FLOATS and name not in FLOATS):
            return
        if array.dtype == np.float64 and name not in ("float32", "float16"):
            return  # ml_dtypes rounds these twice
        self.add("cast", keys=key, dtype=name)
        self.table[key] = as_type(array, name)

    def transpose(self) -> None:
        if key := self.some():
            order = self.random.sample(range(self.table[key].ndim), self.table[key].ndim)
            self.add("transpose", keys=key, order=order)
            self.table[key] = self.table[key].transpose(order)

    def reshape(self) -> None:
        if key := self.some(lambda array: array.size > 0):
            size = self.table[key].size
            first = self.random.choice([number for number in range(1, size + 1) if size % number == 0])
            shape = self.random.choice([[first, -1], [-1], [first, size // first], [1, first, -1]])
            self.add("reshape", keys=key, shape=shape)
            self.table[key] = self.table[key].reshape(shape)

    def rearrange(self) -> None:
        if key := self.some(lambda array: array.ndim == 2 and array.shape[0] % 2 == 0 and array.shape[0] > 0):
            pattern = self.random.choice(["(h two) i -> (two h) i", "(h two) i -> i h two", "(two h) i -> (i h) two", "(h two) ... -> h ... two"])
            self.add("rearrange", keys=key, pattern=pattern, axes={"two": 2})
            self.table[key] = einops.rearrange(self.table[key].astype(object), pattern, two=2).astype(self.table[key].dtype)

    def slice(self) -> None:
        if key := self.some(lambda array: array.ndim > 0 and min(array.shape) > 0):
            array = self.table[key]
            axis = self.random.randrange(-array.ndim, array.ndim)
            size = array.shape[axis]
            if self.random.random() < 0.5:
                indices = [self.random.randrange(-size, size) for _ in range(self.random.randint(1, 2 * size))]
                self.add("slice", keys=key, axis=axis, indices=indices)
                self.table[key] = array.take(indices, axis)
            else:
                start, stop = self.random.randint(-size, size), self.random.randint(-size, size)
                step = self.random.choice([1, 2, -1, -2, 3])
                self.add("slice", keys=key, axis=axis, start=start, stop=stop, step=step)
                self.table[key] = np.moveaxis(np.moveaxis(array, axis, 0)[slice(start, stop, step)], 0, axis)

    def new_rows(self, array: Array, axis: int, fill: str, count: int) -> Array:
        if fill == "mean":
            return mean_of(array, axis).repeat(count, axis)
        shape = list(array.shape)
        shape[axis] = count
        return np.full(shape, 0 if fill == "zeros" else 1).astype(array.dtype)

    def fill(self, array: Array, axis: int) -> str:
        floats = array.dtype.name in FLOATS and array.shape[axis] > 0
        return self.random.choice(["zeros", "ones", "mean"] if floats else ["zeros", "ones"])

    def pad(self) -> None:
        if key := self.some(lambda array: array.ndim > 0):
            array = self.table[key]
            axis, before, after = self.random.randrange(-array.ndim, array.ndim), self.random.randint(0, 2), self.random.randint(0, 3)
            fill = self.fill(array, axis)
            self.add("pad", keys=key, axis=axis, before=before, after=after, fill=fill)
            if before + after:
                new = [self.new_rows(array, axis, fill, count) for count in (before, after)]
                self.table[key] = np.concatenate([new[0], array, new[1]], axis)

    def resize(self) -> None:
        if key := self.some(lambda array: array.ndim > 0):
            array = self.table[key]
            axis, multiple = self.random.randrange(-array.ndim, array.ndim), self.random.choice([1, 1, 4])
            size, fill = self.random.randint(0, 10), self.fill(array, axis)
            self.add("resize", keys=key, axis=axis, size=size, multiple_of=multiple, fill=fill, allow_trim=True)
            size = -(-size // multiple) * multiple
            if size > array.shape[axis]:
                array = np.concatenate([array, self.new_rows(array, axis, fill, size - array.shape[axis])], axis)
            self.table[key] = array.take(range(size), axis)

    def split(self) -> None:
        if key := self.some(lambda array: array.ndim > 0):
            array = self.table.pop(key)
            axis = self.random.randrange(-array.ndim, array.ndim)
            cut = self.random.randint(0, array.shape[axis])
            names = [self.new(), self.new()]
            self.add("split", keys=key, axis=axis, sizes=[cut, array.shape[axis] - cut], to=names)
            self.table |= dict(zip(names, np.split(array, [cut], axis), strict=True))

    def alike(self) -> list[str]:
        """Up to three keys whose tensors are of one spec."""
        key = self.some()
        if key is None:
            return []
        first = self.table[key]
        found = [name for name, array in self.table.items() if array.dtype == first.dtype and array.shape == first.shape and name != key]
        return [key, *self.random.sample(found, min(len(found), 2))]

    def concat(self) -> None:
        keys = self.alike()
        if keys and self.table[keys[0]].ndim:
            axis, new = self.random.randrange(-self.table[keys[0]].ndim, self.table[keys[0]].ndim), self.new()
            self.add("concat", keys=keys, axis=axis, to=new)
            self.table[new] = np.concatenate([self.table.pop(key) for key in keys], axis)

    def stack(self) -> None:
        if keys := self.alike():
            rank, new = self.table[keys[0]].ndim + 1, self.new()
            axis = self.random.randrange(-rank, rank)
            self.add("stack", keys=keys, axis=axis, to=new)
            self.table[new] = np.stack([self.table.pop(key) for key in keys], axis)

    def unstack(self) -> None:
        if key := self.some(lambda array: array.ndim > 0 and 0 < array.shape[0] < 9):
            array, new = self.table.pop(key), self.new()
            self.add("unstack", keys=key, axis=0, to=f"{new}.{{i}}")
            self.table |= {f"{new}.{number}": row for number, row in enumerate(array)}

    def tie(self) -> None:
        if key := self.some():
            new = self.new()
            self.add("tie", keys=[key, new], policy="duplicate")
            self.table[new] = self.table[key]

    def dequantize(self) -> None:
        if key := self.some(lambda array: array.ndim == 2 and array.dtype.name.startswith("float8")):
            array, new = self.table[key], self.new()
            scale = self.some(lambda other: other.dtype == np.float32 and other.shape in ((1, 1), (array.shape[0], 1), (array.shape[0],)))
            if scale is None or scale == key:
                return
            self.add("dequantize", keys=key, scale=scale, dtype="float32", keep_scales=True)
            del new
            scales = self.table[scale]
            with np.errstate(all="ignore"):
                self.table[key] = array.astype(np.float32) * (
                    scales.reshape(-1, 1) if scales.size > 1 or scales.shape[0] == array.shape[0] else scales.reshape(())
                )

    def compute(self) -> None:
        keys = self.alike()
        if not keys:
            return
        names = ["x", "y", "z"][: len(keys)]
        arrays = [self.table[key] for key in keys]
        wide = np.float64 if arrays[0].dtype.name in ("float64", "int64", "int32") else np.float32
        x, y = arrays[0].astype(wide), arrays[-1].astype(wide)
        last, new, kind = names[-1], self.new(), self.random.randrange(9)
        total = np.float64
        with np.errstate(all="ignore"):
            formulas: list[tuple[str, Callable[[], Array]]] = [
                (f"x + {last}", lambda: x + y),
                (f"x - 2 * {last}", lambda: x - wide(2) * y),
                (f"x / {last}", lambda: x / y),
                (f"where(x > {last}, x, -{last})", lambda: np.where(x > y, x, -y)),
                (f"sqrt(abs(x)) * {last}", lambda: np.sqrt(np.abs(x)) * y),
                (f"clip(x, -1, 1.5) + {last}", lambda: np.where(np.where(x < -1, wide(-1), x) > 1.5, wide(1.5), np.where(x < -1, wide(-1), x)) + y),
                (f"sum(x) + 0 * {last}", lambda: x.astype(total).sum().astype(wide) + wide(0) * y),
                (f"x * (x == {last})", lambda: x * (x == y).astype(wide)),
                (f"x.T + 0 * {last}.T", lambda: x.T + wide(0) * y.T),
            ]
            formula, work = formulas[kind]
            made = np.asarray(work(), wide)
        dtype = self.random.choice(["float32", "float64"]) if arrays[0].dtype.name not in FLOATS or wide is np.float64 else None
        used = {name: f"^{key.replace('.', '[.]')}$" for name, key in zip(names, keys, strict=True) if name in ("x", last)}
        self.add("compute", let=used, expr=formula, to=new, keep_inputs=True, **({"dtype": dtype} if dtype else {}))
        self.table[new] = as_type(made, dtype or arrays[0].dtype.name)
