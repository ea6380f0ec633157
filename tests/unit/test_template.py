from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from surgery.errors import RecipeError
from surgery.template import fill, references

VALUES = {
    "p": "bert.base*",
    "n": 12,
    "heads": 12,
    "head_dim": 64,
    "rate": 0.5,
    "yes": True,
    "nothing": None,
    "list": ["a.b", 3],
    "map": {"a.b": "c*"},
    "env.HOME": "/home/me",
    "recipe.dir": "recipes",
}


def filled(data: Any, **options: Any) -> Any:
    new, unresolved = fill(data, VALUES, **options)
    assert unresolved == set()
    return new


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${p}", "bert.base*"),
        ("x/${p}/${n}", "x/bert.base*/12"),
        ("${n}", 12),
        ("n=${n}", "n=12"),
        ("${rate}", 0.5),
        ("rate ${rate}", "rate 0.5"),
        ("${yes}", True),
        ("${yes}!", "true!"),
        ("${nothing}", None),
        ("${list}", ["a.b", 3]),
        ("${map}", {"a.b": "c*"}),
        ("${env.HOME}/ckpt", "/home/me/ckpt"),
        ("${recipe.dir}/a.json", "recipes/a.json"),
        ("${{ heads * head_dim }}", 768),
        ("${{heads}}", 12),
        ("[${{ heads + 1 }}, 2]", "[13, 2]"),
        ("$${p}", "${p}"),
        ("$${{ n }}", "${{ n }}"),
        ("$$${p}", "$${p}"),
        ("${n}$${n}${n}", "12${n}12"),
    ],
)
def test_values_are_put_in(text: str, value: Any) -> None:
    new = filled({"path": text})
    assert new == {"path": value}
    assert type(new["path"]) is type(value)


@pytest.mark.parametrize("text", [r"\1/\g<name>", "{n+8}.{{x}}", "$", "$1", "a$|b$", "^$", "{n}$", r"x{2}$", "}}", "$ {p}", ""])
def test_what_is_no_template_survives(text: str) -> None:
    assert filled({"to": text, "match": text, "keys": [text]}) == {"to": text, "match": text, "keys": [text]}


def test_the_data_given_is_not_changed() -> None:
    data = {"keys": ["${p}"]}
    filled(data)
    assert data == {"keys": ["${p}"]}


@pytest.mark.parametrize(
    ("data", "new"),
    [
        ({"match": "^${p}/"}, {"match": r"^bert\.base\*/"}),
        ({"match": "${p}"}, {"match": r"bert\.base\*"}),
        ({"match": ["a", "${p}"]}, {"match": ["a", r"bert\.base\*"]}),
        ({"match": {"a": "${p}"}}, {"match": {"a": r"bert\.base\*"}}),
        ({"match": "${list}"}, {"match": [r"a\.b", 3]}),
        ({"match": "layer_${n}"}, {"match": "layer_12"}),
        ({"match": "^${p}/", "to": "${p}/"}, {"match": r"^bert\.base\*/", "to": "bert.base*/"}),
        ({"except": {"match": "${p}"}}, {"except": {"match": r"bert\.base\*"}}),
        ({"except": {"keys": "${p}"}}, {"except": {"keys": r"bert.base\*"}}),
        ([{"match": "a", "where": {"dtype": "${p}"}}], [{"match": "a", "where": {"dtype": "bert.base*"}}]),
    ],
)
def test_under_match_values_are_escaped_for_a_regular_expression(data: Any, new: Any) -> None:
    assert filled(data) == new


def test_a_parameter_that_is_a_regular_expression_is_not_escaped_under_match() -> None:
    data = {"match": ["${p}", "^${p}$"], "keys": "${p}"}
    assert filled(data, regex_params=frozenset({"p"})) == {"match": ["bert.base*", "^bert.base*$"], "keys": r"bert.base\*"}


def test_under_keys_values_are_escaped_for_a_glob() -> None:
    new, _ = fill({"keys": ["${p}/**", "${p}"], "other": "${p}"}, {"p": r"a*\b."})
    assert new == {"keys": [r"a\*\\b./**", r"a\*\\b."], "other": r"a*\b."}


def test_a_mapping_under_keys_is_exact_and_may_have_templates_on_both_sides() -> None:
    assert filled({"keys": {"${p}/w": "x/${p}", "b": ["${p}"]}}) == {"keys": {"bert.base*/w": "x/bert.base*", "b": ["bert.base*"]}}
    assert filled({"keys": "${map}"}) == {"keys": {"a.b": "c*"}}


@pytest.mark.parametrize("field", ["keys", "var_list", "variables", "edit"])
def test_mapping_keys_are_filled_under_these_fields(field: str) -> None:
    assert filled({field: {"a${n}": "x"}}) == {field: {"a12": "x"}}


def test_mapping_keys_are_left_alone_elsewhere() -> None:
    assert filled({"metadata": {"a${n}": "x"}}) == {"metadata": {"a${n}": "x"}}


def test_a_tensor_called_match_is_no_regular_expression() -> None:
    assert filled({"keys": {"match": "${p}"}, "variables": {"match": {"init": "${p}"}}}) == {
        "keys": {"match": "bert.base*"},
        "variables": {"match": {"init": "bert.base*"}},
    }


def test_inserted_text_is_not_looked_through_again() -> None:
    assert fill({"a": "${x}", "b": "-${x}"}, {"x": "${y}"}) == ({"a": "${y}", "b": "-${y}"}, set())


def test_a_text_with_a_name_without_value_stays_whole_and_is_reported() -> None:
    data = [{"load": {"path": "${recipe.dir}/${later}"}}, {"keys": {"${later}": "a", "b": "${{ later + n }}"}}]
    assert fill(data, VALUES) == (data, {(0, "load", "path"), (1, "keys", "${later}"), (1, "keys", "b")})


def test_references_are_all_names_used() -> None:
    assert references("${a}/$${b}/${env.C} ${{ d * (e + 1) }} ${recipe.dir} ${a-b} $f {g}") == {"a", "env.C", "d", "e", "recipe.dir", "a-b"}


def test_references_of_plain_text_are_none() -> None:
    assert references("a$") == frozenset()


@pytest.mark.parametrize(
    ("text", "title", "offset"),
    [
        ("a/${p", "`${` is never closed", 2),
        ("a/${{ n }", "`${{` is never closed", 2),
        ("${}", "`${}` names no parameter", 0),
        ("x${ }", "`${}` names no parameter", 1),
        ("x${1}", "`1` is not the name of a parameter", 3),
        ("${ p }", "` p ` is not the name of a parameter", 2),
        ("${a.}", "`a.` is not the name of a parameter", 2),
        ("${{ }}", "the expression ends where a name or a number is wanted", 3),
        ("x ${{ n + }}", "the expression ends where a name or a number is wanted", 9),
        ("x ${{ n ? 1 }}", "`?` is not part of an integer expression (names, integers, + - * // % and parentheses are)", 8),
        ("${{ n // 0 }}", "division by zero", 6),
        ("a ${{ p }}", "`p` is text, and `${{ }}` computes with integers", 5),
        ("${{ rate }}", "`rate` is a number, and `${{ }}` computes with integers", 3),
        ("a${list}", "`list` is a list and cannot stand inside text", 1),
        ("ab${map}", "`map` is a mapping and cannot stand inside text", 2),
        ("${nothing}.", "`nothing` is null and cannot stand inside text", 0),
    ],
)
def test_faults_name_path_and_character(text: str, title: str, offset: int) -> None:
    with pytest.raises(RecipeError) as caught:
        fill([{"rename": {"to": text}}], VALUES)
    error = caught.value
    assert (error.title, error.code, error.at, error.offset) == (title, "bad-template", (0, "rename", "to"), offset)


def test_booleans_count_as_one_and_zero() -> None:
    assert fill(["${{ yes }}", "${{ 1 - yes }}"], VALUES) == ([1, 0], set())
    assert type(fill(["${{ yes }}"], VALUES)[0][0]) is int


def test_faults_of_a_text_are_found_without_values() -> None:
    with pytest.raises(RecipeError, match="never closed") as caught:
        references("ab${c")
    assert (caught.value.at, caught.value.offset) == ((), 2)


def test_a_fault_in_a_key_says_that_it_is_one() -> None:
    with pytest.raises(RecipeError) as caught:
        fill({"keys": {"a${list}": "b"}}, VALUES)
    assert (caught.value.at, caught.value.offset, caught.value.data) == (("keys", "a${list}"), 1, {"key": True})


def test_two_keys_that_become_one_are_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        fill({"keys": {"a12": "x", "a${n}": "y"}}, VALUES)
    assert (caught.value.code, caught.value.at) == ("duplicate-key", ("keys", "a${n}"))


@given(st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["Z", "C"])))
def test_escaping_is_that_of_the_regex_package(value: str) -> None:
    assert fill({"match": "${x}"}, {"x": value})[0] == {"match": regex.escape(value, special_only=True, literal_spaces=True)}


@given(st.text())
def test_an_inserted_text_matches_itself_only(value: str) -> None:
    pattern = fill({"match": "^(${x})$"}, {"x": value})[0]["match"]
    found = regex.compile(pattern, regex.DOTALL).match(value)
    assert found is not None
    assert found[1] == value


@given(st.text("${}pn1. +*a", max_size=20))
def test_any_text_is_filled_or_refused_inside_it(text: str) -> None:
    code, offset = "bad-template", 0
    unresolved: set[tuple[str | int, ...]] = set()
    try:
        _, unresolved = fill(text, VALUES)
    except RecipeError as error:
        code, offset = error.code, error.offset or 0
    assert code == "bad-template"
    assert 0 <= offset <= len(text)
    assert unresolved <= {()}
