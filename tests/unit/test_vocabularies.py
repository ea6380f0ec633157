"""Vocabularies out of files as tokenizers write them, and the rows that follow their tokens."""

from __future__ import annotations

import json

import pytest

from surgery.data_files import indices, json_of
from surgery.errors import SourceError
from surgery.vocabularies import Vocabulary, remap, vocabulary

WORDPIECE = {"version": "1.0", "added_tokens": [{"id": 0, "content": "[PAD]"}, {"id": 3, "content": "[X]"}], "model": {"vocab": {"[PAD]": 0, "a": 1}}}
UNIGRAM = {"added_tokens": [{"id": 0, "content": "<s>"}], "model": {"type": "Unigram", "vocab": [["<s>", 0.0], ["▁the", -3.2]]}}


@pytest.mark.parametrize(
    ("path", "text", "ids"),
    [
        ("vocab.txt", "[PAD]\nthe\n##s\n", {"[PAD]": 0, "the": 1, "##s": 2}),
        ("vocab.txt", "a\nb", {"a": 0, "b": 1}),
        ("vocab.txt", "a\r\nb\r\n", {"a": 0, "b": 1}),
        ("vocab.txt", "a\n\n b\u2028c \n", {"a": 0, "": 1, " b\u2028c ": 2}),
        ("vocab.txt", "\ufeffa\nb\n", {"a": 0, "b": 1}),
        ("vocab.json", '{"b": 7, "a": 0, "\\u0120c": 1}', {"a": 0, "b": 7, "Ġc": 1}),
        ("tokens.json", '["a", "b"]', {"a": 0, "b": 1}),
        ("tokenizer.json", json.dumps(WORDPIECE), {"[PAD]": 0, "a": 1, "[X]": 3}),
        ("tokenizer.json", json.dumps(UNIGRAM), {"<s>": 0, "▁the": 1}),
        ("tokenizer.json", '{"added_tokens": null, "model": {"vocab": {"a": 0}}}', {"a": 0}),
    ],
)
def test_tokens_and_their_ids(path: str, text: str, ids: dict[str, int]) -> None:
    found = vocabulary(text.encode(), path)
    assert found == Vocabulary(ids, max(ids.values()) + 1)


@pytest.mark.parametrize(
    ("path", "data", "says"),
    [
        ("vocab.txt", b"a\nb\na\n", "`vocab.txt` has the token 'a' twice, as 0 and 2"),
        ("vocab.txt", b"a\xff\n", "is not UTF-8 text: byte 1"),
        ("vocab.txt", b"", "has no tokens"),
        ("vocab.json", b'{"a": 0, "b": 0}', "has two tokens for the id 0: 'a' and 'b'"),
        ("vocab.json", b'{"a": 0, "a": 1}', 'has "a" twice in one object'),
        ("vocab.json", b'{"a": "0"}', "is no vocabulary: 'a' has the id '0'"),
        ("vocab.json", b'{"a": true}', "is no vocabulary: 'a' has the id True"),
        ("vocab.json", b'{"a": -1}', "is no vocabulary: 'a' has the id -1"),
        ("vocab.json", b'{"a": 1', "is no JSON"),
        ("vocab.json", b"7", "is no vocabulary"),
        ("vocab.json", b"[7]", "is no vocabulary: 7 has the id 0"),
        ("vocab.json", b"[" * 100_000, "is no JSON"),
        ("tokenizer.json", b'{"model": {"vocab": null}}', "is no vocabulary"),
        ("tokenizer.json", b'{"model": {"vocab": {}}, "added_tokens": [7]}', "`added_tokens` is no list of tokens"),
        ("tokenizer.json", b'{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "a"}]}', "has the token 'a' twice"),
    ],
)
def test_what_is_no_vocabulary_is_told(path: str, data: bytes, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        vocabulary(data, path)
    assert caught.value.code == "bad-data"
    assert says in caught.value.title
    assert caught.value.help


@pytest.mark.parametrize("data", [b"[]", b'["1"]', b"[1.5]", b"[true]", b'{"a": 1}', b"7", b"1, 2", b"[1] [2]"])
def test_what_is_no_list_of_indices_is_told(data: bytes) -> None:
    with pytest.raises(SourceError, match=r"`rows\.json` is no JSON"):
        indices(data, "rows.json")


def test_a_list_of_indices() -> None:
    assert indices(b"[5, -1, 0, 5]\n", "rows.json") == (5, -1, 0, 5)


def test_a_name_twice_is_found_fast_in_a_large_object() -> None:
    names = [f'"{number}": 1' for number in range(200_000)]
    with pytest.raises(SourceError, match='"199999" twice'):
        json_of(f"{{{', '.join([*names, names[-1]])}}}".encode(), "vocab.json")


def test_rows_follow_their_tokens_and_new_ones_come_in_order() -> None:
    old, new = Vocabulary({"a": 0, "b": 1, "c": 2}, 3), Vocabulary({"c": 0, "x": 1, "a": 2, "y": 4}, 5)
    assert remap(old, new, 10, 7) == (2, 10, 0, 11, 12, 13, 14)
    assert remap(old, new, 3, 3) == (2, 3, 0)
    assert remap(old, new, 3, 3, old_size=2) == (3, 4, 0)
