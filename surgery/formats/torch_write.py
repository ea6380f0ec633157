"""Writing a PyTorch state dict as `torch.save` does, so that `torch.load(weights_only=True)` reads it. Pure.

An OrderedDict of plain tensors, each with a storage; tensors that are the same stored bytes share one, as tied ones do. One file, or shards with an
index. Source of format facts: torch 2.13, `torch/serialization.py` (`_save`), `pickletools.py` of CPython, and transformers, `modeling_utils.py`.
"""

from __future__ import annotations

import posixpath
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from surgery.dtypes import DTYPES
from surgery.errors import PlanError
from surgery.expr import Expr
from surgery.formats import suffixes, zips
from surgery.formats.base import Bundle, FileLayout, Layout, Patch, Placement, refuse_dtypes, refuse_keys, text_fault
from surgery.formats.safetensors_header import index_text
from surgery.formats.torch_objects import NEWER_TYPES, STORAGE_TYPES
from surgery.regions import strides_of
from surgery.tensors import TensorSpec

NAME = "torch"
SINGLE_NAME = "pytorch_model.bin"
INDEX_NAME = "pytorch_model.bin.index.json"
_SAVED_NAME = re.compile(r"pytorch_model(-\d{5,}-of-\d{5,})?\.bin(\.index\.json)?")
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

    With `shard_size` (bytes of storages per shard) the path is a folder of shards and their index, named as transformers names them. Tensors that
    share a storage are in one shard; a tensor larger than `shard_size` gets a shard of its own.

    Raises:
        PlanError: a dtype or key that PyTorch cannot hold, a path or `shard_size` that cannot be.
    """
    refuse_dtypes(bundle, "PyTorch", lambda spec: spec.dtype in HELD)
    refuse_keys("PyTorch", {key: fault for key in bundle.tensors if (fault := text_fault(key))})
    shard_size = bundle.options.get("shard_size")
    if shard_size is not None:
        return _layout_shards(bundle, shard_size)
    folder, name = posixpath.split(bundle.path)
    if not name:
        raise PlanError(f"{bundle.path} names no file", code="bad-option", help="name a file in it, or set `shard_size`")
    return _joined(bundle, folder or ".", {name: bundle.tensors})


def _layout_shards(bundle: Bundle, shard_size: object) -> Layout:
    if type(shard_size) is not int or shard_size <= 0:
        raise PlanError(f"`shard_size` is {shard_size!r}", code="bad-option", help="give a size above zero, such as 5GB")
    suffix = next(filter(bundle.path.endswith, suffixes(NAME)), "")
    if suffix:
        help = f"write `path: {bundle.path.removesuffix(suffix)}, format: {NAME}`"
        raise PlanError(f"with `shard_size`, `path` is a folder, not {bundle.path}", code="bad-option", help=help)
    shards = _cut(bundle.tensors, shard_size)
    names = [SINGLE_NAME] if len(shards) == 1 else [f"pytorch_model-{number:05}-of-{len(shards):05}.bin" for number in range(1, len(shards) + 1)]
    placed = _joined(bundle, bundle.path.rstrip("/") or "/", dict(zip(names, shards, strict=True)))
    files: tuple[FileLayout, ...] = placed.files
    patches: tuple[Patch, ...] = ()
    if len(shards) > 1:
        text = index_text(bundle.tensors, {key: name for name, shard in zip(names, shards, strict=True) for key in shard})
        files, patches = (*files, FileLayout(INDEX_NAME, len(text))), (Patch(INDEX_NAME, 0, text),)
    return placed._replace(files=files, patches=patches, stale=partial(_is_stale, frozenset(file.name for file in files)))


def _cut(tensors: Mapping[str, Expr], shard_size: int) -> list[dict[str, Expr]]:
    """The tensors in order, a new shard where the next storage would not fit; who shares a storage goes where that is."""
    shards: list[dict[str, Expr]] = [{}]
    filled = 0
    homes: dict[object, dict[str, Expr]] = {}
    for key, expr in tensors.items():
        same = _same_bytes(expr)
        if same is not None and same in homes:
            homes[same][key] = expr
            continue
        if shards[-1] and filled + expr.spec.nbytes > shard_size:
            shards.append({})
            filled = 0
        shards[-1][key] = expr
        filled += expr.spec.nbytes
        if same is not None:
            homes[same] = shards[-1]
    return shards


def _is_stale(kept: frozenset[str], name: str) -> bool:
    return name not in kept and _SAVED_NAME.fullmatch(name) is not None


def _joined(bundle: Bundle, folder: str, shards: Mapping[str, Mapping[str, Expr]]) -> Layout:
    """All archives of an output, by their names."""
    archives = [_archive(name, tensors) for name, tensors in shards.items()]
    tied = len(bundle.tensors) - sum(len(archive.file.placements) for archive in archives)
    files = tuple(archive.file for archive in archives)
    return Layout(NAME, folder, files, checksum="crc32", seal=partial(_seal, tuple(archives)), notes=_notes(bundle, tied))


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


class _Archive(NamedTuple):
    """A file to be written: its layout, its members, and where its directory stands."""

    file: FileLayout
    slots: tuple[_Slot, ...]
    directory_start: int


def _archive(name: str, tensors: Mapping[str, Expr]) -> _Archive:
    storages, owners = _storages(tensors)
    pickled = _pickled({key: (expr.spec, owners[key]) for key, expr in tensors.items()})
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
    return _Archive(FileLayout(name, size, tuple(placements)), tuple(slots), end)


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


def _seal(archives: tuple[_Archive, ...], checksums: Mapping[str, int]) -> list[Patch]:
    """All headers of the archives, and the contents that are no tensors."""
    patches: list[Patch] = []
    for (name, *_), slots, end in archives:
        records = [slot.record for slot in slots]
        crc32s = [checksums[slot.key] if slot.key is not None else zlib.crc32(slot.content) for slot in slots]
        heads = [zips.local_header(record, crc32) for record, crc32 in zip(records, crc32s, strict=True)]
        patches += [Patch(name, slot.record.start, head + slot.content) for slot, head in zip(slots, heads, strict=True)]
        patches.append(Patch(name, end, zips.directory(records, crc32s, end)))
    return patches


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
