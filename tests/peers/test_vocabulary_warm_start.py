"""Rows that follow their tokens as in TensorFlow's warm start, out of and into real bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import load, run, save

import surgery

pytestmark = pytest.mark.peers

OLD = ["[PAD]", "the", "cat", "sat", "##s", "on", "mat"]
NEW = ["[PAD]", "mat", "dog", "the", "##s", "ran", "cat", "[X]"]


@pytest.fixture
def vocabularies(tmp_path: Path) -> tuple[str, str]:
    for name, tokens in (("old.txt", OLD), ("new.txt", NEW)):
        (tmp_path / name).write_text("\n".join(tokens) + "\n")
    return str(tmp_path / "old.txt"), str(tmp_path / "new.txt")


def saved(v1: Any, folder: Path, values: Any) -> str:
    """A checkpoint with one variable."""
    with v1.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable("w", initializer=values)
        session.run(variable.initializer)
        return str(v1.train.Saver([variable]).save(session, str(folder / "old.ckpt"), write_meta_graph=False))


def warm_started(v1: Any, prefix: str, shape: tuple[int, ...], info: Any) -> Any:
    with v1.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable("w", shape)
        v1.train.warm_start(prefix, vars_to_warm_start="w", var_name_to_vocab_info={"w": info})
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        return session.run(variable)


# For columns with a limit TensorFlow 2.21 gives what happened to lie in memory behind them.
@pytest.mark.parametrize(("axis", "old_size"), [(0, None), (0, 5), (1, None)])
@pytest.mark.parametrize("buckets", [0, 3])
def test_rows_are_those_of_a_warm_start(
    tmp_path: Path, v1: Any, vocabularies: tuple[str, str], axis: int, old_size: int | None, buckets: int
) -> None:
    old, new = vocabularies
    rows = np.random.default_rng(1).standard_normal((old_size or len(OLD), 4)).astype(np.float32)
    shape = (len(NEW) + buckets, 4)
    prefix = saved(v1, tmp_path, rows if axis == 0 else rows.T)
    info = v1.train.VocabInfo(
        new_vocab=new,
        new_vocab_size=len(NEW),
        num_oov_buckets=buckets,
        old_vocab=old,
        old_vocab_size=old_size or -1,
        backup_initializer=lambda shape, **options: v1.fill(shape, 0.5),
        axis=axis,
    )
    expected = warm_started(v1, prefix, shape if axis == 0 else shape[::-1], info)
    limit = {"old_vocab_size": old_size} if old_size else {}
    options = {"axis": axis, "old_vocab": old, "new_vocab": new, "size": len(NEW) + buckets, "fill": {"constant": 0.5}, **limit}
    run(load(prefix), {"resize": {"keys": "w", **options}}, save(tmp_path / "new.ckpt", format="tf"))
    with surgery.open(tmp_path / "new.ckpt") as checkpoint:
        np.testing.assert_array_equal(checkpoint["w"].numpy(), expected)
