"""Selecting words by themselves; what they do inside steps stands in the golden cases."""

from __future__ import annotations

from typing import Any

import pytest

from surgery.dtypes import DTYPES
from surgery.expr import Fill
from surgery.initializers import parse
from surgery.models import ValidationError
from surgery.select import Facts, Selection, Selector, select
from surgery.steps.base import Catalog, State
from surgery.table import Entry, Table, Trail
from surgery.tensors import TensorSpec


def state(**specs: tuple[str, tuple[int, ...]]) -> State:
    made = {key.replace("__", "/"): TensorSpec(DTYPES[dtype], shape) for key, (dtype, shape) in specs.items()}
    rows = {key: Entry(Fill(spec, parse("zeros"), 0, key), Trail(0, key), "a.npz") for key, spec in made.items()}
    return State(Table(rows), Catalog({}, {}))


STATE = state(h1__w=("float32", (2, 3)), h2__w=("float32", (4, 3)), h10__w=("bfloat16", (2, 3)), h10__b=("float32", (3,)), step=("int64", ()))


def chosen(**words: Any) -> Selection:
    words = {"except_" if word == "but" else word: value for word, value in words.items()}
    return select(Selector.model_validate({word.rstrip("_"): value for word, value in words.items()}), STATE)


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ({}, ["h1/w", "h2/w", "h10/w", "h10/b", "step"]),
        ({"match": "h1"}, ["h1/w", "h10/w", "h10/b"]),
        ({"match": "^h1/"}, ["h1/w"]),
        ({"match": ["b$", "step"]}, ["h10/b", "step"]),
        ({"keys": ["step", "h1/w"]}, ["h1/w", "step"]),
        ({"keys": "*"}, ["step"]),
        ({"keys": "**"}, ["h1/w", "h2/w", "h10/w", "h10/b", "step"]),
        ({"keys": "h*/w", "match": "1"}, ["h1/w", "h10/w"]),
        ({"where": {"dtype": "bfloat16"}}, ["h10/w"]),
        ({"where": {"dtype": ["bfloat16", "int64"]}}, ["h10/w", "step"]),
        ({"where": {"ndim": [0, 1]}}, ["h10/b", "step"]),
        ({"where": {"shape": [2, 3]}}, ["h1/w", "h10/w"]),
        ({"where": {"shape": [-1, 3]}}, ["h1/w", "h2/w", "h10/w"]),
        ({"where": {"min_bytes": 24}}, ["h1/w", "h2/w"]),
        ({"where": {"max_bytes": "12B"}}, ["h10/w", "h10/b", "step"]),
        ({"match": r"h(?P<n>\d+)", "where": {"n": [2, 11]}}, ["h2/w", "h10/w", "h10/b"]),
        ({"match": r"h(?P<n>\d+)", "where": {"n": 2}}, ["h2/w"]),
        ({"match": r"h(?P<n>\d+)", "where": {"n": [0, 99], "ndim": 1}}, ["h10/b"]),
        ({"except": {"match": "h"}}, ["step"]),
        ({"except": [{"keys": "step"}, {"where": {"dtype": "bfloat16"}}]}, ["h1/w", "h2/w", "h10/b"]),
        ({"except": {"match": "h10", "where": {"ndim": 2}}}, ["h1/w", "h2/w", "h10/b", "step"]),
    ],
)
def test_all_words_must_hold(words: dict[str, Any], keys: list[str]) -> None:
    assert chosen(**words) == (keys, [])


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        ({"match": "x"}, ["nothing-matched"]),
        ({"match": ["h", "x"]}, ["nothing-matched"]),
        ({"keys": ["step", "x", "y"]}, ["missing-key"]),
        ({"keys": ["step", "x*"]}, ["nothing-matched"]),
        ({"keys": "step", "where": {"ndim": 3}}, ["nothing-matched"]),
        ({"except": {"keys": "**"}}, ["nothing-matched"]),
        ({"match": "h", "count": 3}, ["wrong-count"]),
        ({"match": "h", "at_least": 5}, ["wrong-count"]),
        ({"match": "h", "where": {"ndim": 3}, "count": 1}, ["wrong-count"]),
    ],
)
def test_each_word_has_to_touch_something(words: dict[str, Any], codes: list[str]) -> None:
    assert [fault.code for fault in chosen(**words).faults] == codes


@pytest.mark.parametrize(
    "words", [{"match": "x"}, {"keys": ["x", "y*"]}, {"match": "h", "where": {"ndim": 3}}, {"match": "h", "count": 4}, {"match": "h", "at_least": 4}]
)
def test_it_may_touch_nothing_where_that_is_said(words: dict[str, Any]) -> None:
    assert chosen(**words, **({} if "count" in words or "at_least" in words else {"optional": True})).faults == []


def test_a_count_of_zero_is_a_demand() -> None:
    assert chosen(match="h", where={"ndim": 3}, count=0) == ([], [])
    assert [fault.code for fault in chosen(match="h", count=0).faults] == ["wrong-count"]


def test_the_default_stands_in_for_missing_words() -> None:
    assert select(Selector(), STATE, default=lambda spec: not spec.shape).keys == ["step"]
    assert select(Selector.model_validate({"match": "h1/"}), STATE, default=lambda spec: not spec.shape).keys == ["h1/w"]


def test_an_empty_table_has_nothing_to_touch() -> None:
    assert select(Selector(), state()) == ([], [])
    assert [fault.code for fault in select(Selector.model_validate({"match": "a"}), state()).faults] == ["nothing-matched"]


def test_a_glob_that_misses_suggests_one_that_hits() -> None:
    (fault,) = chosen(keys="H10/*").faults
    assert fault.help == "2 keys would match without regard to case, such as `h10/w`; or set `optional: true`"
    (fault,) = chosen(keys="h*.w").faults
    assert "or set `optional: true`" in fault.help
    (fault,) = chosen(keys="10/*").faults
    assert fault.help == "`**10/**` matches 2; or set `optional: true`"


@pytest.mark.parametrize(
    ("words", "code", "at"),
    [
        ({"match": ["a", "("]}, "bad-pattern", ("match", 1)),
        ({"where": {"dtype": "float"}}, "unknown-dtype", ("where", "dtype")),
        ({"where": {"dtype": ["int8", "int"]}}, "unknown-dtype", ("where", "dtype", 1)),
        ({"match": r"(?P<n>\d)", "where": {"m": 1}}, "unknown-group", ("where", "m")),
        ({"except": [{"match": "a"}, {"match": "["}]}, "bad-pattern", ("except", 1, "match")),
        ({"except": [{}]}, "needs-selector", ("except", 0)),
        ({"except": [{"where": {}}]}, "needs-selector", ("except", 0, "where")),
        ({"where": {}}, "needs-selector", ("where",)),
        ({"where": {"dtype": None, "ndim": None}}, "needs-selector", ("where",)),
        ({"match": r"(?P<n>\d)", "where": {"n": [5, 2]}}, "bad-option", ("where", "n")),
        ({"match": r"(?P<n>\d)", "where": {"n": [5, 5]}}, "bad-option", ("where", "n")),
        ({"where": {"min_bytes": "1GB", "max_bytes": "1MB"}}, "bad-option", ("where", "min_bytes")),
    ],
)
def test_lint_finds_what_needs_no_checkpoint(words: dict[str, Any], code: str, at: tuple[Any, ...]) -> None:
    assert [(fault.code, fault.at) for fault in Selector.model_validate(words).lint_selector()] == [(code, at)]


@pytest.mark.parametrize("words", [{"match": "x"}, {"keys": "x"}, {"match": "h", "count": 9}])
def test_help_names_the_checkpoint_to_look_at(words: dict[str, Any]) -> None:
    (fault,) = chosen(**words).faults
    assert "`surgery inspect a.npz`" in fault.help


def test_facts_alone_know_no_strictness() -> None:
    with pytest.raises(ValidationError):
        Facts.model_validate({"match": "a", "optional": True})
