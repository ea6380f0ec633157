"""How other tools fail where they take tensors apart, join them and work them out, and at PyTorch's files: one test for each."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_regressions import DATA, FILES, Recipe, Run, load, raw_safetensors, save, values

import surgery as api

OUT: dict[str, Any] = {"save": {"path": "b.npz"}}


class Trap:
    """What makes a folder where its pickle is carried out."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("sprung",)


def zipped(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")


def legacy(path: Path, data: bytes) -> None:
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + data + pickle.dumps([], 2))


def distributed(path: Path, data: bytes) -> None:
    path.mkdir()
    (path / ".metadata").write_bytes(data)
    (path / "__0_0.distcp").write_bytes(b"")


@pytest.mark.parametrize(
    ("written", "says"),
    [(zipped, "not read, but for tensors in them: posix.mkdir"), (legacy, "not read, but for tensors in them: posix.mkdir"), (distributed, "error[")],
)
def test_a_pickle_is_never_carried_out(work: Path, surgery: Run, written: Callable[[Path, bytes], None], says: str) -> None:
    written(work / "a.pt", pickle.dumps({"torch.distributed.checkpoint.metadata": Trap()}, 2))
    ran = surgery("inspect", "a.pt")
    assert says in ran.err
    assert not Path("sprung").exists()


def from_torch(path: str, key: str) -> str:
    """The bytes that torch itself reads, in hexadecimal."""
    hexadecimal: str = json.loads((DATA / "torch" / "expected.json").read_text())[path][key][2]
    return hexadecimal


@pytest.mark.parametrize("path", ["views.pt", "views.pth"])
@pytest.mark.parametrize("key", ["columns", "diagonal", "repeated", "scalar", "element", "tied_part", "nothing_of_it"])
def test_a_strided_view_has_its_own_values(work: Path, recipe: Recipe, surgery: Run, path: str, key: str) -> None:
    assert surgery("run", recipe(load(str(DATA / "torch" / path)), {"keep": {"keys": key}}, {"save": {"path": "b.safetensors"}})).code == 0
    with api.open("b.safetensors") as saved:
        assert saved[key].numpy().tobytes().hex() == from_torch(path, key)


def test_tensors_with_one_storage_are_saved_and_told_or_tied(work: Path, recipe: Recipe, surgery: Run) -> None:
    of_two = [load(str(DATA / "torch" / "views.pt")), {"keep": {"keys": ["tied", "tied_too"]}}]
    ran = surgery("run", recipe(*of_two, {"save": {"path": "b.safetensors"}}))
    assert ran.code == 0, ran.err
    assert "1 tensor tied to others in the source, stored once more each (20 B): tied_too" in ran.out
    assert surgery("run", recipe(*of_two, {"tie": {"keys": ["tied", "tied_too"], "policy": "drop"}}, {"save": {"path": "c.safetensors"}})).code == 0
    assert list(values("c.safetensors")) == ["tied"]


@pytest.mark.parametrize("path", ["nested.pt", "nested.pth"])
def test_the_model_of_a_training_checkpoint_is_a_part_of_the_file(work: Path, recipe: Recipe, surgery: Run, path: str) -> None:
    assert surgery("run", recipe(load(str(DATA / "torch" / path), root=["state_dict", "model", ""]), OUT)).code == 0
    with np.load("b.npz") as saved:
        assert list(saved) == ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
        assert saved["0.weight"].tobytes().hex() == from_torch(path, "model.0.weight")


def test_thirty_two_layers_are_split_by_one_step(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", **{f"h.{layer}.qkv": np.arange(6, dtype="f4") + layer for layer in range(32)})
    assert surgery("run", recipe(load(), {"split": {"match": "qkv$", "parts": 3, "to": ["q", "k", "v"]}}, OUT)).code == 0
    assert values("b.npz") == {
        f"h.{layer}.{name}": [layer + at, layer + at + 1] for layer in range(32) for at, name in ((0, "q"), (2, "k"), (4, "v"))
    }


def test_eleven_experts_are_stacked_in_the_order_of_their_numbers(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", **{f"e.{number}.w": np.float32(number) for number in sorted(range(11), key=str)})
    assert surgery("run", recipe(load(), {"stack": {"match": r"e\.(?P<e>\d+)\.w", "to": "w"}}, OUT)).code == 0
    assert values("b.npz") == {"w": list(range(11))}


def test_a_missing_expert_is_named_and_nothing_is_written(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", **{f"e.{number}.w": np.float32(number) for number in (0, 1, 3)})
    ran = surgery("run", recipe(load(), {"stack": {"match": r"e\.(?P<e>\d+)\.w", "to": "w"}}, OUT))
    assert ran.code == 1
    assert "e.2.w" in ran.err
    assert not Path("b.npz").exists()


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        ({"split": {"keys": "w", "axis": 1, "sizes": [1, 2], "to": ["a", "b"]}}, {"a": [[0], [3]], "b": [[1, 2], [4, 5]]}),
        ({"slice": {"keys": "w", "axis": 1, "start": 1}}, {"w": [[1, 2], [4, 5]]}),
        ({"rearrange": {"keys": "w", "pattern": "a b -> b a"}}, {"w": [[0, 3], [1, 4], [2, 5]]}),
        ({"unstack": {"keys": "w", "axis": 1, "to": "w{i}"}}, {"w0": [0, 3], "w1": [1, 4], "w2": [2, 5]}),
    ],
    ids=["split", "slice", "rearrange", "unstack"],
)
def test_a_result_that_is_a_view_is_saved_whole(work: Path, recipe: Recipe, surgery: Run, form: str, step: Any, wanted: Any) -> None:
    save("a.npz", w=np.arange(6, dtype="f4").reshape(2, 3))
    ran = surgery("run", recipe(load(), step, {"save": FILES[form]}))
    assert ran.code == 0, ran.err
    assert values(str(FILES[form]["path"])) == wanted


def test_what_a_formula_makes_must_fit_its_type(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", w=np.array([1, 40000], "f2"))
    ran = surgery("run", recipe(load(), {"compute": {"let": {"w": "^w$"}, "expr": "w * 2", "to": "v"}}, OUT))
    assert ran.code == 1
    assert "error[overflow]: `v` has the value 80000, which float16 cannot hold" in ran.err
    assert not Path("b.npz").exists()


def test_a_value_that_float8_cannot_hold_is_an_error(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", w=np.array([448, 500], "f4"))
    cast = {"cast": {"dtype": "float8_e4m3fn"}}
    ran = surgery("run", recipe(load(), cast, {"save": {"path": "b.safetensors"}}))
    assert ran.code == 1
    assert "`w` has the value 500, which float8_e4m3fn cannot hold" in ran.err


def test_a_merge_is_worked_out_in_float32(work: Path, recipe: Recipe, surgery: Run) -> None:
    """Two small differences that bfloat16 would lose one by one."""
    import ml_dtypes

    raw_safetensors("a.safetensors", "w", np.array([256], ml_dtypes.bfloat16))
    save("d.npz", d=np.array([1], "f4"))
    compute = {"compute": {"let": {"w": "^w$", "d": "^d$"}, "expr": "w + d + d", "to": "w"}}
    assert surgery("run", recipe(load("a.safetensors"), load("d.npz"), compute, {"save": {"path": "b.safetensors"}})).code == 0
    assert values("b.safetensors")["w"] == [258.0]


def test_joined_and_computed_tensors_are_the_same_for_any_jobs_and_memory(work: Path, recipe: Recipe, surgery: Run) -> None:
    rng = np.random.default_rng(2)
    save("a.npz", **{f"e.{number}": rng.normal(size=(300, 400)).astype("f4") for number in range(4)}, b=rng.normal(size=(400, 300)).astype("f4"))
    steps = [
        load(),
        {"compute": {"let": {"w": "^e.0$", "b": "^b$"}, "expr": "w @ b / 3", "to": "product", "keep_inputs": True}},
        {"stack": {"match": r"e\.(?P<e>\d)", "to": "e"}},
        {"resize": {"keys": "product", "size": 350, "fill": "mean"}},
        {"rearrange": {"keys": "e", "pattern": "e (h w) k -> (e k) h w", "axes": {"h": 4}}},
        OUT,
    ]
    seen = set()
    for options in ([], ["--jobs", "1"], ["--jobs", "4"], ["--memory", "2MiB"], ["--jobs", "4", "--memory", "2MiB"]):
        ran = surgery("run", "--force", *options, recipe(*steps))
        assert ran.code == 0, ran.err
        seen.add(Path("b.npz").read_bytes())
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("  - stack: {match: (?P<e>a), to: b, to: c}", "3:37"),
        ("  - use: {recipe: a.yaml, with: {p: 1, p: 2}}", "3:40"),
        ("  - compute: {let: {w: a, w: b}, expr: w, to: c}", "3:27"),
        ("  - rearrange: {keys: a, pattern: a -> a, axis: {h: 1}}", "3:43"),
        ("  - tie: {keys: [a, b], polcy: drop}", "3:25"),
        ("  - resize: {keys: a, size: 3, fill: {normal: {std: 1}, uniform: {}}}", "3:38"),
    ],
)
def test_unknown_and_duplicate_words_are_refused_in_steps_for_values(work: Path, surgery: Run, text: str, place: str) -> None:
    Path("r.yaml").write_text(f"surgery: 1\nsteps:\n{text}\n")
    ran = surgery("lint", "r.yaml")
    assert ran.code == 2
    assert f"r.yaml:{place}" in ran.err
