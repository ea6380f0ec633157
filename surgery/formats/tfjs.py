"""TensorFlow.js models: `model.json` with its `weightsManifest`, and binary shards. Only read.

The shards of a group are one run of bytes in which its weights lie one after the other; a weight may begin in one shard and end in
another. Plain weights are byte ranges, quantised ones are turned back to what they stand for, as TensorFlow.js does when it loads them.
Refused: shards outside the folder, types that TensorFlow.js has not. Source: tfjs-core 4.22, src/io/{types,io_utils}.ts.
"""

from __future__ import annotations

import json
import posixpath
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from math import isfinite, prod
from typing import Any, NamedTuple, TypeVar

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, SourceError, UnsupportedFeature, listed, plural
from surgery.expr import Expr
from surgery.formats.base import Disk, Indexed, ReadAt
from surgery.formats.base import read_only as layout
from surgery.formats.inside import is_inside
from surgery.formats.tfjs_weights import DTYPE_NAMES, QUANTIZED, Weight, absent, expression, string_ranges
from surgery.formats.wire import COPY_AGAIN
from surgery.joined import Range
from surgery.tensors import Fingerprint, SourceFile, TensorSpec

__all__ = ["NAME", "OPTIONS", "READS", "SUMMARY", "index", "layout", "locate"]

NAME = "tfjs"
SUMMARY = "TensorFlow.js model: model.json and its shards"
OPTIONS: frozenset[str] = frozenset()
READS = DTYPE_NAMES

_MODEL = "model.json"
_MANIFEST = b'"weightsManifest"'
_MOST_BYTES = 16 << 20
_MOST_VALUES = 1_000_000
"""So many objects, lists and members take less memory than a process may use here."""
_MOST_SHARDS = 10_000
"""Each costs two calls of the operating system; the converter cuts them at 4 MiB."""
_AXES_LIMIT = 64
_WINDOW = 64 << 10
"""Bytes that are read at once where strings are looked through."""
_ABSENT = Fingerprint(-1, 0, 0, 0)
T = TypeVar("T")


def locate(path: str, disk: Disk) -> str | None:
    """Recognise a `.json` file that names a weights manifest, or a folder with such a `model.json`."""
    if disk.is_folder(path):
        path = posixpath.join(path, _MODEL)
    if not path.endswith(".json") or not disk.is_file(path):
        return None
    file, read = disk.open(path)
    return path if file.nbytes <= _MOST_BYTES and _MANIFEST in read(0, file.nbytes) else None


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the weights in the order of the manifest; reads `model.json`, the sizes of the shards, and the lengths of strings.

    Raises:
        CorruptFile: JSON that is no model, weights that are together longer than their shards, two weights of one name.
        UnsupportedFeature: a type or quantisation that TensorFlow.js 4.22 has not, a string tensor in several shards.
        SourceError: a shard is not there (code `missing-shard`); without `strict`, a note tells so.
    """
    model = _Model(*disk.open(location))
    tensors: dict[str, Expr] = {}
    files = [model.file]
    notes: list[str] = []
    for group in model.groups():
        paths = [posixpath.join(posixpath.dirname(location), name) for name in group.paths]
        missing = [path for path in paths if not disk.is_file(path)]
        if missing and strict:
            raise _missing(location, missing, group)
        notes += [f"{path} is not there" for path in missing]
        run = None if missing else _Run([disk.open(path) for path in paths], location)
        files += run.files if run else []
        for weight in group.weights:
            if weight.name in tensors:
                raise model.corrupt(f"two weights are called `{weight.name}`")
            tensors[weight.name] = run.take(weight) if run else absent(weight, SourceFile(missing[0], _ABSENT))
        if run and run.left:
            notes.append(f"{run.left:,} bytes at the end of {paths[-1]} belong to no weight")
    return Indexed(NAME, location, tensors, {}, tuple(files), notes=tuple(notes))


def _missing(location: str, missing: list[str], group: _Group) -> SourceError:
    return SourceError(
        f"{plural(len(missing), 'shard')} of {location} not there: {listed(missing)}",
        code="missing-shard",
        notes=[f"the group holds {plural(len(group.weights), 'weight')}"],
        help="copy or download what is missing",
        data={"shards": missing},
    )


class _Group(NamedTuple):
    paths: tuple[str, ...]
    weights: tuple[Weight, ...]


class _Model:
    """The file `model.json`: its manifest, checked."""

    def __init__(self, file: SourceFile, read: ReadAt) -> None:
        self.file = file
        self._read = read

    def groups(self) -> Iterable[_Group]:
        """The groups of the manifest. Raises what `index` does."""
        manifest = _items(self._parsed().get("weightsManifest"), dict)
        if manifest is None:
            raise self.corrupt("`weightsManifest` is no list of groups")
        for group in manifest:
            paths, weights = _items(group.get("paths"), str), _items(group.get("weights"), dict)
            if paths is None or weights is None:
                raise self.corrupt("a group of `weightsManifest` needs `paths` and `weights`")
            if weights and not paths:
                raise self.corrupt("a group of `weightsManifest` has weights and no `paths`")
            if len(set(paths)) < len(paths) or len(paths) > _MOST_SHARDS:
                raise self.corrupt(f"a group of `weightsManifest` names a shard twice, or more than {_MOST_SHARDS:,}")
            outside = next((path for path in paths if not is_inside(path)), None)
            if outside is not None:
                raise self.corrupt(f"the shard {outside!r} would lie outside the model's folder")
            yield _Group(tuple(paths), tuple(map(self._weight, weights)))

    def _parsed(self) -> dict[str, Any]:
        if self.file.nbytes > _MOST_BYTES:
            raise UnsupportedFeature(f"{self.file.path} is too large for a model.json", help=f"at most {_MOST_BYTES:,} bytes are read")
        raw = self._read(0, self.file.nbytes)
        if sum(map(raw.count, (b"{", b"[", b","))) > _MOST_VALUES:
            raise UnsupportedFeature(f"{self.file.path} has more than {_MOST_VALUES:,} values", help="no model that is known has as many")
        try:
            parsed = json.loads(raw)
        except RecursionError:
            raise self.corrupt("it is nested too deeply") from None
        except ValueError as fault:
            raise self.corrupt(str(fault)) from None
        if not isinstance(parsed, dict):
            raise self.corrupt("it is no object")
        return parsed

    def _weight(self, told: Mapping[str, Any]) -> Weight:
        name, dtype, quantization = told.get("name"), told.get("dtype"), told.get("quantization")
        shape = _items(told.get("shape"), int)
        if not isinstance(name, str) or shape is None or min(shape, default=0) < 0:
            raise self.corrupt(f"a weight needs a name, a dtype and a shape: {str(told)[:200]}")
        if len(shape) > _AXES_LIMIT or prod(size or 1 for size in shape) >= 1 << 59:
            raise self.corrupt(f"`{name}` has the shape {shape[:_AXES_LIMIT]}")
        if not isinstance(dtype, str) or dtype not in DTYPE_NAMES:
            raise self._unknown(name, f"the type {dtype!r}")
        spec = TensorSpec(DTYPES[dtype], tuple(shape))
        return Weight(name, spec, dtype, 1.0, 0.0) if quantization is None else self._quantized(name, spec, quantization)

    def _quantized(self, name: str, spec: TensorSpec, told: Any) -> Weight:
        stored = told.get("dtype") if isinstance(told, dict) else None
        if not isinstance(stored, str) or spec.dtype.name not in QUANTIZED.get(stored, ()):
            raise self._unknown(name, f"{spec.dtype.name} quantised as {stored!r}")
        if stored == "float16":
            return Weight(name, spec, stored, 1.0, 0.0)
        scale, low = told.get("scale"), told.get("min")
        if not all(type(number) in (int, float) and abs(number) < 1e300 and isfinite(number) for number in (scale, low)):
            raise self.corrupt(f"the quantisation of `{name}` needs the numbers `scale` and `min`")
        return Weight(name, spec, stored, float(scale), float(low))

    def _unknown(self, name: str, what: str) -> UnsupportedFeature:
        return UnsupportedFeature(
            f"`{name}` in {self.file.path} has {what[:100]}",
            notes=[f"known types are {', '.join(sorted(DTYPE_NAMES))}; quantised are float32 and int32 as uint8 or uint16, float32 as float16"],
            help="convert the model again with the tensorflowjs package",
        )

    def corrupt(self, fact: str) -> CorruptFile:
        """The error for a `model.json` that contradicts itself."""
        notes = [fact, f"{self.file.path}, bytes 0 to {self.file.nbytes:,}"]
        return CorruptFile(f"{self.file.path} is no sound TensorFlow.js model", notes=notes, help=COPY_AGAIN)


def _items(value: Any, kind: type[T]) -> list[T] | None:
    """The value if it is a list with nothing but items of this type."""
    return value if isinstance(value, list) and all(type(item) is kind for item in value) else None


class _Run:
    """The shards of a group as one run of bytes, from which weights are taken one after the other."""

    def __init__(self, shards: list[tuple[SourceFile, ReadAt]], label: str) -> None:
        self.files = [file for file, _ in shards]
        self._reads = dict(shards)
        self._starts = list(accumulate((file.nbytes for file in self.files), initial=0))
        self._label = label
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that no weight has taken."""
        return self._starts[-1] - self._at

    def take(self, weight: Weight) -> Expr:
        """The next weight. Raises CorruptFile where the shards end before it does."""
        label = f"`{weight.name}` in {self._label}"
        nbytes = self._strings_nbytes(weight, label) if weight.stored == "string" else weight.stored_spec.nbytes
        if nbytes > self.left:
            notes = [f"it is {weight.spec} in {nbytes:,} bytes, and {self.left:,} are left", f"shards: {listed([file.path for file in self.files])}"]
            raise CorruptFile(f"the shards end before {label} does", notes=notes, help=COPY_AGAIN)
        ranges = self._ranges(self._at, self._at + nbytes)
        self._at += nbytes
        return expression(weight, ranges, label)

    def _strings_nbytes(self, weight: Weight, label: str) -> int:
        found = string_ranges(self._windowed(self._at), self.left, weight.spec.size, label)
        return max((stop for _, stop in found), default=0)

    def _windowed(self, base: int) -> Callable[[int, int], bytes]:
        """A reader of short ranges behind `base` that come in order: each from what was read before, as long as that reaches."""
        first, window = 0, b""

        def read(start: int, stop: int) -> bytes:
            nonlocal first, window
            if not first <= start <= stop <= first + len(window):
                first, window = start, self._read(base + start, base + min(max(stop, start + _WINDOW), self.left))
            return window[start - first : stop - first]

        return read

    def _ranges(self, start: int, stop: int) -> tuple[Range, ...]:
        """The run's bytes `start` to `stop` as ranges of its files; one at least, empty where there are no bytes."""
        number = min(bisect_right(self._starts, start) - 1, len(self.files) - 1)
        ranges: list[Range] = []
        while not ranges or start < stop:
            nbytes = min(stop, self._starts[number + 1]) - start
            ranges.append((self.files[number], start - self._starts[number], nbytes))
            start, number = start + nbytes, number + 1
        return tuple(ranges)

    def _read(self, start: int, stop: int) -> bytes:
        return b"".join(self._reads[file](low, low + nbytes) for file, low, nbytes in self._ranges(start, stop))
