"""`surgery invert`: what takes each step back, and that the written recipe, run on the real output, gives the source to the last bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import surgery
from surgery.api import Plan, Source
from surgery.dtypes import DTYPES, numpy_dtype
from surgery.errors import ApplyError, PlanError
from surgery.round_trip import WayBack, prove, written

Arrays = dict[str, np.ndarray[Any, Any]]


def counted(*shape: int, start: int = 0, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return np.arange(start, start + int(np.prod(shape, dtype=int)), dtype=dtype).reshape(shape)


def planned(steps: list[Any], arrays: Arrays, **how: Any) -> Plan:
    np.savez("in.npz", **arrays)  # type: ignore[arg-type]
    text = json.dumps({"surgery": 1, "steps": [{"load": {"path": "in.npz"}}, *steps, {"save": {"path": "out.safetensors"}}]})
    return surgery.plan(Source(text, "r.yaml"), force=True, **how)


def back(plan: Plan) -> WayBack:
    return written(plan.logical, plan.facts.catalog)


def lines(way: WayBack) -> list[str]:
    """The steps between load and save, one on a line."""
    text = way.text.partition("steps:\n")[2]
    return [line.strip().removeprefix("- ") for line in text.splitlines() if not line.startswith(("  - load:", "  - save:"))]


LAYERS = range(12)
CASES: dict[str, tuple[list[Any], Arrays, list[str]]] = {
    "a rule with groups is reversed": (
        [{"rename": {"match": "^bert/(.*)$", "to": "\\1"}}],
        {"bert/a": counted(2), "bert/b/c": counted(3)},
        ["rename: {match: '^(.*)$', to: 'bert/\\1'}"],
    ),
    "each separator": ([{"rename": {"match": "/", "to": ".", "all": True}}], {"a/b/c": counted(2)}, ["rename: {match: '\\.', to: '/', all: true}"]),
    "a rule that two names lead to is reversed by what stands before them": (
        [{"rename": {"match": "/(kernel|gamma)$", "to": "/weight"}}],
        {f"l{i}/{name}": counted(2, start=i) for i in LAYERS for name in ("dense/kernel", "norm/gamma")},
        ["rename: [{match: '(dense/)weight$', to: '\\1kernel'}, {match: '(norm/)weight$', to: '\\1gamma'}]"],
    ),
    "names that swap": ([{"rename": {"keys": {"a": "b", "b": "a"}}}], {"a": counted(2), "b": counted(2, start=5)}, ["rename: {keys: {b: a, a: b}}"]),
    "prefixes are put on and taken off": (
        [{"scope": {"strip": "bert/"}}, {"scope": {"add": "x."}}, {"scope": {"from": "x.", "to": "z/"}}],
        {"bert/a": counted(2), "bert/b": counted(3)},
        ["scope: {from: z/, to: x.}", "scope: {strip: x.}", "scope: {add: bert/}"],
    ),
    "a prefix that some keys had": ([{"scope": {"strip": "m."}}], {"m.a": counted(2), "b": counted(3)}, ["rename: {keys: {a: m.a}}"]),
    "axes in their old order": (
        [{"transpose": {"match": "w$", "order": [2, 0, 1]}}],
        {"a.w": counted(2, 3, 4), "b": counted(2)},
        ["transpose: {match: 'w$', order: [1, 2, 0]}"],
    ),
    "sides of a pattern are exchanged": (
        [{"rearrange": {"match": "q$", "pattern": "(h d two) i -> (h two d) i", "axes": {"h": 2, "two": 2}}}],
        {"q": counted(8, 3), "v": counted(8, 3)},
        ["rearrange: {match: 'q$', pattern: '(h two d) i -> (h d two) i', axes: {h: 2, two: 2}}"],
    ),
    "axes that were there by themselves": (
        [{"rearrange": {"keys": "q", "pattern": "i h d -> (h d) i"}}],
        {"q": counted(3, 2, 4)},
        ["rearrange: {keys: q, pattern: '(h d) i -> i h d', axes: {d: 4, h: 2}}"],
    ),
    "old shapes": (
        [{"reshape": {"match": "q", "shape": [-1]}}],
        {"0.q": counted(2, 3), "1.q": counted(2, 3, start=9), "q": counted(4, 1)},
        ["reshape: {match: '^(\\d+)\\.q$', shape: [2, 3]}", "reshape: {keys: [q], shape: [4, 1]}"],
    ),
    "a wider dtype loses nothing": (
        [{"cast": {"dtype": "float64"}}],
        {"a": counted(3), "n": counted(3, dtype="int32")},
        ["cast: {where: {dtype: float64}, dtype: float32}"],
    ),
    "parts are joined": (
        [{"split": {"match": r"^(.*)\.c_attn\.w$", "axis": -1, "parts": 3, "to": [r"\1.q", r"\1.k", r"\1.v"]}}],
        {f"h.{i}.c_attn.w": counted(2, 6, start=i) for i in LAYERS},
        ["concat: {match: ['^h\\.(\\d+)\\.q$', '^h\\.(\\d+)\\.k$', '^h\\.(\\d+)\\.v$'], to: 'h.\\1.c_attn.w', axis: -1}"],
    ),
    "wholes are split": (
        [{"concat": {"match": [r"\.q$", r"\.k$"], "to": ".qk", "axis": 0}}],
        {f"h.{i}.{name}": counted(size, 3, start=i) for i in LAYERS for name, size in (("q", 4), ("k", 2))},
        ["split: {match: '^h\\.(\\d+)\\.qk$', to: ['h.\\1.q', 'h.\\1.k'], sizes: [4, 2], axis: 0}"],
    ),
    "experts are unstacked": (
        [{"stack": {"match": r"^(.*)\.experts\.(\d+)\.(\w+)$", "to": r"\1.experts.\3"}}],
        {f"l.{n}.experts.{e}.up": counted(2, 3, start=20 * n + e) for n in range(2) for e in LAYERS},
        ["unstack: {match: '^l\\.(\\d+)\\.experts\\.up$', to: 'l.\\1.experts.{i}.up', axis: 0}"],
    ),
    "experts are stacked": (
        [{"unstack": {"match": r"^(.*)\.experts\.(\w+)$", "to": r"\1.experts.{i}.\2"}}],
        {f"l.{n}.experts.up": counted(12, 2, 3, start=n) for n in range(2)},
        ["stack: {match: '^l\\.(\\d+)\\.experts\\.(\\d+)\\.up$', to: 'l.\\1.experts.up', axis: 0}"],
    ),
    "members without numbers are unstacked and named": (
        [{"stack": {"match": [r"\.gate$", r"\.up$"], "to": ".both", "axis": 1}}],
        {"l.gate": counted(2, 3), "l.up": counted(2, 3, start=9)},
        ["unstack: {keys: l.both, to: 'l.both.{i}', axis: 1}", "rename: {keys: {l.both.0: l.gate, l.both.1: l.up}}"],
    ),
    "ties are duplicated": (
        [{"tie": {"keys": ["a", "b"]}}],
        {"a": counted(3), "b": counted(3), "c": counted(2)},
        ["tie: {keys: [a, b], policy: duplicate}"],
    ),
    "copies are dropped": ([{"copy": {"keys": {"a": ["x", "z"]}}}], {"a": counted(3)}, ["drop: {keys: [x, z]}"]),
    "a copy that is left is the tensor": ([{"copy": {"keys": {"a": "x"}}}, {"drop": {"keys": "a"}}], {"a": counted(3)}, ["rename: {keys: {x: a}}"]),
    "made tensors are dropped": (
        [{"init_missing": {"variables": {"head": {"shape": [2]}}, "init": "zeros"}}],
        {"a": counted(3)},
        ["drop: {keys: [head]}"],
    ),
    "checks need nothing": ([{"assert": {"finite": True}}], {"a": counted(3)}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_the_inverse_gives_the_source_back(case: str, work: Path) -> None:
    steps, arrays, expected = CASES[case]
    plan = planned(steps, arrays, verify_inverse=True)
    plan.run()
    way = back(plan)
    assert lines(way) == expected
    assert list(way.lost) == []
    surgery.plan(Source(way.text, "inverse.yaml"), {"target": "back.npz"}).run()
    with np.load("back.npz") as found:
        assert {key: (value.dtype, value.tolist()) for key, value in found.items()} == {k: (v.dtype, v.tolist()) for k, v in arrays.items()}


@pytest.mark.parametrize(
    ("steps", "lost", "rounded"),
    [
        ([{"drop": {"keys": "b"}}], ["steps[1] (drop) has no inverse for b."], []),
        ([{"slice": {"keys": "b", "stop": 1}}], ["steps[1] (slice) has no inverse for b."], []),
        ([{"rename": {"keys": {"a": "b"}, "replace": True}}], ["steps[1] (rename) has no inverse for b."], []),
        ([{"cast": {"keys": "b", "dtype": "float16"}}], [], ["b"]),
        ([{"cast": {"keys": "b", "dtype": "int32", "rounding": "nearest"}}], [], ["b"]),
    ],
)
def test_what_cannot_be_had_is_told_and_the_rest_comes_back(steps: list[Any], lost: list[str], rounded: list[str], work: Path) -> None:
    plan = planned(steps, {"a": counted(2), "b": counted(2, start=7)})
    way = back(plan)
    proof = prove(plan.logical, way)
    assert list(way.lost) == lost
    assert [key for _, key in proof.rounded] == rounded
    assert [key for _, key in proof.missing] == (["b"] if lost else [])
    assert [key for _, key in proof.same] == ["a"]


def test_several_sources_and_outputs(work: Path) -> None:
    np.savez("a.npz", w=counted(2), x=counted(3))
    np.savez("b.npz", w=counted(4, start=9))
    steps = [{"load": {"path": "a.npz", "scope": "a/"}}, {"load": {"path": "b.npz", "scope": "b/"}}]
    saves = [{"save": {"path": "one.npz", "match": "^a/"}}, {"save": {"path": "two.npz", "match": "^b/"}}]
    plan = surgery.plan(Source(json.dumps({"surgery": 1, "steps": [*steps, *saves]}), "r.yaml"))
    plan.run()
    surgery.plan(Source(back(plan).text, "inverse.yaml"), {"target": "b.back.npz", "target_2": "a.back.npz"}).run()
    with np.load("a.back.npz") as a, np.load("b.back.npz") as b:
        assert {key: value.tolist() for key, value in a.items()} == {"w": [0, 1], "x": [0, 1, 2]}
        assert {key: value.tolist() for key, value in b.items()} == {"w": [9, 10, 11, 12]}


def test_the_command_prints_a_recipe_and_tells_what_is_lost(work: Path, recipe: Callable[..., str], surgery: Callable[..., Any]) -> None:
    np.savez("in.npz", **{"bert/w": counted(2), "step": np.array(3)})
    path = recipe({"load": {"path": "in.npz"}}, {"drop": {"keys": "step"}}, {"scope": {"strip": "bert/"}}, {"save": {"path": "out.safetensors"}})
    ran = surgery("invert", path)
    assert ran.out.splitlines() == [
        "# steps[1] (drop) has no inverse for step.",
        "surgery: 1",
        "name: r-inverse",
        "params:",
        "  source: {type: string, default: out.safetensors}",
        "  target: {type: string, description: 'where in.npz goes'}",
        "steps:",
        "  - load: {path: '${source}'}",
        "  - scope: {add: bert/}",
        "  - save: {path: '${target}', format: npz}",
    ]
    assert ran.err == "note: 1 of 2 tensors come back to the last bit (1 as the same bytes); not given back: step\n"
    assert surgery("invert", path, "-o", "back.yaml", "--json").json["missing"] == ["step"]
    assert surgery("lint", "back.yaml").code == 0


def wrong_inverse(work: Path, *steps: str) -> Source:
    """A recipe that names an inverse of these steps."""
    np.savez("in.npz", w=counted(2, 2))
    text = "surgery: 1\nparams: {there: {type: string}}\nsteps:\n  - load: {path: whatever}\n"
    (work / "back.yaml").write_text(text + "".join(f"  - {step}\n" for step in steps) + "  - save: {path: '${there}'}\n")
    return Source("surgery: 1\ninverse: back.yaml\nsteps:\n  - load: {path: in.npz}\n  - transpose: {keys: w}\n  - save: {path: out.npz}\n", "r.yaml")


def test_a_named_inverse_is_believed_when_it_is_right(work: Path) -> None:
    plan = surgery.plan(wrong_inverse(work, "transpose: {keys: w}"), verify_inverse=True)
    assert "inverse: 1 of 1 tensor come back to the last bit (0 as the same bytes)" in plan.logical.notes
    plan.run()
    assert Path("out.npz").exists()


def test_a_square_matrix_that_stays_turned_is_found_and_nothing_is_written(work: Path) -> None:
    plan = surgery.plan(wrong_inverse(work, "assert: {count: 1}"), verify_inverse=True)
    with pytest.raises(ApplyError, match=r"`w` differs from `the one in in\.npz`: value 2\.0 at \[0, 1\]"):
        plan.run()
    assert not Path("out.npz").exists()


@pytest.mark.parametrize("steps", [("cast: {dtype: float64}",), ("rename: {match: w, to: v}",), ("save: {path: x.npz}",)])
def test_an_inverse_of_another_form_is_refused_by_the_plan(steps: tuple[str, ...], work: Path) -> None:
    with pytest.raises(PlanError) as caught:
        surgery.plan(wrong_inverse(work, *steps), verify_inverse=True)
    assert caught.value.code == "no-inverse"


def test_a_named_inverse_that_wants_values_of_its_own_gives_way_to_one_that_is_worked_out(work: Path) -> None:
    source = wrong_inverse(work, "reshape: {keys: w, shape: [1, '${heads}']}")
    back = (work / "back.yaml").read_text()
    (work / "back.yaml").write_text(back.replace("{there:", "{heads: {type: integer}, there:"))
    plan = surgery.plan(source, verify_inverse=True)
    note = "inverse, worked out of the plan since back.yaml has heads to be told: 1 of 1 tensor come back to the last bit (0 as the same bytes)"
    assert note in plan.logical.notes
    plan.run()


FLOATS = [dtype for dtype in DTYPES.values() if dtype.kind == "float" and dtype.numpy and dtype.bits <= 16]


@pytest.mark.parametrize("source", FLOATS, ids=str)
def test_lossless_is_what_a_cast_of_every_value_shows(source: Any) -> None:
    """All values of the narrow types are cast to each other one and back by ml_dtypes."""
    from surgery.casting import is_lossless

    values = np.arange(1 << source.bits if source.bits == 16 else 256, dtype="u2" if source.bits == 16 else "u1").view(numpy_dtype(source))
    if source.name.startswith(("float4", "float6")):
        values = values[: 1 << int(source.name[5])]
    with np.errstate(all="ignore"):
        exact = values.astype("f8")
    for target in FLOATS:
        with np.errstate(all="ignore"):
            same = exact.astype(numpy_dtype(target)).astype("f8")
        kept = bool(np.all((same == exact) & (np.signbit(same) == np.signbit(exact)) | (np.isnan(same) & np.isnan(exact))))
        assert is_lossless(source, target) <= kept, target
