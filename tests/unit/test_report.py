import re
from pathlib import Path
from pprint import pformat
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import surgery
from surgery.dtypes import DTYPES
from surgery.report import _without_numbers, checkpoint_json, collapsed, explain, listing, plan_json, plan_text, spec_yaml, tree
from surgery.tensors import TensorSpec


def spec(*shape: int) -> TensorSpec:
    return TensorSpec(DTYPES["float32"], shape)


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ({}, []),
        ({"a": spec(2), "b": spec()}, ["a  f32[2]", "b  f32[]"]),
        ({f"h.{number}.w": spec(2) for number in range(12)}, ["h.{0-11}.w  f32[2]"]),
        ({f"h.{number}.w": spec(2) for number in (0, 2, 5)}, ["h.{0, 2, 5}.w  f32[2]"]),
        ({"h.0.w": spec(2), "h.1.w": spec(3), "h.2.w": spec(2)}, ["h.{0, 2}.w  f32[2]", "h.1.w  f32[3]"]),
        ({"h.0.1": spec(), "h.1.0": spec(), "h.1.1": spec()}, ["h.0.1 and 2 alike  f32[]"]),
        ({"h.0.q.8": spec(), "h.1.q.8": spec()}, ["h.{0-1}.q.8  f32[]"]),
    ],
)
def test_keys_that_differ_in_a_number_share_a_line(rows: dict[str, TensorSpec], lines: list[str]) -> None:
    assert collapsed(rows) == lines


@given(st.lists(st.text("a01.9", max_size=6) | st.text("a0\n٣é", max_size=4)))
def test_keys_as_one_text_lose_their_numbers_as_one_by_one(keys: list[str]) -> None:
    assert _without_numbers(keys) == [re.sub(r"\d+", "0", key) for key in keys]


def test_many_lines_are_cut_and_counted() -> None:
    lines = collapsed({letter: spec() for letter in "abcdefghijklmnop"})
    assert len(lines) == 12
    assert lines[-1] == "… and 5 more lines; `--json` has all"


@pytest.fixture
def checkpoint(work: Path) -> Any:
    np.savez("a.npz", **{"b/w": np.ones((2, 3), "f4"), "b/10": np.zeros(2, "i8"), "a": np.array(1.5)})
    with surgery.open("a.npz") as opened:
        yield opened


def test_the_listing_is_sorted_as_tensorflow_sorts(checkpoint: Any) -> None:
    assert listing(checkpoint) == "[('a', []), ('b/10', [2]), ('b/w', [2, 3])]"


@pytest.mark.parametrize("keys", [[], ["a"], *(["k" * width, "b"] for width in range(100, 112)), ["k" * 300, "b"], ["it's", "ü" * 90, "\n"]])
def test_a_long_listing_is_what_pprint_makes_of_it(keys: list[str]) -> None:
    pairs = [(key, [2, 3]) for key in sorted(keys)]
    checkpoint = cast(Any, {key: SimpleNamespace(shape=(2, 3)) for key in keys})
    assert listing(checkpoint) == pformat(pairs, width=120)


def test_a_tree_splits_at_slashes(checkpoint: Any) -> None:
    assert tree(checkpoint.indexed.tensors).splitlines() == [
        "├── b/  (2 tensors, 40 B)",
        "│   ├── w  f32[2,3]  24 B",
        "│   └── 10  i64[2]  16 B",
        "└── a  f64[]  8 B",
    ]


def test_a_tree_without_slashes_splits_at_dots(work: Path) -> None:
    np.savez("d.npz", **{"x.y.z": np.ones(2, "f4"), "x.v": np.ones(2, "f4")})
    with surgery.open("d.npz") as opened:
        assert tree(opened.indexed.tensors).splitlines() == [
            "└── x.  (2 tensors, 16 B)",
            "    ├── y.  (1 tensor, 8 B)",
            "    │   └── z  f32[2]  8 B",
            "    └── v  f32[2]  8 B",
        ]


def test_a_key_that_is_also_a_scope_is_shown_beside_it(work: Path) -> None:
    np.savez("k.npz", **{"a": np.ones(2, "f4"), "a/b": np.ones(3, "f4"), "a/b/c": np.ones(1, "f4")})
    with surgery.open("k.npz") as opened:
        text = tree(opened.indexed.tensors)
    assert [shape for shape in ("f32[2]", "f32[3]", "f32[1]") if shape not in text] == []


def test_a_spec_quotes_what_has_to_be_quoted(work: Path) -> None:
    np.savez("s.npz", **{"a b": np.ones(2, "f4"), 'q"\\': np.array(True), "ok/x": np.array(1)})
    with surgery.open("s.npz") as opened:
        assert spec_yaml(opened).splitlines() == [
            "variables:",
            '  "a b": {shape: [2], dtype: float32}',
            '  "q\\U00000022\\U0000005c": {shape: [], dtype: bool}',
            "  ok/x: {shape: [], dtype: int64}",
        ]


def test_a_checkpoint_as_json(checkpoint: Any) -> None:
    told = checkpoint_json(checkpoint)
    assert told["tensors"]["b/w"] == {"dtype": "float32", "shape": [2, 3], "nbytes": 24}
    assert (told["path"], told["format"], told["files"]) == ("a.npz", "npz", ["a.npz"])


@pytest.fixture
def planned(checkpoint: Any) -> Any:
    steps = ["load: {path: a.npz}", "drop: {keys: a}", "cast: {keys: b/w, dtype: float16}", "assert: {keys: b/w, finite: true}"]
    text = "".join(f"  - {step}\n" for step in [*steps, "save: {path: out.safetensors, match: w}"])
    Path("r.yaml").write_text(f"surgery: 1\nsteps:\n{text}")
    return surgery.plan("r.yaml", jobs=2)


def test_a_plan_in_words(planned: Any) -> None:
    lines = plan_text(planned).splitlines()
    assert lines[:4] == [
        "read   a.npz: npz, 3 tensors, 48 B",
        "drop   1 tensor (steps[1]): a",
        "write  out.safetensors: safetensors, 1 tensor, 12 B computed, 1 file",
        "       b/w  f16[2,3]",
    ]
    assert "note   1 loaded tensor left over, neither saved nor dropped: b/10" in lines
    assert "check  1 demand on values before the commit" in lines
    assert lines[-1].startswith("memory ")
    assert lines[-1].endswith(" for arrays at most, 2 jobs")


def test_a_plan_as_data(planned: Any) -> None:
    told = plan_json(planned)
    assert told["outputs"][0]["tensors"] == {"b/w": {"dtype": "float16", "shape": [2, 3], "from": "b/w", "checkpoint": "a.npz"}}
    assert (told["outputs"][0]["copied_bytes"], told["outputs"][0]["computed_bytes"]) == (0, 12)
    assert told["left_over"] == [{"checkpoint": "a.npz", "key": "b/10"}]
    assert told["checks"] == 1


def test_a_dropped_key_is_explained_as_dropped(planned: Any) -> None:
    with pytest.raises(surgery.NotFoundError) as caught:
        explain(planned, "a")
    assert "steps[1] dropped it" in caught.value.notes
