"""Defaults of parameters that stand in other files, through plans of small recipes; the metadata is that of the tests' own checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from surgery.api import checked, plan
from surgery.directives import at_pointer
from surgery.errors import SurgeryError

DATA = Path(__file__).parent.parent / "data"
Recipe = Callable[..., str]

HEADS = {"type": "integer", "default": {"from": "config.json#/heads"}}


@pytest.fixture
def model(work: Path) -> Path:
    """A checkpoint `model/w.npz`; files are put beside it."""
    (work / "model").mkdir()
    np.savez("model/w.npz", w=np.zeros(4, "f4"))
    return work / "model"


def put(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def values(recipe: Recipe, params: Any, path: str = "model/w.npz", given: Any = None, **head: Any) -> dict[str, Any]:
    found = checked(recipe({"load": {"path": path}}, params=params, **head), given).params
    return {name: found[name] for name in params}


def fault(recipe: Recipe, params: Any, path: str = "model/w.npz", **head: Any) -> SurgeryError:
    with pytest.raises(SurgeryError) as caught:
        values(recipe, params, path, **head)
    return caught.value


RFC_6901 = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", RFC_6901),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_the_examples_of_rfc_6901(pointer: str, value: Any) -> None:
    assert at_pointer(RFC_6901, pointer) == value


@pytest.mark.parametrize("pointer", ["/fo", "/foo/2", "/foo/01", "/foo/-1", "/foo/-", "/foo/0/0", "/foo/٠"])
def test_a_pointer_to_nothing(pointer: str) -> None:
    with pytest.raises(KeyError):
        at_pointer(RFC_6901, pointer)


def test_a_value_stands_in_the_folder_of_the_loaded_checkpoint(recipe: Recipe, model: Path) -> None:
    put(model / "config.json", {"heads": 12, "text": {"sizes": [3, 5]}})
    params = {"heads": HEADS, "size": {"type": "integer", "default": {"from": "config.json#/text/sizes/1"}}}
    assert values(recipe, params) == {"heads": 12, "size": 5}


@pytest.mark.parametrize("path", ["model", "model/", "model/w.npz", "model/bert.ckpt", "model/w.pt#state_dict", "model/consolidated.*.pth"])
def test_the_folder_of_a_folder_a_file_a_prefix_a_part_and_of_several_files(recipe: Recipe, model: Path, path: str) -> None:
    put(model / "config.json", {"heads": 12})
    assert values(recipe, {"heads": HEADS}, path) == {"heads": 12}


def test_sizes_are_computed_from_what_stands_there(recipe: Recipe, model: Path) -> None:
    put(model / "config.json", {"heads": 2.0, "kv": 1, "width": 4})
    params = {name: {"type": "integer", "default": {"from": f"config.json#/{name}"}} for name in ("heads", "kv", "width")}
    sizes = ["${{ width // heads * (heads - kv) }}", "${{ width * kv // heads }}"]
    path = recipe(
        {"load": {"path": "model/w.npz"}},
        {"split": {"keys": "w", "axis": "${{ kv - heads }}", "sizes": sizes, "to": ["q", "k${{ -heads % 5 }}"]}},
        {"save": {"path": "out.npz"}},
        params=params,
    )
    assert {key: entry.spec.shape for key, entry in plan(path).outputs[0].items()} == {"q": (2,), "k3": (2,)}


def test_the_path_of_the_load_may_be_a_parameter(recipe: Recipe, model: Path) -> None:
    put(model / "config.json", {"heads": 12})
    params = {"heads": HEADS, "source": {"type": "string"}}
    assert values(recipe, params, "${source}", {"source": "model/w.npz"})["heads"] == 12


def test_a_given_value_needs_no_file(recipe: Recipe, model: Path) -> None:
    assert values(recipe, {"heads": HEADS}, given={"heads": 3}) == {"heads": 3}


def test_of_several_places_the_first_that_there_is(recipe: Recipe, model: Path) -> None:
    put(model / "config.json", {"n_head": 8})
    put(model / "params.json", {"n_heads": 16})
    places = ["adapter_config.json#/r", "config.json#/heads", "config.json#/n_head", "params.json#/n_heads"]
    assert values(recipe, {"heads": {"type": "integer", "default": {"from": places}}}) == {"heads": 8}


def test_a_plain_value_for_when_there_is_none(recipe: Recipe, model: Path) -> None:
    assert values(recipe, {"heads": {"type": "integer", "default": {"from": "config.json#/heads", "else": 7}}}) == {"heads": 7}


@pytest.mark.parametrize(("kind", "value"), [("integer", 7), (["integer", "null"], None)])
def test_null_is_a_value_only_where_the_schema_takes_it(recipe: Recipe, model: Path, kind: Any, value: Any) -> None:
    put(model / "config.json", {"heads": None})
    assert values(recipe, {"heads": {"type": kind, "default": {"from": "config.json#/heads", "else": 7}}}) == {"heads": value}


def test_other_folders(recipe: Recipe, model: Path, work: Path) -> None:
    put(work / "here.json", 1)
    put(model / "there.json", 2)
    places = {"recipe": "${recipe.dir}/here.json#", "absolute": f"{model}/there.json#", "above": "../here.json#", "param": "${file}#"}
    params = {name: {"type": "integer", "default": {"from": place}} for name, place in places.items()}
    found = values(recipe, params | {"file": {"default": "model/there.json"}})
    assert found == {"recipe": 1, "absolute": 2, "above": 1, "param": 2, "file": "model/there.json"}


def test_a_place_may_need_a_value_that_is_itself_looked_up(recipe: Recipe, model: Path) -> None:
    put(model / "config.json", {"kind": "llama", "llama": {"heads": 12}})
    params = {"heads": {"default": {"from": "config.json#/${kind}/heads"}}, "kind": {"default": {"from": "config.json#/kind"}}}
    assert values(recipe, params) == {"heads": 12, "kind": "llama"}


def test_values_that_wait_for_each_other(recipe: Recipe, model: Path) -> None:
    error = fault(recipe, {"a": {"default": {"from": "${b}#/a"}}, "b": {"default": {"from": "${a}#/b"}}})
    assert [(one.code, one.title) for one in (error, *error.others)] == [
        ("bad-schema", "where `a` has its value depends on `b`, and in the end on itself"),
        ("bad-schema", "where `b` has its value depends on `a`, and in the end on itself"),
    ]


def test_the_path_of_the_load_cannot_stand_beside_what_it_loads(recipe: Recipe, model: Path) -> None:
    error = fault(recipe, {"source": {"default": {"from": "config.json#/file"}}}, "${source}")
    assert (error.code, error.title) == ("bad-schema", "where `source` has its value depends on `source`, and in the end on itself")


def test_the_metadata_of_a_checkpoint_by_the_name_of_a_parameter_and_by_its_path(recipe: Recipe, work: Path) -> None:
    shutil.copy(DATA / "gguf" / "plain.gguf", "tiny.gguf")
    params = {
        "source": {"type": "string", "default": "tiny.gguf"},
        "kind": {"type": "string", "default": {"from": "source#metadata/general.architecture"}},
        "width": {"type": "integer", "default": {"from": "${kind}.gguf#metadata/a.uint8"}},
        "token": {"type": "string", "default": {"from": "source#metadata/tokenizer.ggml.tokens#/1"}},
    }
    assert values(recipe, params, "${source}") == {"source": "tiny.gguf", "kind": "tiny", "width": 255, "token": "ä"}


@pytest.mark.parametrize(("schema", "value"), [({"type": "integer"}, 3), ({"type": "string"}, "3"), ({}, 3)])
def test_text_of_metadata_is_json_where_the_schema_wants_it(recipe: Recipe, work: Path, schema: Any, value: Any) -> None:
    header = json.dumps({"__metadata__": {"heads": "3"}}).encode()
    (work / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert values(recipe, {"heads": schema | {"default": {"from": "m.safetensors#metadata/heads"}}}, "m.safetensors") == {"heads": value}


def test_a_part_of_metadata(recipe: Recipe, work: Path) -> None:
    header = json.dumps({"__metadata__": {"config": '{"n_head": [1, 2]}'}}).encode()
    (work / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    place = "m.safetensors#metadata/config#/n_head/1"
    assert values(recipe, {"heads": {"default": {"from": place}}}, "m.safetensors") == {"heads": 2}


def test_what_was_looked_for_where(recipe: Recipe, model: Path) -> None:
    put(model / "params.json", {"n_heads": None})
    shutil.copy(DATA / "safetensors" / "plain.safetensors", "a.safetensors")
    places = ["config.json#/heads", "params.json#/heads", "params.json#/n_heads", "a.safetensors#metadata/heads", "b#metadata/heads"]
    error = fault(recipe, {"heads": {"type": "integer", "description": "their number", "default": {"from": places}}})
    assert (error.code, error.title, error.help) == ("missing-param", "the parameter `heads` has no value", "pass it: `-p heads=…`")
    assert error.notes == (
        "`heads`: their number",
        "there is no model/config.json",
        "model/params.json has no `/heads`",
        "params.json#/n_heads is null",
        "a.safetensors has no metadata `heads`",
        "there is no checkpoint b",
    )


def test_a_folder_that_is_not_there_is_named_once(recipe: Recipe, work: Path) -> None:
    error = fault(recipe, {"heads": {"type": "integer", "default": {"from": ["config.json#/heads", "config.json#/n", "nowhere/a.json#/n"]}}})
    assert error.notes == ("there is no folder model", "there is no folder model/nowhere")


def test_nothing_is_loaded_that_a_file_could_lie_beside(recipe: Recipe, work: Path) -> None:
    with pytest.raises(SurgeryError) as caught:
        checked(recipe({"save": {"path": "a.npz"}}, params={"heads": HEADS}))
    assert caught.value.notes == ("no checkpoint is loaded that config.json could lie beside",)


def test_a_value_that_does_not_fit_the_schema(recipe: Recipe, model: Path) -> None:
    put(model / "config.json", {"heads": "twelve"})
    error = fault(recipe, {"heads": HEADS})
    assert (error.code, error.title) == ("bad-param", "the parameter `heads`: \"twelve\" is not of type 'integer'")
    assert error.notes == ("this stands at config.json#/heads",)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b'{"heads": 1,\n}', "model/config.json:2:1: "),
        (b"heads: 1", "model/config.json:1:1: Expecting value"),
        (b"", "model/config.json:1:1: Expecting value"),
        (b"[" * 200_000, "maximum recursion depth exceeded"),
        (b'"\xff"', "'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_file_that_is_no_json(recipe: Recipe, model: Path, content: bytes, note: str) -> None:
    (model / "config.json").write_bytes(content)
    error = fault(recipe, {"heads": HEADS})
    assert (error.code, error.title) == ("corrupt-file", "model/config.json is no JSON")
    assert note in error.notes[0]


def test_a_huge_file_is_not_read(recipe: Recipe, model: Path) -> None:
    with (model / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    assert fault(recipe, {"heads": HEADS}).code == "not-a-file"


@pytest.mark.parametrize("told", ["config.json", "#/a", "config.json#a", "config.json#/a~2", "#metadata/a", "m#metadata/", 3, [], [3], {"a": 1}])
def test_a_place_that_is_none(recipe: Recipe, model: Path, told: Any) -> None:
    assert fault(recipe, {"heads": {"default": {"from": told}}}).code == "bad-schema"


def test_an_unknown_parameter_in_a_place(recipe: Recipe, model: Path) -> None:
    assert fault(recipe, {"heads": {"default": {"from": "${modell}#/a"}}}).title == "no parameter is called `modell`"


def test_a_fallback_is_checked_before_any_file(recipe: Recipe, model: Path) -> None:
    assert fault(recipe, {"heads": {"type": "integer", "default": {"from": "config.json#/a", "else": "x"}}}).code == "bad-param"


def test_a_plain_default_that_is_an_object_with_the_word_from(recipe: Recipe, model: Path) -> None:
    literal = {"from": "a", "to": "b"}
    assert values(recipe, {"p": {"default": literal}, "q": {"default": {"from": [], "else": {"from": "a"}}}}) == {"p": literal, "q": {"from": "a"}}


def used(work: Path, *steps: Any) -> None:
    inner = [*steps, {"reshape": {"keys": "w", "shape": ["${heads}", -1]}}]
    put(work / "inner.yaml", {"surgery": 1, "params": {"heads": HEADS}, "steps": inner})


def test_a_used_recipe_looks_beside_the_checkpoint_that_is_loaded_before_it(recipe: Recipe, model: Path, work: Path) -> None:
    used(work, {"load": {"path": "elsewhere/w.npz"}})
    put(model / "config.json", {"heads": 2})
    found = checked(recipe({"load": {"path": "model/w.npz"}}, {"use": {"recipe": "inner.yaml", "without": ["load"]}}))
    assert found.used[0].params["heads"] == 2
    assert [name for name, stamp in found.evidence.files.items() if stamp] == ["model/config.json"]


def test_a_used_recipe_looks_beside_its_own_checkpoint_where_that_is_loaded(recipe: Recipe, model: Path, work: Path) -> None:
    used(work, {"load": {"path": "own/w.npz", "scope": "own/"}})
    (work / "own").mkdir()
    put(work / "own" / "config.json", {"heads": 4})
    put(model / "config.json", {"heads": 2})
    assert checked(recipe({"load": {"path": "model/w.npz"}}, {"use": {"recipe": "inner.yaml"}})).used[0].params["heads"] == 4


def test_a_used_recipe_whose_value_stands_nowhere(surgery: Callable[..., Any], recipe: Recipe, model: Path, work: Path) -> None:
    used(work)
    path = recipe({"load": {"path": "model/w.npz"}}, {"use": {"recipe": "inner.yaml"}}, {"save": {"path": "out.npz"}})
    assert surgery("lint", path).code == 0
    ran = surgery("plan", path, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "missing-param")
    assert ran.json["error"]["notes"][0] == "there is no model/config.json"


def test_a_damaged_file_of_a_used_recipe_tells_both_places(surgery: Callable[..., Any], recipe: Recipe, model: Path, work: Path) -> None:
    used(work)
    (model / "config.json").write_text("{")
    ran = surgery("plan", recipe({"load": {"path": "model/w.npz"}}, {"use": {"recipe": "inner.yaml"}}))
    assert ran.code == 1
    assert "inner.yaml:1:" in ran.err
    assert "used by r.yaml:1:" in ran.err


def test_lint_needs_no_file(surgery: Callable[..., Any], recipe: Recipe, work: Path) -> None:
    path = recipe(
        {"load": {"path": "nowhere/w.npz"}}, {"split": {"keys": "w", "axis": 0, "parts": "${heads}", "to": ["a", "b"]}}, params={"heads": HEADS}
    )
    assert surgery("lint", path).code == 0
    assert surgery("lint", path, "-p", "heads=3").code == 2


def test_another_value_is_another_run_and_so_is_a_file_that_appears(surgery: Callable[..., Any], recipe: Recipe, model: Path) -> None:
    places = ["params.json#/heads", "config.json#/heads"]
    path = recipe(
        {"load": {"path": "model/w.npz"}},
        {"reshape": {"keys": "w", "shape": ["${heads}", -1]}},
        {"save": {"path": "out.npz", "overwrite": "replace"}},
        params={"heads": {"type": "integer", "default": {"from": places}}},
    )
    put(model / "config.json", {"heads": 2})
    assert "f32[2,2]" in surgery("run", path).out
    assert surgery("run", path).out == "out.npz: up to date\n"
    put(model / "config.json", {"heads": 4})
    assert "f32[4,1]" in surgery("run", path).out
    put(model / "params.json", {"heads": 1})
    assert "f32[1,4]" in surgery("run", path).out
    assert surgery("run", path).out == "out.npz: up to date\n"
