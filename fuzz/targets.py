"""What is damaged: for each reader the sound files of `tests/data` that damage starts from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from surgery.formats import tf_table
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

TARGETS = {
    "safetensors": Target(_files("safetensors", "*.safetensors")),
    "safetensors-index": Target((Seed(_SHARDED, "*", "model.safetensors.index.json", "model.safetensors.index.json"),)),
    "npy": Target(_files("npz", "*.npy")),
    "npz": Target(_files("npz", "*.npz")),
    "tf-index": Target(tuple(_bundle(*bundle, ".index") for bundle in _BUNDLES), tables_sealed),
    "tf-data": Target(tuple(_bundle(*bundle, ".data-00000-of-00001") for bundle in _BUNDLES if bundle[0] not in ("max_shard", "sharded"))),
    "tf-meta": Target(tuple(Seed(DATA / "tf" / folder, name, name, name) for folder, name in _GRAPHS)),
    "tf-state": Target((Seed(DATA / "tf" / "history", "*", ".", "checkpoint"),)),
    "tf-saved-model": Target((Seed(DATA / "tf" / "saved_model", "**/*", ".", "variables/variables.index"),), tables_sealed),
    "tf-v1": Target((_bundle("v1_more", "one", "", "one"), _bundle("v1_format", "old.ckpt", "", "old.ckpt")), tables_sealed),
    "torch": Target(_files("torch", "*.pt")),
    "torch-legacy": Target(_files("torch", "*.pth")),
    "torch-index": Target((Seed(_TORCH_SHARDED, "*", "pytorch_model.bin.index.json", "pytorch_model.bin.index.json"),)),
    "gguf": Target(_files("gguf", "*.gguf")),
    "flax": Target(_files("flax", "*.msgpack")),
    "hdf5": Target(_files("hdf5", "*.h5")),
    "keras": Target(_files("keras", "*.h5", "*.keras")),
    "onnx": Target((*_files("onnx", "*.onnx"), Seed(_ONNX, "*", "model.onnx", "model.onnx"))),
    "tfjs": Target((Seed(DATA / "tfjs", "*", "model.json", "model.json"),)),
}
"""By name; seeds are looked for when this is imported, so that a new reference file is damaged without being listed here."""
