"""Folders of PyTorch's distributed checkpoints: `.metadata` and `.distcp` files. Serves probe (index); such checkpoints are not written here.

`.metadata` is a pickle that tells the shape of each tensor, the chunks that it was cut into, and which bytes of which file hold each chunk:
an archive as `torch.save` writes it. Nothing in a pickle is imported or run. Source of format facts: torch 2.13,
`torch/distributed/checkpoint/metadata.py` and `filesystem.py`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any, NamedTuple, TypeGuard

from surgery.errors import CorruptFile, SourceError, UnsupportedFeature, listed
from surgery.expr import Assemble, Expr
from surgery.formats.base import Disk, Indexed, ReadAt
from surgery.formats.base import read_only as layout
from surgery.formats.pickle_machine import Global, Stub
from surgery.formats.sharded import is_plain_name
from surgery.formats.tape import Tape
from surgery.formats.torch_objects import NEWER_TYPES, STORAGE_TYPES, TorchBuilder, torch_dtype
from surgery.formats.torch_pickle import Content, content_of, unpickled
from surgery.formats.torch_views import AXES_LIMIT
from surgery.formats.torch_zip import Archive
from surgery.regions import Region
from surgery.tensors import SourceFile, TensorSpec

__all__ = ["NAME", "OPTIONS", "READS", "SUMMARY", "index", "layout", "locate"]

NAME = "torch-dcp"
SUMMARY = "PyTorch distributed checkpoint: a folder with .metadata and .distcp files"
OPTIONS: frozenset[str] = frozenset()
READS = frozenset((*STORAGE_TYPES.values(), *NEWER_TYPES))
_METADATA = ".metadata"
_MODULE = "torch.distributed.checkpoint.metadata"
_HEAD_BYTES = 256
_MOST_CELLS = 1 << 18
"""Of the grid that all cuts of a tensor make."""


class _Piece(NamedTuple):
    """Bytes of a file that hold a chunk, or an object."""

    name: str
    start: int
    nbytes: int


class _Chunk(NamedTuple):
    """Where a chunk begins in its tensor, and its shape."""

    origin: tuple[int, ...]
    shape: tuple[int, ...]


def locate(path: str, disk: Disk) -> str | None:
    """Recognise the folder, or `.metadata` in it, by how that begins."""
    folder = path.rstrip("/") or "/"
    if not disk.is_folder(path):
        folder, name = posixpath.split(path)
        if name != _METADATA:
            return None
    metadata = posixpath.join(folder, _METADATA)
    if not disk.is_file(metadata):
        return None
    file, read = disk.open(metadata)
    return folder or "." if _MODULE.encode() in read(0, min(file.nbytes, _HEAD_BYTES)) else None


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the tensors in the order of `.metadata`, each put together of its chunks; reads that, and the head of each chunk.

    Keys are those of the saved state dict, which PyTorch joins with `.` where it is nested. Objects that are no tensors become metadata.

    Raises:
        CorruptFile: a pickle, archive or chunk that contradicts itself, another one, or its file's size; chunks that do not make up their tensor.
        UnsupportedFeature: chunks that went through extensions (compression, encryption), element types unknown here.
        SourceError: a `.distcp` file that is not there.
    """
    file, read = disk.open(posixpath.join(location, _METADATA))
    value = unpickled(file, Tape(read, 0, file.nbytes), TorchBuilder())
    folder = _Folder(location, file, disk)
    entries = folder.mapping(value, "state_dict_metadata")
    pieces = folder.pieces(folder.mapping(value, "storage_data"))
    tensors: dict[str, Expr] = {}
    metadata: dict[str, str] = {}
    notes: list[str] = []
    for key, entry in entries.items():
        if type(key) is not str or type(entry) is not Stub:
            raise folder.corrupt("describes something without a name")
        content = folder.content(key, entry, pieces)
        tensors |= content.tensors
        metadata |= content.metadata
        notes += content.notes
    return Indexed(NAME, location, tensors, metadata, (file, *folder.files()), notes=tuple(dict.fromkeys(notes)))


class _Folder:
    """A folder and the files of it that were opened."""

    def __init__(self, location: str, file: SourceFile, disk: Disk) -> None:
        self.location = location
        self.file = file
        self.disk = disk
        self._opened: dict[str, tuple[SourceFile, ReadAt]] = {}

    def files(self) -> Iterator[SourceFile]:
        return (file for _, (file, _) in sorted(self._opened.items()))

    def mapping(self, value: object, name: str) -> Mapping[object, object]:
        found = _attribute(value, name)
        if type(found) is not dict:
            raise self.corrupt(f"has no mapping `{name}`")
        return found

    def pieces(self, stored: Mapping[object, object]) -> dict[tuple[str, tuple[int, ...] | None], _Piece]:
        """Where what lies, by key and origin (None for objects)."""
        found = {}
        for where, info in stored.items():
            key, origin = _attribute(where, "fqn"), _attribute(where, "offset")
            if type(key) is not str or not (origin is None or _is_shape(origin)):
                raise self.corrupt("tells where something without a name lies")
            name, start, nbytes = (_attribute(info, field) for field in ("relative_path", "offset", "length"))
            if type(name) is not str or type(start) is not int or type(nbytes) is not int or not is_plain_name(name) or min(start, nbytes) < 0:
                raise self.corrupt(f"does not tell where `{key[:80]}` lies in its folder")
            transforms = _attribute(info, "transform_descriptors")
            if transforms:
                names = [transform[:80] for transform in transforms if type(transform) is str] if type(transforms) is list else []
                raise UnsupportedFeature(f"{self.location} was written through extensions: {listed(names)}", help="save it without extensions")
            found[key, origin] = _Piece(name, start, nbytes)
        return found

    def content(self, key: str, entry: Stub, pieces: Mapping[tuple[str, tuple[int, ...] | None], _Piece]) -> Content:
        """One tensor, put together, or one object."""
        if entry.name != f"{_MODULE}.TensorStorageMetadata":
            return self._archived(key, pieces.get((key, None)))
        spec, chunks = self._spec(key, entry), self._chunks(key, entry)
        self._refuse_holes(key, spec.shape, chunks)
        parts: list[tuple[tuple[int, ...], Expr]] = []
        notes: list[str] = []
        for chunk in chunks:
            held = self._archived(key, pieces.get((key, chunk.origin)))
            part = held.tensors.get(key)
            if part is None:
                return held
            if part.spec != TensorSpec(spec.dtype, chunk.shape):
                raise self.corrupt(f"describes a chunk of `{key[:80]}` as {spec.dtype} {list(chunk.shape)}, and it is {part.spec}")
            parts.append((chunk.origin, part))
            notes += held.notes
        return Content({key: parts[0][1] if len(parts) == 1 else Assemble(spec, tuple(parts))}, {}, tuple(notes))

    def _archived(self, key: str, piece: _Piece | None) -> Content:
        if piece is None:
            raise self.corrupt(f"does not tell where `{key[:80]}` lies")
        file, read = self._open(piece.name, key)
        if piece.start + piece.nbytes > file.nbytes:
            fact = f"bytes {piece.start:,} to {piece.start + piece.nbytes:,} of {file.path}, which has {file.nbytes:,}"
            raise self.corrupt(f"puts `{key[:80]}` behind the end of a file", fact)
        archive = Archive(file, read, piece.start, piece.start + piece.nbytes)
        return content_of({key: archive.unpickled("data.pkl")}, archive.file, "", archive.places("data/"))

    def _open(self, name: str, key: str) -> tuple[SourceFile, ReadAt]:
        if name not in self._opened:
            path = posixpath.join(self.location, name)
            if not self.disk.is_file(path):
                facts = [f"{name} should hold `{key}`"]
                raise SourceError(f"{path} is not there", code="missing-shard", notes=facts, help="copy or download what is missing")
            self._opened[name] = self.disk.open(path)
        return self._opened[name]

    def _spec(self, key: str, entry: Stub) -> TensorSpec:
        properties, shape = _attribute(entry, "properties"), _attribute(entry, "size")
        kind = properties.state[0] if type(properties) is Stub and type(properties.state) is tuple and properties.state else None
        if not _is_shape(shape) or type(kind) is not Global:
            raise self.corrupt(f"does not tell shape and type of `{key[:80]}`")
        dtype = torch_dtype(kind)
        if dtype is None:
            raise UnsupportedFeature(
                f"`{key}` in {self.location} is of a type that is not known here, {kind.name[:80]}", help="save it in another type"
            )
        return TensorSpec(dtype, shape)

    def _chunks(self, key: str, entry: Stub) -> list[_Chunk]:
        chunks = _attribute(entry, "chunks")
        found = [_Chunk(_attribute(chunk, "offsets"), _attribute(chunk, "sizes")) for chunk in chunks] if type(chunks) is list else []
        if not found or not all(_is_shape(chunk.origin) and _is_shape(chunk.shape) for chunk in found):
            raise self.corrupt(f"does not tell the chunks of `{key[:80]}`")
        return found

    def _refuse_holes(self, key: str, shape: tuple[int, ...], chunks: list[_Chunk]) -> None:
        regions = [tuple((low, low + size) for low, size in zip(*chunk, strict=False)) for chunk in chunks]
        inside = all(
            len(region) == len(chunk.origin) == len(chunk.shape) == len(shape)
            and all(stop <= size for (_, stop), size in zip(region, shape, strict=True))
            for chunk, region in zip(chunks, regions, strict=True)
        )
        if not inside or not _tiles(shape, regions):
            raise self.corrupt(f"has chunks of `{key[:80]}` that do not make up {list(shape)}")

    def corrupt(self, what: str, fact: str = "") -> CorruptFile:
        """The error for what `.metadata` says; `what` continues its name."""
        where = f"{self.file.path}, bytes 0 to {self.file.nbytes:,}"
        return CorruptFile(f"{self.file.path} {what}", notes=[fact, where], help="the source is damaged or still being written; copy it again")


def _attribute(value: object, name: str) -> Any:
    """A field of an object that was pickled with its dictionary; None where there is none."""
    return value.state.get(name) if type(value) is Stub and type(value.state) is dict else None


def _is_shape(value: object) -> TypeGuard[tuple[int, ...]]:
    return type(value) is tuple and len(value) <= AXES_LIMIT and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _tiles(shape: tuple[int, ...], regions: list[Region]) -> bool:
    """Whether regions inside a shape make it up without overlap: as many elements, and no corner of one inside another."""
    if len(set(regions)) != len(regions) or sum(prod(stop - start for start, stop in region) for region in regions) != prod(shape):
        return False
    cuts = [sorted({edge for region in regions for edge in region[axis]}) for axis in range(len(shape))]
    cells = prod(max(1, len(edges) - 1) for edges in cuts)
    if cells > _MOST_CELLS:
        return False
    seen: set[tuple[int, ...]] = set()
    for region in regions:
        corners = product(*([edge for edge in edges if start <= edge < stop] for (start, stop), edges in zip(region, cuts, strict=True)))
        for corner in corners:
            if corner in seen:
                return False
            seen.add(corner)
    return True
