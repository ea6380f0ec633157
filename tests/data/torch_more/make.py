"""Make the files beside this one: `python make.py`, with torch 2.13.0 and numpy 2 installed. `expected.json` tells what torch and pickle read."""

import hashlib
import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
warnings.simplefilter("ignore")
torch.manual_seed(7)
BASE = torch.arange(60.0).reshape(3, 4, 5)


def flat(value, path=""):
    """Keys and tensors, with the path joined as ours is; arrays that are no tensors are left out."""
    if isinstance(value, torch.Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufc"):
        yield path[1:], value
    elif isinstance(value, torch.nn.Module):
        yield from flat(value.state_dict(), path)
    elif isinstance(value, (dict, list)):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(child, f"{path}.{key}")


def told(value):
    arrays = {key: np.asarray(tensor.detach() if isinstance(tensor, torch.Tensor) else tensor) for key, tensor in flat(value)}
    raw = {key: a.astype(a.dtype.newbyteorder("<")).tobytes() for key, a in arrays.items()}
    return {key: [a.dtype.name, list(a.shape), hashlib.sha256(raw[key]).hexdigest()] for key, a in arrays.items()}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(2, 1) for _ in range(2)])
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.plain = torch.full((2,), 9.0)


def arrays():
    return {
        "c": np.arange(6, dtype="f4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">i4"),
        "scalar": np.array(3.5),
        "nothing": np.zeros((0, 2)),
        "flags": np.array([True, False]),
        "complex": np.array([1 + 2j], "c16"),
        "part": np.arange(10)[2:5],
        "long": np.arange(2100, dtype="u2"),
        "text": np.array(["a", "bb"]),
        "objects": np.array([1, None], dtype=object),
        "number": np.float32(1.5),
    }


def tar_file():
    """As PyTorch wrote it before 0.1.10, which no release of today does; `torch.load` reads it."""

    def dumped(value):
        return pickle.dumps(value, protocol=2)

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj):
            return str(obj[1]) if isinstance(obj, tuple) and obj[:1] == ("number",) else None

    storages = dumped(2) + dumped((1, "cpu", torch.FloatStorage)) + struct.pack("<q", 6) + np.arange(6, dtype="f4").tobytes()
    storages += dumped((2, "cpu", torch.LongStorage)) + struct.pack("<q", 2) + np.array([7, 8], "i8").tobytes()
    storages += dumped([(3, 1, 2, 4)])
    tensors = dumped(3)
    for number, storage, shape, strides, offset in ((11, 1, (2, 3), (3, 1), 0), (12, 2, (2,), (1,), 0), (13, 3, (2, 2), (1, 2), 0)):
        kind = torch.LongTensor if storage == 2 else torch.FloatTensor
        tensors += (
            dumped((number, storage, kind)) + struct.pack("<i4x", len(shape)) + struct.pack(f"<{2 * len(shape) + 1}q", *shape, *strides, offset)
        )
    value = io.BytesIO()
    Pickler(value, 2).dump({"w": ("number", 11), "inner": {"b": ("number", 12)}, "transposed": ("number", 13), "epoch": 3})
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (("sys_info", dumped({})), ("pickle", value.getvalue()), ("tensors", tensors), ("storages", storages)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped_again(name, target, method):
    with zipfile.ZipFile(HERE / name) as old, zipfile.ZipFile(HERE / target, "w", method) as new:
        for member in old.infolist():
            new.writestr(zipfile.ZipInfo(member.filename), old.read(member), method)


expected = {}
for protocol in range(2, 6):
    torch.save({"w": BASE[0], "a": np.arange(4.0)}, HERE / f"old{protocol}.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    torch.save(arrays(), HERE / f"arrays{protocol}.pt", pickle_protocol=protocol)
for protocol in range(6):
    (HERE / f"plain{protocol}.pkl").write_bytes(pickle.dumps({"model": arrays(), "epoch": 3}, protocol=protocol))
torch.save(Net(), HERE / "net.pt")
torch.save(
    {"b": BASE, "part": BASE[1], "t": BASE.permute(2, 0, 1), "s": BASE[:, 1:3, ::2], "no": BASE[:0], "int": torch.arange(3)}, HERE / "stored.pt"
)
zipped_again("stored.pt", "deflated.pt", zipfile.ZIP_DEFLATED)
(HERE / "tar.pt").write_bytes(tar_file())
torch.save({"ones": {("x", 1): torch.ones(1), ("y", 2): torch.zeros(1)}}, HERE / "odd_keys.pt")
for path in sorted((*HERE.glob("*.pt"), *HERE.glob("*.pth"))):
    expected[path.name] = told(torch.load(path, weights_only=False))
for path in sorted(HERE.glob("*.pkl")):
    expected[path.name] = told(pickle.loads(path.read_bytes()))
del expected["odd_keys.pt"]
(HERE / "expected.json").write_text(json.dumps(expected, indent=1))
