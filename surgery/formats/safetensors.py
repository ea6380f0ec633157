"""Safetensors: a single file, or shards listed by a `*.safetensors.index.json`. Serves probe (index) and physical planning (layout).

Reads and writes every element type of the safetensors crate 0.8; what it has no type for (strings, complex128, quantized
integers, sub-byte types with one element per byte) is refused when writing. The format has no checksums, so damage inside
the data cannot be noticed here. Source of all format facts: README of huggingface/safetensors, section "Format", and `tensor.rs`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from json.encoder import encode_basestring

from surgery.errors import PlanError, SourceError, listed, plural
from surgery.expr import Expr
from surgery.formats import suffixes
from surgery.formats.base import Bundle, Disk, FileLayout, Indexed, Layout, Patch, Placement, refuse_dtypes
from surgery.formats.collecting import no_garbage_collection
from surgery.formats.safetensors_header import (
    CODE_OF,
    HEADER_LIMIT,
    PAGE,
    described,
    index_text,
    metadata_of,
    read_header,
    refuse_text,
    tensors_of,
    to_json,
)
from surgery.formats.safetensors_in_place import relabel as relabel
from surgery.formats.sharded import index_shards
from surgery.manifest import is_manifest_name
from surgery.tensors import TensorSpec

NAME = "safetensors"
SUMMARY = "safetensors file, or sharded folder with an index"
_SUFFIXES = suffixes(NAME)
OPTIONS = frozenset({"shard_size"})

_INDEX_SUFFIX = ".safetensors.index.json"
_INDEX_NAME = "model.safetensors.index.json"
_SINGLE_NAME = "model.safetensors"
_SAVED_NAME = re.compile(r"model(-\d{5,}-of-\d{5,})?\.safetensors(\.index\.json)?")
_COMPANIONS = ("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt")
_WORTH_PADDING = 64 << 10


def locate(path: str, disk: Disk) -> str | None:
    """Recognise a safetensors file by content or suffix, an index by its name, a folder by what lies in it.

    A folder with several `.safetensors` files and no index is recognised too, so that `index` can say what is wrong.
    """
    if disk.is_folder(path):
        folder = path.rstrip("/") or "/"
        return folder if _candidates(folder, disk) else None
    if not disk.is_file(path):
        return None
    return path if path.endswith((*_SUFFIXES, _INDEX_SUFFIX)) or _looks_right(path, disk) else None


def _looks_right(path: str, disk: Disk) -> bool:
    file, read = disk.open(path)
    return file.nbytes > 8 and read(8, 9) == b"{" and int.from_bytes(read(0, 8), "little") <= min(file.nbytes - 8, HEADER_LIMIT)


def _candidates(folder: str, disk: Disk) -> list[str]:
    """The file names that may stand for the folder, of the first kind that is there: more than one is ambiguous."""
    names = disk.names(folder)
    indexes = [name for name in names if name.endswith(_INDEX_SUFFIX)]
    if _INDEX_NAME in indexes:
        return [_INDEX_NAME]
    if len(indexes) == 1:
        return indexes
    if _SINGLE_NAME in names:
        return [_SINGLE_NAME]
    return indexes or [name for name in names if name.endswith(_SUFFIXES)]


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the tensors in the order of their data, shards in the order of their names, without reading any of them.

    Reads 8 bytes and the header of each file. Ranges are absolute; data is little-endian in C order. Metadata of shards
    is joined; where they disagree the first shard wins and a note says so. Companions are looked for beside an index or
    in a folder, not beside a file that was named by itself.

    Raises:
        CorruptFile: a header or index that contradicts the format, the file's size or another shard.
        UnsupportedFeature: an element type that the crate 0.8 does not know, or more than 64 axes.
        SourceError: a folder that holds several candidates or none; a shard that is not there.
    """
    path = location
    if disk.is_folder(location):
        found = _candidates(location, disk)
        if len(found) != 1:
            raise SourceError(
                f"{location} holds {plural(len(found), 'safetensors file')} and no index",
                code="ambiguous-source",
                notes=[listed(found)],
                help=f"name one of them, such as {posixpath.join(location, found[0])}" if found else "check the path",
            )
        path = posixpath.join(location, found[0])
    companions = _companions(posixpath.dirname(path), disk) if path != location or path.endswith(_INDEX_SUFFIX) else ()
    if path.endswith(_INDEX_SUFFIX):
        return index_shards(NAME, location, path, companions, disk, _index_file)
    return _index_file(path, disk)._replace(location=location, companions=companions)


def _companions(folder: str, disk: Disk) -> tuple[str, ...]:
    names = [name for name in disk.names(folder or ".") if not is_manifest_name(name)]
    return tuple(posixpath.join(folder, name) for name in names if any(fnmatchcase(name, pattern) for pattern in _COMPANIONS))


def _index_file(path: str, disk: Disk) -> Indexed:
    file, read = disk.open(path)
    with no_garbage_collection():
        header, data_start = read_header(file, read)
        return Indexed(NAME, path, tensors_of(file, header, data_start), metadata_of(file, header, data_start), (file,))


def layout(bundle: Bundle) -> Layout:
    """Place the tensors in one file, or with `shard_size` (bytes of tensors per shard) in a folder of shards.

    In each file tensors stand by descending element size, else in the order given: readers need them aligned. The
    header is padded with spaces so that most bytes that are copied keep their offset modulo 4096, which lets file
    systems share blocks. A tensor larger than `shard_size` gets a shard of its own.

    Raises:
        PlanError: a dtype or key that the format cannot hold, a header over 100,000,000 bytes, a path or `shard_size` that cannot be.
    """
    refuse_dtypes(bundle, NAME, _holds)
    refuse_text(bundle)
    shard_size = bundle.options.get("shard_size")
    if shard_size is None:
        folder, name = posixpath.split(bundle.path)
        if not name:
            raise PlanError(f"{bundle.path} names no file", code="bad-option", help="name a file in it, or set `shard_size`")
        file, header = _place(name, bundle.tensors, bundle.metadata)
        return Layout(NAME, folder or ".", (file,), (header,))
    if type(shard_size) is not int or shard_size <= 0:
        raise PlanError(f"`shard_size` is {shard_size!r}", code="bad-option", help="give a size above zero, such as 5GB")
    if bundle.path.endswith(_SUFFIXES):
        folder = bundle.path.removesuffix(_SUFFIXES[0])
        help = f"write `path: {folder}, format: safetensors`"
        raise PlanError(f"with `shard_size`, `path` is a folder, not {bundle.path}", code="bad-option", help=help)
    return _layout_shards(bundle, shard_size)


def _holds(spec: TensorSpec) -> bool:
    return spec.dtype in CODE_OF and spec.size * spec.dtype.bits % 8 == 0


def _layout_shards(bundle: Bundle, shard_size: int) -> Layout:
    shards = list(_cut(bundle.tensors, shard_size))
    names = [_SINGLE_NAME] if len(shards) == 1 else [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    placed = [_place(name, shard, bundle.metadata) for name, shard in zip(names, shards, strict=True)]
    files = [file for file, _ in placed]
    patches = [header for _, header in placed]
    if len(shards) > 1:
        text = index_text(bundle.tensors, {key: name for name, shard in zip(names, shards, strict=True) for key in shard})
        files.append(FileLayout(_INDEX_NAME, len(text)))
        patches.append(Patch(_INDEX_NAME, 0, text))
    stale = partial(_is_stale, frozenset(file.name for file in files))
    return Layout(NAME, bundle.path.rstrip("/") or "/", tuple(files), tuple(patches), stale=stale)


def _cut(tensors: Mapping[str, Expr], shard_size: int) -> Iterator[dict[str, Expr]]:
    shard: dict[str, Expr] = {}
    filled = 0
    for key, expr in tensors.items():
        nbytes = expr.spec.nbytes
        if shard and filled + nbytes > shard_size:
            yield shard
            shard, filled = {}, 0
        shard[key] = expr
        filled += nbytes
    yield shard


def _is_stale(kept: frozenset[str], name: str) -> bool:
    return name not in kept and _SAVED_NAME.fullmatch(name) is not None


def _place(name: str, tensors: Mapping[str, Expr], metadata: Mapping[str, str]) -> tuple[FileLayout, Patch]:
    """One file: its placements, and its header as the reference library spells it."""
    rows = [f'"__metadata__":{to_json(dict(metadata))}'] if metadata else []
    placed: list[tuple[str, Expr, int]] = []
    rel_start = 0
    known: dict[TensorSpec, tuple[int, str]] = {}
    for key, expr in sorted(tensors.items(), key=lambda item: -item[1].spec.dtype.bits):
        if expr.spec not in known:
            known[expr.spec] = expr.spec.nbytes, described(expr.spec)
        nbytes, told = known[expr.spec]
        rows.append(f'{encode_basestring(key)}:{{{told},"data_offsets":[{rel_start},{rel_start + nbytes}]}}')
        placed.append((key, expr, rel_start))
        rel_start += nbytes
    text = f"{{{','.join(rows)}}}".encode()
    data_start = _data_start(8 + len(text), placed)
    nbytes = data_start - 8
    if nbytes > HEADER_LIMIT:
        raise PlanError(f"the header of {name} would be larger than safetensors allows", notes=[f"{nbytes:,} bytes"], help="set `shard_size`")
    placements = tuple(Placement(key, expr, data_start + start) for key, expr, start in placed)
    return FileLayout(name, data_start + rel_start, placements), Patch(name, 0, nbytes.to_bytes(8, "little") + text.ljust(nbytes))


def _data_start(header_stop: int, placed: Iterable[tuple[str, Expr, int]]) -> int:
    """The first multiple of 8 from which most copied bytes keep their offset modulo a page; the very first where few are copied."""
    least = -(-header_stop // 8) * 8
    votes: dict[int, int] = {}
    for _, expr, rel_start in placed:
        for extent in expr.view() or ():
            if extent.codec is None and extent.nbytes:
                remainder = (extent.start - rel_start) % PAGE
                votes[remainder] = votes.get(remainder, 0) + extent.nbytes
            rel_start += extent.nbytes
    winner = max(votes, key=lambda remainder: (votes[remainder], -remainder), default=0)
    return least if winner % 8 or votes.get(winner, 0) < _WORTH_PADDING else least + (winner - least) % PAGE
