"""Where the elements of an HDF5 dataset lie: in one range, in the header, in chunks, or nowhere because they were never written.

Source of format facts: HDF5 File Format Specification 3.0, sections IV.A.2.f (fill value) and IV.A.2.i (data layout).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from surgery.dtypes import DTYPES, numpy_dtype
from surgery.errors import RecipeError, UnsupportedFeature
from surgery.expr import Expr, Fill, Stored
from surgery.formats.hdf5_chunks import Dataset, assembled
from surgery.formats.hdf5_content import UNDEFINED, Content, Fields
from surgery.formats.hdf5_filters import INFLATION, filters_of
from surgery.formats.hdf5_headers import DATASPACE, DATATYPE, EXTERNAL_FILES, FILL, LAYOUT, OLD_FILL, Header
from surgery.formats.hdf5_indexes import in_late_index, in_old_tree
from surgery.formats.hdf5_types import Type, read_limits, read_shape, read_type
from surgery.tensors import Extent, TensorSpec

if TYPE_CHECKING:
    from surgery.formats.hdf5_attributes import Value

_COMPACT, _CONTIGUOUS, _CHUNKED, _VIRTUAL = 0, 1, 2, 3
_BFLOAT16_IN_KERAS = Type(2, None, reason="opaque bytes")
_REWRITE = "rewrite it with h5repack --high=1 -l CONTI"


def read_dataset(header: Header, key: str, attributes: dict[str, Value]) -> Expr | str:
    """The tensor of a dataset, or why it is none, in words such as `text`.

    Keras writes bfloat16 as opaque pairs of bytes with an attribute that tells.

    Raises:
        CorruptFile: messages that contradict each other or the file's size.
        UnsupportedFeature: a tensor whose elements lie in other files or datasets, or are compressed by a plug-in.
    """
    label = f"`{key}` in {header.content.file.path}"
    type_fields, space = header.find(DATATYPE, "datatype message"), header.find(DATASPACE, "dataspace message")
    if type_fields is None or space is None:
        return "no dataset and no group"
    kind, shape = read_type(type_fields), read_shape(space)
    if kind == _BFLOAT16_IN_KERAS and attributes.get("dtype") == "bfloat16":
        kind = Type(2, DTYPES["bfloat16"])
    if kind.dtype is None:
        return kind.reason
    if shape is None:
        return "without elements"
    if header.has(EXTERNAL_FILES):
        raise UnsupportedFeature(f"{label} lies in another file", notes=["external storage is never followed"], help=_REWRITE)
    layout = header.find(LAYOUT, "layout message")
    if layout is None:
        raise header.content.fault(f"has a dataset without a place, {label}", header.address, 16)
    return _placed(header, layout, TensorSpec(kind.dtype, shape), kind, key)


def _placed(header: Header, layout: Fields, spec: TensorSpec, kind: Type, key: str) -> Expr:
    version = layout.uint(1)
    if version in (1, 2):
        return _placed_early(header, layout, spec, kind, key)
    if version not in (3, 4, 5):
        raise layout.fault(f"it is of version {version}")
    where = layout.uint(1)
    if where == _COMPACT:
        nbytes = layout.uint(2)
        return _range(header.content, layout.address + layout.at, nbytes, spec, kind, layout)
    if where == _CONTIGUOUS:
        return _contiguous(header, layout.uint(8), spec, kind, key, layout)
    if where == _VIRTUAL:
        raise UnsupportedFeature(f"`{key}` in {header.content.file.path} is a view of other datasets", help=_REWRITE)
    if where != _CHUNKED:
        raise layout.fault(f"it is of class {where}")
    return _chunked(header, layout, spec, kind, key) if version == 3 else _chunked_late(header, layout, spec, kind, key, version)


def _placed_early(header: Header, layout: Fields, spec: TensorSpec, kind: Type, key: str) -> Expr:
    """Versions 1 and 2, of HDF5 before 1.6.3."""
    axes, where = layout.uint(1), layout.uint(1)
    layout.take(5)
    address = UNDEFINED if where == _COMPACT else layout.uint(8)
    sizes = tuple(layout.uint(4) for _ in range(axes))
    if where == _COMPACT:
        nbytes = layout.uint(4)
        return _range(header.content, layout.address + layout.at, nbytes, spec, kind, layout)
    if where == _CONTIGUOUS:
        return _contiguous(header, address, spec, kind, key, layout)
    dataset = _dataset(header, layout, spec, kind, key, sizes[:-1])
    return assembled(dataset, in_old_tree(dataset, address), partial(_fill, header, spec, kind, key))


def _contiguous(header: Header, address: int, spec: TensorSpec, kind: Type, key: str, layout: Fields) -> Expr:
    if address == UNDEFINED and spec.nbytes:
        return _fill(header, spec, kind, key)
    return _range(header.content, 0 if address == UNDEFINED else address, spec.nbytes, spec, kind, layout)


def _range(content: Content, address: int, nbytes: int, spec: TensorSpec, kind: Type, layout: Fields) -> Expr:
    if nbytes < spec.nbytes or address + spec.nbytes > content.nbytes:
        raise layout.fault(f"{spec} does not fit into {nbytes:,} bytes at {address:,} of {content.nbytes:,}")
    big_endian = kind.big_endian and kind.nbytes > 1
    return Stored(Extent(content.file, content.base + address, spec.nbytes, spec, big_endian=big_endian))


def _chunked(header: Header, layout: Fields, spec: TensorSpec, kind: Type, key: str) -> Expr:
    axes, address = layout.uint(1), layout.uint(8)
    dataset = _dataset(header, layout, spec, kind, key, tuple(layout.uint(4) for _ in range(max(axes - 1, 0))))
    return assembled(dataset, in_old_tree(dataset, address), partial(_fill, header, spec, kind, key))


def _chunked_late(header: Header, layout: Fields, spec: TensorSpec, kind: Type, key: str, version: int) -> Expr:
    """Versions 4 and 5, of files that want HDF5 1.10 or later."""
    flags, axes, width = layout.uint(1), layout.uint(1), layout.uint(1)
    dataset = _dataset(header, layout, spec, kind, key, tuple(layout.uint(width) for _ in range(max(axes - 1, 0))))
    layout.take(width)
    return assembled(dataset, in_late_index(dataset, layout, flags, version), partial(_fill, header, spec, kind, key))


def _dataset(header: Header, layout: Fields, spec: TensorSpec, kind: Type, key: str, chunk: tuple[int, ...]) -> Dataset:
    if len(chunk) != len(spec.shape) or 0 in chunk:
        raise layout.fault(f"chunks {list(chunk)} of {spec}")
    label = f"`{key}` in {header.content.file.path}"
    space = header.find(DATASPACE, "dataspace message")
    assert space is not None
    return Dataset(header.content, spec, read_limits(space, spec.shape), kind, chunk, filters_of(header, label), label)


def _fill(header: Header, spec: TensorSpec, kind: Type, key: str) -> Expr:
    """What was never written: the fill value, by default zero. Raises UnsupportedFeature for one that no initializer makes."""
    from surgery.initializers import check, parse

    label = f"`{key}` in {header.content.file.path}"
    if spec.nbytes > header.content.nbytes * INFLATION:
        raise UnsupportedFeature(f"{label} was never written, and is larger than its file could ever be", notes=[str(spec)], help="drop it there")
    value = _fill_bytes(header)
    if not value.strip(b"\0"):
        return Fill(spec, parse("zeros"), 0, key)
    unsupported = UnsupportedFeature(f"{label} was never written, and its fill value cannot be made here", notes=[value[:64].hex()], help=_REWRITE)
    if len(value) != kind.nbytes or spec.dtype.kind == "complex":
        raise unsupported
    import numpy as np

    number = np.frombuffer(value[::-1] if kind.big_endian else value, numpy_dtype(spec.dtype))[0].item()
    try:
        initializer = parse({"constant": number})
    except RecipeError as fault:
        raise unsupported from fault
    if check(initializer, spec):
        raise unsupported
    return Fill(spec, initializer, 0, key)


def _fill_bytes(header: Header) -> bytes:
    fields = header.find(FILL, "fill value message")
    if fields is None:
        old = header.find(OLD_FILL, "fill value message")
        return old.take(old.uint(4)) if old else b""
    version = fields.uint(1)
    if version == 3:
        return fields.take(fields.uint(4)) if fields.uint(1) & 0x20 else b""
    fields.take(2)
    return fields.take(fields.uint(4)) if fields.uint(1) or version == 1 else b""
