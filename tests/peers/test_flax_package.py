"""Flax msgpack both ways: Flax restores what we write, and we read what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import load, run, save

import surgery

pytestmark = pytest.mark.peers

DATA = Path(__file__).parents[1] / "data" / "flax"


@pytest.fixture(scope="session")
def serialization() -> Any:
    return pytest.importorskip("flax.serialization", reason="flax is not installed")


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a restored tree by their joined names."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {key: leaf for name, node in tree.items() for key, leaf in flat(node, f"{prefix}{name}/").items()}


@pytest.mark.parametrize("name", ["types", "plain", "chunked"])
def test_we_read_the_arrays_that_flax_restores(serialization: Any, name: str) -> None:
    wanted = flat(serialization.msgpack_restore((DATA / f"{name}.msgpack").read_bytes()))
    with surgery.open(DATA / f"{name}.msgpack") as checkpoint:
        assert checkpoint.keys() == wanted.keys()
        for key, leaf in wanted.items():
            found = checkpoint[key].numpy()
            assert (found.dtype, found.shape, found.tobytes()) == (leaf.dtype, leaf.shape, leaf.tobytes())


@pytest.mark.parametrize("name", ["types", "plain", "chunked"])
def test_flax_restores_a_renamed_tree(serialization: Any, tmp_path: Path, name: str) -> None:
    run(load(DATA / f"{name}.msgpack"), {"scope": {"add": "model/"}}, save(tmp_path / "out.msgpack"))
    wanted = flat(serialization.msgpack_restore((DATA / f"{name}.msgpack").read_bytes()), "model/")
    found = flat(serialization.msgpack_restore((tmp_path / "out.msgpack").read_bytes()))
    assert list(found) == list(wanted)
    for key, leaf in wanted.items():
        assert (found[key].dtype, found[key].shape, found[key].tobytes()) == (leaf.dtype, leaf.shape, leaf.tobytes())


def test_flax_restores_an_optimizer_state_into_its_own_structure(serialization: Any, tmp_path: Path) -> None:
    state = {"step": 3, "params": [np.ones(2, np.float32), np.zeros(3, np.float32)], "empty": {}, "rate": 0.5}
    (tmp_path / "in.msgpack").write_bytes(serialization.to_bytes(state))
    run(load(tmp_path / "in.msgpack"), save(tmp_path / "out.msgpack", metadata={"step": "4"}))
    found = serialization.from_bytes(state, (tmp_path / "out.msgpack").read_bytes())
    assert (found["step"], found["rate"], found["empty"]) == (4, 0.5, {})
    np.testing.assert_array_equal(found["params"][0], state["params"][0])
    np.testing.assert_array_equal(found["params"][1], state["params"][1])


def test_flax_restores_a_train_state_of_optax(serialization: Any, tmp_path: Path) -> None:
    jnp, optax = pytest.importorskip("jax.numpy", reason="jax is not installed"), pytest.importorskip("optax", reason="optax is not installed")
    params = {"Dense_0": {"kernel": jnp.ones((4, 3), jnp.bfloat16), "bias": jnp.zeros(3)}}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, mu_dtype=jnp.bfloat16))
    state = {"step": np.int32(7), "params": params, "opt_state": optimizer.init(params), "history": [(np.float32(1), 2 + 1j), None]}
    (tmp_path / "in.msgpack").write_bytes(serialization.to_bytes(state))
    run(load(tmp_path / "in.msgpack"), save(tmp_path / "out.msgpack"))
    found = serialization.from_bytes(state, (tmp_path / "out.msgpack").read_bytes())
    wanted = serialization.from_bytes(state, serialization.to_bytes(state))
    assert type(found["opt_state"]) is type(wanted["opt_state"])
    assert found["history"] == wanted["history"]
    assert serialization.msgpack_restore(serialization.to_bytes(found)).keys() == wanted.keys()
    there, back = flat(serialization.to_state_dict(wanted)), flat(serialization.to_state_dict(found))
    assert back.keys() == there.keys()
    for key, leaf in there.items():
        assert np.asarray(back[key]).tobytes() == np.asarray(leaf).tobytes(), key


@pytest.mark.slow
def test_flax_joins_the_chunks_of_a_large_array(serialization: Any, tmp_path: Path) -> None:
    rows = (1 << 30) // 1000 + 5
    np.savez(tmp_path / "in.npz", w=np.arange(rows * 1000, dtype=np.uint8).reshape(rows, 1000))
    run(load(tmp_path / "in.npz"), save(tmp_path / "out.msgpack"))
    found = serialization.msgpack_restore((tmp_path / "out.msgpack").read_bytes())["w"]
    assert found.shape == (rows, 1000)
    assert np.array_equal(found.reshape(-1)[-5000:], np.arange(rows * 1000 - 5000, rows * 1000).astype(np.uint8))
    with surgery.open(tmp_path / "out.msgpack") as checkpoint:
        assert checkpoint["w"].shape == (rows, 1000)
