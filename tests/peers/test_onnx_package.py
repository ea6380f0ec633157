"""ONNX both ways: what we write is sound to the onnx package, and onnxruntime computes the same with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import load, run, save

import surgery

pytestmark = pytest.mark.peers

DATA = Path(__file__).parents[1] / "data" / "onnx"
X = np.random.default_rng(0).standard_normal((5, 4)).astype("f4")


@pytest.fixture(scope="session")
def onnx() -> Any:
    pytest.importorskip("onnx.reference", reason="onnx is not installed")
    return pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture
def model(onnx: Any, tmp_path: Path) -> Path:
    """Two layers with a branch that takes a tensor of the graph around it; written by the package."""
    helper, numpy_helper, number = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    chance = np.random.default_rng(1)
    arrays = {"w1": chance.standard_normal((4, 300)), "b1": chance.standard_normal(300), "w2": chance.standard_normal((300, 2))}

    def branch(name: str, scale: float) -> Any:
        nodes = [helper.make_node("Mul", ["h", "k"], ["s"]), helper.make_node("Add", ["s", "b1"], [f"{name}_out"])]
        out = helper.make_tensor_value_info(f"{name}_out", number.FLOAT, None)
        return helper.make_graph(nodes, name, [], [out], [numpy_helper.from_array(np.array(scale, "f4"), "k")])

    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Constant", [], ["which"], value=numpy_helper.from_array(np.array(True))),
            helper.make_node("If", ["which"], ["r"], name="choice", then_branch=branch("yes", 2), else_branch=branch("no", 3)),
            helper.make_node("MatMul", ["r", "w2"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", number.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", number.FLOAT, ["n", 2])],
        [numpy_helper.from_array(array.astype("f4"), name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


NEW = {
    "w1": "encoder/kernel",
    "b1": "größe",
    "w2": "onnx::MatMul_7",
    "which": "w1",
    "choice.then_branch/k": "choice.then_branch/scale",
    "choice.else_branch/k": "choice.else_branch/scale",
}


def computed(path: Path) -> np.ndarray[Any, Any]:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (y,) = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": X})
    return np.asarray(y)


@pytest.mark.parametrize("external", [None, True])
def test_a_model_computes_the_same_after_all_its_tensors_were_renamed(onnx: Any, model: Path, tmp_path: Path, external: bool | None) -> None:
    out = tmp_path / "out" / "m.onnx"
    run(load(model), {"rename": {"keys": NEW}}, save(out, **({"external_data": True} if external else {})))
    onnx.checker.check_model(str(out), full_check=True)
    assert (out.parent / "m.onnx.data").exists() is (external is True)
    assert {each.name for each in onnx.load(out).graph.initializer} == {"encoder/kernel", "größe", "onnx::MatMul_7"}
    found = onnx.reference.ReferenceEvaluator(str(out)).run(None, {"x": X})
    np.testing.assert_array_equal(found[0], onnx.reference.ReferenceEvaluator(str(model)).run(None, {"x": X})[0])


def test_onnxruntime_computes_the_same_after_all_its_tensors_were_renamed(onnx: Any, model: Path, tmp_path: Path) -> None:
    run(load(model), {"rename": {"keys": NEW}}, save(tmp_path / "out.onnx", external_data=True))
    np.testing.assert_array_equal(computed(tmp_path / "out.onnx"), computed(model))


def test_weights_of_another_checkpoint_are_what_the_model_computes_with(onnx: Any, model: Path, tmp_path: Path) -> None:
    with surgery.open(model) as checkpoint:
        arrays = {key: 2 * checkpoint[key].numpy() for key in ("w1", "w2")}
    np.savez(tmp_path / "new.npz", **arrays)
    run(load(tmp_path / "new.npz"), save(tmp_path / "out.onnx", model=str(model)))
    proto = onnx.load(model)
    for each in proto.graph.initializer:
        if each.name in arrays:
            each.CopyFrom(onnx.numpy_helper.from_array(arrays[each.name], each.name))
    wanted = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": X})[0]
    np.testing.assert_array_equal(onnx.reference.ReferenceEvaluator(str(tmp_path / "out.onnx")).run(None, {"x": X})[0], wanted)


def test_the_package_reads_what_we_copied_as_it_reads_the_source(onnx: Any, tmp_path: Path) -> None:
    with surgery.open(DATA / "typed.onnx") as checkpoint:
        names = {key: f"new/{key}" for key in checkpoint}
    run(load(DATA / "typed.onnx"), {"rename": {"keys": names}}, save(tmp_path / "out.onnx"))
    found = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(tmp_path / "out.onnx").graph.initializer}
    for each in onnx.load(DATA / "typed.onnx").graph.initializer:
        wanted = onnx.numpy_helper.to_array(each)
        array = found[names[each.name]]
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
        assert array.tolist() == wanted.tolist() if array.dtype == object else array.tobytes() == wanted.tobytes()
