"""What the peers tests share: running steps with surgery, and reading and writing bundles with TensorFlow alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import surgery
from surgery.api import Source

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "tf"
BUNDLES: dict[str, Any] = {
    prefix: facts for prefix, facts in json.loads((DATA / "expected.json").read_text())["bundles"].items() if facts["format"] == "v2"
}
GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"

Step = Mapping[str, Any]


def recipe_text(*steps: Step) -> str:
    """JSON is YAML; only `${` would mean something."""
    return json.dumps({"surgery": 1, "steps": steps}).replace("${", "$${")


def run(*steps: Step) -> None:
    """Carry these steps out."""
    surgery.plan(Source(recipe_text(*steps), "test.yaml")).run()


def load(path: object, **options: Any) -> Step:
    return {"load": {"path": str(path), **options}}


def save(path: object, **options: Any) -> Step:
    return {"save": {"path": str(path), **options}}


class Expected(NamedTuple):
    """A tensor of a fixture as its `expected.json` tells it, without any reading of the bundle."""

    key: bytes
    dtype: str
    slices: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def text(self) -> str:
        return self.key.decode("utf-8", "surrogateescape")


def expected(prefix: str) -> list[Expected]:
    """The tensors of a fixture."""
    return [
        Expected(
            bytes.fromhex(tensor["name_hex"]) if "name_hex" in tensor else tensor["name"].encode(),
            tensor["dtype"],
            tuple(tensor.get("slices", ())),
            tuple(tensor["shape"]),
        )
        for tensor in BUNDLES[prefix]["tensors"]
    ]


def restore(tf: Any, prefix: object, keys: Iterable[bytes], dtypes: Iterable[str]) -> list[Any]:
    """What TensorFlow's own op reads: one tensor per key."""
    names = list(keys)
    return list(
        tf.raw_ops.RestoreV2(
            prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), dtypes=[tf.dtypes.as_dtype(name) for name in dtypes]
        )
    )


def restore_from_slices(tf: Any, prefix: object, tensor: Expected) -> Any:
    """A partitioned tensor put together here, since TensorFlow reads some types slice by slice only."""
    dims = " ".join(map(str, tensor.shape))
    whole = np.zeros(tensor.shape, tf.dtypes.as_dtype(tensor.dtype).as_numpy_dtype)
    for text in tensor.slices:
        part = tf.raw_ops.RestoreV2(
            prefix=str(prefix),
            tensor_names=[tensor.key],
            shape_and_slices=[f"{dims} {text}"],
            dtypes=[tf.dtypes.as_dtype(tensor.dtype)],
        )[0]
        whole[_cut(text)] = part.numpy()
    return tf.constant(whole)


def _cut(text: str) -> tuple[slice, ...]:
    pairs = [None if extent == "-" else tuple(map(int, extent.split(","))) for extent in text.split(":")]
    return tuple(slice(None) if pair is None else slice(pair[0], sum(pair)) for pair in pairs)


def comparable(tensor: Any) -> tuple[str, tuple[int, ...], bytes | list[Any]]:
    """Type, shape and exact content (bits, so that NaN equals itself) of a TensorFlow tensor."""
    array = tensor.numpy()
    array = np.asarray(array, object) if isinstance(array, bytes) else np.asarray(array)
    return tensor.dtype.name, tuple(tensor.shape), array.reshape(-1).tolist() if array.dtype.kind == "O" else array.tobytes()


def write(tf: Any, prefix: object, tensors: Mapping[str, Any]) -> None:
    """A bundle written by TensorFlow's own op, data in this order."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.convert_to_tensor(value) for value in tensors.values()],
    )


def files_of(prefix: object) -> dict[str, bytes]:
    """The index and data files of a bundle, by what follows the prefix."""
    path = Path(str(prefix))
    return {
        file.name.removeprefix(path.name): file.read_bytes()
        for file in path.parent.iterdir()
        if file.name.startswith((f"{path.name}.index", f"{path.name}.data-"))
    }
