"""Reading the formulas of `compute`: what binds how, and the place of each fault. Values are in `test_math_nodes`."""

from __future__ import annotations

import pytest

from surgery.formula import FormulaFault, Name, Number, Operation, Term, parse


def shown(term: Term) -> str:
    if isinstance(term, Operation):
        return f"({' '.join([term.word, *map(shown, term.operands)])})"
    return term.name if isinstance(term, Name) else f"{term.value:g}" if isinstance(term, Number) else ""


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a - b - c", "(- (- a b) c)"),
        ("a ** b ** c", "(** a (** b c))"),
        ("-a ** 2", "(negative (** a 2))"),
        ("2 ** -a", "(** 2 (negative a))"),
        ("a + b * c @ d", "(+ a (@ (* b c) d))"),
        ("a @ b.T", "(@ a (T b))"),
        ("(a + b).T.T", "(T (T (+ a b)))"),
        ("a + b < c * 2", "(< (+ a b) (* c 2))"),
        ("sum(mean) / dim(a, 0)", "(/ (sum mean) (dim a))"),
    ],
)
def test_operators_bind_as_in_python(text: str, tree: str) -> None:
    assert shown(parse(text)) == tree


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("", 0),
        ("a +", 3),
        ("a b", 2),
        ("a + (b", 4),
        ("a $ b", 2),
        ("foo(a)", 0),
        ("sum(a, axis=x)", 12),
        ("exp(a, axis=0)", 7),
        ("sum(axis=0, a)", 12),
        ("where(a, b)", 0),
        ("a < b < c", 6),
        ("a * 1e999", 4),
        ("a.__class__", 1),
        ("(" * 40 + "a" + ")" * 40, 33),
        ("a" + " + a" * 200, 512),
    ],
)
def test_a_fault_has_its_place(text: str, offset: int) -> None:
    with pytest.raises(FormulaFault) as caught:
        parse(text)
    assert caught.value.offset == offset
