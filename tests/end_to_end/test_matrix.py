"""Every format that can be written, to every other and back: equal bits, or the documented refusal in the plan."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import surgery
from surgery import formats
from surgery.formats.base import read_only

WRITABLE = [name for name in formats.NAMES if formats.by_name(name).layout is not read_only]
PATHS = {"tf": "m.ckpt", "keras": "m.weights.h5", "flax": "m.msgpack", "hdf5": "m.h5", "torch": "m.pt"}
EVERYWHERE = {
    "scalar": np.array(1.5, "<f4"),
    "one/element": np.array([-7], "<i4"),
    "empty": np.zeros((0, 3), "<f4"),
    "matrix": np.arange(6, dtype="<f4").reshape(2, 3),
    "größe/模型": np.arange(5, dtype="<i4"),
    "half": np.array([[0.5], [65504.0]], "<f2"),
    "bytes": np.arange(-3, 4, dtype="i1"),
    "deep/er/and/deeper": np.arange(24, dtype="<f4").reshape(2, 3, 4),
}
SOMEWHERE = {
    "float64": np.array([1e300]),
    "int64": np.array([-(2**62)]),
    "int16": np.array([-(2**14)], "<i2"),
    "uint8": np.array([255], "u1"),
    "uint16": np.array([65535], "<u2"),
    "uint32": np.array([2**32 - 1], "<u4"),
    "uint64": np.array([2**64 - 1], "<u8"),
    "bool": np.array([True, False]),
    "complex64": np.array([1 + 2j], "<c8"),
    "bfloat16": np.array([1.5, -2], ml_dtypes.bfloat16),
    "float8_e4m3fn": np.array([1.5, -448], ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.array([1.5, -57344], ml_dtypes.float8_e5m2),
}

REFUSED = {
    "gguf": {"uint8", "uint16", "uint32", "uint64", "bool", "complex64", "float8_e4m3fn", "float8_e5m2"},
    "npz": {"bfloat16", "float8_e4m3fn", "float8_e5m2"},
    "keras": {"float8_e4m3fn", "float8_e5m2"},
    "hdf5": {"float8_e4m3fn", "float8_e5m2"},
}
"""What a format has no type for."""


def path_of(name: str) -> str:
    return PATHS.get(name, f"m.{name}")


def run(source: str, target: str, form: str, *steps: object) -> None:
    everything = [{"load": {"path": source}}, *steps, {"save": {"path": target, "format": form}}]
    surgery.plan(surgery.api.Source(json.dumps({"surgery": 1, "steps": everything}), "matrix.yaml")).run()


def content(path: str) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    with surgery.open(path) as checkpoint:
        return {key.replace(".", "/"): (tensor.dtype, tensor.shape, tensor.numpy().tobytes()) for key, tensor in checkpoint.items()}


def source_of(arrays: dict[str, np.ndarray], folder: Path) -> str:
    """A safetensors file of these arrays, put together by hand."""
    header, data = {}, b""
    codes = {"bool": "BOOL", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64"}
    for key, array in arrays.items():
        code = codes.get(array.dtype.name) or f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        header[key] = {"dtype": code, "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path = folder / "source.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return str(path)


@pytest.mark.parametrize(("first", "second"), list(product(WRITABLE, WRITABLE)))
def test_what_all_formats_hold_survives_from_any_to_any_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str) -> None:
    monkeypatch.chdir(tmp_path)
    source = source_of(EVERYWHERE, tmp_path)
    wanted = content(source)
    run(source, f"one/{path_of(first)}", first)
    run(f"one/{path_of(first)}", f"two/{path_of(second)}", second)
    run(f"two/{path_of(second)}", f"three/{path_of(first)}", first)
    assert content(f"one/{path_of(first)}") == wanted
    assert content(f"two/{path_of(second)}") == wanted
    assert content(f"three/{path_of(first)}") == wanted


@pytest.mark.parametrize(("name", "form"), list(product(SOMEWHERE, WRITABLE)))
def test_a_type_is_kept_or_refused_in_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    source = source_of({"x": SOMEWHERE[name]}, tmp_path)
    if name not in REFUSED.get(form, ()):
        run(source, path_of(form), form)
        assert content(path_of(form)) == content(source)
    else:
        with pytest.raises(surgery.PlanError) as refused:
            run(source, path_of(form), form)
        assert refused.value.code == "dtype-not-storable"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source.safetensors"]
