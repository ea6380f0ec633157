"""Every format that is read, to every format that is written, and back: equal bits, or the documented refusal in the plan.

What is tried comes from the registry, and what a format holds from the format itself; both are on the page of formats.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from matrix import DATA, NO_EMPTY, WRITABLE, content, lost, lost_types, path_of, run, without

import surgery
from surgery import formats
from surgery.formats.abilities import types_written

ODD = {
    "scalar": np.array(1.5, "<f4"),
    "one/element": np.array([-7], "<i4"),
    "empty": np.zeros((0, 3), "<f4"),
    "matrix": np.arange(6, dtype="<f4").reshape(2, 3),
    "größe/模型": np.arange(5, dtype="<i4"),
    "with space/and 'quote'": np.arange(3, dtype="<f4"),
    "deep/er/and/deeper": np.arange(24, dtype="<f4").reshape(2, 3, 4),
    "many/axes": np.arange(4, dtype="<f4").reshape(1, 2, 1, 2),
}
EXTREMES = {
    "float16": np.array([[0.5], [65504.0]], "<f2"),
    "float32": np.array([-0.0, np.inf, 1e-45], "<f4"),
    "float64": np.array([1e300]),
    "int8": np.arange(-3, 4, dtype="i1"),
    "int16": np.array([-(2**14)], "<i2"),
    "int32": np.array([-(2**31)], "<i4"),
    "int64": np.array([-(2**62)]),
    "uint8": np.array([255], "u1"),
    "uint16": np.array([65535], "<u2"),
    "uint32": np.array([2**32 - 1], "<u4"),
    "uint64": np.array([2**64 - 1], "<u8"),
    "bool": np.array([True, False]),
    "complex64": np.array([1 + 2j], "<c8"),
    "bfloat16": np.array([1.5, -2], ml_dtypes.bfloat16),
    "float8_e4m3fn": np.array([1.5, -448], ml_dtypes.float8_e4m3fn),
    "float8_e4m3fnuz": np.array([1.5, -240], ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2": np.array([1.5, -57344], ml_dtypes.float8_e5m2),
    "float8_e5m2fnuz": np.array([1.5, -57344], ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": np.array([1, 2], ml_dtypes.float8_e8m0fnu),
}
CODES = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
    "complex64": "C64",
}
ARRAYS = ODD | {f"types/{name}": array for name, array in EXTREMES.items()} | {f"scalars/{name}": array[0] for name, array in EXTREMES.items()}
ARRAYS |= {f"nothing/{name}": array[:0] for name, array in EXTREMES.items()}
COMPLEX = {"types/complex128": np.array([1e300 - 1j]), "scalars/complex128": np.array(-0.0 + 1j)}
"""What safetensors has no code for, and numpy's own files have."""
REFERENCES = {
    "tf": "tf/dtypes/all",
    "safetensors": "safetensors/all_dtypes.safetensors",
    "npz": "npz/plain.npz",
    "gguf": "gguf/quantised.gguf",
    "flax": "flax/types.msgpack",
    "torch": "torch/types.pt",
    "onnx": "onnx/typed.onnx",
    "tfjs": "tfjs/model.json",
    "tf-v1": "tf/v1_more/one",
    "keras": "keras/small.weights.h5",
    "hdf5": "hdf5/latest.h5",
    "torch-dcp": "torch_dcp/nested",
    "orbax": "orbax/ocdbt",
    "zarr": "zarr/v3",
}
"""For each format a file that its own library wrote, with as many types as it has."""


def sources(folder: Path) -> list[str]:
    """The arrays as a safetensors file put together by hand, and as one that numpy wrote."""
    header, data = {}, b""
    for key, array in ARRAYS.items():
        code = CODES.get(array.dtype.name) or f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        header[key] = {"dtype": code, "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    (folder / "source.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    np.savez(folder / "source.npz", **COMPLEX)
    return ["source.safetensors", "source.npz"]


def refuse_then_keep(source: str, path: str, target: str, into: str) -> None:
    """Convert what lies at `path`: the plan names all that `target` cannot hold and writes nothing; without it, all is kept."""
    found = content(path)
    missing = lost(found, source, target)
    if missing:
        with pytest.raises(surgery.PlanError) as refused:
            run([path], into, target)
        types = lost_types(found, source, target)
        assert refused.value.code == ("dtype-not-storable" if types else "shape-not-storable")
        named = {key.replace(".", "/") for key in refused.value.data.get("keys", ())}
        assert named <= missing
        assert named or not types
        assert not Path(into).parent.exists()
    run([path], into, target, *without(lost_types(found, source, target), target))
    assert content(into) == {key: facts for key, facts in found.items() if key not in missing}


@pytest.mark.parametrize(("first", "second"), list(product(WRITABLE, WRITABLE)))
def test_all_types_and_shapes_survive_from_any_to_any_and_back_or_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    monkeypatch.chdir(tmp_path)
    held = types_written(first)
    run(sources(tmp_path), f"one/{path_of(first)}", first, *without({*EXTREMES, "complex128"} - held, first))
    found = content(f"one/{path_of(first)}")
    wanted = {
        key: (array.dtype.name, array.shape, array.tobytes())
        for key, array in (ARRAYS | COMPLEX).items()
        if array.dtype.name in held and (array.size or first not in NO_EMPTY)
    }
    assert found == wanted
    refuse_then_keep(first, f"one/{path_of(first)}", second, f"two/{path_of(second)}")
    there = content(f"two/{path_of(second)}")
    run([f"two/{path_of(second)}"], f"three/{path_of(first)}", first)
    assert content(f"three/{path_of(first)}") == there
    assert there.items() <= found.items()


@pytest.mark.parametrize(("source", "target"), list(product(REFERENCES, WRITABLE)))
def test_what_a_formats_own_library_wrote_survives_in_any_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        content(str(DATA / REFERENCES[source]))
    except surgery.UnsupportedFeature as fault:
        if fault.code == "missing-package":
            pytest.skip(str(fault))
        raise
    refuse_then_keep(source, str(DATA / REFERENCES[source]), target, f"out/{path_of(target)}")


def test_each_format_has_a_file_of_its_own_library_here() -> None:
    assert REFERENCES.keys() == set(formats.NAMES)
