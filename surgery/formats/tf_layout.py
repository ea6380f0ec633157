"""Where each byte of a new TensorFlow bundle goes, and the index that describes it.

Pure: nothing is read or written here. Tensors are packed without padding in the order of the output; the index is byte for byte what
TensorFlow would write for the same data files.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from surgery.errors import KeyCollisionError, PlanError, listed, plural
from surgery.expr import Assemble, Expr, Stored
from surgery.formats import tf_state
from surgery.formats.base import Bundle, FileLayout, Indexed, Layout, Patch, Placement, Update, refuse_dtypes
from surgery.formats.in_place import not_in_place, stored_under_new_names
from surgery.formats.tf_codecs import CODECS, TF_STRING, encode_strings
from surgery.formats.tf_entries import NUMBERS, Piece, write_entry, write_header
from surgery.formats.tf_fresh_meta import graph_notes, meta_graph, variables_of
from surgery.formats.tf_object_graph import GRAPH_KEY, follow, unrestorable
from surgery.formats.tf_table import write_table

_READ_IN_SLICES = frozenset(
    [
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "bool",
        "complex64",
        "complex128",
        "qint8",
        "quint8",
        "qint32",
        "bfloat16",
        "int4",
        "uint4",
    ]
)
"""The dtypes of which TensorFlow reads a slice of a whole tensor (facts of RestoreV2, checked for float16)."""

_PAGE = 4096
"""Block size of the file systems that can share blocks between files."""
_WORTH_ALIGNING = 64 << 10


class _Placed(NamedTuple):
    key: str
    piece: Piece


def layout(bundle: Bundle) -> Layout:
    """Place every tensor in `PREFIX.data-*` and have `seal` make `PREFIX.index`; `bundle.path` is the prefix.

    Options: `shard_size` (bytes; a data file ends before the tensor that would exceed it), `latest` (False leaves the file `checkpoint`
    alone), `align` (leave gaps, so that file systems can share blocks with the source), `meta` ("write": a fresh graph). Checksums are CRC-32C;
    `seal` needs one for every placement, a codec's own for strings and variants. An object graph follows the keys; where it has to change, its
    tensor is a patch and no placement.

    Raises:
        PlanError: a dtype, key or path that a bundle cannot have, or an object graph that cannot follow.
    """
    folder, name = _split(bundle.path)
    latest = bundle.options.get("latest", True) is not False
    _check_name(name, bundle.path, latest)
    refuse_dtypes(bundle, "tf", lambda spec: spec.dtype.name in NUMBERS)
    _refuse_computed_strings(bundle)
    keys = _stored_keys(bundle.tensors)
    graph = follow(bundle)
    known = {} if graph is None else {GRAPH_KEY: encode_strings([graph])}
    placed = _packed(bundle.tensors, keys, known, bundle.options.get("shard_size"), bundle.options.get("align", False))
    shards = placed[-1].piece.shard + 1 if placed else 1
    data_names = [f"{name}.data-{shard:05}-of-{shards:05}" for shard in range(shards)]
    patches = [Patch(data_names[piece.shard], piece.start, known[key]) for key, piece in placed if key in known]
    graph_file, graph_told = _graph_file(bundle, name)
    known_checksums = {key: TF_STRING.checksum(data, bundle.tensors[key].spec) for key, data in known.items()}
    return Layout(
        format="tf",
        folder=folder,
        files=(
            *_data_files(data_names, placed, bundle.tensors, known),
            *(FileLayout(patch.file, len(patch.data)) for patch in graph_file),
            FileLayout(f"{name}.index", None),
        ),
        patches=(*patches, *graph_file),
        checksum="crc32c",
        seal=partial(_seal, f"{name}.index", shards, placed, known_checksums),
        updates=(Update(tf_state.FILE_NAME, partial(tf_state.with_newest, name=name), tf_state.is_state),) if latest else (),
        stale=partial(_is_stale, name, frozenset(data_names)),
        codecs=frozenset(codec.name for codec in CODECS.values()),
        notes=(*_notes(bundle, name), *graph_told),
    )


def _graph_file(bundle: Bundle, name: str) -> tuple[tuple[Patch, ...], list[str]]:
    """The graph, where `meta: write` asks for one, and the notes on it."""
    if bundle.options.get("meta") != "write":
        return (), []
    variables = variables_of(bundle.tensors)
    return (Patch(f"{name}.meta", 0, meta_graph(variables)),), graph_notes(bundle.tensors, variables)


def relabel(bundle: Bundle, source: Indexed, *, grows: bool) -> Layout:
    """A new index over the data files of `source`, which stay as they are: offsets and checksums are those that they have.

    Nothing `grows` here: the index is a file of its own.

    Raises:
        PlanError: code `not-in-place` where tensors are dropped, added, changed or sliced, or where an object graph would have to follow;
            what `layout` finds wrong with keys.
    """
    folder, name = _split(source.location)
    extents = stored_under_new_names(bundle, source)
    keys = _stored_keys(bundle.tensors)
    if follow(bundle) is not None:
        raise not_in_place(bundle, f"its object graph names the keys, and lies in a data file (`{GRAPH_KEY}`)")
    files: dict[str, list[Placement]] = {}
    entries = []
    shards = 1
    for key, extent in extents.items():
        data_name = posixpath.basename(extent.file.path)
        if extent.big_endian:
            raise not_in_place(bundle, "its data is big-endian, which a new index cannot tell", key)
        shard, shards = map(int, data_name.removeprefix(f"{name}.data-").split("-of-"))
        files.setdefault(data_name, []).append(Placement(key, bundle.tensors[key], extent.start))
        piece = Piece(shard, extent.start, extent.nbytes, keys[key], extent.spec, extent.checksum or 0)
        entries.append((piece.key, write_entry(piece)))
    index = write_table(sorted([(b"", write_header(shards)), *entries]))
    data_files = [file for file in source.files if posixpath.basename(file.path) in files]
    return Layout(
        format="tf",
        folder=folder,
        files=(
            *(FileLayout(posixpath.basename(file.path), file.nbytes, tuple(files[posixpath.basename(file.path)]), file) for file in data_files),
            FileLayout(f"{name}.index", len(index)),
        ),
        patches=(Patch(f"{name}.index", 0, index),),
        stale=lambda found: found == f"{name}.meta",
        codecs=frozenset(codec.name for codec in CODECS.values()),
        notes=_notes(bundle, name),
    )


def _split(prefix: str) -> tuple[str, str]:
    folder, slash, name = prefix.rpartition("/")
    return folder or slash or ".", name


def _check_name(name: str, path: str, latest: bool) -> None:
    if name == tf_state.FILE_NAME:
        raise PlanError(
            f"'latest_filename' collides with 'save_path': '{name}' and '{path}'",
            code="bad-prefix",
            notes=["TensorFlow keeps the name of the newest checkpoint in a file called `checkpoint`"],
            help="save under another name",
            sentence=True,
        )
    if name in ("", ".", ".."):
        raise PlanError(f"`{path}` is a folder, not the prefix of a checkpoint", code="bad-prefix", help=f"add a name: {path.rstrip('/')}/model.ckpt")
    if latest and not _is_utf8(name):
        raise PlanError(f"the file `checkpoint` cannot hold the name {name!a}", code="bad-prefix", help="use a UTF-8 name, or set `latest: false`")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_computed_strings(bundle: Bundle) -> None:
    """Strings and variants are copied as they lie in another bundle, never made."""
    made = []
    for key, expr in bundle.tensors.items():
        codec = CODECS.get(expr.spec.dtype.name)
        if codec is not None and not (isinstance(expr, Stored) and expr.extent.codec is codec):
            made.append(key)
    if made:
        raise PlanError(
            f"tf writes {bundle.tensors[made[0]].spec.dtype.name} tensors only as another TensorFlow checkpoint stores them (`{made[0]}`)",
            code="dtype-not-storable",
            notes=[f"{plural(len(made), 'tensor')} affected: {listed(made)}"],
            help="`drop` them",
            data={"keys": made},
        )


def _stored_keys(tensors: Mapping[str, Expr]) -> dict[str, bytes]:
    """Keys as the index stores them."""
    stored: dict[str, bytes] = {}
    owners: dict[bytes, str] = {}
    for key in tensors:
        if not key:
            raise PlanError("a TensorFlow checkpoint has no room for an empty key: its header lies there", code="bad-key", help="`rename` the tensor")
        try:
            stored[key] = key.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise PlanError(f"key {key!a} has no form in bytes", code="bad-key", help="`rename` the tensor") from None
        other = owners.setdefault(stored[key], key)
        if other != key:
            raise KeyCollisionError(f"2 keys would both become `{stored[key]!r}`", data={"collisions": {other: [other, key]}}, help="`rename` one")
    return stored


def _packed(tensors: Mapping[str, Expr], keys: Mapping[str, bytes], known: Mapping[str, bytes], shard_size: int | None, align: bool) -> list[_Placed]:
    """The tensors one after the other; their checksums are not known yet. With `align`, copied ones keep their offset modulo a page."""
    placed = []
    shard = offset = 0
    for key, expr in tensors.items():
        nbytes = len(known[key]) if key in known else _nbytes(expr)
        if shard_size and offset and offset + nbytes > shard_size:
            shard, offset = shard + 1, 0
        if align and key not in known and nbytes >= _WORTH_ALIGNING:
            offset += _gap(expr, offset)
        placed.append(_Placed(key, Piece(shard, offset, nbytes, keys[key], expr.spec, 0)))
        offset += nbytes
    return placed


def _gap(expr: Expr, offset: int) -> int:
    """Bytes to be left out so that the tensor lies at the same offset modulo a page as where it is copied from; none if it is computed."""
    stored = expr.view()
    return (stored[0].start - offset) % _PAGE if stored else 0


def _nbytes(expr: Expr) -> int:
    """Bytes in the new bundle: those of the elements, or for strings and variants those stored, which are copied as they are."""
    return expr.spec.nbytes if expr.spec.dtype.bits or not isinstance(expr, Stored) else expr.extent.nbytes


def _data_files(names: list[str], placed: list[_Placed], tensors: Mapping[str, Expr], known: Mapping[str, bytes]) -> list[FileLayout]:
    placements: list[list[Placement]] = [[] for _ in names]
    sizes = [0] * len(names)
    for key, piece in placed:
        sizes[piece.shard] = piece.stop
        if key not in known:
            placements[piece.shard].append(Placement(key, tensors[key], piece.start))
    return [FileLayout(name, size, tuple(places)) for name, size, places in zip(names, sizes, placements, strict=True)]


def _seal(index_name: str, shards: int, placed: list[_Placed], known: Mapping[str, int], checksums: Mapping[str, int]) -> list[Patch]:
    """The whole index file, from the plain CRC-32C of each tensor."""
    entries = [(b"", write_header(shards))]
    for key, piece in placed:
        checksum = known[key] if key in known else checksums[key]
        entries.append((piece.key, write_entry(piece._replace(crc32c=checksum))))
    entries.sort()
    return [Patch(index_name, 0, write_table(entries))]


def _is_stale(prefix: str, current: frozenset[str], name: str) -> bool:
    """Whether a file belongs to an older save under this prefix: a data file that is not written now, or a graph."""
    data_file = re.fullmatch(re.escape(prefix) + r"\.data-\d{5,}-of-\d{5,}", name) is not None
    return name == f"{prefix}.meta" or (data_file and name not in current)


def _notes(bundle: Bundle, name: str) -> tuple[str, ...]:
    notes = ["metadata is left out: a TensorFlow bundle has no place for it"] if bundle.metadata else []
    joined = [key for key, expr in bundle.tensors.items() if isinstance(expr, Assemble) and expr.spec.dtype.name not in _READ_IN_SLICES]
    if joined:
        dtype = bundle.tensors[joined[0]].spec.dtype.name
        notes.append(f"{listed(joined)} is whole now, and TensorFlow cannot read slices of {dtype} into partitioned variables")
    if re.search(r"[*?\[\\]", name):
        notes.append(f"TensorFlow takes `{name}` for a file pattern and will not find it")
    lost = unrestorable(bundle)
    if lost:
        notes.append(f"`tf.train.Checkpoint.restore` cannot read {listed(lost)}: the end of the key, from `/.ATTRIBUTES/` on, was changed")
    return tuple(notes)
