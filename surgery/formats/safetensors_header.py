"""The header of a safetensors file: JSON that must account for every byte behind it.

Serves the safetensors format module; knows one file at a time, no folders and no shards. Source of all format facts: README
of huggingface/safetensors, section "Format", and `tensor.rs` of the crate 0.8.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, filterfalse
from math import prod
from operator import itemgetter, sub
from typing import Any

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, PlanError, UnsupportedFeature
from surgery.expr import Expr, Stored
from surgery.formats.base import Bundle, ReadAt, refuse_keys, text_fault
from surgery.formats.json_shape import like_header
from surgery.tensors import Extent, SourceFile, TensorSpec

HEADER_LIMIT = 100_000_000
"""The format's own cap on the bytes of a header."""
AXES_LIMIT = 64
PAGE = 4096
"""Block size of the file systems that can share blocks between files."""

CODES = {
    "BOOL": DTYPES["bool"],
    "F4": DTYPES["float4_e2m1fn_packed"],
    "F6_E2M3": DTYPES["float6_e2m3fn_packed"],
    "F6_E3M2": DTYPES["float6_e3m2fn_packed"],
    "U8": DTYPES["uint8"],
    "I8": DTYPES["int8"],
    "F8_E5M2": DTYPES["float8_e5m2"],
    "F8_E4M3": DTYPES["float8_e4m3fn"],
    "F8_E8M0": DTYPES["float8_e8m0fnu"],
    "F8_E4M3FNUZ": DTYPES["float8_e4m3fnuz"],
    "F8_E5M2FNUZ": DTYPES["float8_e5m2fnuz"],
    "I16": DTYPES["int16"],
    "U16": DTYPES["uint16"],
    "F16": DTYPES["float16"],
    "BF16": DTYPES["bfloat16"],
    "I32": DTYPES["int32"],
    "U32": DTYPES["uint32"],
    "F32": DTYPES["float32"],
    "C64": DTYPES["complex64"],
    "F64": DTYPES["float64"],
    "I64": DTYPES["int64"],
    "U64": DTYPES["uint64"],
}
CODE_OF = {dtype: code for code, dtype in CODES.items()}


def read_header(file: SourceFile, read: ReadAt) -> tuple[dict[str, Any], int]:
    """The JSON object at the front of a file, and where the data begins."""
    if file.nbytes < 8:
        raise corrupt(f"{file.path} is too short for a safetensors file", file, 0, file.nbytes)
    nbytes = int.from_bytes(read(0, 8), "little")
    if nbytes > file.nbytes - 8:
        raise corrupt(f"the header of {file.path} would end behind the file", file, 0, 8, f"the header claims {nbytes:,} bytes")
    if nbytes > HEADER_LIMIT:
        raise corrupt(f"the header of {file.path} is larger than the format allows", file, 0, 8, f"{nbytes:,} bytes; 100,000,000 at most")
    raw = read(8, 8 + nbytes)
    if not raw.startswith(b"{"):
        raise corrupt(f"the header of {file.path} does not begin with {{", file, 8, 8 + nbytes)
    return parse_object(raw, "the header", file, 8), 8 + nbytes


def parse_object(raw: bytes, what: str, file: SourceFile, start: int, shaped: Callable[[bytes], bool] = like_header) -> dict[str, Any]:
    """A JSON object without duplicate keys; nothing that JSON itself lacks (NaN, lone surrogates) gets through.

    `shaped` keeps texts from being parsed that would take much more memory than their length.
    """
    try:
        if not shaped(raw):
            raise ValueError("it holds other things than it should")
        text = raw.decode()
        parsed = json.loads(text, parse_constant=_no_constant)
        if type(parsed) is not dict or not _nothing_lost(text, parsed):
            parsed = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        if type(parsed) is not dict:
            raise ValueError("it is not an object")
        "".join(parsed).encode()
    except RecursionError:
        fault = "it is nested too deeply"
    except ValueError as error:
        fault = str(error)
    else:
        return parsed
    raise corrupt(f"{what} of {file.path} is not the JSON it should be", file, start, start + len(raw), fault)


def _nothing_lost(text: str, parsed: dict[str, Any]) -> bool:
    """Whether it is sure that no key occurs twice: all strings of the text are there, as keys and as values down to the second level."""
    inner = [value for value in parsed.values() if type(value) is dict]
    values = chain(parsed.values(), chain.from_iterable(map(dict.values, inner)))
    strings = len(parsed) + sum(map(len, inner)) + list(map(type, values)).count(str)
    return "\\" not in text and text.count('"') == 2 * strings


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"key `{twice}` occurs twice in one object")
    return mapping


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def metadata_of(file: SourceFile, header: Mapping[str, Any], data_start: int) -> dict[str, str]:
    """The text that stands beside the tensors; empty where there is none."""
    metadata = header.get("__metadata__")
    if metadata is None:
        return {}
    try:
        "".join((*metadata.keys(), *metadata.values())).encode()
    except (AttributeError, TypeError, UnicodeEncodeError):
        raise corrupt(f"__metadata__ of {file.path} is not a mapping of text to text", file, 8, data_start) from None
    return dict(metadata)


Place = tuple[int, int, TensorSpec, str]
"""What a header says of a tensor: start and stop, counted from where the data begins, spec and key."""


def tensors_of(file: SourceFile, header: Mapping[str, Any], data_start: int) -> dict[str, Expr]:
    """Keys with their extents in data order; checks that the ranges fill the data without overlap or hole."""
    places = _sound_places(header, file.nbytes - data_start)
    if places is None:
        places = sorted(_places(file, header, data_start), key=itemgetter(0, 1))
        _refuse_gaps(file, places, data_start)
    return {key: Stored(Extent(file, data_start + start, stop - start, spec)) for start, stop, spec, key in places}


def _sound_places(header: Mapping[str, Any], nbytes: int) -> Iterable[Place] | None:
    """All tensors, where they stand in data order and nothing is wrong, looked at column by column; otherwise None."""
    keys = [key for key in header if key != "__metadata__"]
    infos = [header[key] for key in keys]
    try:
        offsets = [info["data_offsets"] for info in infos]
        shapes = [info["shape"] for info in infos]
        kinds = [(info["dtype"], *info["shape"]) for info in infos]
        known = {kind: _spec(kind[0], list(kind[1:])) for kind in set(kinds)}
        starts, stops = [start for start, _ in offsets], [stop for _, stop in offsets]
    except (LookupError, TypeError, ValueError):
        return None
    types = {*map(type, starts), *map(type, stops), *map(type, chain.from_iterable(shapes))}
    if types - {int} or {*map(type, shapes)} - {list} or any(size < 0 for spec in known.values() for size in spec.shape):
        return None
    if [*starts, nbytes] != [0, *stops]:
        return None
    sizes = {kind: spec.nbytes for kind, spec in known.items()}
    if list(map(sizes.__getitem__, kinds)) != list(map(sub, stops, starts)):
        return None
    return zip(starts, stops, map(known.__getitem__, kinds), keys, strict=True)


def _refuse_gaps(file: SourceFile, places: Iterable[Place], data_start: int) -> None:
    position = data_start
    for start, stop, _, key in places:
        start, stop = data_start + start, data_start + stop
        if start != position:
            fault = "overlaps the tensor before it" if start < position else f"leaves a hole of {start - position:,} bytes before it"
            raise corrupt(f"`{key}` in {file.path} {fault}", file, start, stop, f"the data before it ends at byte {position:,}")
        if stop > file.nbytes:
            raise corrupt(f"`{key}` would end behind the end of {file.path}", file, start, stop, f"the file has {file.nbytes:,} bytes")
        position = stop
    if position != file.nbytes:
        raise corrupt(f"{file.path} has bytes that belong to no tensor", file, position, file.nbytes)


def _places(file: SourceFile, header: Mapping[str, Any], data_start: int) -> Iterator[Place]:
    specs: dict[tuple[Any, ...], TensorSpec] = {}  # models have few different specs: a million keys share them
    for key, info in header.items():
        if key == "__metadata__":
            continue
        try:
            start, stop, code, shape = _entry(info)
            spec = specs.get((code, *shape))
            if spec is None:
                spec = specs[code, *shape] = _spec(code, shape)
            if stop - start != spec.nbytes:
                raise ValueError(f"{code} {shape} needs {spec.nbytes:,} bytes, its range has {stop - start:,}")
        except ValueError as fault:
            raise corrupt(f"the header of {file.path} is wrong about `{key}`", file, 8, data_start, str(fault)) from None
        except LookupError as unknown:
            raise UnsupportedFeature(
                f"`{key}` in {file.path} has {unknown.args[0]}",
                notes=["known element types: " + ", ".join(CODES)],
                help="a newer version of this tool may know it",
            ) from None
        yield start, stop, spec, key


def _entry(info: Any) -> tuple[int, int, str, list[int]]:
    """One tensor's range (relative to the data), type code and shape. Raises ValueError where it is malformed."""
    try:
        code, shape, (start, stop) = info["dtype"], info["shape"], info["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise ValueError("an entry needs `dtype`, `shape` and two `data_offsets`") from None
    if type(code) is not str or type(shape) is not list:
        raise ValueError("`dtype` must be text and `shape` a list")
    for number in (start, stop, *shape):
        if type(number) is not int or not 0 <= number < 1 << 63:
            raise ValueError(f"{number!r} is not a count")
    if start > stop:
        raise ValueError(f"its data begins at {start:,} and ends before that, at {stop:,}")
    return start, stop, code, shape


def _spec(code: str, shape: list[int]) -> TensorSpec:
    """The spec of a type code and a shape. ValueError: no tensor can be like that; LookupError: none is known here."""
    dtype = CODES.get(code)
    if dtype is None:
        raise LookupError(f"the element type {code!r}")
    if len(shape) > AXES_LIMIT:
        raise LookupError(f"{len(shape)} axes; numpy has at most {AXES_LIMIT}")
    if prod(size or 1 for size in shape) * dtype.bits >= 1 << 63:  # numpy counts empty axes as 1 here, too
        raise ValueError(f"{code} {shape} is too large")
    if prod(shape) * dtype.bits % 8:
        raise ValueError(f"{code} {shape} does not end at a whole byte")
    return TensorSpec(dtype, tuple(shape))


def corrupt(title: str, file: SourceFile, start: int, stop: int, fact: str = "") -> CorruptFile:
    """The error for bytes `start` to `stop` of a file that contradict the format."""
    where = f"{file.path}, bytes {start:,} to {stop:,}"
    return CorruptFile(title, notes=[fact, where], help="the source is damaged or still being written; copy it again")


to_json = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
"""JSON as the reference library spells it."""


def described(spec: TensorSpec) -> str:
    """The fields of a tensor's entry that tell its spec."""
    return f'"dtype":"{CODE_OF[spec.dtype]}","shape":{to_json(spec.shape)}'


def index_text(tensors: Mapping[str, Expr], weight_map: Mapping[str, str]) -> bytes:
    """The index as the transformers library writes it."""
    total = sum(expr.spec.nbytes for expr in tensors.values())
    rows = json.dumps(weight_map, sort_keys=True, separators=(",\n    ", ": "))[1:-1]  # with `indent`, json is ten times slower
    return f'{{\n  "metadata": {{\n    "total_size": {total}\n  }},\n  "weight_map": {{\n    {rows}\n  }}\n}}\n'.encode()


def refuse_text(bundle: Bundle) -> None:
    """The header is UTF-8 and reserves one key; surrogates stand for bytes that are not."""
    faults = {key: fault for key in filterfalse(str.isascii, bundle.tensors) if (fault := text_fault(key))}
    reserved = {"__metadata__": "the format reserves it"} if "__metadata__" in bundle.tensors else {}
    refuse_keys("safetensors", faults | reserved)
    for key, text in bundle.metadata.items():
        if text_fault(key) or text_fault(text):
            help = "set it to other text, or take the key away with null"
            raise PlanError(f"safetensors cannot hold metadata {key!r}: it is not UTF-8", code="bad-option", at=("metadata",), help=help)
