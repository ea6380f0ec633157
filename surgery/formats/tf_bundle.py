"""TensorFlow's V2 checkpoint bundle: `PREFIX.index` and `PREFIX.data-SSSSS-of-NNNNN`.

Reads what `tf.train.Saver`, `tf.train.Checkpoint` and SavedModels write: every dtype, several shards, partitioned tensors (joined), both byte
orders. Refuses partitioned strings, and dtypes that TensorFlow 2.21 does not have. Writing is in `tf_layout`.
A bundle is named by its prefix; names are taken literally, never as patterns.

Source: TensorFlow, core/util/tensor_bundle/tensor_bundle.{h,cc}; sentences of faults from TensorFlow 2.21.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from surgery.errors import CorruptFile, SourceError, UnsupportedFeature, plural
from surgery.expr import Assemble, Expr, Stored
from surgery.formats import tf_state
from surgery.formats.base import Disk, Indexed
from surgery.formats.tf_codecs import CODECS, TF_STRING, TF_VARIANT
from surgery.formats.tf_entries import Header, Piece, Whole, read_entries, read_header
from surgery.formats.tf_layout import layout as layout
from surgery.formats.tf_layout import relabel as relabel
from surgery.formats.tf_object_graph import GRAPH_KEY, MOST_GRAPH_BYTES
from surgery.formats.tf_slices import check_tiling, slice_key
from surgery.formats.tf_table import COPY_AGAIN, has_magic, read_table, shown
from surgery.tensors import Extent, Fingerprint, SourceFile

__all__ = ["NAME", "OPTIONS", "SUMMARY", "TF_STRING", "TF_VARIANT", "index", "layout", "locate", "relabel"]

NAME = "tf"
SUMMARY = "TensorFlow V2 checkpoint (PREFIX.index and PREFIX.data-*), also inside a SavedModel"
OPTIONS = frozenset({"shard_size", "latest", "align", "meta"})

_DATA_FILE = re.compile(r"(?s)(.+)\.data-\d{5,}-of-\d{5,}")
_ABSENT = Fingerprint(-1, 0, 0, 0)


def locate(path: str, disk: Disk) -> str | None:
    """The prefix of the bundle at `path`: a prefix, an index file, a folder with a `checkpoint` file, a SavedModel, a folder with one index.

    Raises:
        SourceError: `path` is a data file of a bundle, or a `checkpoint` file names a checkpoint that is not there.
    """
    if disk.is_file(f"{path}.index") and (is_table(f"{path}.index", disk) or not (disk.is_file(path) or disk.is_folder(path))):
        return path
    if disk.is_file(path):
        return _locate_file(path, disk)
    return _locate_folder(path.rstrip("/") or "/", disk) if disk.is_folder(path) else None


def _locate_file(path: str, disk: Disk) -> str | None:
    data_file = _DATA_FILE.fullmatch(path)
    if data_file:
        prefix = data_file[1]
        raise SourceError(f"{path} is one data file of a TensorFlow checkpoint, not the checkpoint", help=f"give the prefix: {prefix}")
    graph_of = path.removesuffix(".meta")
    if path != graph_of and disk.is_file(f"{graph_of}.index"):
        raise SourceError(f"{path} is the graph of a TensorFlow checkpoint, not the checkpoint", help=f"give the prefix: {graph_of}")
    folder, _, name = path.rpartition("/")
    if name == tf_state.FILE_NAME:
        prefix = newest(folder or ".", disk)
        return prefix if prefix is not None and disk.is_file(f"{prefix}.index") else None
    if not is_table(path, disk):
        return None
    return path.removesuffix(".index") if path.endswith(".index") else None


def _locate_folder(folder: str, disk: Disk) -> str | None:
    prefix = newest(folder, disk)
    if prefix is not None:
        return prefix if disk.is_file(f"{prefix}.index") else None
    if disk.is_file(f"{folder}/saved_model.pb") and disk.is_file(f"{folder}/variables/variables.index"):
        return f"{folder}/variables/variables"
    indexes = [name for name in disk.names(folder) if name.endswith(".index")]
    if len(indexes) == 1 and is_table(f"{folder}/{indexes[0]}", disk):
        return f"{folder}/{indexes[0].removesuffix('.index')}"
    return None


def newest(folder: str, disk: Disk) -> str | None:
    """The prefix that the folder's `checkpoint` file calls the newest; None without such a file, or where it is none of TensorFlow's.

    Of a checkpoint in the old V1 format the prefix is the file itself.

    Raises:
        CorruptFile: the file names none.
        SourceError: what it names is not there.
    """
    path = f"{folder}/{tf_state.FILE_NAME}"
    if not disk.is_file(path):
        return None
    file, read = disk.open(path)
    state = tf_state.parse(read(0, file.nbytes)) if file.nbytes <= tf_state.MOST_BYTES else None
    if state is None:
        return None
    if not state.newest:
        raise CorruptFile(f"Invalid checkpoint state loaded from {folder}", notes=[f"{path} has no model_checkpoint_path"], sentence=True)
    prefix = state.newest if state.newest.startswith("/") else f"{folder}/{state.newest}"
    if disk.is_file(f"{prefix}.index") or (disk.is_file(prefix) and is_table(prefix, disk)):
        return prefix
    raise SourceError(
        f"Couldn't match files for checkpoint {prefix}",
        code="no-such-file",
        notes=[f"{path} names it as the newest"],
        help="give the prefix of a checkpoint that is there",
        sentence=True,
    )


def is_table(path: str, disk: Disk) -> bool:
    """Whether a file ends as a table does."""
    file, read = disk.open(path)
    return has_magic(read, file.nbytes)


def index(location: str, disk: Disk, strict: bool = True) -> Indexed:
    """List the tensors of the bundle with prefix `location`, in the order of their bytes; partitioned tensors appear as wholes.

    Reads the index, the sizes of the data files and the object graph, if there is one (`attachments["object_graph"]`: the bytes of a
    serialized TrackableObjectGraph). Without `strict`, data files that are missing or too short are told in `notes`, and their
    tensors' files have a size of -1.

    Raises:
        CorruptFile: damage to the index, entries that contradict each other or the data files, slices that do not fill their tensor.
        UnsupportedFeature: a newer version, an unknown dtype, partitioned strings.
        SourceError: a file is missing; code `no-such-file`.
    """
    path = f"{location}.index"
    index_file, read = disk.open(path)
    entries = read_table(read, index_file.nbytes, path)
    header = read_header(entries, path)
    pieces, wholes = read_entries(entries, header, path)
    files, notes = _data_files(location, header, pieces, disk, strict)
    tensors = _tensors(pieces, wholes, files, header.big_endian)
    attachments = {}
    if GRAPH_KEY in tensors:
        try:
            attachments["object_graph"] = _object_graph(tensors[GRAPH_KEY], disk)
        except SourceError as error:
            notes.append(f"the object graph cannot be read: {error.title}")
    if wholes:
        notes.append(f"{plural(len(wholes), 'partitioned tensor')} joined from slices")
    return Indexed(
        format=NAME,
        location=location,
        tensors=tensors,
        metadata={},
        files=(index_file, *(file for file in files.values() if file.nbytes >= 0)),
        companions=(f"{location}.meta",) if disk.is_file(f"{location}.meta") else (),
        notes=tuple(notes),
        attachments=attachments,
    )


def _data_files(location: str, header: Header, pieces: Sequence[Piece], disk: Disk, strict: bool) -> tuple[dict[int, SourceFile], list[str]]:
    """The data file of each shard that has tensors, and what is wrong with them where that is not to be an error."""
    files: dict[int, SourceFile] = {}
    notes: list[str] = []
    for shard, group in groupby(pieces, lambda piece: piece.shard):
        path = f"{location}.data-{shard:05}-of-{header.num_shards:05}"
        sentence = _checksum_sentence(location, shard)
        file = disk.open(path, sentence)[0] if disk.is_file(path) else SourceFile(path, _ABSENT, sentence)
        beyond = next((piece for piece in group if piece.nbytes and piece.stop > file.nbytes), None)
        if beyond is not None:
            error = _too_short(beyond, file) if file.nbytes >= 0 else _missing(beyond, path)
            if strict:
                raise error
            notes.append(error.title if file.nbytes < 0 else f"{path}: {error.title}")
            file = SourceFile(path, _ABSENT, sentence)
        files[shard] = file
    return files, notes


def _checksum_sentence(location: str, shard: int) -> str:
    literal = location.replace("{", "{{").replace("}", "}}")
    return (
        f"TensorBundle at {literal} shard {shard} ({{nbytes}} bytes): Checksum does not match: "
        "stored {stored:08d} vs. calculated on the restored bytes {computed}"
    )


def _missing(piece: Piece, path: str) -> SourceError:
    return SourceError(
        f"{path}; No such file or directory",
        code="no-such-file",
        notes=[f"key {shown(piece.key)} lies in it, bytes {piece.start:,} to {piece.stop:,}"],
        help="copy all files of the checkpoint; `inspect` lists the tensors without them",
        sentence=True,
    )


def _too_short(piece: Piece, file: SourceFile) -> CorruptFile:
    return CorruptFile(
        "Read less bytes than requested",
        notes=[f"key {shown(piece.key)}, {file.path}, bytes {piece.start:,} to {piece.stop:,}", f"the file has {file.nbytes:,} bytes"],
        help=COPY_AGAIN,
        sentence=True,
    )


def _tensors(pieces: Iterable[Piece], wholes: Sequence[Whole], files: dict[int, SourceFile], big_endian: bool) -> dict[str, Expr]:
    stored: dict[bytes, Expr] = {}
    for shard, start, nbytes, key, spec, crc32c in pieces:
        stored[key] = Stored(Extent(files[shard], start, nbytes, spec, crc32c, CODECS.get(spec.dtype.name), big_endian))
    if wholes:
        stored = _joined(stored, wholes)
    return {key.decode("utf-8", "surrogateescape"): expr for key, expr in stored.items()}


def _joined(stored: dict[bytes, Expr], wholes: Sequence[Whole]) -> dict[bytes, Expr]:
    """The table with each partitioned tensor in the place of its first slice, and without the slices."""
    owners: dict[bytes, bytes] = {}
    joined: dict[bytes, Expr] = {}
    for whole in wholes:
        keys = [slice_key(whole.key, piece) for piece in whole.slices]
        joined[whole.key] = _assemble(whole, keys, stored)
        owners.update(dict.fromkeys(keys, whole.key))
    table: dict[bytes, Expr] = {}
    for key, expr in stored.items():
        owner = owners.get(key, key)
        table[owner] = joined.get(owner, expr)
    return table


def _assemble(whole: Whole, keys: Sequence[bytes], stored: dict[bytes, Expr]) -> Assemble:
    name = shown(whole.key)
    if not whole.spec.dtype.bits:
        raise UnsupportedFeature(f"`{name}` is a partitioned tensor of type {whole.spec.dtype.name}", help="save it unpartitioned with TensorFlow")
    check_tiling(name, whole.spec.shape, whole.slices)
    parts = []
    for key, piece in zip(keys, whole.slices, strict=True):
        region = piece.region(whole.spec.shape)
        expr = stored.get(key)
        if expr is None:
            raise CorruptFile(f"slice {piece} of partitioned tensor `{name}` is not in the index", help=COPY_AGAIN)
        shape = tuple(stop - start for start, stop in region)
        if expr.spec != (whole.spec.dtype, shape):
            raise CorruptFile(
                f"slice {piece} of partitioned tensor `{name}` is {expr.spec}, not {whole.spec.dtype.short}{list(shape)}", help=COPY_AGAIN
            )
        parts.append((tuple(start for start, _ in region), expr))
    return Assemble(whole.spec, tuple(parts))


def _object_graph(expr: Expr, disk: Disk) -> bytes:
    """The bytes of the one string that holds the object graph. Raises SourceError where that cannot be."""
    extent = expr.extent if isinstance(expr, Stored) else None
    if extent is None or extent.codec is not TF_STRING or extent.spec.shape != ():
        raise UnsupportedFeature(f"{GRAPH_KEY} is {expr.spec}, not one string")
    if extent.file.nbytes < 0:
        raise SourceError("its data file is missing or too short")
    if extent.nbytes > MOST_GRAPH_BYTES:
        raise UnsupportedFeature(f"it has {extent.nbytes:,} bytes, more than {MOST_GRAPH_BYTES:,}")
    _, read = disk.open(extent.file.path)
    stored = read(extent.start, extent.stop)
    computed = TF_STRING.checksum(stored, extent.spec)
    if computed != extent.checksum:
        raise CorruptFile(extent.file.checksum_fault.format(nbytes=extent.nbytes, stored=extent.checksum, computed=computed), sentence=True)
    return bytes(TF_STRING.decode(stored, extent.spec)[()])
