from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from contract import KEYS, Arrays, FormatContract, bundle
from disk import FolderDisk
from executor import RawFile, content, execute

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, PlanError, SourceError, UnsupportedFeature
from surgery.expr import Stored
from surgery.formats import hdf5, keras
from surgery.tensors import TensorSpec

DATA = Path(__file__).parents[1] / "data" / "keras"
SHARDS = DATA / "shards"
NEW_KEYS = [*(f"layers/batch_normalization/vars/{number}" for number in range(4)), "layers/dense/vars/0", "layers/dense/vars/1"]
HELD = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)) | {
    "bool",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
}
KERNEL = np.arange(6, dtype="<f4").tobytes()


class TestKeras(FormatContract):
    format = keras
    filename = "out.weights.h5"
    holds = HELD
    keys = tuple(key for key in KEYS if key not in ("/absolute", "trailing/"))

    def index(self, path: str, disk: FolderDisk | None = None) -> hdf5.Indexed:
        """Without asking `locate`: the contract's keys are none of Keras's."""
        return keras.index(path, disk or FolderDisk())

    def make(self, folder: Path, arrays: Arrays) -> str:
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        with h5py.File(folder / "in.weights.h5", "w") as file:
            for key, array in arrays.items():
                file[key] = array
        return str(folder / "in.weights.h5")


def loaded(path: Path) -> dict[str, bytes]:
    return {key: content(expr, FolderDisk()) for key, expr in keras.index(str(path), FolderDisk()).tensors.items()}


# Reading


@pytest.mark.parametrize("name", ["small.weights.h5", "bfloat16.weights.h5", "small.keras", "small.h5"])
def test_keras_files_are_recognised_whatever_their_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.bin").write_bytes((DATA / name).read_bytes())
    assert keras.locate(str(tmp_path / "x.bin"), FolderDisk()) == str(tmp_path / "x.bin")
    assert hdf5.locate(str(tmp_path / "x.bin"), FolderDisk()) is None


@pytest.mark.parametrize("name", ["earliest.h5", "latest.h5", "user_block.h5"])
def test_other_hdf5_files_are_not(name: str) -> None:
    path = str(DATA.parent / "hdf5" / name)
    assert keras.locate(path, FolderDisk()) is None
    assert hdf5.locate(path, FolderDisk()) == path


@pytest.mark.parametrize("name", ["small.weights.h5", "small.keras"])
def test_weights_of_keras_3_are_read(name: str) -> None:
    found = loaded(DATA / name)
    assert list(found) == NEW_KEYS
    assert found["layers/dense/vars/0"] == KERNEL
    assert np.frombuffer(found["layers/batch_normalization/vars/3"], "<f4").tolist() == [60.0, 61.0]


def test_weights_of_keras_2_come_in_the_order_of_its_lists() -> None:
    found = loaded(DATA / "small.h5")
    assert [key.split("/")[1] + "." + key.rpartition("/")[2] for key in found] == [
        "zeta.kernel",
        "zeta.bias",
        "alpha.gamma",
        "alpha.beta",
        "alpha.moving_mean",
        "alpha.moving_variance",
    ]
    assert next(iter(found.values())) == KERNEL


def test_bfloat16_is_known_by_the_attribute_that_keras_writes() -> None:
    expr = keras.index(str(DATA / "bfloat16.weights.h5"), FolderDisk()).tensors["layers/dense/vars/0"]
    assert str(expr.spec) == "bf16[3,2]"
    assert content(expr, FolderDisk()).hex() == "0000803f00404040804 0a040".replace(" ", "")


def test_configuration_and_version_are_metadata() -> None:
    old = keras.index(str(DATA / "small.h5"), FolderDisk()).metadata
    new = keras.index(str(DATA / "small.keras"), FolderDisk()).metadata
    assert old["keras_version"] == new["keras_version"] == "3.15.1"
    assert json.loads(old["model_config"])["class_name"] == json.loads(new["model_config"])["class_name"] == "Sequential"
    assert "layer_names" not in old


def test_weights_in_an_archive_are_ranges_of_the_archive() -> None:
    expr = keras.index(str(DATA / "small.keras"), FolderDisk()).tensors["layers/dense/vars/0"]
    assert isinstance(expr, Stored)
    assert (DATA / "small.keras").read_bytes()[expr.extent.start : expr.extent.stop] == KERNEL


def test_compressed_weights_in_an_archive_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(DATA / "small.weights.h5", "model.weights.h5")
    with pytest.raises(UnsupportedFeature, match="is compressed") as fault:
        keras.index(str(tmp_path / "x.keras"), FolderDisk())
    assert fault.value.help


def test_a_listed_weight_that_is_not_there_is_damage(tmp_path: Path) -> None:
    stored = (DATA / "small.h5").read_bytes()
    assert stored.count(b"sequential_3/zeta/bias") == 1
    (tmp_path / "x.h5").write_bytes(stored.replace(b"sequential_3/zeta/bias", b"sequential_3/zeta/bIas"))
    with pytest.raises(CorruptFile, match="lists weights that are not there"):
        keras.index(str(tmp_path / "x.h5"), FolderDisk())


def test_bfloat16_in_the_layout_of_keras_2_is_refused_as_keras_itself_cannot_load_it(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file["dense/kernel"] = np.zeros(2, "V2")
        file["dense"].attrs["weight_names"] = [b"kernel"]
    with pytest.raises(UnsupportedFeature, match="lists a weight that is no tensor, `dense/kernel`") as fault:
        keras.index(str(tmp_path / "x.h5"), FolderDisk())
    assert fault.value.help


# Shards


def sharded(tmp_path: Path, weight_map: object) -> str:
    for number, name in enumerate(("a", "b")):
        Path(tmp_path, f"m_{name}.weights.h5").write_bytes((SHARDS / f"m_0000{number}.weights.h5").read_bytes())
    (tmp_path / "m.weights.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return str(tmp_path / "m.weights.json")


def test_shards_are_one_checkpoint_also_where_a_group_lies_in_two() -> None:
    path = str(SHARDS / "m.weights.json")
    assert keras.locate(path, FolderDisk()) == path
    found = keras.index(path, FolderDisk())
    assert {key: content(expr, FolderDisk()) for key, expr in found.tensors.items()} == loaded(SHARDS / "whole.weights.h5")
    assert list(found.tensors) == list(loaded(SHARDS / "whole.weights.h5"))
    groups = json.loads((SHARDS / "m.weights.json").read_text())["weight_map"]
    assert max(map(len, groups.values())) == 2


def test_a_shard_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="1 shard of") as fault:
        keras.index(sharded(tmp_path, {"/layers/dense/vars": "m_c.weights.h5"}), FolderDisk())
    assert fault.value.code == "missing-shard"


def test_a_group_that_its_shard_does_not_hold_is_damage(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="lists weights that are not there, `/layers/other/vars`"):
        keras.index(sharded(tmp_path, {"/layers/other/vars": ["m_a.weights.h5"]}), FolderDisk())


def test_a_key_in_two_shards_is_damage(tmp_path: Path) -> None:
    path = sharded(tmp_path, {"/layers/dense/vars": ["m_a.weights.h5", "m_b.weights.h5"]})
    (tmp_path / "m_b.weights.h5").write_bytes((tmp_path / "m_a.weights.h5").read_bytes())
    with pytest.raises(CorruptFile, match="shards that both hold"):
        keras.index(path, FolderDisk())


@pytest.mark.parametrize("shards", ["../m_a.weights.h5", [], [1], None, "a/b.weights.h5", "x.safetensors", {"a": 1}])
def test_what_maps_to_no_shards_of_keras_is_not_taken_for_them(tmp_path: Path, shards: object) -> None:
    path = sharded(tmp_path, {"/layers/dense/vars": shards})
    assert keras.locate(path, FolderDisk()) is None
    with pytest.raises(CorruptFile, match="maps no weights"):
        keras.index(path, FolderDisk())


# Writing


def save(tmp_path: Path, name: str, keys: list[str], dtype: str = "float32", **metadata: str) -> Path:
    raw, spec = RawFile(tmp_path / "raw.bin"), TensorSpec(DTYPES[dtype], (2,))
    tensors = {key: raw.tensor(spec, bytes(spec.nbytes)) for key in keys}
    execute(keras.layout(bundle(str(tmp_path / name), tensors, metadata=metadata)), FolderDisk())
    return tmp_path / name


def test_variables_are_ordered_by_number(tmp_path: Path) -> None:
    keys = [f"layers/{layer}/vars/{number}" for layer in ("dense", "dense_2", "dense_10") for number in (0, 2, 11)]
    assert list(loaded(save(tmp_path, "x.weights.h5", list(reversed(keys))))) == keys


@pytest.mark.parametrize("scope", ["", "model_weights/"])
def test_lists_of_keras_2_keep_the_order_of_the_output(tmp_path: Path, scope: str) -> None:
    keys = [f"{scope}{name}" for name in ("z/z/kernel:0", "z/z/bias:0", "a/kernel:0")] + ["optimizer_weights/Adam/m"]
    path = save(tmp_path, "x.h5", keys, backend="tensorflow", keras_version="2.15.0")
    assert keras.locate(str(path), FolderDisk()) == str(path)
    assert list(loaded(path)) == keys
    assert keras.index(str(path), FolderDisk()).metadata == {"backend": "tensorflow", "keras_version": "2.15.0"}


def test_a_list_too_long_for_an_attribute_is_cut_as_keras_cuts_it(tmp_path: Path) -> None:
    keys = [f"{number:05}{'x' * 500}/w" for number in reversed(range(300))]
    path = save(tmp_path, "x.h5", keys)
    assert list(loaded(path)) == keys
    assert b"layer_names2" in path.read_bytes()


def test_bfloat16_survives_both_layouts(tmp_path: Path) -> None:
    for name in ("x.weights.h5", "x.h5"):
        (expr,) = keras.index(str(save(tmp_path, name, ["a/vars/0"], "bfloat16")), FolderDisk()).tensors.values()
        assert str(expr.spec) == "bf16[2]"


@pytest.mark.parametrize(("name", "keys", "code"), [("x.h5", ["w"], "key-not-storable"), ("x.keras", ["a/w"], "bad-option")])
def test_what_keras_could_not_load_is_refused(tmp_path: Path, name: str, keys: list[str], code: str) -> None:
    with pytest.raises(PlanError) as fault:
        save(tmp_path, name, keys)
    assert fault.value.code == code
    assert fault.value.help


def test_all_keys_without_a_layer_are_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as fault:
        save(tmp_path, "x.h5", ["w", "dense/kernel", "b"])
    assert fault.value.title == "Keras cannot hold the key 'w': it has no layer"
    assert fault.value.notes == ("2 keys are affected: 'w' (it has no layer), 'b' (it has no layer)",)
    assert fault.value.help == "`rename` them to LAYER/NAME, or save as hdf5"
    assert fault.value.data == {"keys": ["w", "b"]}


def test_names_that_are_longer_than_a_list_of_keras_are_named(tmp_path: Path) -> None:
    long = "ä" * 40_000
    with pytest.raises(PlanError, match="a name in it is longer than Keras can list") as fault:
        save(tmp_path, "x.h5", [f"a/{long}", "a/w", f"b/{long}"])
    assert fault.value.data == {"keys": [f"a/{long}", f"b/{long}"]}
