import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.errors import PlanError, RecipeError
from surgery.patterns import Clock, compile_pattern
from surgery.replacement import compile_template


def renamed(key: str, match: str, to: str, every: bool = False) -> str | None:
    pattern = compile_pattern(match)
    found = list(pattern.substitutions([key], compile_template(to, pattern), every, Clock()))
    return found[0][1] if found else None


@pytest.mark.parametrize(
    ("key", "match", "to", "first", "each"),
    [
        ("a/b/a", "a", "x", "x/b/a", "x/b/x"),
        ("abc", "", "-", "-abc", "-a-b-c-"),
        ("abc", "x*", "-", "-abc", "-a-b-c-"),
        ("baaac", "a*", "x", "xbaaac", "xbxcx"),
        ("abc", "(.*)", r"p/\1", "p/abc", "p/abc"),
        ("abc", "$", ".w", "abc.w", "abc.w"),
        ("abc", "^", "x/", "x/abc", "x/abc"),
        ("a1b2", r"(?P<n>\d)", "<{n+1}>", "a<2>b2", "a<2>b<3>"),
        ("h.007", r"(?P<n>\d+)", "{n}", "h.7", "h.7"),
        ("h.7", r"(?P<n>\d+)", "{n:03}", "h.007", "h.007"),
        ("h.7", r"(?P<n>\d+)", "{n*2-1}.{n//2}.{n%4}", "h.13.3.3", "h.13.3.3"),
        ("ab", "(a)|(b)", r"[\1\2]", "[a]b", "[a][b]"),
        ("ab", "a", r"\\", "\\b", "\\b"),
        ("ab", "(?P<x>a)", r"\g<x>\g<1>\g<0>", "aaab", "aaab"),
        ("größe", "ö", "oe", "groesse".replace("ss", "ß"), "groeße"),
    ],
)
def test_substitution_is_that_of_sed(key: str, match: str, to: str, first: str, each: str) -> None:
    assert renamed(key, match, to) == first
    assert renamed(key, match, to, every=True) == each


def test_a_key_that_does_not_match_is_left_out() -> None:
    pattern = compile_pattern("b+")
    found = pattern.substitutions(["a", "abb", "", "cb"], compile_template("x", pattern), False, Clock())
    assert list(found) == [(1, "ax"), (3, "cx")]


LETTERS = st.text("ab/1", max_size=8)
PATTERNS = st.sampled_from(
    ["a", "a+", "a*b", "(a)(b)?", "[ab]/", "^a", "b$", "a|b1", "(?:ab)+", "a{2}", "a?b", r"\d", "(?i)A", "b1a", "a/?1*", "/", "."]
)


@given(st.lists(LETTERS, max_size=5), PATTERNS, st.sampled_from(["", "x", r"<\g<0>>"]), st.booleans())
def test_substitution_agrees_with_the_re_module(keys: list[str], match: str, to: str, every: bool) -> None:
    """No pattern here matches nothing right behind another match, which `re` counts and sed does not."""
    pattern = compile_pattern(match)
    wanted = [(position, re.sub(match, to, key, count=0 if every else 1)) for position, key in enumerate(keys) if re.search(match, key)]
    assert list(pattern.substitutions(keys, compile_template(to, pattern), every, Clock())) == wanted


@given(LETTERS, PATTERNS)
def test_the_literal_looked_for_first_never_hides_a_match(key: str, match: str) -> None:
    assert bool(compile_pattern(match).search(key, Clock())) == bool(re.search(match, key))


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("layer_", "layer_"),
        (r"layer_(\d+)/kernel", "/kernel"),
        ("a|b", ""),
        ("colou?r", "colo"),
        (r"\.weight$", ".weight"),
        ("(?i)abc", ""),
        ("ab*c", "a"),
    ],
)
def test_the_literal_that_every_match_contains(text: str, literal: str) -> None:
    assert compile_pattern(text).literal == literal


@pytest.mark.parametrize(
    ("text", "offset", "says"),
    [
        (r"layer_(\d+", 6, "missing )"),
        (r"(a)[(](\()(b", 10, "missing )"),
        ("a)", 1, "unbalanced parenthesis"),
        ("[a", None, "unterminated"),
        ("*a", 0, "nothing to repeat"),
        ("(?:foo){e<=1}", 7, "neither a repeat count nor a literal"),
        ("x{e}", 1, "neither a repeat count nor a literal"),
        ("a{2000}", 1, "a repeat of 2,000; 1,000 are allowed"),
        ("((a{100}){100})", None, "counted repeats multiply to 10,000"),
        ("a" * 10_001, None, "has 10,001 characters"),
    ],
)
def test_a_pattern_that_is_refused(text: str, offset: int | None, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        compile_pattern(text)
    assert caught.value.code == "bad-pattern"
    assert says in caught.value.title
    assert offset is None or caught.value.offset == offset


@pytest.mark.parametrize(
    ("to", "offset", "says"),
    [
        (r"a\2", 1, r"the pattern has 1 group, no \2"),
        (r"\g<m>", 0, "the pattern has no group named `m`"),
        (r"\q", 0, r"`\q` means nothing here"),
        ("x{", 1, "a single `{`"),
        ("x}", 1, "a single `}`"),
        ("{m+1}", 0, "the pattern has no group named `m`"),
        ("{n+}", 0, "in `{n+}`"),
        ("{n:x}", 0, "`:x` is no width"),
    ],
)
def test_a_template_that_is_refused(to: str, offset: int, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        compile_template(to, compile_pattern(r"(?P<n>\d+)"))
    assert caught.value.code == "bad-template"
    assert says in caught.value.title
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("key", "match", "to", "says"),
    [
        ("hx", "h(?P<n>.)", "{n}", "group `n` is 'x', not an integer"),
        ("h", r"h(?P<n>\d)?", "{n}", "group `n` is None, not an integer"),
        ("h0", r"(?P<n>\d)", "{n-1}", "the number would be -1"),
        ("h0", r"(?P<n>\d)", "{8//n}", "zero"),
        ("h²", "h(?P<n>.)", "{n}", "not an integer"),
    ],
)
def test_a_number_that_cannot_be(key: str, match: str, to: str, says: str) -> None:
    with pytest.raises(PlanError) as caught:
        renamed(key, match, to)
    assert caught.value.code == "bad-number"
    assert says in caught.value.title


def test_an_exponential_pattern_runs_out_of_time() -> None:
    pattern = compile_pattern("^(a|aa)+$")
    assert pattern.safe_length == 0
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        pattern.search("a" * 60 + "!", Clock(0.2))
    assert time.monotonic() - began < 5


def test_an_expired_clock_stops_a_walk_over_many_keys() -> None:
    pattern = compile_pattern("k")
    clock = Clock(-1.0)
    with pytest.raises(TimeoutError):
        [pattern.search(f"k{number}", clock) for number in range(5000)]


PLAIN = ["a", "^a", "a$", "^", "$", "a/b", r"a\.b", r"^a\.", r"\.b$", r"\$", r"a\$", r"^\^", r"\\", r"a\\", "-", "a b", "é$", "a#"]
ODD_KEYS = ["", "a", "aa", "a.b", "a/b", "ba", "a$", "^a", "\\", "a\\", "x$", "$", "é", "a b", "aéa", ".b", "-", "a.b.a.b", "a#a", "a\n", "\n"]


@pytest.mark.parametrize("text", PLAIN)
@pytest.mark.parametrize("to", ["", "X", "a", "{{"])
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("keys", [ODD_KEYS, [key for key in ODD_KEYS if not key.endswith("\n")]])
def test_string_methods_give_what_the_engine_gives(text: str, to: str, every: bool, keys: list[str]) -> None:
    fast, slow = compile_pattern(text), compile_pattern.__wrapped__(text)
    assert fast.plain is not None
    slow.plain = None
    template = compile_template(to, fast)
    assert fast.substitutions(keys, template, every, Clock()) == slow.substitutions(keys, template, every, Clock())


@pytest.mark.parametrize("text", ["a.b", "a|b", "a+", r"\d", "[a]", "(a)", "a^", "$a", "", r"\b"])
def test_a_pattern_that_is_more_than_text_goes_to_the_engine(text: str) -> None:
    assert compile_pattern(text).plain is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (r"(?P<a>\d+)x\g<a>", "x12x12"),
        ("[[:alpha:]]5x", "alpha5x"),
        ("(?i-s)ALPHA", "alpha5x"),
        ("(?i)ALPHA", "alpha5x"),
        (r"a\101b", "aAb"),
        (r"a\x41b", "aAb"),
        (r"(.)(.)\2\1", "abba"),
        ("(?x) al pha # x", "alpha"),
        (r"(?#alpha)5", "alpha5x"),
        (r"\p{Lu}5", "A5"),
        (r"(?|(a)|(b))5", "b5"),
    ],
)
def test_no_text_is_demanded_that_a_match_need_not_hold(text: str, key: str) -> None:
    assert compile_pattern(text).search(key, Clock()) is not None


@given(
    st.lists(st.sampled_from(["a", "b", "(", ")", "|", "*", "+", "?", ".", "[ab]", r"\d", "1", "^", "$", "(?:", "{2}", r"\."]), max_size=8).map(
        "".join
    )
)
def test_the_search_finds_what_the_engine_finds(text: str) -> None:
    try:
        pattern = compile_pattern(text)
    except RecipeError:
        return
    for key in ("", "a", "b", "ab", "aab1", "a.b", "11", "ba.1"):
        expected = pattern.compiled.search(key)
        found = pattern.search(key, Clock())
        assert (found and found.span()) == (expected and expected.span())


@pytest.mark.parametrize("text", ["^(a|a){39}$", "(a+)?b", "(a|b)*c", r"(.)\1+", "(?R)?", "(a{5}){5}"])
def test_a_repeated_group_is_never_run_without_a_clock(text: str) -> None:
    assert compile_pattern(text).safe_length == 0


@pytest.mark.parametrize(("text", "length"), [("abc", 1 << 60), ("a+", 10_000_000), (r"(.*)/(\d+)", 3162), ("a+b+c+", 215)])
def test_more_repeats_are_safe_on_shorter_keys_only(text: str, length: int) -> None:
    assert compile_pattern(text).safe_length == length
