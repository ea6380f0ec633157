"""HDF5 and Keras files both ways: h5py and Keras load what we write, and we read what they write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import load, run, save

import surgery

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]  # numpy and h5py warn of what Keras does with them

DTYPES = ("?", "i1", "<i2", ">i4", "<i8", "u1", ">u2", "<u4", "<u8", "<f2", ">f4", "<f8", ">c8", "<c16")


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py", reason="h5py is not installed")


def arrays() -> dict[str, Any]:
    """Every type in both byte orders, odd shapes, and groups wide enough for trees of several levels."""
    made: dict[str, Any] = {f"types/{np.dtype(code).name}": np.arange(24).reshape(2, 3, 4).astype(code) for code in DTYPES}
    made |= {"scalar": np.array(1.5), "none": np.zeros((3, 0), "f4"), "größe": np.ones((1, 1), "f4")}
    return made | {f"wide/{number}": np.array(number) for number in range(600)}


def native(array: Any) -> Any:
    return array.astype(array.dtype.newbyteorder("<"))


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"libver": "v108", "track_order": True}, {"userblock_size": 1024}])
def test_both_read_what_the_other_writes(h5py: Any, tmp_path: Path, options: Any) -> None:
    with h5py.File(tmp_path / "in.h5", "w", **options) as file:
        for key, array in arrays().items():
            file[key] = array
    with surgery.open(tmp_path / "in.h5") as checkpoint:
        assert checkpoint.keys() == arrays().keys()
        for key, array in arrays().items():
            np.testing.assert_array_equal(checkpoint[key].numpy(), native(array), strict=True)
    run(load(tmp_path / "in.h5"), {"scope": {"add": "deep/er/"}}, save(tmp_path / "out.h5"))
    with h5py.File(tmp_path / "out.h5") as file:
        assert len(file["deep/er/wide"]) == 600
        for key, array in arrays().items():
            np.testing.assert_array_equal(file[f"deep/er/{key}"][()], native(array), strict=True)


@pytest.mark.parametrize("filters", [{}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True, "fletcher32": True}, {"fletcher32": True}])
@pytest.mark.parametrize("chunks", [(1, 1), (7, 3), (100, 50), (13, 50)])
def test_chunks_are_read_as_h5py_reads_them(h5py: Any, tmp_path: Path, filters: Any, chunks: tuple[int, int]) -> None:
    array = np.arange(5000, dtype=">i4").reshape(100, 50)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("w", data=array, chunks=chunks, maxshape=(None, None), **filters)
    with surgery.open(tmp_path / "in.h5") as checkpoint:
        np.testing.assert_array_equal(checkpoint["w"].numpy(), array)


def model(keras: Any, dtype: str = "float32") -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8, 3)),
            layers.LSTM(4, return_sequences=True, recurrent_initializer="zeros", name="lstm", dtype=dtype),
            layers.BatchNormalization(name="norm", dtype=dtype),
            layers.Dropout(0.1, name="drop"),
            *(layers.Dense(2, name=f"dense_{number}", dtype=dtype) for number in (1, 10, 2)),
        ]
    )


def shuffled(keras: Any, dtype: str = "float32") -> Any:
    """A model whose weights all differ."""
    made = model(keras, dtype)
    chance = np.random.default_rng(7)
    for variable in made.weights:
        variable.assign(chance.normal(size=variable.shape))
    return made


def expect_same(found: Any, wanted: Any) -> None:
    assert [variable.path.split("/", 1)[1] for variable in found.weights] == [variable.path.split("/", 1)[1] for variable in wanted.weights]
    for one, other in zip(found.weights, wanted.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_keras_loads_weights_that_went_through_safetensors(keras: Any, tmp_path: Path, dtype: str) -> None:
    source = shuffled(keras, dtype)
    source.save_weights(tmp_path / "in.weights.h5")
    run(load(tmp_path / "in.weights.h5"), save(tmp_path / "m.safetensors"))
    run(load(tmp_path / "m.safetensors"), save(tmp_path / "out.weights.h5"))
    target = model(keras, dtype)
    target.load_weights(tmp_path / "out.weights.h5")
    expect_same(target, source)


def test_keras_loads_weights_taken_out_of_its_archive(keras: Any, tmp_path: Path) -> None:
    source = shuffled(keras)
    source.save(tmp_path / "in.keras")
    run(load(tmp_path / "in.keras"), save(tmp_path / "out.weights.h5"))
    target = model(keras)
    target.load_weights(tmp_path / "out.weights.h5")
    expect_same(target, source)


def test_keras_loads_weights_in_the_layout_of_keras_2(keras: Any, tmp_path: Path) -> None:
    source = shuffled(keras)
    source.save(tmp_path / "in.h5")
    run(load(tmp_path / "in.h5"), {"scope": {"strip": "model_weights/"}}, save(tmp_path / "out.h5", format="keras"))
    target = model(keras)
    target.load_weights(tmp_path / "out.h5")
    expect_same(target, source)


def test_keras_loads_a_whole_model(keras: Any, tmp_path: Path) -> None:
    source = shuffled(keras)
    source.save(tmp_path / "in.h5")
    run(load(tmp_path / "in.h5"), save(tmp_path / "out.h5", format="keras"))
    expect_same(keras.models.load_model(tmp_path / "out.h5", compile=False), source)
