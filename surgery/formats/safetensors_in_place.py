"""Other keys and metadata for safetensors files whose tensors stay where they are. Serves the safetensors format module."""

from __future__ import annotations

import posixpath
from json.encoder import encode_basestring

from surgery.expr import Expr
from surgery.formats.base import Bundle, FileLayout, Indexed, Layout, Patch, Placement
from surgery.formats.in_place import not_in_place, stored_under_new_names
from surgery.formats.safetensors_header import PAGE, described, index_text, refuse_text, to_json
from surgery.tensors import SourceFile
from surgery.units import size_text


def relabel(bundle: Bundle, source: Indexed, *, grows: bool) -> Layout:
    """New headers over the data of `source`, and a new index where it has one.

    Headers have the old lengths; one that does not fit is longer by whole pages where its file `grows`, that is, where it is a clone.

    Raises:
        PlanError: code `not-in-place` where tensors are dropped, added or changed, or where a new header does not fit; a key or
            metadata that the format cannot hold.
    """
    refuse_text(bundle)
    extents = stored_under_new_names(bundle, source)
    index, shards = (source.files[0], source.files[1:]) if source.files[0].path.endswith(".json") else (None, source.files)
    inside: dict[SourceFile, dict[str, Expr]] = {shard: {} for shard in shards}
    for key, extent in extents.items():
        inside[extent.file][key] = bundle.tensors[key]
    relabelled = [_shard(bundle, shard, tensors, grows) for shard, tensors in inside.items()]
    files = [file for file, _ in relabelled]
    patches = [header for _, header in relabelled]
    if index is not None:
        text = index_text(bundle.tensors, {key: _name(extent.file) for key, extent in extents.items()})
        files.append(FileLayout(_name(index), len(text)))
        patches.append(Patch(_name(index), 0, text))
    return Layout("safetensors", posixpath.dirname(shards[0].path) or ".", tuple(files), tuple(patches))


def _name(file: SourceFile) -> str:
    return posixpath.basename(file.path)


def _start(expr: Expr) -> int:
    return (expr.view() or ())[0].start


def _shard(bundle: Bundle, file: SourceFile, tensors: dict[str, Expr], grows: bool) -> tuple[FileLayout, Patch]:
    """A file with another header, in front of the data as it is."""
    data_start = min(map(_start, tensors.values()), default=file.nbytes)
    rows = [f'"__metadata__":{to_json(dict(bundle.metadata))}'] if bundle.metadata else []
    for key, expr in tensors.items():
        start = _start(expr) - data_start
        rows.append(f'{encode_basestring(key)}:{{{described(expr.spec)},"data_offsets":[{start},{start + expr.spec.nbytes}]}}')
    text = f"{{{','.join(rows)}}}".encode()
    more = -((data_start - 8 - len(text)) // PAGE) * PAGE if 8 + len(text) > data_start else 0
    if more and not grows:
        note = f"the new header of {file.path} takes {size_text(8 + len(text))}, and its data begins at byte {data_start:,}"
        raise not_in_place(bundle, note)
    nbytes = data_start + more - 8
    placements = tuple(Placement(key, expr, _start(expr) + more) for key, expr in tensors.items())
    return FileLayout(_name(file), file.nbytes + more, placements, file), Patch(_name(file), 0, nbytes.to_bytes(8, "little") + text.ljust(nbytes))
