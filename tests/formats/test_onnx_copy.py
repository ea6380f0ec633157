"""ONNX files that are copies of a model. What is expected is the same model built with other names or values, byte for byte."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disk import FolderDisk
from executor import content
from wire_writer import field

import surgery
from surgery.api import Source
from surgery.errors import SurgeryError
from surgery.formats import onnx

DATA = Path(__file__).parents[1] / "data" / "onnx"
FLOAT, INT8, INT32, FLOAT16 = 1, 3, 6, 10
W, B = np.arange(3, dtype="<f4"), np.array([7, 8], "<f4")


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*steps: Any) -> list[str]:
    """Carry the steps out, without the table that files beside the output keep; returns the plan's notes."""
    plan = surgery.plan(Source(json.dumps({"surgery": 1, "steps": steps}), "r.yaml"))
    plan.run()
    return [*plan.physical.notes]


def rewritten(stored: bytes, *steps: Any, **options: Any) -> bytes:
    """The model after these steps."""
    Path("in.onnx").write_bytes(stored)
    run({"load": {"path": "in.onnx"}}, *steps, {"save": {"path": "out.onnx", "overwrite": "replace", **options}})
    return Path("out.onnx").read_bytes()


def fault_of(stored: bytes, *steps: Any, **options: Any) -> SurgeryError:
    with pytest.raises(SurgeryError) as fault:
        rewritten(stored, *steps, **options)
    assert fault.value.help
    assert not Path("out.onnx").exists()
    return fault.value


def renamed(**keys: str) -> dict[str, Any]:
    return {"rename": {"keys": keys}}


def tensor(name: str, array: np.ndarray[Any, Any], data_type: int = FLOAT, *more: bytes) -> bytes:
    dims = b"".join(field(1, size) for size in array.shape)
    return dims + field(2, data_type) + field(8, name) + b"".join(more) + field(9, array.tobytes())


def node(kind: str, inputs: list[str], outputs: list[str], *attributes: bytes, name: str = "") -> bytes:
    parts = [field(1, each) for each in inputs] + [field(2, each) for each in outputs] + [field(3, name), field(4, kind)]
    return field(1, b"".join([*parts, *(field(5, each) for each in attributes)]))


def declared(name: str, data_type: int = FLOAT, *sizes: int) -> bytes:
    shape = b"".join(field(1, field(1, size)) for size in sizes)
    return field(1, name) + field(2, field(1, field(1, data_type) + field(2, shape)))


def model(*graph: bytes) -> bytes:
    """A model with fields that no version of ONNX has, before, in and behind the graph."""
    return field(1, 8) + field(1000, "unknown") + field(7, b"".join(graph) + field(999, 5)) + field(8, field(2, 17)) + field(2000, b"\x01")


def using(w: str, b: str, c: str) -> bytes:
    """A model that names its tensors wherever a model can; `inner` shadows `w` in one of the branches."""
    seeing = node("Add", ["inner", w], ["y"]) + field(5, tensor("inner", B)) + field(12, declared("y"))
    shadowing = node("Add", ["w", "w"], ["y"]) + field(5, tensor("w", B)) + field(12, declared("y"))
    return model(
        node("Constant", [], [c], field(1, "value") + field(5, tensor("its own name", B)) + field(20, 4), name="const"),
        node("Add", ["x", w], ["t"], name="add"),
        node("Mul", ["t", c, ""], ["u"]),
        node("If", ["p"], ["v"], field(1, "then_branch") + field(6, seeing), field(1, "else_branch") + field(6, shadowing), name="if"),
        field(2, "g"),
        field(5, tensor(w, W, FLOAT, field(12, "about w"), field(77, "unknown"))),
        field(5, tensor(b, B)),
        field(11, declared("x") + field(3, "about x")),
        field(11, declared(w, FLOAT, 3)),
        field(12, declared("v") + field(3, "about v")),
        field(12, declared(b)),
        field(13, declared(c)),
        field(14, field(1, w) + field(2, field(1, "SCALE_TENSOR") + field(2, b))),
    )


# What stays, and what follows


@pytest.mark.parametrize("name", ["typed", "nested"])
def test_a_model_that_is_not_changed_is_copied_byte_for_byte(name: str) -> None:
    stored = (DATA / f"{name}.onnx").read_bytes()
    assert rewritten(stored) == stored


def test_names_follow_wherever_a_model_has_them_and_all_else_keeps_its_bytes() -> None:
    assert rewritten(using("w", "b", "c"), renamed(w="größe/w", b="b2", c="k")) == using("größe/w", "b2", "k")


def test_two_tensors_can_swap_names() -> None:
    assert rewritten(using("a", "b", "c"), renamed(a="b", b="a")) == using("b", "a", "c")


def test_tensors_of_nested_graphs_and_functions_are_renamed_within_them() -> None:
    found = rewritten(
        (DATA / "nested.onnx").read_bytes(), {"rename": {"keys": {"choice.then_branch/w": "choice.then_branch/new", "shift/by": "shift/B"}}}
    )
    Path("again.onnx").write_bytes(found)
    back = rewritten(found, {"rename": {"keys": {"choice.then_branch/new": "choice.then_branch/w", "shift/B": "shift/by"}}})
    assert b"new" in found
    assert back == (DATA / "nested.onnx").read_bytes()


def test_a_nested_tensor_cannot_leave_its_graph() -> None:
    fault = fault_of((DATA / "nested.onnx").read_bytes(), {"scope": {"add": "enc/", "keys": "shift/by"}})
    assert (fault.code, "has to begin with `shift/`" in fault.title) == ("key-not-storable", True)


@pytest.mark.parametrize("new", ["x", "t", "b", "if.then_branch/inner", "inner", "y"])
def test_a_name_that_another_value_has_is_refused(new: str) -> None:
    assert fault_of(using("w", "b", "c"), renamed(w=new)).code == "key-collision"


def test_sparse_initializers_are_kept_and_told() -> None:
    stored = model(node("Add", ["s", "w"], ["y"]), field(5, tensor("w", W)), field(15, field(1, tensor("s", W)) + field(3, 3)))
    wanted = model(node("Add", ["s", "v"], ["y"]), field(5, tensor("v", W)), field(15, field(1, tensor("s", W)) + field(3, 3)))
    assert rewritten(stored, renamed(w="v")) == wanted


def test_the_name_of_a_sparse_initializer_is_taken() -> None:
    stored = model(field(5, tensor("w", W)), field(15, field(1, tensor("s", W)) + field(3, 3)))
    assert fault_of(stored, renamed(w="s")).code == "key-collision"


def test_metadata_are_edited_in_the_model() -> None:
    kept = field(14, field(1, "author") + field(2, "A"))
    bare = model(field(5, tensor("w", W)))
    stored = bare + kept + field(14, field(1, "version") + field(2, "1"))
    assert rewritten(stored, metadata={"version": "2", "new": "n"}) == bare + kept + b"".join(
        field(14, field(1, key) + field(2, value)) for key, value in [("version", "2"), ("new", "n")]
    )
    assert rewritten(stored, metadata={"version": None}) == bare + kept


def test_a_model_without_tensors_keeps_its_metadata() -> None:
    stored = model() + field(14, field(1, "author") + field(2, "A"))
    assert rewritten(stored) == stored


# Dropped


def test_a_dropped_tensor_goes_with_its_declarations() -> None:
    stored = model(
        node("Add", ["x", "x"], ["y"]), field(5, tensor("w", W)), field(5, tensor("b", B)), field(11, declared("w")), field(13, declared("w"))
    )
    assert rewritten(stored, {"drop": {"keys": "w"}}) == model(node("Add", ["x", "x"], ["y"]), field(5, tensor("b", B)))


def test_a_dropped_constant_goes_with_its_node() -> None:
    constant = node("Constant", [], ["c"], field(1, "value") + field(5, tensor("", B)))
    assert rewritten(model(constant, field(5, tensor("b", B))), {"drop": {"keys": "c"}}) == model(field(5, tensor("b", B)))


@pytest.mark.parametrize(
    ("key", "user"), [("w", "node Add `add`"), ("c", "node Mul `u`"), ("b", "an output of the graph"), ("if.else_branch/w", "node Add `y`")]
)
def test_a_dropped_tensor_that_is_needed_is_an_error_that_names_what_needs_it(key: str, user: str) -> None:
    fault = fault_of(using("w", "b", "c"), {"drop": {"keys": key}})
    assert (fault.code, user in fault.title) == ("tensor-in-use", True)


def test_the_scale_of_a_quantised_tensor_is_needed() -> None:
    stored = model(field(5, tensor("s", B)), field(14, field(1, "x") + field(2, field(1, "SCALE_TENSOR") + field(2, "s"))))
    assert "the quantization of `x`" in fault_of(stored, {"drop": {"keys": "s"}}).title


# Changed


def test_a_changed_tensor_becomes_raw_data_and_its_declarations_tell_its_type() -> None:
    def stored(data_type: int, *initializer: bytes) -> bytes:
        return model(
            field(5, b"".join(initializer)), field(11, declared("w", data_type, 3) + field(3, "doc")), field(13, declared("w", data_type, 3))
        )

    before = stored(FLOAT, field(1, 3), field(2, FLOAT), field(4, W.tobytes()), field(8, "w"), field(12, "doc"))
    after = stored(FLOAT16, field(1, 3), field(2, FLOAT16), field(8, "w"), field(12, "doc"), field(9, W.astype("<f2").tobytes()))
    assert rewritten(before, {"cast": {"dtype": "float16"}}) == after


def test_another_type_than_the_graph_was_made_for_is_told() -> None:
    Path("in.onnx").write_bytes(using("w", "b", "c"))
    notes = run({"load": {"path": "in.onnx"}}, {"cast": {"keys": "b", "dtype": "float16"}}, {"save": {"path": "out.onnx"}})
    assert "out.onnx: 1 tensor of another type or shape than the graph was made for: b f32[2] → f16[2]; try it with onnx.checker" in notes


def test_every_type_can_be_put_into_a_model() -> None:
    typed = onnx.index(str(DATA / "typed.onnx"), FolderDisk())
    keys = [key for key in typed.tensors if key.startswith("raw/") and key[4:] not in ("INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1")]
    assert len(keys) > 15
    copy = {key: f"list/{key[4:]}" for key in keys}
    run(
        {"load": {"path": str(DATA / "typed.onnx")}},
        {"drop": {"keys": [*copy.values()]}},
        {"copy": {"keys": copy}},
        {"save": {"path": "out.onnx"}},
    )
    found = onnx.index("out.onnx", FolderDisk()).tensors
    for key, other in copy.items():
        assert content(found[other], FolderDisk()) == content(typed.tensors[key], FolderDisk())


def test_types_below_a_byte_and_strings_stay_as_the_model_has_them_under_other_names() -> None:
    typed = onnx.index(str(DATA / "typed.onnx"), FolderDisk())
    keys = {key: f"new/{key}" for key in typed.tensors if key.endswith(("INT4", "INT2", "FLOAT4E2M1", "STRING"))}
    assert len(keys) == 11
    Path("found.onnx").write_bytes(rewritten((DATA / "typed.onnx").read_bytes(), {"rename": {"keys": keys}}))
    assert (
        rewritten(Path("found.onnx").read_bytes(), {"rename": {"keys": {new: key for key, new in keys.items()}}})
        == (DATA / "typed.onnx").read_bytes()
    )


def test_strings_cannot_be_put_in_the_place_of_other_tensors() -> None:
    fault = fault_of((DATA / "typed.onnx").read_bytes(), {"drop": {"keys": "scalar"}}, {"copy": {"keys": {"list/STRING": "scalar"}}})
    assert fault.code == "dtype-not-storable"


# Another model


def test_tensors_of_another_checkpoint_replace_those_of_the_model_by_name() -> None:
    Path("m.onnx").write_bytes(model(field(5, tensor("w", W)), field(5, tensor("b", B)), field(14, field(1, "w"))))
    np.savez("new.npz", w=W + 1)
    notes = run({"load": {"path": "new.npz"}}, {"save": {"path": "out.onnx", "model": "m.onnx"}})
    assert Path("out.onnx").read_bytes() == model(field(5, tensor("w", W + 1)), field(5, tensor("b", B)), field(14, field(1, "w")))
    assert "out.onnx: 1 tensor left as m.onnx has them: b" in notes


def test_a_tensor_that_the_model_has_no_place_for_is_refused() -> None:
    fault = fault_of(model(field(5, tensor("w", W))), {"copy": {"keys": {"w": "v"}}})
    assert (fault.code, fault.data["keys"]) == ("unexpected-key", ["v"])


def test_without_a_model_nothing_can_be_written() -> None:
    np.savez("new.npz", w=W)
    with pytest.raises(SurgeryError) as fault:
        run({"load": {"path": "new.npz"}}, {"save": {"path": "out.onnx"}})
    assert (fault.value.code, "no ONNX model is loaded" in fault.value.title) == ("model-needed", True)


def test_of_two_models_one_has_to_be_named() -> None:
    Path("a.onnx").write_bytes(model(field(5, tensor("w", W))))
    Path("b.onnx").write_bytes(model(field(5, tensor("b", B))))
    loads = [{"load": {"path": "a.onnx"}}, {"load": {"path": "b.onnx", "scope": "x/"}}]
    with pytest.raises(SurgeryError) as fault:
        run(*loads, {"save": {"path": "out.onnx"}})
    assert fault.value.code == "model-needed"
    run(*loads, {"drop": {"keys": "x/b"}}, {"save": {"path": "out.onnx"}})
    assert Path("out.onnx").read_bytes() == Path("a.onnx").read_bytes()


def test_graphs_for_training_are_not_copied() -> None:
    assert "training" in fault_of(model(field(5, tensor("w", W))) + field(20, b"")).title


def test_a_graph_that_is_too_large_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgery.formats.onnx_skeleton.MOST_BYTES", 50)
    assert fault_of(model(field(5, tensor("w", W)), field(10, "doc" * 20))).code == "unsupported"


# External data


BIG = np.arange(512, dtype="<f4")
HUGE = np.arange(20_000, dtype="<f4")


def outside(name: str, array: np.ndarray[Any, Any], start: int) -> bytes:
    where = {"location": "out.onnx.data", "offset": str(start), "length": str(array.nbytes)}
    pairs = b"".join(field(13, field(1, word) + field(2, text)) for word, text in where.items())
    return field(5, field(1, len(array)) + field(2, FLOAT) + field(8, name) + pairs + field(14, 1))


INSIDE = model(field(5, tensor("b", B)), field(5, tensor("w", BIG)), field(5, tensor("h", HUGE)))
OUTSIDE = model(field(5, tensor("b", B)), outside("w", BIG, 0), outside("h", HUGE, 4096))


def test_tensors_move_out_of_the_model_and_back() -> None:
    assert rewritten(INSIDE, external_data=True) == OUTSIDE
    assert Path("out.onnx.data").read_bytes() == BIG.tobytes().ljust(4096, b"\0") + HUGE.tobytes()
    shutil.move("out.onnx", "in.onnx")
    run({"load": {"path": "in.onnx"}}, {"save": {"path": "back.onnx", "external_data": False}})
    assert Path("back.onnx").read_bytes() == INSIDE
    assert not Path("back.onnx.data").exists()


def test_external_data_stay_external() -> None:
    run({"load": {"path": str(DATA / "external")}}, renamed(w="v"), {"save": {"path": "out/m.onnx"}})
    found = onnx.index("out/m.onnx", FolderDisk())
    assert [Path(file.path).name for file in found.files] == ["m.onnx", "m.onnx.data"]
    assert content(found.tensors["v"], FolderDisk()) == np.arange(12, dtype="<f4").tobytes()


def test_data_of_an_older_save_go_when_the_model_is_saved_without_any() -> None:
    rewritten(INSIDE, external_data=True)
    assert rewritten(INSIDE) == INSIDE
    assert not Path("out.onnx.data").exists()


def test_a_model_that_would_be_too_large_for_one_file_gets_external_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgery.formats.onnx_layout._MOST_MODEL_BYTES", 1000)
    assert rewritten(INSIDE) == OUTSIDE
    Path("out.onnx").unlink()
    assert fault_of(INSIDE, external_data=False).code == "bad-option"


def test_external_data_of_an_attribute_are_not_left_behind() -> None:
    value = field(1, "value") + field(5, field(1, 2) + field(2, FLOAT) + field(13, field(1, "location") + field(2, "x")) + field(14, 1))
    assert fault_of(model(node("ConstantOfShape", ["s"], ["y"], value))).code == "unsupported"


# Folders


def test_a_folder_with_one_model_is_that_model(tmp_path: Path) -> None:
    shutil.copytree(DATA / "external", "m")
    assert onnx.locate("m", FolderDisk()) == "m/model.onnx"
    shutil.copy("m/model.onnx", "m/other.onnx")
    with pytest.raises(SurgeryError) as fault:
        onnx.locate("m", FolderDisk())
    assert (fault.value.code, fault.value.notes) == ("ambiguous-source", ("model.onnx, other.onnx",))
    Path("none").mkdir()
    assert onnx.locate("none", FolderDisk()) is None


def test_a_large_graph_is_copied_in_time_that_grows_with_it() -> None:
    """Ten times the nodes, all renamed, may take thirty times as long."""

    def seconds(count: int) -> float:
        nodes = [node("Add", [f"w{number}", f"t{number}"], [f"t{number + 1}"]) for number in range(count)]
        Path("in.onnx").write_bytes(model(*nodes, *(field(5, tensor(f"w{number}", B)) for number in range(count))))
        began = time.process_time()
        surgery.plan(
            Source('{"surgery": 1, "steps": [{"load": {"path": "in.onnx"}}, {"scope": {"add": "e/"}}, {"save": {"path": "o.onnx"}}]}', "r.yaml")
        )
        return time.process_time() - began

    assert seconds(5000) < 30 * seconds(500)
