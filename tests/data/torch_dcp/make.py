"""Make the folders beside this one: `python make.py`, with torch 2.13.0 installed. `expected.json` tells what was saved."""

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp

HERE = Path(__file__).parent
WEIGHT = torch.arange(35.0).reshape(7, 5)
warnings.simplefilter("ignore")


def nested():
    return {
        "model": {"w": WEIGHT, "transposed": WEIGHT.t(), "empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5)},
        "optim": {"state": {0: {"step": torch.tensor(4)}}, "lr": 0.5},
        "list": [torch.ones(2, dtype=torch.bool), {"a": torch.arange(2)}],
        "step": 7,
        "name": "größe",
    }


def sharded():
    """What two processes save together, as it is when put together."""
    return {"rows": WEIGHT, "columns": WEIGHT * 2, "whole": WEIGHT * 3, "uneven": torch.arange(3), "one": torch.ones(1, 4), "grid": WEIGHT * 4}


def save_part(rank, count):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29533", RANK=str(rank), WORLD_SIZE=str(count))
    dist.init_process_group("gloo", rank=rank, world_size=count)
    line, square = init_device_mesh("cpu", (count,)), init_device_mesh("cpu", (2, count // 2))
    how = {"rows": Shard(0), "columns": Shard(1), "whole": Replicate(), "uneven": Shard(0), "one": Shard(0)}
    value = {key: distribute_tensor(tensor, line, [how[key]]) for key, tensor in sharded().items() if key in how}
    value["grid"] = distribute_tensor(sharded()["grid"], square, [Shard(0), Shard(1)])
    dcp.save(value, checkpoint_id=HERE / "sharded")
    dist.destroy_process_group()


def flat(value, path=""):
    if isinstance(value, torch.Tensor):
        yield path[1:], value.numpy()
    elif isinstance(value, (dict, list)):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(child, f"{path}.{key}")


def told(value):
    return {key: [array.dtype.name, list(array.shape), np.ascontiguousarray(array).tobytes().hex()] for key, array in flat(value)}


if __name__ == "__main__":
    for name in ("nested", "sharded"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    dcp.save(nested(), checkpoint_id=HERE / "nested", no_dist=True)
    mp.spawn(save_part, (4,), 4)
    (HERE / "expected.json").write_text(json.dumps({"nested": told(nested()), "sharded": told(sharded())}, indent=1))
