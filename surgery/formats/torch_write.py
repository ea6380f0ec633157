"""Writing a PyTorch state dict as `torch.save` does, so that `torch.load(weights_only=True)` reads it. Pure.

An OrderedDict of plain tensors, each with a storage; tensors that are the same stored bytes share one, as tied ones do.
Source of format facts: torch 2.13, `torch/serialization.py` (`_save`) and `pickletools.py` of CPython.
"""

from __future__ import annotations

import posixpath
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from surgery.dtypes import DTYPES
from surgery.errors import PlanError
from surgery.expr import Expr
from surgery.formats import zips
from surgery.formats.base import Bundle, FileLayout, Layout, Patch, Placement, refuse_dtypes
from surgery.formats.torch_objects import NEWER_TYPES, STORAGE_TYPES
from surgery.regions import strides_of
from surgery.tensors import TensorSpec

NAME = "torch"
_ROOT = "archive"
_ALIGNMENT = 64
_PAGE = 4096
"""Block size of the file systems that can share blocks between files."""
_WORTH_SHARING = 64 << 10
_STORAGE_OF = {DTYPES[name]: f"{short}Storage" for short, name in STORAGE_TYPES.items()}
_UNTYPED = {DTYPES[name] for name in NEWER_TYPES}
HELD = _UNTYPED | set(_STORAGE_OF)
"""The element types that PyTorch has."""


def layout(bundle: Bundle) -> Layout:
    """Place one storage for each tensor, at a multiple of 64 as PyTorch does, and where that lets file systems share blocks at the source's
    offset modulo 4096; the CRC-32 of each comes from the run. Metadata has no place in a state dict: a note says so.

    Raises:
        PlanError: a dtype or key that PyTorch cannot hold, a path that names no file.
    """
    refuse_dtypes(bundle, "PyTorch", lambda spec: spec.dtype in HELD)
    folder, name = posixpath.split(bundle.path)
    if not name:
        raise PlanError(f"{bundle.path} names no file", code="bad-option", help="name a file in it")
    for key in bundle.tensors:
        if not key.isascii() and any("\ud800" <= letter <= "\udfff" for letter in key):
            raise PlanError(f"PyTorch cannot hold {key!r}: it is not UTF-8", code="key-not-storable", help="`rename` or `drop` it")
    storages, owners = _storages(bundle.tensors)
    pickled = _pickled({key: (expr.spec, owners[key]) for key, expr in bundle.tensors.items()})
    return _place(name, folder or ".", pickled, storages, _notes(bundle, len(bundle.tensors) - len(storages)))


def _notes(bundle: Bundle, tied: int) -> tuple[str, ...]:
    notes = ["metadata is left out: a state dict has no place for it"] if bundle.metadata else []
    if tied:
        notes.append(f"{tied:,} of {len(bundle.tensors):,} tensors share the storage of another, which has the same bytes")
    return tuple(notes)


def _storages(tensors: Mapping[str, Expr]) -> tuple[dict[str, Expr], dict[str, int]]:
    """The tensors that get a storage of their own, and for every key the number of its storage."""
    own: dict[str, Expr] = {}
    owners: dict[str, int] = {}
    known: dict[object, int] = {}
    for key, expr in tensors.items():
        same = _same_bytes(expr) or key
        if same not in known:
            known[same] = len(own)
            own[key] = expr
        owners[key] = known[same]
    return own, owners


def _same_bytes(expr: Expr) -> object:
    """What two tensors have in common that are the same stored bytes; None where there are none to copy."""
    ranges = expr.view()
    if not ranges or not expr.spec.nbytes or any(extent.codec for extent in ranges):
        return None
    return expr.spec.dtype, tuple((extent.file.path, extent.start, extent.nbytes) for extent in ranges)


class _Slot(NamedTuple):
    """A member of the archive; its content is known, or is the tensor `key`."""

    record: zips.Record
    content: bytes
    key: str | None = None


def _place(name: str, folder: str, pickled: bytes, storages: Mapping[str, Expr], notes: tuple[str, ...]) -> Layout:
    slots: list[_Slot] = []
    placements: list[Placement] = []
    end = 0
    for member, content, expr, key in _members(pickled, storages):
        nbytes = len(content) if expr is None else expr.spec.nbytes
        record, start = _record(member, nbytes, end, _remainder(expr))
        slots.append(_Slot(record, content, key))
        if expr is not None and key is not None:
            placements.append(Placement(key, expr, start))
        end = start + nbytes
    size = end + len(zips.directory([slot.record for slot in slots], [0] * len(slots), end))
    file = FileLayout(name, size, tuple(placements))
    return Layout(NAME, folder, (file,), checksum="crc32", seal=partial(_seal, name, tuple(slots), end), notes=notes)


def _members(pickled: bytes, storages: Mapping[str, Expr]) -> Iterator[tuple[str, bytes, Expr | None, str | None]]:
    """All members in PyTorch's order, each with its content or its tensor and key."""
    from hashlib import sha256

    yield "data.pkl", pickled, None, None
    yield ".format_version", b"1", None, None
    yield ".storage_alignment", b"%d" % _ALIGNMENT, None, None
    yield "byteorder", b"little", None, None
    for number, (key, expr) in enumerate(storages.items()):
        yield f"data/{number}", b"", expr, key
    yield "version", b"3\n", None, None
    yield ".data/serialization_id", b"%040d" % (int.from_bytes(sha256(pickled).digest()) % 10**40), None, None


def _remainder(expr: Expr | None) -> int:
    """Where a storage should begin, modulo a page: as in the source where it is copied from an aligned place, else at any multiple of 64 (-1)."""
    ranges = expr.view() if expr is not None else None
    if not ranges or len(ranges) != 1 or ranges[0].codec is not None or ranges[0].nbytes < _WORTH_SHARING or ranges[0].start % _ALIGNMENT:
        return -1
    return ranges[0].start % _PAGE


def _record(member: str, nbytes: int, at: int, remainder: int) -> tuple[zips.Record, int]:
    """A member whose header begins at `at`, padded so that its content begins where it should, and that start."""
    record = zips.Record(f"{_ROOT}/{member}", nbytes, at)
    least = at + len(zips.local_header(record)) + zips.LEAST_PADDING
    gap = -least % _ALIGNMENT if remainder < 0 else (remainder - least) % _PAGE
    return record._replace(padding=zips.LEAST_PADDING + gap), least + gap


def _seal(name: str, slots: tuple[_Slot, ...], end: int, checksums: Mapping[str, int]) -> list[Patch]:
    """All headers of the archive, and the contents that are no tensors."""
    crc32s = [checksums[slot.key] if slot.key is not None else zlib.crc32(slot.content) for slot in slots]
    heads = [Patch(name, slot.record.start, zips.local_header(slot.record, crc32) + slot.content) for slot, crc32 in zip(slots, crc32s, strict=True)]
    return [*heads, Patch(name, end, zips.directory([slot.record for slot in slots], crc32s, end))]


def _pickled(tensors: Mapping[str, tuple[TensorSpec, int]]) -> bytes:
    """The pickle (protocol 2) of an OrderedDict of contiguous tensors, each with the number of its storage."""
    items = b"".join(_text(key) + _tensor(spec, number) for key, (spec, number) in tensors.items())
    return b"\x80\x02" + _ORDERED_DICT + b"(" + items + b"u."


def _tensor(spec: TensorSpec, number: int) -> bytes:
    untyped = spec.dtype in _UNTYPED
    kind = b"ctorch.storage\nUntypedStorage\n" if untyped else b"ctorch\n%s\n" % _STORAGE_OF[spec.dtype].encode()
    count = spec.nbytes if untyped else spec.size
    storage = b"(" + _text("storage") + kind + _text(str(number)) + _text("cpu") + _int(count) + b"tQ"
    fields = storage + _int(0) + _ints(spec.shape) + _ints(strides_of(spec.shape)) + b"\x89" + _ORDERED_DICT
    if untyped:
        return b"ctorch._utils\n_rebuild_tensor_v3\n(" + fields + b"ctorch\n%s\ntR" % spec.dtype.name.encode()
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + fields + b"tR"


_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _int(value: int) -> bytes:
    if value < 1 << 8:
        return b"K" + struct.pack("B", value)
    if value < 1 << 16:
        return b"M" + struct.pack("<H", value)
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _ints(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_int, values)) + b"t" if values else b")"
