"""What is damaged: for each reader the sound files of `tests/data` that damage starts from."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from surgery.formats import tf_table
from surgery.formats.ocdbt import MANIFEST_MAGIC, NODE_MAGIC
from surgery.formats.tf_varint import read_varint

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"


class Seed(NamedTuple):
    """A sound checkpoint: the files that `glob` finds below `folder`, opened as `opened`, of which `damaged` is to suffer."""

    folder: Path
    glob: str
    opened: str
    damaged: str

    def files(self) -> dict[str, bytes]:
        """All files of the checkpoint by their path below the folder."""
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in sorted(self.folder.glob(self.glob)) if path.is_file()}


class Target(NamedTuple):
    """A reader, or the part of it that reads one file. `sealed(sound, damaged)` repairs checksums that would hide what lies behind them."""

    seeds: tuple[Seed, ...]
    sealed: Callable[[bytes, bytes], bytes] | None = None


def tables_sealed(sound: bytes, damaged: bytes) -> bytes:
    """A damaged TensorFlow table with right checksums wherever the sound one has a block; as it is if its length has changed."""
    if len(sound) != len(damaged):
        return damaged
    out = bytearray(damaged)
    for start, size in _blocks(sound):
        end = start + size + 1  # the type byte is checksummed too
        out[end : end + 4] = tf_table.mask(google_crc32c.value(bytes(out[start:end]))).to_bytes(4, "little")
    return bytes(out)


def databases_sealed(sound: bytes, damaged: bytes) -> bytes:
    """A damaged file of an OCDBT database with right checksums wherever the sound one has a manifest or node; as it is if its length has changed."""
    if len(sound) != len(damaged):
        return damaged
    out = bytearray(damaged)
    for magic in (MANIFEST_MAGIC, NODE_MAGIC):
        start = sound.find(magic.to_bytes(4, "big"))
        while start >= 0:
            stop = start + int.from_bytes(sound[start + 4 : start + 12], "little")
            out[stop - 4 : stop] = google_crc32c.value(bytes(out[start : stop - 4])).to_bytes(4, "little")
            start = sound.find(magic.to_bytes(4, "big"), stop)
    return bytes(out)


def archives_sealed(sound: bytes, damaged: bytes) -> bytes:
    """A damaged zip archive whose stored members have right CRC-32s in the directory; as it is if its length has changed, or it is none."""
    if len(sound) != len(damaged) or not zipfile.is_zipfile(io.BytesIO(sound)):
        return damaged
    out = bytearray(damaged)
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        at = archive.start_dir
        for member in archive.infolist():
            start = member.header_offset + 30 + sum(struct.unpack("<2H", sound[member.header_offset + 26 : member.header_offset + 30]))
            if member.compress_type == zipfile.ZIP_STORED:
                out[at + 16 : at + 20] = zlib.crc32(out[start : start + member.file_size]).to_bytes(4, "little")
            at += 46 + sum(struct.unpack("<3H", sound[at + 28 : at + 34]))
    return bytes(out)


def _blocks(table: bytes) -> list[tuple[int, int]]:
    """Offset and size of the index block and all data blocks of a sound table."""
    at, numbers = len(table) - tf_table.FOOTER_BYTES, []
    for _ in range(4):  # offset and size of the metaindex block, then of the index block
        number, at = read_varint(table, at, len(table))
        numbers.append(number)
    handles = tf_table.read_index(lambda start, stop: table[start:stop], len(table), "sound table")
    return [(numbers[2], numbers[3]), *(handle for _, handle in handles)]


def _files(folder: str, *names: str) -> tuple[Seed, ...]:
    """Checkpoints of one file each; a name may be a glob."""
    found = [path.name for name in names for path in sorted((DATA / folder).glob(name))]
    return tuple(Seed(DATA / folder, name, name, name) for name in found)


def _among(folder: str, *damaged: str, glob: str = "**/*", opened: str = ".") -> tuple[Seed, ...]:
    """One checkpoint of many files, with a seed for each of those that the globs `damaged` find."""
    found = [str(path.relative_to(DATA / folder)) for name in damaged for path in sorted((DATA / folder).glob(name)) if path.is_file()]
    return tuple(Seed(DATA / folder, glob, opened, name) for name in found)


def _bundle(folder: str, prefix: str, damaged: str, glob: str = "") -> Seed:
    return Seed(DATA / "tf" / folder, glob or f"{prefix}.*", prefix, prefix + damaged)


_BUNDLES = (
    ("dtypes", "all"),
    ("max_shard", "ckpt"),
    ("object_keras", "ckpt-1"),
    ("object_slots", "ckpt-1"),
    ("odd_names", "text"),
    ("partitioned", "model"),
    ("partitioned", "raw"),
    ("sharded", "model-12"),
    ("variant", "list"),
)
_GRAPHS = (("article", "with_matrix.meta"), ("partitioned", "model.meta"), ("v1_more", "sharded.meta"))
_SHARDED = DATA / "safetensors" / "sharded"
_ONNX = DATA / "onnx" / "external"
_TORCH_SHARDED = DATA / "torch" / "sharded"
_ZARR_HEADERS = ("*/.zarray", "*/zarr.json", "types/float32/.zarray", "types/float32/zarr.json", "zarr.json", ".zgroup")

TARGETS = {
    "safetensors": Target(_files("safetensors", "*.safetensors")),
    "safetensors-index": Target((Seed(_SHARDED, "*", "model.safetensors.index.json", "model.safetensors.index.json"),)),
    "npy": Target(_files("npz", "*.npy")),
    "npz": Target(_files("npz", "*.npz"), archives_sealed),
    "tf-index": Target(tuple(_bundle(*bundle, ".index") for bundle in _BUNDLES), tables_sealed),
    "tf-data": Target(tuple(_bundle(*bundle, ".data-00000-of-00001") for bundle in _BUNDLES if bundle[0] not in ("max_shard", "sharded"))),
    "tf-meta": Target(tuple(Seed(DATA / "tf" / folder, name, name, name) for folder, name in _GRAPHS)),
    "tf-state": Target((Seed(DATA / "tf" / "history", "*", ".", "checkpoint"),)),
    "tf-saved-model": Target((Seed(DATA / "tf" / "saved_model", "**/*", ".", "variables/variables.index"),), tables_sealed),
    "tf-v1": Target((_bundle("v1_more", "one", "", "one"), _bundle("v1_format", "old.ckpt", "", "old.ckpt")), tables_sealed),
    "torch": Target(_files("torch", "*.pt"), archives_sealed),
    "torch-legacy": Target(_files("torch", "*.pth")),
    "torch-index": Target((Seed(_TORCH_SHARDED, "*", "pytorch_model.bin.index.json", "pytorch_model.bin.index.json"),)),
    "torch-arrays": Target(_files("torch_more", "*.pt"), archives_sealed),
    "torch-plain": Target(_files("torch_more", "*.pkl")),
    "torch-dcp": Target((*_among("torch_dcp/nested", ".metadata", "*.distcp"), *_among("torch_dcp/sharded", ".metadata", "__0_0.distcp"))),
    "gguf": Target(_files("gguf", "*.gguf")),
    "flax": Target(_files("flax", "*.msgpack")),
    "hdf5": Target(_files("hdf5", "*.h5")),
    "keras": Target(_files("keras", "*.h5", "*.keras")),
    "keras-index": Target(_among("keras/shards", "*.json", opened="m.weights.json")),
    "orbax": Target((*_among("orbax/ocdbt", "_METADATA"), *_among("orbax/zarr2", "_METADATA", "array/.zarray"), *_among("orbax/zarr3", "sharded/*"))),
    "ocdbt": Target((*_among("orbax/plain", "manifest.ocdbt", "d/*"), *_among("orbax/ocdbt3", "manifest.ocdbt", "d/*")), databases_sealed),
    "zarr": Target((*_among("zarr/v2", *_ZARR_HEADERS), *_among("zarr/v3", *_ZARR_HEADERS))),
    "zarr-chunks": Target((*_among("zarr/v2", "*/0*"), *_among("zarr/v3", "*/c/**/*"))),
    "onnx": Target((*_files("onnx", "*.onnx"), Seed(_ONNX, "*", "model.onnx", "model.onnx"))),
    "tfjs": Target((Seed(DATA / "tfjs", "*", "model.json", "model.json"),)),
}
"""By name; seeds are looked for when this is imported, so that a new reference file is damaged without being listed here."""
