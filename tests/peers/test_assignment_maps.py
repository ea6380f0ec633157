"""A recipe made of an assignment map gives variables what `init_from_checkpoint` gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import surgery
from surgery.importers import assignment_map

pytestmark = pytest.mark.peers

STORED = ["bert/w", "bert/layer/b", "bert/layer_1/w", "cls/w", "step"]
MAPS = [
    ({"bert/": "encoder/"}, ["encoder/w", "encoder/layer/b", "encoder/layer_1/w"]),
    ({"bert/": "/"}, ["w", "layer/b", "layer_1/w"]),
    ({"/": "a/b/"}, [f"a/b/{name}" for name in STORED]),
    ({"/": "/"}, STORED),
    ({"bert/w": "x/y", "step": "z"}, ["x/y", "z"]),
    ({"bert/layer/": "one/", "cls/": "two/deep/", "step": "s"}, ["one/b", "two/deep/w", "s"]),
    ({"bert/layer/": "cls/", "cls/": "bert/layer/"}, ["cls/b", "bert/layer/w"]),
    ({"bert/": "e/", "bert/w": "f/w"}, ["e/w", "e/layer/b", "e/layer_1/w", "f/w"]),
]


@pytest.mark.parametrize(("mapping", "wanted"), MAPS)
def test_variables_get_what_tensorflow_gives_them(tf: Any, v1: Any, tmp_path: Path, mapping: dict[str, str], wanted: list[str]) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        made = [v1.get_variable(name, initializer=np.full(2, at, "f4")) for at, name in enumerate(STORED)]
        session.run(v1.global_variables_initializer())
        v1.train.Saver(made).save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
    with tf.Graph().as_default(), v1.Session() as session:
        variables = {name: v1.get_variable(name, shape=[2]) for name in wanted}
        v1.train.init_from_checkpoint(str(tmp_path / "model.ckpt"), mapping)
        session.run(v1.global_variables_initializer())
        expected = session.run(variables)
    (tmp_path / "recipe.yaml").write_text(assignment_map.read(json.dumps(mapping), "m", False).text("surgery import"))
    places = {"source": str(tmp_path / "model.ckpt"), "target": str(tmp_path / "out.npz")}
    surgery.plan(tmp_path / "recipe.yaml", params=places).run()
    with np.load(tmp_path / "out.npz") as result:
        assert {name: value.tolist() for name, value in result.items()} == {name: value.tolist() for name, value in expected.items()}
