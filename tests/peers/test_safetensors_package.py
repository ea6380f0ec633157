"""The safetensors package reads what we write, and we read what it writes; every element type it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import DATA, load, run, save

import surgery

pytestmark = pytest.mark.peers

NUMPY_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "complex64")
TORCH_DTYPES = {
    "bfloat16": "bfloat16",
    "float8_e4m3fn": "float8_e4m3fn",
    "float8_e5m2": "float8_e5m2",
    "float8_e4m3fnuz": "float8_e4m3fnuz",
    "float8_e5m2fnuz": "float8_e5m2fnuz",
    "float8_e8m0fnu": "float8_e8m0fnu",
}
"""torch's name → ours."""
SHAPES = {"scalar": (), "empty": (0, 3), "row": (5,), "cube": (2, 3, 4)}


def random_arrays() -> dict[str, Any]:
    """Random bits in every type that numpy has, every shape."""
    dice = np.random.default_rng(5)
    arrays = {}
    for dtype in NUMPY_DTYPES:
        for name, shape in SHAPES.items():
            size = int(np.prod(shape))
            bits = dice.integers(0, 2 if dtype == "bool" else 256, size * np.dtype(dtype).itemsize, np.uint8)
            arrays[f"{dtype}.{name}"] = np.frombuffer(bits.tobytes(), dtype).reshape(shape)
    return arrays


def random_torch_tensors(torch: Any) -> dict[str, Any]:
    """Random bits in the types that only torch has."""
    torch.manual_seed(5)
    tensors = {}
    for name in TORCH_DTYPES:
        dtype = getattr(torch, name)
        for label, shape in SHAPES.items():
            bits = torch.randint(0, 256, (*shape, dtype.itemsize), dtype=torch.uint8)
            tensors[f"{name}.{label}"] = bits.view(dtype).reshape(shape)
    return tensors


def torch_bytes(torch: Any, tensor: Any) -> bytes:
    """The bits of a torch tensor, whose types numpy does not know."""
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""


def test_the_package_reads_every_numpy_type_that_we_write(safetensors_numpy: Any, tmp_path: Path) -> None:
    arrays = random_arrays()
    safetensors_numpy.save_file(arrays, tmp_path / "in.safetensors")
    run(load(tmp_path / "in.safetensors"), {"rename": {"match": r"\.", "to": "/x/"}}, save(tmp_path / "out.safetensors"))
    found = safetensors_numpy.load_file(tmp_path / "out.safetensors")
    assert found.keys() == {key.replace(".", "/x/") for key in arrays}
    for key, array in arrays.items():
        ours = found[key.replace(".", "/x/")]
        assert (ours.dtype, ours.shape, ours.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_we_read_every_numpy_type_that_the_package_writes(safetensors_numpy: Any, tmp_path: Path) -> None:
    arrays = random_arrays()
    safetensors_numpy.save_file(arrays, tmp_path / "in.safetensors")
    with surgery.open(tmp_path / "in.safetensors") as checkpoint:
        assert checkpoint.keys() == arrays.keys()
        for key, array in arrays.items():
            ours = checkpoint[key].numpy()
            assert (ours.dtype, ours.shape, ours.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_the_torch_frontend_reads_the_small_floats_that_we_write(torch: Any, safetensors_torch: Any, tmp_path: Path) -> None:
    tensors = random_torch_tensors(torch)
    safetensors_torch.save_file(tensors, tmp_path / "in.safetensors")
    run(load(tmp_path / "in.safetensors"), {"rename": {"match": "^", "to": "model."}}, save(tmp_path / "out.safetensors"))
    found = safetensors_torch.load_file(tmp_path / "out.safetensors")
    assert found.keys() == {f"model.{key}" for key in tensors}
    for key, tensor in tensors.items():
        ours = found[f"model.{key}"]
        assert (ours.dtype, ours.shape, torch_bytes(torch, ours)) == (tensor.dtype, tensor.shape, torch_bytes(torch, tensor))


def test_we_read_the_small_floats_that_the_torch_frontend_writes(torch: Any, safetensors_torch: Any, tmp_path: Path) -> None:
    tensors = random_torch_tensors(torch)
    safetensors_torch.save_file(tensors, tmp_path / "in.safetensors")
    with surgery.open(tmp_path / "in.safetensors") as checkpoint:
        for key, tensor in tensors.items():
            ours = checkpoint[key].numpy()
            assert checkpoint[key].dtype == TORCH_DTYPES[key.split(".")[0]]
            assert (ours.dtype.name, ours.shape, ours.tobytes()) == (checkpoint[key].dtype, tuple(tensor.shape), torch_bytes(torch, tensor))


def test_the_package_reads_packed_types_back_as_it_wrote_them(torch: Any, safetensors_torch: Any, tmp_path: Path) -> None:
    if not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.skip("this torch has no float4")
    packed = torch.arange(12, dtype=torch.uint8).view(torch.float4_e2m1fn_x2).reshape(3, 4)
    safetensors_torch.save_file({"w": packed}, tmp_path / "in.safetensors")
    run(load(tmp_path / "in.safetensors"), {"rename": {"keys": {"w": "v"}}}, save(tmp_path / "out.safetensors"))
    found = safetensors_torch.load_file(tmp_path / "out.safetensors")["v"]
    assert (found.dtype, found.shape) == (packed.dtype, packed.shape)
    assert torch_bytes(torch, found) == bytes(range(12))


def metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata()


def test_the_package_finds_the_metadata_kept_and_edited(safetensors_numpy: Any, tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.float32)
    safetensors_numpy.save_file({"w": array}, tmp_path / "in.safetensors", metadata={"format": "pt", "note": "alt", "gone": "x"})
    run(load(tmp_path / "in.safetensors"), save(tmp_path / "kept.safetensors"))
    run(load(tmp_path / "in.safetensors"), save(tmp_path / "edited.safetensors", metadata={"note": "neu ✓", "gone": None, "more": '"'}))
    assert metadata_of(tmp_path / "kept.safetensors") == {"format": "pt", "note": "alt", "gone": "x"}
    assert metadata_of(tmp_path / "edited.safetensors") == {"format": "pt", "note": "neu ✓", "more": '"'}


def test_the_package_reads_odd_keys(safetensors_numpy: Any, tmp_path: Path) -> None:
    keys = ["", " ", "a b", "日本語/重み", "emoji🙂", 'quote"s', "back\\slash", "new\nline", "nul\0byte", "__metadata", "é"]
    arrays = {key: np.float32(number).reshape(1) for number, key in enumerate(keys)}
    safetensors_numpy.save_file(arrays, tmp_path / "in.safetensors")
    run(load(tmp_path / "in.safetensors"), {"rename": {"match": "$", "to": "."}}, save(tmp_path / "out.safetensors"))
    found = safetensors_numpy.load_file(tmp_path / "out.safetensors")
    assert {key: value.tolist() for key, value in found.items()} == {f"{key}.": [float(number)] for number, key in enumerate(keys)}


def test_the_package_reads_each_shard_and_the_index_names_it(safetensors_numpy: Any, tmp_path: Path) -> None:
    arrays = {f"layer.{number}.weight": np.full([10, 10], number, np.float32) for number in range(7)}
    safetensors_numpy.save_file(arrays, tmp_path / "in.safetensors", metadata={"format": "np"})
    run(load(tmp_path / "in.safetensors"), save(tmp_path / "out", format="safetensors", shard_size=1000))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2800
    assert sorted(set(index["weight_map"].values())) == [f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)]
    for name in set(index["weight_map"].values()):
        shard = safetensors_numpy.load_file(tmp_path / "out" / name)
        assert set(shard) == {key for key, file in index["weight_map"].items() if file == name}
        for key, array in shard.items():
            np.testing.assert_array_equal(array, arrays[key], strict=True)
        assert metadata_of(tmp_path / "out" / name) == {"format": "np"}


def test_a_sharded_model_of_the_package_becomes_one_file(safetensors_numpy: Any, tmp_path: Path) -> None:
    shards = {"model-00001-of-00002.safetensors": ["a", "b"], "model-00002-of-00002.safetensors": ["c"]}
    for number, (name, keys) in enumerate(shards.items()):
        safetensors_numpy.save_file({key: np.full([2], number, np.int32) for key in keys}, tmp_path / name)
    weight_map = {key: name for name, keys in shards.items() for key in keys}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 24}, "weight_map": weight_map}))
    run(load(tmp_path), save(tmp_path / "one.safetensors"))
    found = safetensors_numpy.load_file(tmp_path / "one.safetensors")
    assert {key: value.tolist() for key, value in found.items()} == {"a": [0, 0], "b": [0, 0], "c": [1, 1]}


def test_the_package_reads_a_tensorflow_checkpoint_as_safetensors(tf: Any, safetensors_numpy: Any, tmp_path: Path) -> None:
    run(load(DATA / "scoped_adam" / "model.ckpt-3"), save(tmp_path / "m.safetensors"))
    found, reader = safetensors_numpy.load_file(tmp_path / "m.safetensors"), tf.train.load_checkpoint(str(DATA / "scoped_adam" / "model.ckpt-3"))
    assert found.keys() == reader.get_variable_to_shape_map().keys()
    for key, array in found.items():
        np.testing.assert_array_equal(array, reader.get_tensor(key), strict=True)


@pytest.mark.parametrize("sharded", [False, True])
def test_the_package_reads_what_was_renamed_in_place(safetensors_numpy: Any, tmp_path: Path, sharded: bool) -> None:
    arrays = random_arrays()
    path = tmp_path / ("model" if sharded else "model.safetensors")
    safetensors_numpy.save_file(arrays, tmp_path / "in.safetensors")
    run(load(tmp_path / "in.safetensors"), save(path, **({"format": "safetensors", "shard_size": 200} if sharded else {})))
    files = sorted(path.glob("*.safetensors")) if sharded else [path]
    before = [(file.stat().st_ino, file.stat().st_size) for file in files]
    run(load(path), {"rename": {"match": r"\.", "to": "/"}}, save(path, in_place=True))
    assert [(file.stat().st_ino, file.stat().st_size) for file in files] == before
    found = {key: array for file in files for key, array in safetensors_numpy.load_file(file).items()}
    assert found.keys() == {key.replace(".", "/") for key in arrays}
    for key, array in arrays.items():
        ours = found[key.replace(".", "/")]
        assert (ours.dtype, ours.shape, ours.tobytes()) == (array.dtype, array.shape, array.tobytes())
