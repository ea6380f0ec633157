from __future__ import annotations

import json

import pytest

from surgery.formats import json_shape
from surgery.formats.json_shape import like_header, like_index

ENTRY = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}


@pytest.fixture(autouse=True)
def _look_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is too small, and no count speaks for itself."""
    monkeypatch.setattr(json_shape, "_SMALL", -1)
    monkeypatch.setattr(json_shape, "_counts_like_header", lambda raw: False)
    monkeypatch.setattr(json_shape, "_counts_like_index", lambda raw: False)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "header",
    [
        {},
        {"a": ENTRY},
        {"__metadata__": {"k": 'v"\\[{', "": ""}, "a{[": ENTRY, "ü": ENTRY},
        {"a": ENTRY, "__metadata__": {}},
        {"a": {**ENTRY, "shape": []}},
    ],
)
def test_headers_have_the_shape_of_headers(header: object, indent: int | None) -> None:
    assert like_header(json.dumps(header, indent=indent).encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"a":0}',
        '{"a":[[]]}',
        '{"a":{}}',
        '{"a":{"b":[],"c":[],"d":{}}}',
        '{"__metadata__":{"a":[]}}',
        '{"a":{"b":0}',
        '{"a',
        "{" * 99,
        '{"a":' * 99,
    ],
)
def test_other_things_have_not(text: str) -> None:
    assert not like_header(text.encode())


@pytest.mark.parametrize("indent", [None, 2])
def test_an_index_has_the_shape_of_one(indent: int | None) -> None:
    index = {"metadata": {"total_size": 8, "ratio": -1.5e-3, "none": None}, "weight_map": {"layer[0].w": "model-00001.safetensors"}}
    assert like_index(json.dumps(index, indent=indent).encode())


@pytest.mark.parametrize("text", ['{"weight_map":[]}', '{"weight_map":{"a":{}}}', '{"weight_map":{"a":["b"]}}', '{"weight_map":{"a":"b"}'])
def test_lists_and_mappings_below_have_not(text: str) -> None:
    assert not like_index(text.encode())


def test_a_text_that_counts_like_a_header_is_let_through_without_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(json_shape, "_SMALL", -1)
    monkeypatch.setattr(json_shape, "_matches", lambda pattern, raw: pytest.fail("matched"))
    assert like_header(json.dumps({f"layer.{number}": ENTRY for number in range(1000)}).encode())
    assert like_index(json.dumps({"weight_map": {f"layer.{number}": "model.safetensors" for number in range(1000)}}).encode())
