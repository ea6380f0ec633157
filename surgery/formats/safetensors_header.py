"""The header of a safetensors file: JSON that must account for every byte behind it.

Serves the safetensors format module; knows one file at a time, no folders and no shards. Source of all format facts: README
of huggingface/safetensors, section "Format", and `tensor.rs` of the crate 0.8.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from operator import itemgetter
from typing import Any

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.expr import Expr, Stored
from surgery.formats.base import ReadAt
from surgery.tensors import Extent, SourceFile, TensorSpec

HEADER_LIMIT = 100_000_000
"""The format's own cap on the bytes of a header."""
AXES_LIMIT = 64

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


def parse_object(raw: bytes, what: str, file: SourceFile, start: int) -> dict[str, Any]:
    """A JSON object without duplicate keys; nothing that JSON itself lacks (NaN, lone surrogates) gets through."""
    try:
        parsed = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
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


def tensors_of(file: SourceFile, header: Mapping[str, Any], data_start: int) -> Iterator[tuple[str, Expr]]:
    """Keys with their extents in data order; checks that the ranges fill the data without overlap or hole."""
    position = data_start
    for start, stop, spec, key in sorted(_entries(file, header, data_start), key=itemgetter(0, 1)):
        start, stop = data_start + start, data_start + stop
        if start != position:
            fault = "overlaps the tensor before it" if start < position else f"leaves a hole of {start - position:,} bytes before it"
            raise corrupt(f"`{key}` in {file.path} {fault}", file, start, stop, f"the data before it ends at byte {position:,}")
        if stop > file.nbytes:
            raise corrupt(f"`{key}` would end behind the end of {file.path}", file, start, stop, f"the file has {file.nbytes:,} bytes")
        position = stop
        yield key, Stored(Extent(file, start, stop - start, spec))
    if position != file.nbytes:
        raise corrupt(f"{file.path} has bytes that belong to no tensor", file, position, file.nbytes)


def _entries(file: SourceFile, header: Mapping[str, Any], data_start: int) -> Iterator[tuple[int, int, TensorSpec, str]]:
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
