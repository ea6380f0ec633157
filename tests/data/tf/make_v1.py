"""Makes the V1 checkpoints of `v1_more/` with TensorFlow; `expected.json` there is what TensorFlow reads from them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
HERE = Path(__file__).parent / "v1_more"
TYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "complex64", "bool"]


def variables() -> dict[str, tf.Tensor]:
    """On two devices, so that the sharded save has two files."""
    made = {}
    with tf.device("/cpu:0"):
        for name in TYPES:
            values = (np.arange(6).reshape(2, 3) - (0 if name in ("bool", "uint8", "uint16") else 3)).astype(name)
            made[f"t/{name}"] = v1.get_variable(f"t/{name}", initializer=values, use_resource=False)
        texts = np.array([b"a", b"", "größe".encode()], object)
        made["text"] = v1.get_variable("text", initializer=texts, use_resource=False)
    with tf.device("/cpu:1"):
        made["empty"] = v1.get_variable("empty", initializer=np.zeros((0, 2), "f4"), use_resource=False)
        made["scalar"] = v1.get_variable("scalar", initializer=np.float32(4.5), use_resource=False)
        made["zeros"] = v1.get_variable("zeros", initializer=np.zeros((3, 1000), "f4"), use_resource=False)
        parts = v1.fixed_size_partitioner(3)
        rows = v1.random_uniform_initializer(seed=1)
        part = v1.get_variable("part", shape=(7, 3), dtype=tf.float64, partitioner=parts, initializer=rows, use_resource=False)
        made["part"] = part.as_tensor()
    return made


def main() -> None:
    HERE.mkdir(exist_ok=True)
    with tf.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
        made = variables()
        session.run(v1.global_variables_initializer())
        for name, sharded in (("one", False), ("sharded", True)):
            saver = v1.train.Saver(write_version=v1.train.SaverDef.V1, sharded=sharded)
            saver.save(session, str(HERE / name), write_meta_graph=sharded, write_state=False)
        arrays = {key: np.asarray(value) for key, value in session.run(made).items()}
    told = {}
    for key, array in sorted(arrays.items()):
        text = array.dtype == object
        told[key] = ["string" if text else array.dtype.name, list(array.shape), None if text else hashlib.sha256(array.tobytes()).hexdigest()]
    (HERE / "expected.json").write_text(json.dumps(told, indent=0) + "\n")


if __name__ == "__main__":
    main()
