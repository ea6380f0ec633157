import math
import time
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from surgery.errors import RecipeError, Where, render
from surgery.located import Document, parse

RECIPE = """\
surgery: 1
params:
  p: {type: string, default: 'a'}   # a comment
steps:
  - load: {path: '${p}'}
  - rename:
      - {match: 'layer_(\\d+', to: "l\\\\1"}
      - match: ^bert/(
        to: |
          block
        all:
  - drop: {keys: [
        bert, größe/😀]}
"""


@pytest.fixture(params=["C parser", "Python parser"])
def either_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Python parser":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("this PyYAML has no C parser")


def fault(text: str | bytes) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse(text, "r.yaml")
    return caught.value


def at(where: Where) -> tuple[int, int, int]:
    return where.line, where.column, where.width


@pytest.mark.usefixtures("either_parser")
def test_a_recipe_becomes_plain_data() -> None:
    assert parse(RECIPE, "r.yaml").data == {
        "surgery": 1,
        "params": {"p": {"type": "string", "default": "a"}},
        "steps": [
            {"load": {"path": "${p}"}},
            {"rename": [{"match": "layer_(\\d+", "to": "l\\1"}, {"match": "^bert/(", "to": "block\n", "all": None}]},
            {"drop": {"keys": ["bert", "größe/😀"]}},
        ],
    }


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("path", "options", "place"),
    [
        ((), {}, (1, 1, 10)),
        (("surgery",), {}, (1, 10, 1)),
        (("surgery",), {"key": True}, (1, 1, 7)),
        (("params", "p"), {}, (3, 6, 28)),
        (("params", "p", "default"), {}, (3, 30, 3)),
        (("steps",), {}, (5, 3, 22)),
        (("steps", 0), {}, (5, 5, 20)),
        (("steps", 0, "load"), {"key": True}, (5, 5, 4)),
        (("steps", 1, "rename"), {}, (7, 7, 35)),
        (("steps", 1, "rename", 0, "match"), {}, (7, 17, 12)),
        (("steps", 1, "rename", 0, "match"), {"offset": 6}, (7, 24, 1)),
        (("steps", 1, "rename", 0, "match"), {"offset": 99}, (7, 28, 1)),
        (("steps", 1, "rename", 0, "to"), {"offset": 1}, (7, 35, 6)),
        (("steps", 1, "rename", 1, "match"), {"offset": 6}, (8, 22, 1)),
        (("steps", 1, "rename", 1, "to"), {"offset": 2}, (9, 13, 1)),
        (("steps", 1, "rename", 1, "all"), {}, (11, 9, 3)),
        (("steps", 2, "drop", "keys"), {}, (12, 18, 1)),
        (("steps", 2, "drop", "keys", 1), {}, (13, 15, 7)),
        (("steps", 2, "drop", "keys", 1), {"offset": 6}, (13, 21, 1)),
        (("steps", 2, "drop", "keys", 7), {"offset": 3}, (12, 18, 1)),
        (("steps", 2, "dorp", "keys"), {"key": True}, (12, 5, 14)),
        (("steps", "0"), {}, (5, 3, 22)),
        (("nowhere",), {}, (1, 1, 10)),
    ],
)
def test_position(path: tuple[str | int, ...], options: dict[str, Any], place: tuple[int, int, int]) -> None:
    assert at(parse(RECIPE, "r.yaml").where(path, **options)) == place


def test_a_position_has_the_file_and_the_line() -> None:
    document = parse("a:\r\n  b: 'x'\r\n", "dir/r.yaml")
    assert document.where(("a", "b")) == Where("dir/r.yaml", 2, 6, "  b: 'x'", 3)
    assert document.name == "dir/r.yaml"
    assert document.lines == ("a:", "  b: 'x'", "")


def test_a_byte_order_mark_takes_no_column() -> None:
    for text in ("\ufeffa: b", b"\xef\xbb\xbfa: b"):
        document = parse(text, "r.yaml")
        assert document.data == {"a": "b"}
        assert at(document.where(("a",))) == (1, 4, 1)


@pytest.mark.usefixtures("either_parser")
def test_an_alias_has_its_own_place_and_its_parts_that_of_the_anchor() -> None:
    document = parse("a: &x {b: c}\nd: *x\ne: &y f\ng: {*y : 1}\n", "r.yaml")
    assert document.data == {"a": {"b": "c"}, "d": {"b": "c"}, "e": "f", "g": {"f": 1}}
    assert at(document.where(("d",))) == (2, 4, 2)
    assert at(document.where(("d", "b"))) == (1, 11, 1)
    assert at(document.where(("e",), offset=0)) == (3, 7, 1)
    assert at(document.where(("g", "f"), key=True)) == (4, 5, 2)


@pytest.mark.usefixtures("either_parser")
def test_an_anchor_may_be_used_again() -> None:
    assert parse("[&a 1, *a, &a 2, *a, &a [&a 3, *a], *a]", "r.yaml").data == [1, 1, 2, 2, [3, 3], 3]


TEXTS = [
    *("012", "-012", "00", "0o8", "0O17", "0x", "-0x1F", "0b1", "1_000", "1:30", "1e", "1e3.5", "e5", ".", "-."),
    *("+.e3", "012.5", "1.2.3", "on", "yes", "off", "no", "y", "n", "True1", "tRUE", "nULL", "NaN", "inf", "nan"),
    *(".iNF", "-.nan", "2024-01-01", "2024-01-01T00:00:00Z", "=", "٣", "¼", "1e+", "0x1G", "${p}", "a#b", "a:b", "-a", "?a"),
]


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("text", TEXTS)
def test_everything_else_is_text(text: str) -> None:
    assert parse(f"- {text}\n", "r.yaml").data == [text]


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("null", None),
        ("Null", None),
        ("NULL", None),
        ("", None),
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("false", False),
        ("False", False),
        ("FALSE", False),
        ("0", 0),
        ("-0", 0),
        ("+12", 12),
        ("-19", -19),
        ("0o17", 15),
        ("0x1F", 31),
        ("0xff", 255),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        ("-1.5", -1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("+.5e1", 5.0),
        ("0.02", 0.02),
        (".inf", math.inf),
        ("+.Inf", math.inf),
        ("-.INF", -math.inf),
        ("'1'", "1"),
        ('"true"', "true"),
        ("''", ""),
        ("|\n  1", "1"),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_scalars_of_the_core_schema(text: str, value: Any) -> None:
    found = parse(f"a: {text}", "r.yaml").data["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number(text: str) -> None:
    assert math.isnan(parse(text, "r.yaml").data)


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("field", ["keys", "var_list", "variables"])
def test_keys_of_tensors_are_their_literal_text(field: str) -> None:
    document = parse(f"x: {{{field}: {{0: a, on: b, 012: c, ~: d, true: e, <<: f, 1e3: g, 'q': 1}}}}", "r.yaml")
    assert document.data == {"x": {field: {"0": "a", "on": "b", "012": "c", "~": "d", "true": "e", "<<": "f", "1e3": "g", "q": 1}}}


def test_literal_keys_go_one_level_deep() -> None:
    assert fault("variables: {a: {0: 1}}").code == "bad-key"
    assert fault("keys: [{0: 1}]").code == "bad-key"


def test_one_key_written_in_two_ways_is_a_duplicate() -> None:
    assert fault("keys: {0: a, '0': b}").code == "duplicate-key"


GOLDEN = {
    "- drop: {keys: [a, b], keys: [c]}\n": """\
error[duplicate-key]: key `keys` occurs twice in this mapping
  --> r.yaml:1:24 | - drop: {keys: [a, b], keys: [c]}
                  |                        ^^^^
  note: first at 1:10
  help: keep one of them, or join their values into one list""",
    "a:\n  1: x\n": """\
error[bad-key]: key `1` is a number, and keys are text
  --> r.yaml:2:3 | 1: x
                 | ^
  help: put it in quotes: '1'""",
    "{~: x}": """\
error[bad-key]: key `~` is null, and keys are text
  --> r.yaml:1:2 | {~: x}
                 |  ^
  help: put it in quotes: '~'""",
    "? [a]\n: b\n": """\
error[bad-key]: a list or mapping cannot be a key
  --> r.yaml:1:3 | ? [a]
                 |   ^""",
    "a: &x {b: c}\nd:\n  <<: *x\n": """\
error[bad-key]: merge keys (`<<`) are not part of YAML 1.2
  --> r.yaml:3:3 | <<: *x
                 | ^^
  help: write the fields out""",
    "a: !!python/object/apply:os.system [ls]": """\
error[yaml-tag]: tags are not supported: `!!python/object/apply:os.system`
  --> r.yaml:1:4 | a: !!python/object/apply:os.system [ls]
                 |    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  help: leave it out; quotes make text of a value""",
    "a: !x 1": """\
error[yaml-tag]: tags are not supported: `!x`
  --> r.yaml:1:4 | a: !x 1
                 |    ^^^^
  help: leave it out; quotes make text of a value""",
    "a: &x [b, *x]": """\
error[yaml-limit]: `*x` stands inside its own anchor
  --> r.yaml:1:11 | a: &x [b, *x]
                  |           ^^""",
    "keys: **": """\
error[yaml]: a name is missing after `*`
  --> r.yaml:1:8 | keys: **
                 |        ^
  help: put text that begins with `*` in quotes, a glob for example""",
    "keys: *adam\n": """\
error[yaml]: no `&adam` stands before `*adam`
  --> r.yaml:1:7 | keys: *adam
                 |       ^^^^^
  help: quotes make text of it, for example a glob""",
    "a: 1\n---\nb: 2\n": """\
error[yaml]: a second document begins here
  --> r.yaml:2:1 | ---
                 | ^^^
  help: keep one document per file""",
    "": """\
error[yaml]: there is nothing in this file
  --> r.yaml:1:1""",
    "a:\n  - b: 'x\n  - c\n": """\
error[yaml]: this quote is never closed
  --> r.yaml:2:8 | - b: 'x
                 |      ^
  help: close it; inside single quotes `''` is one quote""",
    "a:\n\t- b\n": """\
error[yaml]: a tab cannot be used for indentation
  --> r.yaml:2:1 | - b
                 | ^
  help: use spaces""",
    'match: "layer_(\\d+)"\n': """\
error[yaml]: `\\d` means nothing inside double quotes
  --> r.yaml:1:16 | match: "layer_(\\d+)"
                  |                ^^
  help: use single quotes for regular expressions: there a backslash is a backslash""",
    "a: b: c\n": """\
error[yaml]: `:` cannot stand here
  --> r.yaml:1:5 | a: b: c
                 |     ^
  help: put text that contains `: ` in quotes, or correct the indentation""",
    "steps:\n  - rename: {match: a to: b}\n": """\
error[yaml]: `,` or `}` is missing
  --> r.yaml:2:25 | - rename: {match: a to: b}
                  |                       ^
  note: the mapping `{` began at 2:13
  help: put text that contains `: ` or braces in quotes""",
    "keys: [a, b\n": """\
error[yaml]: `,` or `]` is missing
  --> r.yaml:1:7 | keys: [a, b
                 |       ^
  help: put text that contains `: ` or brackets in quotes""",
    "a:\n  b: 1\n c: 2\n": """\
error[yaml]: this does not continue the mapping it stands in
  --> r.yaml:3:2 | c: 2
                 | ^
  note: the mapping began at 1:1
  help: correct the indentation, or put the whole text in quotes""",
    "match: [a-z]+\n": """\
error[yaml]: this does not continue the mapping it stands in
  --> r.yaml:1:13 | match: [a-z]+
                  |             ^
  note: the mapping began at 1:1
  help: correct the indentation, or put the whole text in quotes""",
    "a: @b\n": """\
error[yaml]: plain text cannot begin with `@`
  --> r.yaml:1:4 | a: @b
                 |    ^
  help: put it in quotes""",
    "a: [": """\
error[yaml]: the file ends where a value is wanted
  --> r.yaml:1:5 | a: [
                 |     ^
  help: close what is open""",
    "a: 1\nb\nc: 2\n": """\
error[yaml]: this is neither a value nor `key: value`
  --> r.yaml:2:1 | b
                 | ^
  help: add the `:`, or correct the indentation""",
    " a: 1\nb: 2\n": """\
error[yaml]: this does not continue the document
  --> r.yaml:2:1 | b: 2
                 | ^
  help: correct the indentation; a file holds one document""",
    "a: x\x1by\n": """\
error[yaml]: character U+001B cannot stand in YAML as it is
  --> r.yaml:1:5 | a: x\ufffdy
                 |     ^
  help: remove it, or write `\\x1b` inside double quotes""",
    "a: x\u2028y\n": """\
error[yaml]: character U+2028 cannot stand in YAML as it is
  --> r.yaml:1:5 | a: x\ufffdy
                 |     ^
  help: remove it, or write `\\u2028` inside double quotes""",
}


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("text", GOLDEN)
def test_faults_in_plain_words(text: str) -> None:
    assert render(fault(text)) == GOLDEN[text]


def test_bytes_that_are_not_utf8() -> None:
    assert render(fault("# ü\na: ".encode() + b"x\xff")) == (
        "error[yaml]: byte 0xff is not UTF-8\n  --> r.yaml:2:5 | a: x\ufffd\n                 |     ^\n  help: save the file as UTF-8"
    )


@pytest.mark.parametrize("text", ["# only a comment\n", "---\n", "--- # nothing\n...\n"])
def test_nothing_in_the_file(text: str) -> None:
    assert fault(text).title.startswith("there is nothing in this ")


def test_lone_surrogates_are_refused() -> None:
    assert fault("a: \udc80").title == "character U+DC80 cannot stand in YAML as it is"


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("escape", ["\\ud800", "\\U00110000", "\\xzz"])
def test_escapes_that_are_no_character_are_refused(escape: str) -> None:
    assert fault(f'a: "{escape}"').code == "yaml"


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("number", ["9" * 501, "-" + "1" * 100_000, "0x" + "f" * 5000])
def test_numbers_of_absurd_length_are_refused(number: str) -> None:
    assert fault(f"a: {number}").title == "a number of more than 500 digits is too long"


def test_a_long_number_may_be_the_key_of_a_tensor() -> None:
    assert parse(f"keys: {{? {'9' * 900} : a}}", "r.yaml").data == {"keys": {"9" * 900: "a"}}


@pytest.mark.usefixtures("either_parser")
def test_an_alias_bomb_is_refused_at_once() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10))
    start = time.perf_counter()
    error = fault(bomb)
    assert time.perf_counter() - start < 5
    assert (error.code, error.title) == ("yaml-limit", "with aliases written out, the file has more than 100,000 values")
    assert error.where is not None
    assert error.where.line == 6


def test_aliases_of_a_long_text_are_refused() -> None:
    assert (
        fault(f"a: &x {'s' * 100_000}\nb: [{', '.join(['*x'] * 50)}]").title
        == "with aliases written out, the file has more than 4,194,304 characters"
    )


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("opening", ["[", "- ", "{a: ", "? "])
def test_deep_nesting_is_refused(opening: str) -> None:
    error = fault(opening * 10_000)
    assert error.code in ("yaml-limit", "bad-key")


def test_sixty_four_levels_are_allowed() -> None:
    assert parse("[" * 64 + "]" * 64, "r.yaml").data != []
    assert fault("[" * 65 + "]" * 65).title == "values are nested deeper than 64 levels"


def test_aliases_count_for_the_depth() -> None:
    half = "[" * 40 + "]" * 40
    assert fault(f"a: &x {half}\nb: {'[' * 40}*x{']' * 40}").title == "values are nested deeper than 64 levels"


def test_a_text_of_more_than_four_mebibytes_is_refused() -> None:
    assert fault("#" * ((4 << 20) + 1)).code == "yaml-limit"


def places(document: Document, path: tuple[str | int, ...], data: Any) -> list[tuple[tuple[str | int, ...], Where, Where]]:
    """The places of all values and keys of a document."""
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else []
    below = [place for key, value in children for place in places(document, (*path, key), value)]
    return [(path, document.where(path), document.where(path, key=True)), *below]


@pytest.mark.skipif(not hasattr(yaml, "CSafeLoader"), reason="this PyYAML has no C parser")
@pytest.mark.parametrize(
    "text",
    [
        RECIPE,
        RECIPE.replace("\n", "\r\n"),
        "a: &q {b: [1, 2], c: , d}\ne: &r\n  - *q\n  -\nf: >-\n\n  x\n  y\n\n# end\ng: 'it''s\n  two lines'\n",
        "- - a\n  - b: c\n    d:\n- {? e : f, \"g\": h}\n- plain\n  text  # x\n- ''\n",
        "--- # x\n'a' : é\n日本: {😀: 😀} \n...\n# y\n",
        "- &a a\n- &b\n- &c [*a, *a]\n-",
    ],
)
def test_both_parsers_give_the_same_places(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = parse(text, "r.yaml")
    monkeypatch.delattr(yaml, "CSafeLoader")
    slow = parse(text, "r.yaml")
    assert fast.data == slow.data
    assert places(fast, (), fast.data) == places(slow, (), slow.data)


_MARKS = (": ", ":", "- ", "? ", ", ", "[", "]", "{", "}", "'", '"', "# ", "@", "%", "\\", "\t", "---\n", "...\n", "%YAML 1.2\n", "|\n", ">-\n")
_BREAKS = ("\n", "\r", "\n  ", "\n    ", "\n- ", "\n  - ", "\x85")
_WORDS = ("a", "b", "1", "~", "é", "&x ", "*x", "!!str ", "!", "<<: ", "\\u12", "\ufeff", "\ud800", "\U0010ffff")
_PIECES = st.sampled_from(_MARKS + _BREAKS + _WORDS)
_YAML_LIKE = st.lists(_PIECES, max_size=25).map("".join)


@given(_YAML_LIKE | st.text() | st.binary())
@example('"\\UFFFFFFFF"')
@example(b"%YAML " + b"9" * 5000 + b".1\n---\n")
@example("!%ff%ff a")
def test_any_text_gives_data_or_a_recipe_error_with_a_place(text: str | bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        check_outcome(text)
        patch.delattr(yaml, "CSafeLoader", raising=False)
        check_outcome(text)


def check_outcome(text: str | bytes) -> None:
    document, error = outcome(text)
    if error is not None:
        assert error.where is not None
        assert 1 <= error.where.column <= len(error.where.text) + 1
        assert "Error" not in render(error)
    if document is not None:
        for _, value, key in places(document, (), document.data):
            assert value.text == document.lines[value.line - 1]
            assert key.width >= 1


def outcome(text: str | bytes) -> tuple[Document | None, RecipeError | None]:
    try:
        return parse(text, "r.yaml"), None
    except RecipeError as error:
        return None, error
