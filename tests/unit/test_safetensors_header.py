"""Reading a header in bulk is a fast path: it has to find what reading it entry by entry finds, and say the same of what is wrong."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from surgery.errors import SourceError
from surgery.formats import safetensors_header
from surgery.formats.safetensors_header import parse_object, tensors_of
from surgery.tensors import Fingerprint, SourceFile

ODD = st.sampled_from([True, -1, 1.0, "1", None, [], {}, 1 << 63, "F32", "F4", [1], [[2]]])
NUMBERS = st.integers(0, 3) | ODD
INFOS = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["U8", "F32", "F4", "Q8"]) | ODD, "shape": st.lists(NUMBERS, max_size=2) | ODD, "data_offsets": st.lists(NUMBERS) | ODD}
)


@st.composite
def headers(draw: st.DrawFn) -> tuple[dict[str, object], int]:
    """A header in which every tensor has its place, perhaps shuffled, perhaps with an entry that is not right; and the bytes of its data."""
    rows, start = [], 0
    for number, (code, size, shape) in enumerate(draw(st.lists(st.sampled_from([("U8", 1, [1]), ("F32", 8, [2]), ("F32", 4, []), ("U8", 0, [0])])))):
        rows.append((f"k{number}", {"dtype": code, "shape": shape, "data_offsets": [start, start + size]}))
        start += size
    header: dict[str, object] = dict(draw(st.permutations(rows)) if draw(st.booleans()) else rows)
    if draw(st.booleans()):
        header[draw(st.sampled_from(["k0", "new"]))] = draw(INFOS | ODD)
    return header, start + draw(st.sampled_from([0, 0, 0, 1, -1]))


def found(header: dict[str, object], nbytes: int) -> object:
    file = SourceFile("a.safetensors", Fingerprint(100 + nbytes, 0, 0, 0))
    try:
        return [(key, expr.view()) for key, expr in tensors_of(file, header, 100).items()]
    except SourceError as error:
        return type(error), error.title, error.notes


@given(headers())
@example(({"a": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, 1))
@example(({"a": {"dtype": "U8", "shape": [1.0], "data_offsets": [0, 1]}}, 1))
@example(({"a": {"dtype": "U8", "shape": "", "data_offsets": [0, 1]}}, 1))
@example(({"a": {"dtype": "U8", "shape": [-1, -1], "data_offsets": [0, 1]}}, 1))
@example(({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, True]}}, 1))
@example(({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, 1))
def test_a_header_read_in_bulk_is_as_read_one_by_one(case: tuple[dict[str, object], int]) -> None:
    in_bulk = found(*case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors_header, "_sound_places", lambda header, nbytes: None)
        assert found(*case) == in_bulk


TEXTS = st.sampled_from(["a", "b", "\\u0061", "dtype", ""])


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(TEXTS, values), max_size=3).map(lambda rows: "{" + ",".join(f'"{key}":{value}' for key, value in rows) + "}")


def lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=2).map(lambda rows: "[" + ",".join(rows) + "]")


SCALARS = TEXTS.map(lambda text: f'"{text}"') | st.sampled_from(["1", "null", "[]"])
VALUES = st.recursive(SCALARS, lambda inner: objects(inner) | lists(inner), max_leaves=6)


def has_duplicates(text: str) -> bool:
    def look(pairs: list[tuple[str, object]]) -> dict[str, object]:
        twice.extend(key for key in dict(pairs) if [each for each, _ in pairs].count(key) > 1)
        return dict(pairs)

    twice: list[str] = []
    json.loads(text, object_pairs_hook=look)
    return bool(twice)


@given(objects(VALUES))
@example('{"a":{"x":"1","x":"1"},"b":"y"}')
@example('{"a":1,"a":"b"}')
@example('{"a":1,"\\u0061":2}')
@example('{"a":{"b":["c","d"],"b":[]}}')
def test_a_key_that_occurs_twice_is_found_wherever_it_is(text: str) -> None:
    file = SourceFile("a.safetensors", Fingerprint(1000, 0, 0, 0))
    if has_duplicates(text):
        with pytest.raises(SourceError, match="is not the JSON it should be"):
            parse_object(text.encode(), "the header", file, 8)
    else:
        assert parse_object(text.encode(), "the header", file, 8) == json.loads(text)
