"""GGUF both ways: the gguf package reads what we write, and we read what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import load, run, save

import surgery
from surgery.dtypes import DTYPES, numpy_dtype
from surgery.ggml_blocks import is_decodable

pytestmark = pytest.mark.peers

DATA = Path(__file__).parents[1] / "data" / "gguf"


@pytest.fixture(scope="session")
def gguf() -> Any:
    return pytest.importorskip("gguf", reason="gguf is not installed")


def told(reader: Any) -> dict[str, Any]:
    """All of a file as the package reads it, but for what is its own: offsets and counts."""
    values = {key: (field.types, field.contents()) for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    tensors = {tensor.name: (tensor.tensor_type, tensor.shape.tolist(), tensor.data.tobytes()) for tensor in reader.tensors}
    return {"values": values, "tensors": tensors}


@pytest.mark.parametrize("name", ["plain", "aligned", "quantised"])
def test_the_package_reads_a_renamed_file_as_before(gguf: Any, tmp_path: Path, name: str) -> None:
    source = DATA / f"{name}.gguf"
    run(load(source), {"scope": {"add": "blk.0."}}, save(tmp_path / "out.gguf", metadata={"general.name": "Renamed", "a.uint8": "7"}))
    wanted, found = told(gguf.GGUFReader(source)), told(gguf.GGUFReader(tmp_path / "out.gguf"))
    wanted["tensors"] = {f"blk.0.{key}": fact for key, fact in wanted["tensors"].items()}
    wanted["values"]["general.name"] = ([gguf.GGUFValueType.STRING], "Renamed")
    wanted["values"]["a.uint8"] = ([gguf.GGUFValueType.UINT8], 7)
    assert found == wanted


@pytest.mark.parametrize("name", ["plain", "big", "aligned"])
def test_we_read_the_arrays_that_the_package_reads(gguf: Any, name: str) -> None:
    reader = gguf.GGUFReader(DATA / f"{name}.gguf")
    with surgery.open(DATA / f"{name}.gguf") as checkpoint:
        assert list(checkpoint) == [tensor.name for tensor in reader.tensors]
        for tensor in reader.tensors:
            found = checkpoint[tensor.name].numpy()
            assert found.shape == tuple(tensor.shape.tolist()[::-1])
            if tensor.tensor_type == gguf.GGMLQuantizationType.BF16:
                assert found.tobytes() == tensor.data.tobytes()
            else:
                np.testing.assert_array_equal(found, tensor.data.reshape(found.shape))


def test_numpys_arrays_become_a_file_that_the_package_reads(gguf: Any, tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b.größe": np.array([7, -7], "<i8"), "c": np.array(0.5, "<f2")}
    np.savez(tmp_path / "in.npz", **arrays)
    run(load(tmp_path / "in.npz"), save(tmp_path / "out.gguf", metadata={"general.architecture": "tiny", "tiny.layers": "2"}))
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    assert reader.get_field("general.architecture").contents() == "tiny"
    assert reader.get_field("tiny.layers").contents() == 2
    for tensor in reader.tensors:
        np.testing.assert_array_equal(tensor.data.reshape(arrays[tensor.name].shape), arrays[tensor.name])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_quantised_blocks_are_cast_to_what_the_package_decodes(gguf: Any, tmp_path: Path, dtype: str) -> None:
    reader = gguf.GGUFReader(DATA / "quantised.gguf")
    names = [tensor.name for tensor in reader.tensors if is_decodable(DTYPES[f"gguf_{tensor.name}"])]
    casts = {"cast": {"keys": names, "dtype": dtype, "overflow": "inf"}}
    run(load(DATA / "quantised.gguf"), {"keep": {"keys": names}}, casts, save(tmp_path / "out.safetensors"))
    with surgery.open(tmp_path / "out.safetensors") as checkpoint, np.errstate(all="ignore"):
        assert sorted(checkpoint) == sorted(names)
        for tensor in reader.tensors:
            if tensor.name in names:
                wanted = gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy_dtype(DTYPES[dtype]))
                np.testing.assert_array_equal(checkpoint[tensor.name].numpy().astype("f4"), wanted.astype("f4"))


@pytest.mark.parametrize("number", [2, 3, None])
def test_a_model_that_the_package_splits_becomes_one_file(gguf: Any, tmp_path: Path, number: int | None) -> None:
    writer = gguf.GGUFWriter(tmp_path / "in.gguf", "tiny", split_max_tensors=number or 0)
    writer.add_array("tiny.sizes", [1, 2])
    arrays = {f"w{index}": np.full((2, 3), index, np.float32) for index in range(5)}
    for key, array in arrays.items():
        writer.add_tensor(key, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    first = min(tmp_path.glob("in*.gguf"))
    run(load(first), save(tmp_path / "out.gguf"))
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    assert {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")} == {
        "general.architecture": "tiny",
        "tiny.sizes": [1, 2],
    }
    assert {tensor.name: tensor.data.tolist() for tensor in reader.tensors} == {key: array.tolist() for key, array in arrays.items()}
