"""Makes the models of this folder with the onnx package; `expected.json` is what `onnx.numpy_helper.to_array` reads from them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
NUMERIC = [name for name, _ in TensorProto.DataType.items() if name not in ("UNDEFINED", "STRING") and not name.startswith("FLOAT6")]


def values(data_type: int, count: int) -> np.ndarray:
    return (np.arange(count) % 3).astype(helper.tensor_dtype_to_np_dtype(data_type))


def typed() -> list[TensorProto]:
    """Each type with its values in the list that is its own, and raw."""
    tensors = []
    for name in NUMERIC:
        number = TensorProto.DataType.Value(name)
        array = values(number, 5)
        tensors.append(numpy_helper.from_array(array, f"raw/{name}"))
        vals = array.astype(np.complex128 if "COMPLEX" in name else np.float64).tolist()
        tensors.append(helper.make_tensor(f"list/{name}", number, [5], vals))
    tensors.append(helper.make_tensor("list/negative", TensorProto.INT32, [3], [-1, -(2**31), 2**31 - 1]))
    tensors.append(helper.make_tensor("list/long", TensorProto.INT64, [3], [-1, -(2**63), 2**63 - 1]))
    tensors.append(helper.make_tensor("list/STRING", TensorProto.STRING, [2], [b"a", "größe".encode()]))
    tensors.append(numpy_helper.from_array(np.array(1.5, "f4"), "scalar"))
    tensors.append(numpy_helper.from_array(np.zeros((0, 3), "f4"), "empty"))
    return tensors


def nested() -> onnx.ModelProto:
    def branch(value: float) -> onnx.GraphProto:
        inner = helper.make_node("Identity", ["w"], ["out"])
        return helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2])], [
            numpy_helper.from_array(np.full(2, value, "f4"), "w")
        ])  # fmt: skip

    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([True])))
    choice = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch(1), else_branch=branch(2))
    unnamed = helper.make_node("If", ["c"], ["z"], then_branch=branch(3), else_branch=branch(4))
    shift = helper.make_function(
        "local",
        "shift",
        ["x"],
        ["r"],
        [
            helper.make_node("Constant", [], ["by"], value=numpy_helper.from_array(np.array(7, "i8"))),
            helper.make_node("Add", ["x", "by"], ["r"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    graph = helper.make_graph([constant, choice, unnamed], "g", [], [])
    model = helper.make_model(graph, functions=[shift], opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)])
    helper.set_model_props(model, {"author": "größe"})
    return model


def main() -> None:
    tensors = typed()
    model = helper.make_model(helper.make_graph([], "typed", [], [], tensors))
    onnx.save(model, HERE / "typed.onnx")
    onnx.save(nested(), HERE / "nested.onnx")
    (HERE / "external").mkdir(exist_ok=True)
    (HERE / "external" / "model.data").unlink(missing_ok=True)
    outside = [numpy_helper.from_array(np.arange(12, dtype="f4").reshape(3, 4), "w"), numpy_helper.from_array(np.arange(5), "n")]
    graph = helper.make_graph([], "external", [], [], outside)
    onnx.save(helper.make_model(graph), HERE / "external" / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=0)
    told = {}
    for tensor in tensors:
        array = numpy_helper.to_array(tensor)
        told[tensor.name] = [array.dtype.name, list(array.shape), hashlib.sha256(array.tobytes()).hexdigest() if array.dtype != object else None]
    (HERE / "expected.json").write_text(json.dumps(told, indent=0) + "\n")


if __name__ == "__main__":
    main()
