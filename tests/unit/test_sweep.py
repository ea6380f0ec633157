"""Sweeping names is a fast path: it has to give what `Pattern.substitutions` gives, key by key."""

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from surgery import sweep
from surgery.errors import PlanError, RecipeError
from surgery.patterns import Clock, compile_pattern
from surgery.replacement import compile_template
from surgery.sweep import Names
from surgery.twins import line_pattern

PATTERNS = [
    *(
        "a",
        "^a",
        "a$",
        "^",
        "$",
        "a.b",
        r"a\.b",
        r"^a\.",
        "a*",
        "(a*)",
        "b?",
        r"(\d+)",
        r"\d*$",
        r"(?P<n>\d+)\.",
        r"(a|b)(\d)",
        "[^.]+",
        "[^.]*b",
        ".*",
    ),
    *("(.*)b", r"^(\w+)\.(.*)$", r"(?:a|bb)\.(\w)", "a{2}", "a{1,2}?", "b+?", r"[ab\d]+", r"[\w.]+$", "(a)?b", "(a|(b))", "a|b", "(?i)A", "(?<=a)b"),
    *(r"(?P<n>\w)", "x", r"(\w)\1", "[ab", "a\n", "é", r"\bb", r"\s", ""),
]
TEMPLATES = ["", "x", r"<\1>", r"\g<n>", "{n+1}", "{n*0:03}", "{n-2}", r"\0", "{7}", "100%", "a\nb", "é", r"\1%s\1"]
KEYS = st.lists(st.text("ab.19\né", max_size=6) | st.text("ab.1", max_size=8), max_size=6)


def rules() -> list[tuple[str, str]]:
    found = []
    for match in PATTERNS:
        for to in TEMPLATES:
            try:
                compile_template(to, compile_pattern(match))
            except RecipeError:  # a pattern that is none, or a template that names what is not there
                continue
            found.append((match, to))
    return found


def one_by_one(names: list[str], match: str, to: str, every: bool) -> tuple[list[str], int]:
    pattern = compile_pattern(match)
    changes = pattern.substitutions(names, compile_template(to, pattern), every, Clock())
    after = dict(enumerate(names)) | dict(changes)
    return [after[position] for position in range(len(names))], len(changes)


def swept(names: list[str], match: str, to: str, every: bool) -> tuple[list[str], int]:
    pattern = compile_pattern(match)
    found = Names(names)
    touched = found.substitute(pattern, compile_template(to, pattern), every, Clock())
    return list(found), touched


def outcome(rename, *arguments):  # type: ignore[no-untyped-def]
    try:
        return rename(*arguments)
    except PlanError as error:
        return error.title


@settings(max_examples=1500, deadline=None)
@given(KEYS, st.sampled_from(rules()), st.booleans())
@example(["a", "b1"], (r"(?P<n>\d+)", "{n-2}"), False)
@example(["ab", "", "ab"], ("a", "x"), False)
def test_sweeping_agrees_with_substituting_key_by_key(names: list[str], rule: tuple[str, str], every: bool) -> None:
    assert outcome(swept, names, *rule, every) == outcome(one_by_one, names, *rule, every)


TOKENS = ["a", "b", "1", r"\.", ".", r"\d", r"\w", "[^.]", "[ab]", "*", "+", "?", "*?", "+?", "{2}", "{1,}", "(", "(?:", ")", "|", "^", "$"]


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.text("ab.1", max_size=8), max_size=6), st.lists(st.sampled_from(TOKENS), max_size=7).map("".join))
def test_any_pattern_made_of_plain_pieces_sweeps_as_it_substitutes(names: list[str], match: str) -> None:
    try:
        groups = compile_pattern(match).compiled.groups
    except RecipeError:
        assume(False)
    assume(line_pattern(match) is not None)
    to = "<" + "|".join(f"\\{number}" for number in range(1, groups + 1)) + ">"
    assert swept(names, match, to, False) == one_by_one(names, match, to, False)


@given(st.lists(st.text("ab.1", max_size=8), max_size=40), st.lists(st.sampled_from(rules()), max_size=4))
def test_rules_in_turn_agree_across_blocks(names: list[str], some: list[tuple[str, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "_KEYS_PER_BLOCK", 3)
        for match, to in some:
            wanted = outcome(one_by_one, names, match, to, False)
            assert outcome(swept, names, match, to, False) == wanted
            names = wanted[0] if isinstance(wanted, tuple) else names


@pytest.mark.parametrize(
    "pattern",
    [r"layers\.(\d+)\.", "^model", "weight$", r"(?P<n>\w+)\.(.*)$", "(gate|up|down)_proj", "[^.]+", "[a-z_]*?", r"x{2,3}", "mlp/"],
)
def test_plain_patterns_have_a_twin(pattern: str) -> None:
    assert line_pattern(pattern) is not None


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a)?", "(a(b))", "a|(b)", "(?i)a", "(?=a)", r"(a)\1", r"\bx", r"\s", "[[:alpha:]]", "[a--b]", "a++", "(?|a|b)", r"\X", r"\p{L}"),
        *("é", r"\N{DIGIT ONE}", "a\nb", "a^b", "(a)(?:b)*", r"\A", r"\Z", "a b"),
    ],
)
def test_what_the_engines_may_read_differently_has_no_twin(pattern: str) -> None:
    assert line_pattern(pattern) is None


def test_a_negated_class_does_not_reach_into_the_next_key() -> None:
    assert swept(["a.b", "c"], "b[^.]*", "x", False) == (["a.x", "c"], 1)


def test_the_clock_is_looked_at_between_blocks() -> None:
    pattern = compile_pattern("a")
    with pytest.raises(TimeoutError):
        Names(["a"]).substitute(pattern, compile_template("b", pattern), False, Clock(0))
