"""A model that no one here made: the SavedModel inside the package basic-pitch, taken through a recipe of `recipes/`."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from peer_bundles import GRAPH_KEY, ROOT, VALUE

pytestmark = pytest.mark.peers

RECIPE = ROOT / "recipes" / "tf" / "object-to-safetensors.yaml"
FLOATS = {"float16", "float32", "float64", "bfloat16"}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `saved_model.pb` and `variables/`, unpacked from the downloaded wheel."""
    folder = tmp_path_factory.mktemp("basic-pitch")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), "basic-pitch"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    wheels = list(folder.glob("basic_pitch-*.whl"))
    if not wheels:
        pytest.skip(f"pip could not download basic-pitch: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        (index,) = [name for name in wheel.namelist() if name.endswith("/variables/variables.index")]
        root = index.removesuffix("variables/variables.index")
        wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith(root)])
    return folder / root


def run_recipe(source: Path, target: Path, dtype: str) -> None:
    values = [f"source={source}", f"target={target}", f"dtype={dtype}"]
    arguments = [word for value in values for word in ("-p", value)]
    subprocess.run([sys.executable, "-m", "surgery", "run", str(RECIPE), *arguments], check=True, stdout=subprocess.DEVNULL)


def tensors_of(path: Path) -> dict[str, Any]:
    """Name → type, shape and bytes, as the safetensors package's own parser finds them."""
    safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")
    return {name: (tensor["dtype"], tensor["shape"], bytes(tensor["data"])) for name, tensor in safetensors.deserialize(path.read_bytes())}


@pytest.mark.parametrize(("dtype", "code"), [("bfloat16", "BF16"), ("float16", "F16"), ("float32", "F32")])
def test_every_variable_has_the_value_that_tensorflow_casts(tf: Any, saved_model: Path, tmp_path: Path, dtype: str, code: str) -> None:
    run_recipe(saved_model, tmp_path / "out.safetensors", dtype)
    found = tensors_of(tmp_path / "out.safetensors")
    reader = tf.train.load_checkpoint(str(saved_model / "variables" / "variables"))
    kinds = reader.get_variable_to_dtype_map()
    wanted = {}
    for key in kinds.keys() - {GRAPH_KEY, f"save_counter{VALUE}"}:
        value = reader.get_tensor(key)
        name = ".".join(key.removesuffix(VALUE).replace(".OPTIMIZER_SLOT", "slots").split("/"))
        if kinds[key].name in FLOATS:
            wanted[name] = (code, list(value.shape), tf.cast(value, dtype).numpy().tobytes())
        else:
            wanted[name] = ({"int64": "I64"}[kinds[key].name], list(value.shape), value.tobytes())
    assert len(wanted) > 50
    assert found == wanted


def test_its_variables_have_plain_names(saved_model: Path, tmp_path: Path) -> None:
    run_recipe(saved_model, tmp_path / "out.safetensors", "bfloat16")
    found = {name: (dtype, shape) for name, (dtype, shape, _) in tensors_of(tmp_path / "out.safetensors").items()}
    assert found["layer_with_weights-1.kernel"] == ("BF16", [3, 39, 8, 8])
    assert found["layer_with_weights-1.kernel.slots.optimizer.m"] == ("BF16", [3, 39, 8, 8])
    assert found["optimizer.iter"] == ("I64", [])
    assert not any("/" in name or "ATTRIBUTES" in name for name in found)
