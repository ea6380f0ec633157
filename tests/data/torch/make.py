"""Make the files beside this one: `python make.py`, with torch 2.13.0 installed. `expected.json` tells what torch reads from them."""

import json
import warnings
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent
warnings.simplefilter("ignore")
torch.manual_seed(7)

TYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]
TYPES += ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
OLD_TYPES = [name for name in TYPES if name not in ("uint16", "uint32", "uint64")]
TYPES += ["float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz", "float8_e8m0fnu"]


def all_types(names):
    return OrderedDict((name, torch.tensor([[0, 1, 1], [1, 0, 1]]).to(getattr(torch, name))) for name in names)


def views():
    base = torch.arange(24.0).reshape(2, 3, 4)
    tied = torch.ones(5)
    return OrderedDict(
        whole=base,
        part=base[1],
        transposed=base.permute(2, 0, 1),
        columns=base[:, :, 1:3],
        steps=base.reshape(-1)[1::5],
        diagonal=torch.arange(9).reshape(3, 3).diagonal(),
        repeated=torch.tensor([[1.5], [2.5]]).expand(2, 4),
        ones=torch.arange(6).reshape(1, 6, 1).transpose(0, 1),
        scalar=torch.tensor(3.5),
        element=base[1, 2, 3],
        nothing=torch.zeros(0, 3),
        nothing_of_it=base[:, 3:],
        tied=tied,
        tied_too=tied,
        tied_part=tied[2:],
        parameter=torch.nn.Parameter(torch.tensor([1.0, 2.0])),
    )


def nested():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": float("inf"),
        "name": "größe",
        "args": Namespace(width=4),
        "history": [{"loss": 0.5}, {"loss": 0.25}],
    }


def unreadable():
    return {
        "fine": torch.ones(2),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "sparse": torch.eye(2).to_sparse(),
        "meta": torch.empty(2, device="meta"),
        "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
        "half_complex": torch.ones(2, dtype=torch.complex32),
    }


class Scripted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 3)
        self.register_buffer("scale", torch.tensor([2.0]))
        self.table = torch.jit.Attribute({"a": torch.ones(2)}, dict[str, torch.Tensor])

    def forward(self, x):
        return self.linear(x) * self.scale + torch.tensor([1.0, 2.0, 3.0])


def flat(value, path=""):
    """Keys and tensors, with the path joined as ours is."""
    if isinstance(value, torch.Tensor):
        yield path[1:], value
    elif isinstance(value, (dict, list)):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(child, f"{path}.{key}")


def told(value):
    plain = [(key, tensor.detach().contiguous().clone()) for key, tensor in flat(value)]
    return {key: [str(tensor.dtype)[6:], list(tensor.shape), bytes(tensor.untyped_storage())[: tensor.nbytes].hex()] for key, tensor in plain}


expected = {}
torch.save(all_types(TYPES), HERE / "new_types.pt")
expected["new_types.pt"] = told(all_types(TYPES))
for name, value in {"types": all_types(OLD_TYPES), "views": views(), "nested": nested()}.items():
    torch.save(value, HERE / f"{name}.pt")
    torch.save(value, HERE / f"{name}.pth", _use_new_zipfile_serialization=False)
    for suffix in ("pt", "pth"):
        expected[f"{name}.{suffix}"] = told(torch.load(HERE / f"{name}.{suffix}", weights_only=False))
for protocol in range(1, 6):
    torch.save({"w": torch.ones(2), "inner": {"b": torch.zeros(1)}}, HERE / f"protocol{protocol}.pt", pickle_protocol=protocol)
    expected[f"protocol{protocol}.pt"] = told(torch.load(HERE / f"protocol{protocol}.pt", weights_only=False))
torch.save(unreadable(), HERE / "unreadable.pt")
torch.save(torch.arange(3), HERE / "alone.pt")
torch.save(torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1)), HERE / "module.pt")
expected["module.pt"] = told(torch.load(HERE / "module.pt", weights_only=False).state_dict())
torch.jit.save(torch.jit.script(Scripted()), HERE / "scripted.pt")
expected["scripted.pt"] = told(torch.jit.load(HERE / "scripted.pt").state_dict())

sharded = HERE / "sharded"
sharded.mkdir(exist_ok=True)
shards = {f"pytorch_model-0000{n}-of-00002.bin": {f"layer.{n}.weight": torch.full((2,), float(n))} for n in (1, 2)}
for name, value in shards.items():
    torch.save(value, sharded / name)
index = {"metadata": {"total_size": 16}, "weight_map": {key: name for name, value in shards.items() for key in value}}
(sharded / "pytorch_model.bin.index.json").write_text(json.dumps(index))
expected["sharded"] = told({key: tensor for value in shards.values() for key, tensor in value.items()})

torch.serialization.set_crc32_options(False)
torch.save({"w": torch.ones(2)}, HERE / "no_crc32.pt")
expected["no_crc32.pt"] = told({"w": torch.ones(2)})
(HERE / "expected.json").write_text(json.dumps(expected, indent=1))
