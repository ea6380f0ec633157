from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.arithmetic import ArithmeticFault, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n+8", 11),
        (" heads * head_dim ", 768),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("100 // 7 // 2", 7),
        ("7 % 4 * 2", 6),
        ("-7 // 2", -4),
        ("-7 % 4", 1),
        ("2--3", 5),
        ("--3", 3),
        ("-(n + 1)", -4),
        ("2 * -n", -6),
        ("007", 7),
        ("1000000000000000000", 1000000000000000000),
    ],
)
def test_value(text: str, value: int) -> None:
    assert parse(text).evaluate({"n": 3, "heads": 12, "head_dim": 64}) == value


def test_names_are_listed_once() -> None:
    assert parse("a * (b + a) - größe").names == {"a", "b", "größe"}


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("", "the expression ends where a name or a number is wanted", 0),
        ("n +  ", "the expression ends where a name or a number is wanted", 3),
        ("n 8", "an operator is missing before `8`", 2),
        ("2n", "an operator is missing before `n`", 1),
        ("n)", "an operator is missing before `)`", 1),
        ("1 + (2", "this parenthesis is never closed", 4),
        ("* 2", "`*` stands where a name or a number is wanted", 0),
        ("n ** 2", "`*` stands where a name or a number is wanted", 3),
        ("n / 2", "`/` is not part of an integer expression (names, integers, + - * // % and parentheses are)", 2),
        ("1.5", "`.` is not part of an integer expression (names, integers, + - * // % and parentheses are)", 1),
        ("a.b", "`.` is not part of an integer expression (names, integers, + - * // % and parentheses are)", 1),
        ("1000000000000000001", "the number is larger than 10**18", 0),
        ("1 + " + "9" * 5000, "the number is larger than 10**18", 4),
        ("(" * 40 + "1" + ")" * 40, "the expression nests more than 32 levels", 33),
        ("-" * 40 + "1", "the expression nests more than 32 levels", 33),
        ("1" + "+1" * 200, "the expression has more than 256 parts", 256),
    ],
)
def test_what_is_not_in_the_grammar_is_refused(text: str, message: str, offset: int) -> None:
    with pytest.raises(ArithmeticFault) as caught:
        parse(text)
    assert (caught.value.message, caught.value.offset) == (message, offset)


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("1 // n", "division by zero", 2),
        ("1 % (n * 2)", "division by zero", 2),
        ("n + other", "`other` has no value", 4),
        ("big * big", "a value beyond 10**18 comes out here", 4),
        ("-big - 1", "a value beyond 10**18 comes out here", 5),
        ("1 + huge", "a value beyond 10**18 comes out here", 4),
    ],
)
def test_what_has_no_value_is_refused(text: str, message: str, offset: int) -> None:
    expression = parse(text)
    with pytest.raises(ArithmeticFault) as caught:
        expression.evaluate({"n": 0, "big": 10**18, "huge": 10**19})
    assert (caught.value.message, caught.value.offset) == (message, offset)


def test_the_longest_expression_can_be_evaluated() -> None:
    assert parse("1" + "+1" * 127).evaluate({}) == 128


def test_the_fault_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"^division by zero$"):
        parse("1 // 0").evaluate({})


_EXPRESSIONS = st.recursive(
    st.one_of(st.integers(0, 99).map(str), st.sampled_from(["a", "b"])),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", "-", "*", " // ", "%"]), inner).map("".join),
        inner.map("({})".format),
        inner.map("-{}".format),
    ),
    max_leaves=12,
)


@given(_EXPRESSIONS, st.integers(-9, 9), st.integers(-9, 9))
def test_values_agree_with_python(text: str, a: int, b: int) -> None:
    values: dict[str, Any] = {"a": a, "b": b}
    try:
        wanted = eval(text, {}, values)
    except ZeroDivisionError:
        with pytest.raises(ArithmeticFault, match="division by zero"):
            parse(text).evaluate(values)
        return
    if abs(wanted) <= 10**18:
        assert parse(text).evaluate(values) == wanted


@given(st.text("ab1+-*/%() ٣²", max_size=30) | st.text(max_size=10))
def test_any_text_is_read_or_refused_inside_it(text: str) -> None:
    offset = 0
    try:
        parse(text)
    except ArithmeticFault as fault:
        offset = fault.offset
    assert 0 <= offset <= len(text)
