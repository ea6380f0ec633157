"""PyTorch files both ways: torch loads what we write with `weights_only=True`, and we read what torch writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import load, run, save

import surgery

pytestmark = pytest.mark.peers

NAMES = ["bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]
NAMES += ["float16", "bfloat16", "float32", "float64", "complex64", "complex128", "float8_e5m2", "float8_e4m3fn"]


def state_dict(torch: Any, names: list[str]) -> dict[str, Any]:
    """Every type in odd shapes, whole and as views."""
    made = {}
    for name in names:
        base = torch.arange(24).remainder(2).reshape(2, 3, 4).to(getattr(torch, name))
        made |= {f"{name}.whole": base, f"{name}.part": base[1], f"{name}.permuted": base.permute(2, 0, 1), f"{name}.columns": base[:, :, 1:3]}
        made |= {f"{name}.none": base[:0], f"{name}.scalar": base[0, 0, 1]}
    return made


def bytes_of(tensor: Any) -> bytes:
    plain = tensor.detach().contiguous().clone()
    return bytes(plain.untyped_storage())[: plain.nbytes]


@pytest.mark.parametrize("zipped", [True, False])
def test_we_read_what_torch_saves(torch: Any, tmp_path: Path, zipped: bool) -> None:
    names = NAMES if zipped else [name for name in NAMES if not name.startswith(("uint16", "uint32", "uint64", "float8"))]
    made = state_dict(torch, names)
    torch.save(made, tmp_path / "in.pt", _use_new_zipfile_serialization=zipped)
    with surgery.open(tmp_path / "in.pt") as checkpoint:
        assert list(checkpoint) == list(made)
        for key, tensor in made.items():
            assert (checkpoint[key].dtype, checkpoint[key].shape) == (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            assert checkpoint[key].numpy().tobytes() == bytes_of(tensor), key


@pytest.mark.parametrize("mmap", [True, False])
def test_torch_loads_our_copy_as_weights_only(torch: Any, tmp_path: Path, mmap: bool) -> None:
    made = state_dict(torch, NAMES)
    torch.save(made, tmp_path / "in.pt")
    run(load(tmp_path / "in.pt"), {"rename": {"match": "^", "to": "copy."}}, save(tmp_path / "out.pt"))
    found = torch.load(tmp_path / "out.pt", weights_only=True, mmap=mmap)
    assert list(found) == [f"copy.{key}" for key in made]
    for key, tensor in made.items():
        assert (found[f"copy.{key}"].dtype, found[f"copy.{key}"].shape) == (tensor.dtype, tensor.shape)
        assert bytes_of(found[f"copy.{key}"]) == bytes_of(tensor), key


def test_a_tied_tensor_is_still_tied_in_torch(torch: Any, tmp_path: Path) -> None:
    weight = torch.ones(3)
    torch.save({"a": weight, "b": weight}, tmp_path / "in.pt")
    run(load(tmp_path / "in.pt"), save(tmp_path / "out.pt"))
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert found["a"].data_ptr() == found["b"].data_ptr()


def test_a_module_takes_a_checkpoint_that_came_through_npz(torch: Any, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save({"model": model.state_dict(), "epoch": 1}, tmp_path / "in.pt")
    run(load(f"{tmp_path}/in.pt#model"), save(tmp_path / "m.npz"))
    run(load(tmp_path / "m.npz"), save(tmp_path / "out.pth"))
    again = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    again.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True), strict=True)
    np.testing.assert_array_equal(again[0].weight.detach().numpy(), model[0].weight.detach().numpy(), strict=True)
