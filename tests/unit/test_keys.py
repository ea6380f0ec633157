import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.keys import glob, is_glob, literal, natural, near_names


@pytest.mark.parametrize(
    ("pattern", "matches", "misses"),
    [
        ("a*", ["a", "ab", "a b", "a\n"], ["a/b", "a.b", "ba", "A"]),
        ("a**", ["a", "a/b.c", "ab"], ["ba"]),
        ("**/x", ["x", "a/x", "a.b/x"], ["ax", "a.x"]),
        ("**.x", ["x", "a.x", "a/b.x"], ["a/x"]),
        ("a/**/x", ["a/x", "a/b/x", "a/b/c.d/x"], ["ax", "a/bx"]),
        ("*/kernel", ["a/kernel"], ["kernel", "a/b/kernel", "a.b/kernel"]),
        (r"a\*", ["a*"], ["ab", r"a\*"]),
        (r"a\\*", ["a\\", r"a\b"], ["a*"]),
        ("a?[b]", ["a?[b]"], ["axb", "a?b"]),
        ("", [""], ["a"]),
        ("größe*", ["größe😀"], ["grosse"]),
    ],
)
def test_a_glob(pattern: str, matches: list[str], misses: list[str]) -> None:
    compiled = glob(pattern)
    assert [key for key in matches if not compiled.fullmatch(key)] == []
    assert [key for key in misses if compiled.fullmatch(key)] == []


@pytest.mark.parametrize(("text", "answer"), [("a", False), ("a*", True), (r"a\*", False), (r"a\\*", True), ("**", True), ("", False)])
def test_whether_a_text_is_a_glob(text: str, answer: bool) -> None:
    assert is_glob(text) == answer


def test_an_exact_key_loses_its_escapes() -> None:
    assert [literal(text) for text in ("a", r"a\*b", r"a\\b", r"a\b")] == ["a", "a*b", r"a\b", r"a\b"]


def test_numbers_order_as_numbers_and_the_rest_as_text() -> None:
    keys = ["layer.10.w", "layer.9.w", "layer", "layer.9.b", "10", "9a", "layer.009.a"]
    assert sorted(keys, key=natural) == ["9a", "10", "layer", "layer.009.a", "layer.9.b", "layer.9.w", "layer.10.w"]


def test_near_names_come_best_first() -> None:
    keys = ["bert/pooler_dense/kernel", "bert/pooler_dense/bias", "cls/output", "bert/pooler/dense/gamma"]
    assert near_names("bert/pooler/dense/kernel", keys) == ["bert/pooler_dense/kernel", "bert/pooler/dense/gamma", "bert/pooler_dense/bias"]


def test_near_names_ignore_case_and_find_nothing_unlike() -> None:
    assert near_names("Encoder/Kernel", ["encoder/kernel", "zzz"]) == ["encoder/kernel"]
    assert near_names("abc", ["xyz", "q"]) == []
    assert near_names("///", ["a"]) == []
    assert near_names("a", []) == []


def test_near_names_among_very_many_keys_take_a_moment() -> None:
    keys = [f"encoder/layer_{number}/attention/output/kernel" for number in range(200_000)]
    began = time.monotonic()
    found = near_names("encoder/layer_7/attention/output/kernal", keys)
    assert time.monotonic() - began < 5
    assert all(key.startswith("encoder/layer_") for key in found)


def test_many_stars_take_linear_time() -> None:
    began = time.monotonic()
    assert not glob("*a" * 30 + "c").fullmatch("a" * 1000)
    assert not glob("**a" * 30 + "c").fullmatch("a" * 1000)
    assert time.monotonic() - began < 2


@given(st.lists(st.sampled_from(["a", "b", "/", ".", "*", "**", "**/", "**."]), max_size=9).map("".join), st.text("ab/.", max_size=9))
def test_many_stars_match_what_the_expression_matches(text: str, key: str) -> None:
    compiled = glob(text)
    plain = compiled._regex.fullmatch(key) is not None
    assert compiled._follow(key) == plain
