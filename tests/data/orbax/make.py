"""Makes the Orbax checkpoints beside this file. Needs: orbax-checkpoint 0.12.8, jax 0.10.2 (CPU)."""

import os
import shutil
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_ENABLE_X64"] = "1"

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

HERE = Path(__file__).parent
TYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64", "complex64", "complex128")
SMALL = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
MESH = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))

tree = {
    "params": {"dense": {"kernel": jnp.arange(12, dtype="float32").reshape(3, 4), "bias": jnp.zeros(4, "bfloat16")}},
    "types": {name: jnp.arange(6).reshape(2, 3).astype(name) for name in (*TYPES, *SMALL)},
    "sharded": jax.device_put(np.arange(64, dtype="float32").reshape(16, 4), NamedSharding(MESH, PartitionSpec("a", "b"))),
    "array": np.arange(10, dtype="int16"),
    "scalar": jnp.float32(3.5),
    "number": 7,
    "text": "hello",
    "none": None,
    "nothing": {},
    "list": [jnp.ones(2, "float32"), {"x": jnp.zeros(3, "float32")}],
    "tuple": (jnp.ones(1, "float32"), jnp.full(2, 2, "float32")),
    "größe/a.b": jnp.full(2, 5, "float32"),
}


def save(name: str, **options: bool) -> None:
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)).save(HERE / name, tree)


def steps() -> None:
    with ocp.CheckpointManager(HERE / "steps") as manager:
        for step in (3, 20):
            manager.save(step, args=ocp.args.StandardSave({"w": jnp.full(2, step, "float32")}))
    with ocp.CheckpointManager(HERE / "items") as manager:
        state = ocp.args.StandardSave({"w": jnp.full(2, 1, "float32")})
        manager.save(1, args=ocp.args.Composite(state=state, other=state, config=ocp.args.JsonSave({"a": 1})))


for name in ("ocdbt", "ocdbt3", "zarr2", "zarr3", "steps", "items"):
    shutil.rmtree(HERE / name, ignore_errors=True)
save("ocdbt", use_ocdbt=True, use_zarr3=False)
save("ocdbt3", use_ocdbt=True, use_zarr3=True)
save("zarr2", use_ocdbt=False, use_zarr3=False)
save("zarr3", use_ocdbt=False, use_zarr3=True)
steps()
for told in HERE.rglob("commit_success.txt"):
    told.unlink()  # names the folder in which it was made, and is not asked for on a local disk
