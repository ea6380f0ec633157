"""Mappings of other tools as recipes: what they do to the names of a checkpoint, and what is told where they cannot be said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import surgery
from surgery.errors import RecipeError, SurgeryError
from surgery.importers import assignment_map, csv_names, t5x, transformers_mapping, transforms
from surgery.importers.draft import Draft
from surgery.importers.transforms import Mapped, described

Run = Callable[..., Any]


@pytest.fixture
def names(tmp_path: Path) -> Callable[[Draft, Sequence[str]], dict[str, str]]:
    """For each key of the result, the key whose tensor it has."""

    def run(draft: Draft, keys: Sequence[str]) -> dict[str, str]:
        made = arrays(draft, {key: np.full(2, at, "i4") for at, key in enumerate(keys)}, tmp_path)
        return {new: keys[int(value[0])] for new, value in made.items()}

    return run


def arrays(draft: Draft, tensors: Mapping[str, Any], folder: Path, **params: Any) -> dict[str, Any]:
    np.savez(folder / "source.npz", **tensors)
    (folder / "recipe.yaml").write_text(draft.text("surgery import"))
    places = {"source": str(folder / "source.npz"), "target": str(folder / "target.npz")}
    surgery.plan(folder / "recipe.yaml", params=places | params, force=True).run()
    with np.load(folder / "target.npz") as made:
        return dict(made)


# TensorFlow


KEYS = ["bert/w", "bert/layer/b", "cls/w", "step"]


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"bert/": "encoder/"}, {"encoder/w": "bert/w", "encoder/layer/b": "bert/layer/b"}),
        ({"/": "model/"}, {"model/" + key: key for key in KEYS}),
        ({"bert/": "/"}, {"w": "bert/w", "layer/b": "bert/layer/b"}),
        ({"/": "/"}, {key: key for key in KEYS}),
        ({"bert/w": "a", "cls/w": "b"}, {"a": "bert/w", "b": "cls/w"}),
        ({"bert/w": "cls/w", "cls/w": "bert/w"}, {"cls/w": "bert/w", "bert/w": "cls/w"}),
        ({"bert/": "cls/", "cls/": "bert/"}, {"cls/w": "bert/w", "cls/layer/b": "bert/layer/b", "bert/w": "cls/w"}),
        ({"bert/": "a/", "bert/w": "b"}, {"a/w": "bert/w", "a/layer/b": "bert/layer/b", "b": "bert/w"}),
        ({"bert/": "a/", "step": "global_step"}, {"a/w": "bert/w", "a/layer/b": "bert/layer/b", "global_step": "step"}),
        ([["bert/w", "a"], ["bert/w", "b"]], {"a": "bert/w", "b": "bert/w"}),
    ],
)
def test_an_assignment_map_of_tensorflow(names: Any, mapping: Any, expected: dict[str, str]) -> None:
    assert names(assignment_map.read(json.dumps(mapping), "m", False), KEYS) == expected


def test_an_assignment_map_backwards(names: Any) -> None:
    draft = assignment_map.read('{"bert/": "encoder/", "cls/w": "head"}', "m", True)
    assert names(draft, ["encoder/w", "head"]) == {"bert/w": "encoder/w", "cls/w": "head"}


def test_characters_of_patterns_and_of_recipes_are_text(names: Any) -> None:
    draft = assignment_map.read(json.dumps({"a.b*/": "x{1}\\/", "${v}": "$${w}'"}), "m", False)
    assert names(draft, ["a.b*/w", "${v}", "aXb*/w"]) == {"x{1}\\/w": "a.b*/w", "$${w}'": "${v}"}


def test_a_scope_for_a_name_is_told_not_guessed() -> None:
    draft = assignment_map.read('{"bert/": "encoder/w", "w": 3, "a": "b"}', "m", False)
    assert [reason.partition(",")[0] for reason in draft.unexpressed] == ["'bert/': 'encoder/w'", "'w': 3"]
    assert "1 of 3 rules are expressed" in draft.text("x")


def test_an_equal_key_of_the_json_object_is_not_lost(names: Any) -> None:
    assert names(assignment_map.read('{"bert/w": "a", "bert/w": "b"}', "m", False), KEYS) == {"a": "bert/w", "b": "bert/w"}


@pytest.mark.parametrize("text", ["{", "3", "[1]", '["ab"]', "\ud800", "[" * 100_000])
@pytest.mark.parametrize("read", [assignment_map.read, t5x.read])
def test_what_is_no_assignment_map_is_refused(read: Any, text: str) -> None:
    with pytest.raises(RecipeError):
        read(text, "m", False)


# T5X


@pytest.mark.parametrize(
    ("rules", "keys", "expected"),
    [
        ([["new/(.*)", r"old/\1"]], ["old/a", "old/b/c", "x"], {"new/a": "old/a", "new/b/c": "old/b/c", "x": "x"}),
        ([[r"l_(?P<n>\d+)/(w|b)", r"\g<2>/\g<n>"]], ["w/3", "b/0"], {"l_3/w": "w/3", "l_0/b": "b/0"}),
        ([["new/(.*)", r"old/\1"], ["state.*", None]], ["old/a", "state/x"], {"new/a": "old/a"}),
        ([["a/(.*)", r"b/\1"], ["b/(.*)", r"a/\1"]], ["a/x", "b/y"], {"b/x": "a/x", "a/y": "b/y"}),
        ([["one/(.*)", r"old/\1"], ["two/(.*)", r"old/\1"]], ["old/a"], {"one/a": "old/a", "two/a": "old/a"}),
        ([["new/w", r"old/v"], ["new/(.*)", r"old/\1"]], ["old/v", "old/w", "old/b"], {"new/w": "old/v", "new/v": "old/v", "new/b": "old/b"}),
        ([["new/w", None], ["new/(.*)", r"old/\1"]], ["old/w", "old/b"], {"new/b": "old/b"}),
        ([[r"a\.b/(x|y)", r"c{\1}\\"]], ["c{x}\\"], {"a.b/x": "c{x}\\"}),
        ([["a_(.)_(.)", r"\2_\1_\2"]], ["q_p_q"], {"a_p_q": "q_p_q"}),
    ],
)
def test_an_assignment_map_of_t5x(names: Any, rules: Any, keys: list[str], expected: dict[str, str]) -> None:
    draft = t5x.read(json.dumps(rules), "m", False)
    assert (draft.unexpressed, names(draft, keys)) == ([], expected)


@pytest.mark.parametrize(
    ("rules", "keys", "expected"),
    [
        ([["new/(.*)", r"old/\1"], ["state/.*", None]], ["new/a", "state/x", "y"], {"old/a": "new/a", "y": "y"}),
        ([["a/(.*)", r"b/\1"], ["b/(.*)", r"a/\1"]], ["a/x", "b/y"], {"b/x": "a/x", "a/y": "b/y"}),
        ([["a/w", None], ["a/.*|c", "d"]], ["a/w", "a/v"], {"d": "a/v"}),
    ],
)
def test_an_assignment_map_of_t5x_backwards_takes_the_first_pattern_that_fits(names: Any, rules: Any, keys: list[str], expected: Any) -> None:
    assert names(t5x.read(json.dumps(rules), "m", True), keys) == expected


@pytest.mark.parametrize("pattern", ["new/.*", "new/(a(b)c)", "new/[ab]", r"new/\d", "new/(a)+", "a|b", "(", "new/(?#x)"])
def test_a_pattern_that_leaves_open_what_is_read_is_told(pattern: str) -> None:
    draft = t5x.read(json.dumps([[pattern, "old"]]), "m", False)
    assert len(draft.unexpressed) == 1
    assert not draft.steps


def test_many_names_that_read_one_tensor_are_told() -> None:
    (reason,) = t5x.read(json.dumps([["new/(.*)", "old"]]), "m", False).unexpressed
    assert "many names would read one tensor" in reason


# Tables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("old,new\nbert/w,a\ncls/w,b\n", {"a": "bert/w", "b": "cls/w"}),
        ("\ufeffOld, New\r\nbert/w, a\r\n\r\ncls/w, bert/w\r\n", {"a": "bert/w", "bert/w": "cls/w"}),
        ("bert/w,a\ncls/w,b", {"a": "bert/w", "b": "cls/w"}),
        ("key,old,new\nbert/w,bert,a\ncls/w,cls/,\n", {"a/w": "bert/w", "w": "cls/w"}),
        ("1,bert/w,a\n2,cls/w,b\n", {"a": "bert/w", "b": "cls/w"}),
        ('"bert/w","a,b"\ncls/w,cls/w\n', {"a,b": "bert/w", "cls/w": "cls/w"}),
    ],
)
def test_a_table_of_names(names: Any, text: str, expected: dict[str, str]) -> None:
    draft = csv_names.read(text, "m", False)
    assert (draft.unexpressed, names(draft, ["bert/w", "cls/w"])) == ([], expected)


def test_a_table_backwards(names: Any) -> None:
    assert names(csv_names.read("a,b\nb,a\n", "m", True), ["a", "b"]) == {"b": "a", "a": "b"}


@pytest.mark.parametrize(
    ("text", "reverse", "reason"),
    [
        ("key,old,new\na/w,a,b\nc/w,x,y\n", False, "c/w,x,y, `x` does not occur in `c/w`"),
        ("a,b\na,c\n", False, "a,c, `a` becomes `b` already"),
        ("a,c\nb,c\n", True, "a,c, `c` becomes `b` already"),
        ("a,\nb,c\n", False, "a,, a name is empty"),
    ],
)
def test_rows_that_contradict_are_told(text: str, reverse: bool, reason: str) -> None:
    assert csv_names.read(text, "m", reverse).unexpressed == [reason]


@pytest.mark.parametrize("text", ["", "old,new\n", "a\n", "a,b\nc\n", "a,b,c,d\n"])
def test_what_is_no_table_of_names_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        csv_names.read(text, "m", False)


# transformers: entries as the package has them, made here


def entry(kind: str, sources: str | list[str], targets: str | list[str], *operations: Any, **more: Any) -> Any:
    """An object with what is read of one of transformers' entries."""
    sources, targets = ([one] if isinstance(one, str) else one for one in (sources, targets))
    order = sorted(range(len(sources)), key=lambda index: -len(sources[index]))
    branches = [(index, sources[index].replace("*.", r".*\.")) for index in order]
    compiled = re.compile("|".join(f"(?P<g{index}>{text}{_END if text[-1].isalnum() else ''})" for index, text in branches))
    fields = {"compiled_sources": compiled, "source_patterns": sources, "target_patterns": targets} | more
    return type(kind, (), fields | ({"operations": operations} if operations else {}))()


_END = r"(?!\w)"


def operation(kind: str, **options: Any) -> Any:
    made = type(kind, (), {})()
    vars(made).update(options)
    return made


def draft(*entries: Any, reverse: bool = False) -> Draft:
    return transformers_mapping.draft(Mapped([described(one) for one in entries], [], "5.0.0", "tiny"), reverse)


MERGE, CONCATENATE = operation("MergeModulelist", dim=0), operation("Concatenate", dim=1, num_shards_attribute=None)


def test_names_change_in_turn_and_end_at_a_boundary(names: Any) -> None:
    made = draft(entry("WeightRenaming", "attn", "self_attn"), entry("WeightRenaming", r"^(enc|dec)\.self_attn", r"\1.att"))
    assert names(made, ["enc.attn.w", "dec.attn_x.w"]) == {"enc.att.w": "enc.attn.w", "dec.attn_x.w": "dec.attn_x.w"}


def test_several_patterns_for_one_name(names: Any) -> None:
    assert names(draft(entry("WeightRenaming", ["^a", "^bb"], "c")), ["a.w", "bb.v"]) == {"c.w": "a.w", "c.v": "bb.v"}


def test_names_that_follow_each_other_change_at_once(names: Any) -> None:
    made = draft(entry("GroupWeightRename", [r"l(\d+)\.norm0", r"l(\d+)\.norm1"], [r"l\1.norm1", r"l\1.norm2"]))
    assert names(made, ["l7.norm0", "l7.norm1"]) == {"l7.norm1": "l7.norm0", "l7.norm2": "l7.norm1"}


def test_a_number_that_is_moved(names: Any) -> None:
    made = draft(entry("Inkling2IndexOffsetWeightRename", r"queries\.(\d+)", r"layers.\1.query", offset=1))
    assert names(made, ["queries.9"]) == {"layers.10.query": "queries.9"}


def test_experts_are_stacked_and_their_projections_joined(tmp_path: Path) -> None:
    made = draft(entry("WeightConverter", [".experts.*.w1.weight", ".experts.*.w3.weight"], ".experts.gate_up", MERGE, CONCATENATE))
    parts = {f"l.experts.{i}.w{w}.weight": np.random.default_rng(i * w).random((2, 3)) for i in range(11) for w in (1, 3)}
    halves = [np.stack([parts[f"l.experts.{i}.w{w}.weight"] for i in range(11)]) for w in (1, 3)]
    (result,) = arrays(made, parts, tmp_path).items()
    assert result[0] == "l.experts.gate_up"
    assert np.array_equal(result[1], np.concatenate(halves, axis=1))


def test_rows_are_turned_only_where_the_name_says_so(tmp_path: Path) -> None:
    rope = operation("PermuteForRope", subconfig_key=None, permute_layer_names=["q_proj"], inverse=False)
    made = draft(entry("WeightConverter", "qv", ["q_proj", "v_proj"], operation("Chunk", dim=0, num_shards_attribute=None), rope))
    value = np.arange(24.0).reshape(24, 1)
    q = value[:12].reshape(2, 3, 2, 1).transpose(0, 2, 1, 3).reshape(12, 1)
    result = arrays(made, {"a.qv": value, "b.q_proj": value}, tmp_path, heads=2)
    assert {key: value.tolist() for key, value in result.items()} == {
        "a.q_proj": q.tolist(),
        "a.v_proj": value[12:].tolist(),
        "b.q_proj": value.tolist(),
    }


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (operation("Transpose", dim0=1, dim1=2, check_dims=False), lambda value: value.transpose(0, 2, 1)),
        (operation("Transpose", dim0=-1, dim1=-3, check_dims=False), lambda value: value.transpose(2, 1, 0)),
        (operation("Interleave", dim=1, inverse=False), lambda value: value.reshape(2, 2, 2, 3).transpose(0, 2, 1, 3).reshape(2, 4, 3)),
        (operation("Interleave", dim=1, inverse=True), lambda value: value.reshape(2, 2, 2, 3).transpose(0, 2, 1, 3).reshape(2, 4, 3)),
    ],
)
def test_operations_on_one_tensor(tmp_path: Path, made: Any, expected: Any) -> None:
    value = np.arange(24.0).reshape(2, 4, 3)
    result = arrays(draft(entry("WeightConverter", "old", "new", made)), {"x.old": value}, tmp_path)
    assert list(result) == ["x.new"]
    assert np.array_equal(result["x.new"], expected(value))


def test_parts_whose_number_the_configuration_tells(tmp_path: Path) -> None:
    made = draft(entry("WeightConverter", "whole", "part_*.w", operation("Chunk", dim=0, num_shards_attribute="parts")))
    result = arrays(made, {"whole": np.arange(12.0).reshape(6, 2)}, tmp_path, parts=3)
    assert {key: value.tolist() for key, value in result.items()} == {
        "part_0.w": [[0, 1], [2, 3]],
        "part_1.w": [[4, 5], [6, 7]],
        "part_2.w": [[8, 9], [10, 11]],
    }


def test_parts_of_the_sizes_that_are_given(tmp_path: Path) -> None:
    made = draft(entry("WeightConverter", "qkv", ["q", "k"], operation("Split", dim=0)))
    result = arrays(made, {"qkv": np.arange(3.0)}, tmp_path, q_size=2, k_size=1)
    assert {key: value.tolist() for key, value in result.items()} == {"q": [0, 1], "k": [2]}


def test_experts_of_two_kinds_in_one_list(tmp_path: Path) -> None:
    fuse = operation("ErnieFuseAndSplitTextVisionExperts", stack_dim=0, concat_dim=1)
    made = draft(entry("WeightConverter", ["experts.*.gate", "experts.*.up"], ["text.gate_up", "vision.gate_up"], fuse))
    parts = {f"experts.{i}.{name}": np.full((1 + i // 2, 1), 10 * i + at) for i in range(4) for at, name in enumerate(("gate", "up"))}
    result = arrays(made, parts, tmp_path, experts=2)
    assert {key: value.shape for key, value in result.items()} == {"text.gate_up": (2, 2, 1), "vision.gate_up": (2, 4, 1)}
    assert result["vision.gate_up"].ravel().tolist() == [20, 20, 21, 21, 30, 30, 31, 31]


PLACED = {"scope_prefix": "vision", "base_model_prefix": "model"}


def test_entries_of_a_model_inside_another_are_for_its_place_alone(names: Any) -> None:
    made = draft(entry("WeightRenaming", "attn", "att", **PLACED), entry("WeightRenaming", r"^enc\.(\d+)", r"l.\1", **PLACED))
    keys = ["model.vision.enc.1.attn.w", "vision.attn.w", "text.enc.1.attn.w", "model.vision.x.enc.1"]
    assert names(made, keys) == dict(zip(["model.vision.l.1.att.w", "vision.att.w", "text.enc.1.attn.w", "model.vision.x.enc.1"], keys, strict=True))


def test_the_model_of_a_prefix_is_searched_behind_it(names: Any) -> None:
    made = draft(entry("WeightRenaming", r"^model\.x", "y", scope_prefix="", base_model_prefix="model"))
    assert names(made, ["model.model.x", "model.x"]) == {"model.y": "model.model.x", "model.x": "model.x"}


def test_tensors_of_a_model_inside_another_are_joined_at_its_place(tmp_path: Path) -> None:
    made = draft(entry("WeightConverter", ["e.*.w1", "e.*.w3"], "e.gate_up", MERGE, CONCATENATE, **PLACED))
    parts = {f"{place}.e.{i}.w{w}": np.full((1, 1), 10 * i + w) for place in ("model.vision", "text") for i in range(2) for w in (1, 3)}
    result = arrays(made, parts, tmp_path)
    assert result["model.vision.e.gate_up"].ravel().tolist() == [1, 3, 11, 13]
    assert set(result) == {"model.vision.e.gate_up", *(key for key in parts if key.startswith("text"))}


@pytest.mark.parametrize(
    "one",
    [
        entry("WeightRenaming", "(?<!x)a", "b", **PLACED),
        entry("WeightRenaming", ["a", "b"], "c", **PLACED),
        entry("WeightConverter", "a", "b", operation("Transpose", dim0=1, dim1=2, check_dims=True)),
        entry("WeightConverter", "a", "b", operation("Transpose", dim0=-1, dim1=0, check_dims=False)),
        entry("WeightConverter", "a", "b", operation("Dequantize")),
        entry("WeightConverter", ["a", "b"], ["c", "d"], operation("Chunk", dim=0)),
        entry("WeightConverter", "a", "b", operation("SplitModulelist", dim=0), operation("Transpose", dim0=0, dim1=1)),
        entry("WeightConverter", "(a)", r"\1", operation("Transpose", dim0=0, dim1=1)),
        entry("WeightConverter", "a", ["b", "c"], operation("Transpose", dim0=0, dim1=1)),
        entry("WeightConverter", "a*.b", "c", operation("Interleave", dim=-1)),
        entry("WeightRenaming", ["(a)", "(b)"], r"\1"),
        entry("WeightRenaming", "a", r"\1"),
        entry("GroupWeightRename", ["a", "b"], ["b", "a"]),
        entry("SomethingNew", "a", "b"),
    ],
)
def test_what_has_no_step_is_told(one: Any) -> None:
    made = draft(one, entry("WeightRenaming", "x", "y"))
    assert (made.rules, len(made.unexpressed), len(made.steps)) == (2, 1, 1)
    assert made.unexpressed[0].startswith(type(one).__name__)
    assert f"# Not expressed: {made.unexpressed[0]}\n" in made.text("surgery import")


def test_what_a_reason_says_is_no_line_of_the_recipe() -> None:
    text = Draft("a", "b", [], 1, ["x\nsteps: []"]).text("c")
    assert "# Not expressed: x steps: []\n" in text


def test_without_transformers_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(SurgeryError) as caught:
        transforms.installed("mixtral", False)
    assert str(caught.value).splitlines() == [
        "error[missing-package]: this needs transformers, which is not installed",
        "  help: pip install 'transformers>=5' torch",
    ]


# The command


def test_the_command_prints_a_recipe_or_writes_it(surgery: Run, work: Path) -> None:
    Path("map.json").write_text('{"a/": "b/", "c": "d/"}')
    code, out, error = surgery("import", "tf", "map.json")
    assert (code, error) == (
        0,
        "note: not expressed: 'c': 'd/', TensorFlow maps a scope to a scope, both with `/` at the end, and a name to a name\n",
    )
    assert out.startswith("# Made by `surgery import tf map.json`: 1 of 2 rules are expressed.\n")
    assert surgery("import", "tf", "map.json", "-o", "r.yaml")[:2] == (0, "")
    assert Path("r.yaml").read_text() == out
    assert surgery("lint", "r.yaml")[0] == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tff", "map.json"], "error[bad-option]: no kind of mapping is called `tff`"),
        (["tf", "none.json"], "none.json; No such file or directory"),
        (["tf", "map.csv"], "error[bad-value]: this is no JSON"),
        (["csv", "map.csv", "--direction", "back"], "error[bad-option]: no direction is called `back`"),
    ],
)
def test_wrong_use_is_told_in_a_line(surgery: Run, work: Path, words: list[str], line: str) -> None:
    Path("map.csv").write_text("a,b\n")
    code, out, error = surgery("import", *words)
    assert (code, out) == (2, "")
    assert error.startswith(line)
