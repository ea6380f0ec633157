"""Checkpoints of 10 GB that are one hole, in every format but `tf-v1`, whose tensors lie between its keys: little is read, in little memory.

Formats that are written here are laid out by their own `layout`, so that a new one is tried without being named; the others by hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from disk import FolderDisk
from torch_files import Stored as TorchStorage
from torch_files import pickled, tensor_of
from wire_writer import field

from surgery import formats
from surgery.dtypes import DTYPES
from surgery.expr import Stored
from surgery.formats.abilities import needs_model, types_written
from surgery.formats.base import Bundle
from surgery.probe import open_checkpoint
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

COUNT = 2_500_000_000
LARGE = TensorSpec(DTYPES["float32"], (50_000, 50_000))
NBYTES = 10_000_000_000
SMALL = TensorSpec(DTYPES["float32"], (2, 2))
MOST_MEMORY = 200_000_000
MOST_READ = 128 << 10
PATHS = {"tf": "m.ckpt", "keras": "m.weights.h5", "npz": "m.npz"}
LISTING = """
import sys
from surgery.__main__ import main
code = main(["inspect", "--json", sys.argv[1]])
sys.stdout.flush()
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak, file=sys.stderr)
sys.exit(code)
"""
"""The kernel's peak of this process alone: `ru_maxrss` would count that of the test, whose child it is."""


def laid_out(name: str, path: Path) -> Path:
    """What the format's `layout` wants, with nothing where tensors lie; their checksums are wrong, and no one asks for them."""
    module = formats.by_name(name)
    nowhere = SourceFile("", Fingerprint(2 * NBYTES, 0, 0, 0))
    tensors = {"layer/large": Stored(Extent(nowhere, 0, NBYTES, LARGE))}
    if path.suffix != ".npy":
        tensors["layer/small"] = Stored(Extent(nowhere, NBYTES, 16, SMALL))
    layout = module.layout(Bundle(str(path), tensors, {}, {}, {}, {}))
    for file in layout.files:
        os.makedirs(os.path.dirname(Path(layout.folder, file.name)), exist_ok=True)
        with Path(layout.folder, file.name).open("wb") as out:
            out.truncate(file.size or 0)
    for patch in (*layout.patches, *(layout.seal(dict.fromkeys(tensors, 0)) if layout.seal else ())):
        with Path(layout.folder, patch.file).open("r+b") as out:
            out.seek(patch.start)
            out.write(patch.data)
    return path


def torch_legacy(path: Path) -> Path:
    """Four pickles and a list of names before the storages, each a count and its bytes."""
    hole = path.with_suffix(".hole")
    with hole.open("wb") as out:
        out.truncate(NBYTES)
    array = np.memmap(hole, "<f4", "r", shape=LARGE.shape)
    stored = TorchStorage("0", array, (None,))
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, OrderedDict([("layer/large", tensor_of(stored, array))]), ["0"]]
    with path.open("wb") as out:
        out.write(b"".join(map(pickled, head)) + COUNT.to_bytes(8, "little"))
        out.truncate(out.tell() + NBYTES)
    return path


def onnx_external(path: Path) -> Path:
    location = b"".join(field(13, field(1, key) + field(2, value)) for key, value in (("location", "hole.bin"), ("length", str(NBYTES))))
    tensor = b"".join(field(1, size) for size in LARGE.shape) + field(2, 1) + field(8, "layer/large") + location + field(14, 1)
    path.write_bytes(field(1, 8) + field(7, field(5, tensor)))
    with path.with_name("hole.bin").open("wb") as out:
        out.truncate(NBYTES)
    return path


def tfjs(path: Path) -> Path:
    weight = {"name": "layer/large", "dtype": "float32", "shape": list(LARGE.shape)}
    path.write_text(json.dumps({"format": "layers-model", "weightsManifest": [{"paths": ["hole.bin"], "weights": [weight]}]}))
    with path.with_name("hole.bin").open("wb") as out:
        out.truncate(NBYTES)
    return path


BY_HAND: dict[str, Callable[[Path], Path]] = {
    "legacy.pt": torch_legacy,
    "model.onnx": onnx_external,
    "model.json": tfjs,
    "large.npy": lambda path: laid_out("npz", path),
    "weights.h5": lambda path: laid_out("keras", path),
}
LAID_OUT = {
    PATHS.get(name, f"m{next(iter(formats.suffixes(name)), '')}"): name for name in formats.NAMES if types_written(name) and not needs_model(name)
}


@pytest.fixture(params=[*LAID_OUT, *BY_HAND])
def large(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    name = request.param
    path = BY_HAND[name](tmp_path / name) if name in BY_HAND else laid_out(LAID_OUT[name], tmp_path / name)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*")) > NBYTES
    return str(path)


def test_ten_gigabytes_are_listed_in_little_memory(large: str) -> None:
    listed = subprocess.run([sys.executable, "-c", LISTING, large], capture_output=True, text=True, check=True)
    assert [50_000, 50_000] in [tensor["shape"] for tensor in json.loads(listed.stdout)["tensors"].values()]
    assert int(listed.stderr.splitlines()[-1]) * 1024 < MOST_MEMORY


def test_little_of_ten_gigabytes_is_read(large: str) -> None:
    disk = FolderDisk()
    indexed = open_checkpoint(large, disk)
    assert max(expr.spec.nbytes for expr in indexed.tensors.values()) == NBYTES
    assert disk.bytes_read < MOST_READ
