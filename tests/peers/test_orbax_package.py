"""Orbax both ways: its checkpointers restore what we write, and we read what they write. Zarr groups as zarr-python reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import load, run, save

import surgery

pytestmark = pytest.mark.peers

DATA = Path(__file__).parents[1] / "data"
KINDS = ("ocdbt", "ocdbt3", "zarr2", "zarr3")
CHECKPOINTERS = ("StandardCheckpointer", "PyTreeCheckpointer")


@pytest.fixture(scope="session")
def orbax() -> Any:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax = pytest.importorskip("jax", reason="jax is not installed")
    jax.config.update("jax_enable_x64", True)
    pytest.importorskip("numcodecs", reason="numcodecs is not installed")
    return pytest.importorskip("orbax.checkpoint", reason="orbax-checkpoint is not installed")


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays of a restored tree by their joined names."""
    if isinstance(tree, dict):
        for name, node in tree.items():
            yield from leaves(node, f"{prefix}{name}/")
    elif isinstance(tree, list | tuple):
        for number, node in enumerate(tree):
            yield from leaves(node, f"{prefix}{number}/")
    elif tree is not None and not isinstance(tree, str):
        yield prefix[:-1], np.asarray(tree)


def restored(orbax: Any, path: Path, checkpointer: str = "PyTreeCheckpointer") -> dict[str, Any]:
    with getattr(orbax, checkpointer)() as each:
        return dict(leaves(each.restore(path)))


def restored_as_numpy(orbax: Any, path: Path) -> dict[str, Any]:
    """What orbax reads of a checkpoint of more devices than there are here."""
    import jax

    handler = orbax.PyTreeCheckpointHandler()
    with orbax.Checkpointer(handler) as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        args = jax.tree.map(lambda leaf: orbax.RestoreArgs(restore_type=np.ndarray if hasattr(leaf, "shape") else str), tree)
        return dict(leaves(checkpointer.restore(path, args=orbax.args.PyTreeRestore(restore_args=args))))


def told(arrays: dict[str, Any]) -> dict[str, Any]:
    return {key: (array.dtype.name, array.shape, array.tobytes()) for key, array in arrays.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_we_read_the_arrays_that_orbax_restores(orbax: Any, kind: str) -> None:
    with surgery.open(DATA / "orbax" / kind) as checkpoint:
        assert told({key: checkpoint[key].numpy() for key in checkpoint}) == told(restored_as_numpy(orbax, DATA / "orbax" / kind))


@pytest.mark.parametrize("checkpointer", CHECKPOINTERS)
@pytest.mark.parametrize("kind", KINDS)
def test_orbax_restores_a_renamed_checkpoint(orbax: Any, tmp_path: Path, kind: str, checkpointer: str) -> None:
    run(load(DATA / "orbax" / kind), {"scope": {"add": "model/"}}, save(tmp_path / "out", format="orbax"))
    wanted = {f"model/{key}": array for key, array in restored_as_numpy(orbax, DATA / "orbax" / kind).items()}
    assert told(restored(orbax, tmp_path / "out", checkpointer)) == told(wanted)


def test_orbax_restores_lists_into_their_own_structure(orbax: Any, tmp_path: Path) -> None:
    state = {"layers": [{"w": np.ones(2, "f4")}, {"w": np.zeros(3, "f4")}], "named": {"0": np.ones(1, "f4")}}
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "in", state)
        checkpointer.wait_until_finished()
        run(
            load(tmp_path / "in"), {"rename": {"match": "/w$", "to": "/weight"}}, {"scope": {"add": "model/"}}, save(tmp_path / "out", format="orbax")
        )
        target = {"model": {"layers": [{"weight": np.empty(2, "f4")}, {"weight": np.empty(3, "f4")}], "named": {"0": np.empty(1, "f4")}}}
        found = checkpointer.restore(tmp_path / "out", target)["model"]
    assert isinstance(found["layers"], list)
    assert [layer["weight"].tolist() for layer in found["layers"]] == [[1, 1], [0, 0, 0]]
    assert found["named"]["0"].tolist() == [1]


def test_the_manager_restores_a_step_that_we_write(orbax: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", w=np.arange(3, dtype="f4"))
    run(load(tmp_path / "in.npz"), save(tmp_path / "run" / "7" / "default", format="orbax"))
    with orbax.CheckpointManager(tmp_path / "run") as manager:
        assert manager.latest_step() == 7
        found = manager.restore(7, args=orbax.args.StandardRestore())
    assert found["w"].tolist() == [0, 1, 2]


def test_orbax_restores_many_keys(orbax: Any, tmp_path: Path) -> None:
    arrays = {f"layer_{number}/w": np.full(2, number, "f4") for number in range(5000)}
    np.savez(tmp_path / "in.npz", **arrays)
    run(load(tmp_path / "in.npz"), save(tmp_path / "out", format="orbax"))
    assert told(restored(orbax, tmp_path / "out")) == told(arrays)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_we_read_the_groups_that_zarr_reads(version: str) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    group = zarr.open_group(DATA / "zarr" / version, mode="r")
    with surgery.open(DATA / "zarr" / version) as checkpoint:
        for key in checkpoint:
            wanted = np.asarray(group[key][...])
            found = checkpoint[key].numpy()
            assert (found.dtype, found.tolist()) == (wanted.dtype.newbyteorder("<"), wanted.tolist())
        assert len(checkpoint) == sum(isinstance(each, zarr.Array) for _, each in group.members(max_depth=None))
