"""The JSON Schema and the loader accept and refuse the same recipes, but for what a schema cannot say; that is listed here."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from surgery.errors import SurgeryError
from surgery.recipe import load
from surgery.schema import recipe_schema, schema_text
from surgery.steps import WORDS
from surgery.steps.assert_ import DEMANDS

ROOT = Path(__file__).parent.parent
SCHEMA = recipe_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

ONLY_THE_LOADER_KNOWS = {
    "bad-pattern": "what is a regular expression",
    "bad-template": "which groups a `to` may name, and what `${…}` may hold",
    "unknown-param": "which parameters are declared",
    "missing-param": "whether they have a value",
    "unknown-group": "named groups of a pattern, which `where` may ask about",
    "unknown-dtype": "names of dtypes",
    "unknown-format": "names of formats",
    "bad-initializer": "names and options of initializers",
    "format-needed": "which suffix tells a format",
    "bad-path": "what no file can be called",
    "bad-option": "which options of `save` go together, and what `nearest` has not",
    "open-prefix": "what ends with a separator",
    "bad-order": "what is a permutation",
    "bad-split": "how many parts there are",
    "bad-shape": "how many sizes may be open, and how large a size is",
    "bad-axes": "patterns of einops, and that there are as many axes as sizes",
    "bad-slice": "that a step of 0 goes nowhere",
    "needs-selector": "which steps demand a selector",
    "path-conflict": "what earlier steps save",
    "duplicate-key": "YAML itself",
    "no-such-recipe": "what libraries hold",
    "no-such-file": "which files there are",
    "bad-param": "what the parameters of a used recipe take",
    "nothing-matched": "which steps a used recipe has",
}
"""Codes of faults that are beyond a schema: a recipe that has only such faults may be valid by it."""


def verdict(document: Any) -> tuple[bool, set[str]]:
    """Whether the loader accepts a recipe, and the codes of its faults."""
    try:
        load(json.dumps(document), "r.yaml", lint_only=True)
    except SurgeryError as error:
        return False, {fault.code for fault in (error, *error.others)}
    return True, set()


def agree(document: Any) -> None:
    accepted, codes = verdict(document)
    valid = VALIDATOR.is_valid(document)
    if codes == {"needs-selector"}:
        return  # of an empty `where` the schema knows, of one whose facts are all null it does not
    assert valid == (accepted or codes <= set(ONLY_THE_LOADER_KNOWS)), (
        f"schema: {valid}, loader: {sorted(codes) or 'accepts'}: {json.dumps(document)}"
    )


# One good value for each option, by its name; options that depend on each other are put together in STEPS.
FACTS = {
    "match": st.sampled_from(["a", ["^a$", r"\d+"], r"h(?P<n>\d+)"]),
    "keys": st.sampled_from(["a", ["a/b", "c*"], "**"]),
    "where": st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(["float32", ["int8", "bfloat16"]]),
            "ndim": st.sampled_from([2, [1, 2]]),
            "shape": st.sampled_from([[], [-1, 3]]),
            "min_bytes": st.sampled_from([0, "20MB"]),
            "max_bytes": st.sampled_from([30_000_000, "1.5 GiB"]),
        },
    ).filter(bool),
}
SELECTOR = {
    **FACTS,
    "except": st.sampled_from([{"keys": "b"}, [{"match": "b"}, {"where": {"ndim": 0}}]]),
    "optional": st.booleans(),
    "count": st.integers(0, 9),
}
VARIABLES = st.dictionaries(
    st.sampled_from(["a", "b/c"]),
    st.fixed_dictionaries(
        {"shape": st.sampled_from([[], [2, 0]])},
        optional={"dtype": st.just("int64"), "init": st.sampled_from(["zeros", {"constant": 3}])},
    ),
    min_size=1,
)
INIT = st.sampled_from(["zeros", {"normal": {"std": 0.02}}, "glorot_uniform"])
RULE_OPTIONS = {"all": st.booleans(), "where": FACTS["where"], "optional": st.booleans(), "at_least": st.integers(0, 9), "replace": st.booleans()}


def mapping(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional={word: value for word, value in optional.items() if word not in required})


def rules(targets: list[Any]) -> st.SearchStrategy[Any]:
    rule = mapping({"match": st.just("(a)b"), "to": st.sampled_from([r"\1", "", "{{x}}"])}, RULE_OPTIONS) | mapping(
        {"keys": st.dictionaries(st.sampled_from("abc"), st.sampled_from(targets), min_size=1)}, RULE_OPTIONS
    )
    return rule | st.lists(rule, min_size=1, max_size=2)


JOINING = {**SELECTOR, "axis": st.integers(-2, 2), "keep_inputs": st.booleans(), "incomplete": st.sampled_from(["error", "skip"])}
GROWING = {"axis": st.integers(-2, 2), "fill": INIT | st.just("mean"), "seed": st.integers(0, 9)}
RESAMPLING = {"mode": st.sampled_from(["linear", "cubic"]), "align_corners": st.booleans(), "antialias": st.booleans()}
TIE = {"policy": st.sampled_from(["drop", "duplicate", "error"]), "by": st.sampled_from(["value", "storage"]), "optional": st.booleans()}
TARGET = [{"like": st.just("t.safetensors")}, {"variables": VARIABLES}]
POLICY = st.sampled_from(["error", "warn", "allow"])
STEPS: dict[str, st.SearchStrategy[Any]] = {
    "load": mapping({"path": st.just("a")}, {**SELECTOR, "format": st.just("npz"), "scope": st.just("x/"), "replace": st.booleans()})
    | mapping({"path": st.just("a"), "var_list": st.sampled_from([["a"], {"a": "d"}])}, {"optional": st.booleans(), "scope": st.just("x/")}),
    "save": mapping(
        {"path": st.just("out"), "format": st.just("safetensors")},
        {
            **SELECTOR,
            "shard_size": st.sampled_from(["5GB", 7]),
            "metadata": st.just({"a": "b", "c": None}),
            "overwrite": st.sampled_from(["error", "replace"]),
            "carry": st.just(["config.json"]),
        },
    ),
    "rename": rules(["x", "y"]),
    "copy": rules(["x", ["y", "z"]]),
    "scope": st.one_of(
        mapping({"add": st.just("a/")}, {**SELECTOR, "separator": st.just({"from": "/", "to": "."})}),
        mapping({"strip": st.sampled_from(["a/", ["a.", "b."]])}, {**SELECTOR, "repeat": st.booleans()}),
        mapping({"from": st.just("a/"), "to": st.just("")}, SELECTOR),
        mapping({"separator": st.just({"from": "/", "to": "."})}, SELECTOR),
    ),
    "drop": mapping({"match": st.just("a")}, SELECTOR),
    "keep": mapping({"keys": st.just("a")}, SELECTOR),
    "init_missing": st.one_of(
        [
            mapping(target, {**SELECTOR, "init": INIT, "seed": st.integers(0, 9), "rules": st.sampled_from([{"match": "a", "init": "ones"}])})
            for target in TARGET
        ]
    ),
    "expect": st.one_of([mapping(target, {**SELECTOR, "missing": POLICY, "unexpected": POLICY, "mismatch": POLICY}) for target in TARGET]),
    "assert": mapping(
        {},
        {
            **SELECTOR,
            "shape": st.just([-1, 2]),
            "dtype": st.just("bool"),
            "finite": st.booleans(),
            "equal_to": st.just("b"),
            "close_to": mapping({"key": st.just("b")}, {"rtol": st.sampled_from([0, 0.5]), "atol": st.just(1e-3)}),
            "sha256": st.just("0f" * 32),
        },
    ).filter(lambda options: not options.keys().isdisjoint(DEMANDS)),
    "cast": mapping(
        {"dtype": st.just("float16")},
        {**SELECTOR, "overflow": st.sampled_from(["inf", "saturate"]), "rounding": st.sampled_from(["nearest", "zero"])},
    ),
    "transpose": mapping({}, {**SELECTOR, "order": st.sampled_from([[1, 0], [0]])}),
    "reshape": mapping({"shape": st.sampled_from([[], [-1, 2], [0]])}, SELECTOR),
    "rearrange": mapping({"pattern": st.just("(a b) -> b a"), "axes": st.just({"a": 2})}, SELECTOR),
    "slice": mapping({"stop": st.integers(-2, 2)}, {**SELECTOR, "axis": st.integers(-2, 2), "start": st.just(0), "step": st.just(-1)})
    | mapping({"indices": st.sampled_from([[0, -1], "rows.json"])}, SELECTOR),
    "pad": mapping({"after": st.integers(0, 3)}, {**SELECTOR, **GROWING, "before": st.just(2)}) | mapping({"before": st.just(1)}, SELECTOR),
    "resize": st.one_of(
        mapping({"size": st.integers(0, 9)}, {**SELECTOR, **GROWING, "multiple_of": st.just(8), "allow_trim": st.booleans()}),
        mapping({"multiple_of": st.just(64)}, {**SELECTOR, **GROWING}),
        mapping({"old_vocab": st.just("a.txt"), "new_vocab": st.just("b.json")}, {**GROWING, "size": st.just(9), "old_vocab_size": st.just(5)}),
    ),
    "interpolate": st.one_of(
        mapping({"axes": st.just([1, -1]), "size": st.just([24, 24])}, {**SELECTOR, **RESAMPLING}),
        mapping(
            {"axis": st.integers(-2, 2), "size": st.just([24, 24])},
            {**SELECTOR, **RESAMPLING, "grid": st.just([14, 14]), "prefix": st.integers(0, 2), "suffix": st.integers(0, 2)},
        ),
    ),
    "concat": mapping({"to": st.just("a")}, JOINING),
    "stack": mapping({"to": st.just("a")}, JOINING),
    "compute": mapping(
        {"let": st.just({"x": "(a)b"}), "expr": st.sampled_from(["x + 1", "exp(x)"]), "to": st.just(r"\1")},
        {"dtype": st.sampled_from(["float32", "bfloat16"]), "keep_inputs": st.booleans(), "incomplete": st.sampled_from(["error", "skip"])},
    ),
    "dequantize": mapping(
        {"match": st.just("(a)b"), "scale": st.just(r"\1")},
        {"block": st.sampled_from([[128, 128], [32]]), "dtype": st.just("float32"), "keep_scales": st.booleans()},
    ),
    "unstack": mapping({"to": st.just("a{i}")}, {**SELECTOR, "axis": st.integers(-2, 2), "keep_inputs": st.booleans()}),
    "tie": mapping({"keys": st.just(["a", "b"])}, TIE) | mapping({"match": st.just("a"), "to": st.sampled_from(["b", ["b", "c"]])}, TIE),
    "split": mapping({"parts": st.just(2), "to": st.just(["a", "b"])}, {**SELECTOR, "axis": st.integers(-2, 2), "keep_inputs": st.booleans()})
    | mapping({"sizes": st.sampled_from([[3], [0]]), "to": st.just(["a"])}, SELECTOR),
    "use": mapping(
        {"recipe": st.just("tools/reshard"), "with": st.just({"source": "a", "target": "b"})},
        {"without": st.sampled_from(["load", ["load"], ["save", "load"]])},
    ),
}


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    word = draw(st.sampled_from(WORDS))
    # Sampled values are shared objects; the mutations below change in place.
    return copy.deepcopy({"surgery": 1, "steps": [{word: draw(STEPS[word])}]})


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys or indexes."""
    for key in list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield data, key
        yield from places(data[key])


JUNK = st.sampled_from([None, True, False, -1, 0, 3, 0.5, "", "x", "5GB", [], ["x"], [1], [[]], {}, {"x": 1}, {"x": "y"}, {"match": "a"}])


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A recipe with one thing taken out, put in or exchanged, anywhere."""
    document = draw(recipes())
    container, key = draw(st.sampled_from(list(places(document["steps"]))))
    change = draw(st.sampled_from(["remove", "replace", "unknown word", "wrap"]))
    if change == "remove":
        del container[key]
    elif change == "replace":
        container[key] = draw(JUNK)
    elif change == "wrap":
        container[key] = [container[key]]
    else:
        inner = [value for value in (container[key], container) if isinstance(value, dict)]
        (inner[0] if inner else document)["surprise"] = draw(JUNK)
    return document


@given(recipes())
def test_good_recipes_are_good_for_both(document: dict[str, Any]) -> None:
    assert verdict(document) == (True, set())
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []


@settings(max_examples=600)
@given(damaged())
def test_damaged_recipes_are_judged_alike(document: Any) -> None:
    agree(document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"surgery": 1},
        {"surgery": 1, "steps": []},
        {"surgery": 2, "steps": [{"drop": {"match": "a"}}]},
        {"surgery": "1", "steps": [{"drop": {"match": "a"}}]},
        {"surgery": True, "steps": [{"drop": {"match": "a"}}]},
        {"surgery": 1, "steps": {"drop": {"match": "a"}}},
        {"surgery": 1, "steps": [{"drop": {"match": "a"}, "keep": {"match": "b"}}]},
        {"surgery": 1, "steps": [{"name": "only a label"}]},
        {"surgery": 1, "steps": [{"name": 3, "drop": {"match": "a"}}]},
        {"surgery": 1, "steps": ["drop"]},
        {"surgery": 1, "steps": [{"drop": None}]},
        {"surgery": 1, "steps": [{"renmae": {}}]},
        {"surgery": 1, "stepz": [], "steps": [{"drop": {"match": "a"}}]},
        {"surgery": 1, "name": 3, "steps": [{"drop": {"match": "a"}}]},
        {"surgery": 1, "name": None, "steps": [{"drop": {"match": "a"}}]},
        {"surgery": 1, "env": "HOME", "steps": [{"drop": {"match": "a"}}]},
        {"surgery": 1, "params": {"p": "string"}, "steps": [{"drop": {"match": "a"}}]},
        {"surgery": 1, "params": {"p": {"type": "string"}}, "env": ["HOME"], "description": "x", "steps": [{"drop": {"match": "a"}}]},
    ],
)
def test_the_top_level_is_judged_alike(document: Any) -> None:
    agree(document)


@pytest.mark.parametrize(
    ("step", "good"),
    [
        ({"rename": {"match": "a"}}, False),
        ({"rename": {"to": "a"}}, False),
        ({"rename": {"match": "a", "to": "b", "keys": {"a": "b"}}}, False),
        ({"rename": {"match": "a", "to": "b", "keys": None}}, True),
        ({"rename": {"match": None, "keys": {"a": "b"}}}, True),
        ({"rename": {"keys": {}}}, False),
        ({"rename": {"keys": {"a": ["b"]}}}, False),
        ({"copy": {"keys": {"a": ["b"]}}}, True),
        ({"rename": []}, False),
        ({"rename": {"match": "a", "to": "b", "count": 1, "at_least": 1}}, False),
        ({"drop": {"match": "a", "count": 1, "at_least": 1}}, False),
        ({"drop": {"match": "a", "count": 1, "at_least": None}}, True),
        ({"drop": {"match": []}}, False),
        ({"drop": {"match": "a", "except": []}}, False),
        ({"drop": {"match": r"(?P<n>\d)", "where": {"n": [1, 2]}}}, True),
        ({"drop": {"match": r"(?P<n>\d)", "where": {"n": [1, 2, 3]}}}, False),
        ({"load": {"path": "a", "var_list": ["a"], "match": "b"}}, False),
        ({"load": {"path": "a", "var_list": ["a"], "count": 1}}, False),
        ({"load": {"path": "a", "var_list": []}}, False),
        ({"load": {"path": "a", "var_list": {}}}, False),
        ({"expect": {}}, False),
        ({"expect": {"like": "a", "variables": {"a": {"shape": []}}}}, False),
        ({"expect": {"variables": {}}}, False),
        ({"expect": {"variables": {"a": {"shape": [-1]}}}}, False),
        ({"scope": {}}, False),
        ({"scope": {"from": "a/"}}, False),
        ({"scope": {"to": "a/"}}, False),
        ({"scope": {"add": "a/", "strip": "b/"}}, False),
        ({"scope": {"add": "a/", "to": "b/"}}, False),
        ({"scope": {"add": "a/", "repeat": True}}, False),
        ({"scope": {"add": "a/", "repeat": False}}, True),
        ({"scope": {"add": "a/", "separator": {"from": "/", "to": ""}}}, False),
        ({"cast": {"dtype": "int8", "rounding": "up"}}, False),
        ({"save": {"path": ""}}, False),
        ({"save": {"path": "a.safetensors", "shard_size": "5XB"}}, False),
        ({"assert": {}}, False),
        ({"assert": {"dtype": None}}, False),
        ({"assert": {"match": "a"}}, True),
        ({"assert": {"match": "a", "count": 0}}, True),
        ({"assert": {"sha256": "0F" * 32}}, False),
        ({"assert": {"shape": [-2]}}, False),
        ({"drop": {"where": {}}}, False),
        ({"drop": {"where": {"ndim": []}}}, False),
        ({"drop": {"where": {"ndim": -1}}}, False),
        ({"drop": {"where": {"shape": [-2]}}}, False),
        ({"assert": {"close_to": {"key": "a", "rtol": -1}}}, False),
    ],
)
def test_rules_across_fields_are_in_both(step: dict[str, Any], good: bool) -> None:
    document = {"surgery": 1, "steps": [step]}
    assert VALIDATOR.is_valid(document) == good
    assert verdict(document)[0] == good


@settings(max_examples=300)
@given(recipes(), st.data())
def test_any_value_may_come_from_a_parameter(document: dict[str, Any], data: st.DataObject) -> None:
    """One value inside a step, whatever its type, is written as `${p}` with the value as the parameter's default."""
    (word,) = document["steps"][0]
    holder = {word: document["steps"][0][word]}
    container, key = data.draw(st.sampled_from(list(places(holder))))
    value, container[key] = container[key], "${p}"
    # Text from a parameter is escaped in patterns and globs, as it is anywhere; the value itself does not matter here.
    full = {"surgery": 1, "params": {"p": {"default": value}}, "steps": [holder]}
    assert [error.message for error in VALIDATOR.iter_errors(full)] == []
    accepted, codes = verdict(full)
    assert accepted or codes <= {"bad-template"}, json.dumps(full)


@pytest.mark.parametrize("value", [1.0, 2.5])
def test_the_schema_takes_a_whole_float_for_an_integer_and_the_loader_does_not(value: float) -> None:
    """JSON Schema has one kind of number; a recipe that says `count: 1.0` is more likely a slip."""
    document = {"surgery": 1, "steps": [{"drop": {"match": "a", "count": value}}]}
    assert VALIDATOR.is_valid(document) == value.is_integer()
    assert verdict(document) == (False, {"bad-value"})


def test_the_schema_in_the_repository_is_the_one_that_the_code_makes() -> None:
    assert (ROOT / "schemas" / "recipe.schema.json").read_text() == schema_text(), "run `make schema`"


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("word", WORDS)
def test_every_option_has_a_description_in_the_schema(word: str) -> None:
    name = "".join(part.capitalize() for part in word.split("_"))
    properties = SCHEMA["$defs"][name].get("properties", {})
    assert [option for option, field in properties.items() if not field.get("description")] == []


CASE = {"name": "t", "inputs": [{"w": {"shape": [2]}}], "expect": {"keys": ["w"], "tensors": {"w": {"values": [0, 1]}}}}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"expect": [{"keys": ["w"]}, {"tensors": {"w": {"input": "w", "atol": 0.5}}}]},
        {"expect": None, "error": "rank"},
        {"error": "rank"},
        {"inverse": True},
        {"inputs": [{"w": {"shape": [-1]}}]},
        {"inputs": [{"w": {"dtype": 3}}]},
        {"expect": {"tensors": {"w": {"values": [1], "fill": "arange"}}}},
        {"targets": [{"w": {"shape": [2], "dtype": "int8"}}], "files": {"config.json": {"a": 1}}, "params": {"n": 1}},
        {"name": ""},
        {"steps": []},
    ],
)
def test_both_agree_about_tests(change: dict[str, Any]) -> None:
    agree({"surgery": 1, "steps": [{"load": {"path": "a"}}], "tests": [CASE | change]})
