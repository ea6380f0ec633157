"""How other tools fail, one test for each: none of it may happen here."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import surgery as api
from surgery.keys import natural

DATA = Path(__file__).parent.parent / "data"
Run = Callable[..., Any]
Recipe = Callable[..., str]
SAVES = {
    "tf": {"path": "out/m", "format": "tf"},
    "safetensors": {"path": "out/m.safetensors"},
    "sharded": {"path": "out/m", "format": "safetensors", "shard_size": 40},
    "npz": {"path": "out/m.npz"},
    "torch": {"path": "out/m.pt"},
    "flax": {"path": "out/m.msgpack"},
}
FILES = SAVES | {"hdf5": {"path": "out/m.h5"}, "gguf": {"path": "out/m.gguf"}, "orbax": {"path": "out/m", "format": "orbax"}}
"""These too, of which some cannot hold every name, type or shape."""


def save(path: str, **arrays: Any) -> str:
    np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()})
    return path


def values(path: str) -> dict[str, Any]:
    with api.open(path) as checkpoint:
        return {key: tensor.numpy().tolist() for key, tensor in checkpoint.items()}


def load(path: str = "a.npz", **options: Any) -> dict[str, Any]:
    return {"load": {"path": path, **options}}


@pytest.fixture
def renamed(work: Path, recipe: Recipe, surgery: Run) -> Callable[..., dict[str, Any]]:
    """Values after one rename step on scalars with the values 0, 1, 2, …"""

    def run(keys: list[str], *rules: dict[str, Any]) -> dict[str, Any]:
        save("a.npz", **{key: float(number) for number, key in enumerate(keys)})
        ran = surgery("run", recipe(load(), {"rename": list(rules)}, {"save": {"path": "b.npz"}}))
        assert ran.code == 0, ran.err
        return values("b.npz")

    return run


def test_the_pattern_of_everything_puts_one_prefix(renamed: Callable[..., Any]) -> None:
    assert renamed(["a", "b/c"], {"match": "(.*)", "to": r"encoder/\1"}) == {"encoder/a": 0, "encoder/b/c": 1}


def test_an_empty_match_is_replaced_once(renamed: Callable[..., Any]) -> None:
    assert renamed(["ab"], {"match": "", "to": "-"}) == {"-ab": 0}


def test_a_swap_exchanges_values(renamed: Callable[..., Any]) -> None:
    assert renamed(["a", "b"], {"keys": {"a": "b", "b": "a"}}) == {"b": 0, "a": 1}


def test_a_key_can_take_a_name_that_is_renamed_away(renamed: Callable[..., Any]) -> None:
    assert renamed(["h.0", "h.1", "h.2"], {"match": r"h\.(?P<n>\d+)", "to": "h.{n+1}"}) == {"h.1": 0, "h.2": 1, "h.3": 2}


def test_a_rule_does_not_see_its_own_result(renamed: Callable[..., Any]) -> None:
    assert renamed(["model.w"], {"match": "model", "to": "model.model"}) == {"model.model.w": 0}


def test_many_to_one_is_refused(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", x1=1.0, x2=2.0)
    ran = surgery("run", recipe(load(), {"rename": {"match": r"\d", "to": ""}}, {"save": {"path": "b.npz"}}))
    assert ran.code == 1
    assert "error[key-collision]: 2 keys would both become `x`" in ran.err
    assert not Path("b.npz").exists()


def test_an_unused_rule_is_an_error_unless_it_is_optional(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", x=1.0)
    rules = [{"match": "x", "to": "y"}, {"match": "encoder", "to": "z"}]
    assert "matches none of 1 key" in surgery("run", recipe(load(), {"rename": rules}, {"save": {"path": "b.npz"}})).err
    rules[1]["optional"] = True  # type: ignore[assignment]
    assert surgery("run", recipe(load(), {"rename": rules}, {"save": {"path": "b.npz"}})).code == 0
    assert values("b.npz") == {"y": 1.0}


def test_three_missing_keys_are_told_in_one_error(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", x=1.0)
    ran = surgery("plan", "--json", recipe(load(var_list=["d", "x", "e", "f"])))
    assert ran.err.startswith("Key d not found in checkpoint\n")
    assert "missing: d, e, f" in ran.err
    assert ran.json["error"]["data"]["keys"] == ["d", "e", "f"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("surgery: 1\nsurgery: 1\nsteps: []\n", "2:1"),
        ("surgery: 1\nsteps:\n  - drop: {keys: a, keys: b}\n", "3:21"),
        ("surgery: 1\nsteps:\n  - rename: {keys: {a: b, a: c}}\n", "3:27"),
        ("surgery: 1\nsteps:\n  - save: {path: a, edit: {c.json: {x: {y: 1, y: 2}}}}\n", "3:47"),
    ],
)
def test_a_duplicate_key_is_refused_at_any_depth(work: Path, surgery: Run, text: str, place: str) -> None:
    Path("r.yaml").write_text(text)
    ran = surgery("lint", "r.yaml")
    assert ran.code == 2
    assert f"r.yaml:{place}" in ran.err


@pytest.mark.parametrize(
    ("step", "place"),
    [
        ("drop: {key: a}", "3:12"),
        ("drop: {match: a, where: {ndims: 1}}", "3:37"),
        ("drop: {match: a, except: [{keys: b, were: {}}]}", "3:41"),
        ("rename: [{match: a, to: b, flags: i}]", "3:32"),
        ("init_missing: {variables: {a: {shape: [1], type: float32}}, init: zeros}", "3:48"),
        ("assert: {close_to: {key: a, tol: 1}}", "3:33"),
        ("scope: {separator: {from: a, into: b}}", "3:34"),
    ],
)
def test_an_unknown_word_is_refused_at_any_depth(work: Path, surgery: Run, step: str, place: str) -> None:
    Path("r.yaml").write_text(f"surgery: 1\nsteps:\n  - {step}\n")
    ran = surgery("lint", "r.yaml")
    assert ran.code == 2
    assert f"r.yaml:{place}" in ran.err


def test_an_unknown_word_at_the_top_is_refused(work: Path, surgery: Run) -> None:
    Path("r.yaml").write_text("surgery: 1\nstep: []\nsteps: [{drop: {match: a}}]\n")
    assert "r.yaml:2:1" in surgery("lint", "r.yaml").err


def test_braces_and_dollars_in_patterns_and_keys_are_text(renamed: Callable[..., Any]) -> None:
    assert renamed(["a${i}", "b{i}", "c$"], {"match": r"\$\{i\}", "to": ".{{i}}"}, {"match": r"\$$", "to": "$$"}) == {"a.{i}": 0, "b{i}": 1, "c$$": 2}


ODD_KEYS = ["a/b", "a.b", "a::b", "with space", " ", "größe/😀", "a\\b", "'quoted\"", "*", "new\nline", "-", "a//b", "/", "__class__"]


@pytest.mark.parametrize("form", SAVES)
def test_odd_names_survive_every_format(work: Path, recipe: Recipe, surgery: Run, form: str) -> None:
    variables = {key: {"shape": [], "init": {"constant": number}} for number, key in enumerate(ODD_KEYS)}
    keys = [key for key in ODD_KEYS if form != "npz" or key != "a//b"]
    ran = surgery("run", recipe({"init_missing": {"variables": {key: variables[key] for key in keys}}}, {"save": SAVES[form]}))
    assert ran.code == 0, ran.err
    assert values(SAVES[form]["path"]) == {key: float(ODD_KEYS.index(key)) for key in keys}  # type: ignore[arg-type]


def test_names_that_are_not_utf8_stay_as_they_are(work: Path, recipe: Recipe, surgery: Run) -> None:
    ran = surgery("run", recipe(load(str(DATA / "tf" / "odd_names" / "binary")), {"save": {"path": "out/m", "format": "tf"}}))
    assert ran.code == 0, ran.err
    assert Path("out/m.index").read_bytes() == (DATA / "tf" / "odd_names" / "binary.index").read_bytes()


EVERY = {
    "bool": np.array([True, False]),
    "uint8": np.array([0, 255], "u1"),
    "uint16": np.array([1, 65535], "u2"),
    "uint32": np.array([1, 2**32 - 1], "u4"),
    "uint64": np.array([1, 2**64 - 1], "u8"),
    "int8": np.array([-128, 127], "i1"),
    "int64": np.array([-(2**63), 2**63 - 1]),
    "float16": np.array([1.5, -65504], "f2"),
    "float64": np.array([1e-300, 1e300]),
    "complex64": np.array([1 + 2j, -3j], "c8"),
    "bfloat16": np.array([1.5, -2], ml_dtypes.bfloat16),
    "float8_e4m3fn": np.array([1.5, -448], ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.array([1.5, -57344], ml_dtypes.float8_e5m2),
}
NOT_IN_NPZ = {"bfloat16", "float8_e4m3fn", "float8_e5m2"}


@pytest.mark.parametrize("form", SAVES)
@pytest.mark.parametrize("dtype", EVERY)
def test_a_dtype_passes_through_every_format_that_holds_it(work: Path, recipe: Recipe, surgery: Run, form: str, dtype: str) -> None:
    bits = EVERY[dtype]
    raw_safetensors("a.safetensors", "x", bits)
    ran = surgery("run", recipe(load("a.safetensors"), {"save": SAVES[form]}))
    if form == "npz" and dtype in NOT_IN_NPZ:
        assert f"npz cannot hold {dtype}" in ran.err
        return
    assert ran.code == 0, ran.err
    with api.open(str(SAVES[form]["path"])) as checkpoint:
        assert checkpoint["x"].dtype == dtype
        assert checkpoint["x"].numpy().tobytes() == bits.tobytes()


CODES = {"bool": "BOOL", "complex64": "C64", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}


def raw_safetensors(path: str, key: str, array: Any) -> None:
    """A safetensors file by the format's own description: header length, JSON header, bytes."""
    code = CODES.get(array.dtype.name, f"{array.dtype.kind.upper()}{array.dtype.itemsize * 8}")
    header = json.dumps({key: {"dtype": code, "shape": list(array.shape), "data_offsets": [0, array.nbytes]}}).encode()
    Path(path).write_bytes(len(header).to_bytes(8, "little") + header + array.tobytes())


@pytest.mark.parametrize("form", SAVES)
def test_scalars_and_zero_sized_tensors_pass_through_every_format(work: Path, recipe: Recipe, surgery: Run, form: str) -> None:
    save("a.npz", scalar=np.float32(7), none=np.zeros((0, 3), "f4"), middle=np.zeros((2, 0, 3), "i8"), one=np.ones((1, 1), "f4"))
    assert surgery("run", recipe(load(), {"save": SAVES[form]})).code == 0
    with api.open(str(SAVES[form]["path"])) as checkpoint:
        assert {key: str(tensor.spec) for key, tensor in checkpoint.items()} == {
            "scalar": "f32[]",
            "none": "f32[0,3]",
            "middle": "i64[2,0,3]",
            "one": "f32[1,1]",
        }
        assert checkpoint["scalar"].numpy()[()] == 7


@pytest.mark.parametrize("form", FILES)
def test_a_transposed_tensor_is_saved_in_its_new_order(work: Path, recipe: Recipe, surgery: Run, form: str) -> None:
    save("a.npz", w=np.arange(6, dtype="f4").reshape(2, 3))
    assert surgery("run", recipe(load(), {"transpose": {}}, {"save": FILES[form]})).code == 0
    assert values(str(FILES[form]["path"])) == {"w": [[0, 3], [1, 4], [2, 5]]}


def test_an_array_in_fortran_order_is_read_by_its_meaning(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", w=np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3)))
    assert surgery("run", recipe(load(), {"save": {"path": "b.safetensors"}})).code == 0
    assert values("b.safetensors") == {"w": [[0, 1, 2], [3, 4, 5]]}


def test_an_object_array_is_refused_without_being_unpickled(work: Path, surgery: Run) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, ("sprung",)

    np.savez("a.npz", x=np.array([Trap()]), allow_pickle=True)
    ran = surgery("inspect", "a.npz")
    assert ran.code == 1
    assert "error[unsupported]" in ran.err
    assert not Path("sprung").exists()


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ""])
def test_an_index_that_leads_out_of_its_folder_is_refused(work: Path, surgery: Run, name: str) -> None:
    raw_safetensors("secret.safetensors", "a", np.zeros(2, "f4"))
    Path("m").mkdir()
    Path("m/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    ran = surgery("inspect", "m")
    assert ran.code == 1
    assert "which is not a name in its folder" in ran.err


def test_an_index_that_names_an_absent_tensor_is_refused(work: Path, surgery: Run) -> None:
    Path("m").mkdir()
    raw_safetensors("m/model-1.safetensors", "a", np.zeros(2, "f4"))
    Path("m/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors"}}))
    ran = surgery("inspect", "m")
    assert ran.code == 1
    assert "lists `b`, which is not in its shard" in ran.err


@pytest.fixture
def bundles(work: Path) -> dict[str, str]:
    """One checkpoint of each format, writable, by the file whose bytes hold tensors."""
    for part in ("index", "data-00000-of-00001"):
        shutil.copy(DATA / "tf" / "article" / f"with_matrix.{part}", f"m.{part}")
    save("m.npz", a=np.arange(50, dtype="f4"))
    raw_safetensors("m.safetensors", "a", np.arange(50, dtype="f4"))
    return {"m": "m.data-00000-of-00001", "m.npz": "m.npz", "m.safetensors": "m.safetensors"}


@pytest.mark.parametrize("path", ["m", "m.npz", "m.safetensors"])
def test_a_truncated_file_is_refused_and_nothing_is_written(bundles: dict[str, str], recipe: Recipe, surgery: Run, path: str) -> None:
    file = Path(bundles[path])
    file.write_bytes(file.read_bytes()[:-5])
    ran = surgery("run", recipe(load(path), {"save": {"path": "out/x.npz"}}))
    assert ran.code == 1
    assert not Path("out").exists()


def flip(path: str, at: int) -> None:
    data = bytearray(Path(path).read_bytes())
    data[at] ^= 0x10
    Path(path).write_bytes(data)


@pytest.mark.parametrize("out", ["out/x.npz", "out/x.safetensors"])
def test_a_flipped_byte_in_tensorflow_data_is_noticed(bundles: dict[str, str], recipe: Recipe, surgery: Run, out: str) -> None:
    flip("m.data-00000-of-00001", -2)
    ran = surgery("run", "--verify", recipe(load("m"), {"save": {"path": out}}))
    assert ran.code == 1
    assert "Checksum does not match: stored" in ran.err
    assert not Path("out").exists()


def test_a_flipped_byte_in_a_tensorflow_index_is_noticed(bundles: dict[str, str], surgery: Run) -> None:
    flip("m.index", 20)
    assert surgery("inspect", "m").code == 1


def test_a_flipped_byte_in_a_member_of_an_npz_is_noticed(bundles: dict[str, str], recipe: Recipe, surgery: Run) -> None:
    flip("m.npz", 200)
    ran = surgery("run", recipe(load("m.npz"), {"save": {"path": "out/x.npz"}}))
    assert ran.code == 1
    assert not Path("out").exists()


def test_shards_of_an_older_larger_save_go_after_success(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", **{f"w{number}": np.full(10, number, "f4") for number in range(5)})
    target = {"path": "out", "format": "safetensors", "overwrite": "replace"}
    assert surgery("run", recipe(load(), {"save": {**target, "shard_size": 40}})).code == 0
    Path("out/notes.txt").write_text("mine")
    assert len(list(Path("out").glob("model-*"))) == 5
    assert surgery("run", recipe(load(), {"save": {**target, "shard_size": 120}})).code == 0
    assert sorted(file.name for file in Path("out").iterdir()) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "notes.txt",
        "surgery.json",
    ]
    assert values("out")["w4"] == [4.0] * 10


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
@pytest.mark.parametrize("form", FILES)
def test_files_have_the_mode_that_the_umask_says(work: Path, recipe: Recipe, surgery: Run, form: str, umask: int, mode: int) -> None:
    save("a.npz", a=np.arange(50, dtype="f4"), b=np.arange(50, dtype="f4"))
    before = os.umask(umask)
    try:
        assert surgery("run", recipe(load(), {"save": FILES[form]})).code == 0
    finally:
        os.umask(before)
    written = [file for file in Path("out").rglob("*") if file.is_file()]
    assert written
    assert {file.stat().st_mode & 0o777 for file in written} == {mode}


def test_metadata_is_kept_and_edited(work: Path, recipe: Recipe, surgery: Run) -> None:
    header = json.dumps({"__metadata__": {"format": "pt", "license": "mit"}, "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}).encode()
    Path("a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert surgery("run", recipe(load("a.safetensors"), {"save": {"path": "b.safetensors"}})).code == 0
    with api.open("b.safetensors") as checkpoint:
        assert checkpoint.metadata == {"format": "pt", "license": "mit"}
    edits = {"license": None, "author": "me"}
    assert surgery("run", recipe(load("a.safetensors"), {"save": {"path": "c.safetensors", "metadata": edits}})).code == 0
    with api.open("c.safetensors") as checkpoint:
        assert checkpoint.metadata == {"format": "pt", "author": "me"}


def test_a_value_that_float16_cannot_hold_is_an_error(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", w=np.array([1, 65519.996, 70000], "f4"))
    ran = surgery("run", recipe(load(), {"cast": {"dtype": "float16"}}, {"save": {"path": "b.npz"}}))
    assert ran.code == 1
    assert "`w` has the value 70000, which float16 cannot hold" in ran.err
    assert not Path("b.npz").exists()


def test_a_cast_rounds_to_nearest_even(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", w=np.array([1 + 2**-8, 1 + 3 * 2**-8, 65519.996], "f4"))
    assert surgery("run", recipe(load(), {"cast": {"dtype": "bfloat16"}}, {"save": {"path": "b.safetensors"}})).code == 0
    assert values("b.safetensors") == {"w": [1.0, 1.015625, 65536.0]}


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float16", "float32"])
def test_a_nan_is_found_in_every_float(work: Path, recipe: Recipe, surgery: Run, dtype: str) -> None:
    kind = getattr(ml_dtypes, dtype, None) or np.dtype(dtype)
    raw_safetensors("a.safetensors", "x", np.array([0, np.nan], np.float32).astype(kind))
    ran = surgery("run", recipe(load("a.safetensors"), {"assert": {"finite": True}}, {"save": {"path": "b.safetensors"}}))
    assert ran.code == 1
    assert "`x` is not finite: value nan at [1]" in ran.err
    assert not Path("b.safetensors").exists()


def test_random_values_depend_on_seed_and_key_alone(work: Path, recipe: Recipe, surgery: Run) -> None:
    variables = {key: {"shape": [7, 5]} for key in "abc"}
    fill = {"init": {"normal": {"std": 0.02}}, "seed": 3}
    assert surgery("run", recipe({"init_missing": {"variables": variables, **fill}}, {"save": {"path": "all.npz"}})).code == 0
    some = dict(reversed(list(variables.items())[1:]))
    assert surgery("run", recipe({"init_missing": {"variables": some, **fill}}, {"save": {"path": "some.npz"}})).code == 0
    whole, part = values("all.npz"), values("some.npz")
    assert {key: whole[key] for key in part} == part
    assert whole["a"] != whole["b"]


@pytest.mark.parametrize("form", FILES)
def test_output_is_the_same_for_every_run_number_of_jobs_and_memory(work: Path, recipe: Recipe, surgery: Run, form: str) -> None:
    rng = np.random.default_rng(1)
    save("a.npz", **{f"w{number}": rng.normal(size=(300, 500)).astype("f4") for number in range(4)})
    steps = [
        load(),
        {"transpose": {"match": "[01]$"}},
        {"cast": {"match": "[12]$", "dtype": "float16"}},
        {"init_missing": {"variables": {"new": {"shape": [300, 300]}}, "init": "glorot_uniform"}},
    ]
    seen = set()
    for options in ([], [], ["--jobs", "1"], ["--jobs", "4"], ["--memory", "1MiB"], ["--jobs", "4", "--memory", "1MiB"]):
        assert surgery("run", "--force", *options, recipe(*steps, {"save": FILES[form]})).code == 0
        written = [file for file in sorted(Path("out").rglob("*")) if file.is_file() and not file.name.endswith("surgery.json")]
        seen.add(tuple((file.name, file.read_bytes()) for file in written))
    assert len(seen) == 1


def test_numbers_in_keys_count_as_numbers() -> None:
    assert sorted(["e.10.w", "e.9.w", "e.100.w", "e", "e.9.b"], key=natural) == ["e", "e.9.b", "e.9.w", "e.10.w", "e.100.w"]


def test_ten_thousand_keys_are_renamed_in_a_moment(work: Path, recipe: Recipe, surgery: Run) -> None:
    variables = {f"layer_{number}/w": {"shape": [], "init": "zeros"} for number in range(10_000)}
    path = recipe({"init_missing": {"variables": variables}}, {"rename": {"match": ".*", "to": r"x/\g<0>"}}, {"save": {"path": "b.npz"}})
    began = time.monotonic()
    ran = surgery("plan", path)
    assert ran.code == 0, ran.err
    assert time.monotonic() - began < 10


def test_a_pathological_pattern_cannot_hang_a_plan(work: Path, recipe: Recipe, surgery: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgery.patterns.SECONDS_PER_STEP", 0.3)
    save("a.npz", **{"a" * 60 + "!": 1.0})
    began = time.monotonic()
    for pattern in ("(a+)+$", "^(a|aa)+$", "(a|a)*$"):
        assert surgery("plan", recipe(load(), {"drop": {"match": pattern, "optional": True}}, {"save": {"path": "b.npz"}})).code in (0, 1)
    assert time.monotonic() - began < 10


FIXTURES = ["tf/article/with_matrix", "tf/dtypes/all", "safetensors/plain.safetensors", "safetensors/sharded", "npz/plain.npz"]


@pytest.mark.parametrize("target", SAVES)
@pytest.mark.parametrize("source", ["tf/article/with_matrix", "safetensors/plain.safetensors", "safetensors/sharded", "npz/plain.npz"])
def test_a_conversion_needs_no_steps_between_load_and_save(work: Path, recipe: Recipe, surgery: Run, source: str, target: str) -> None:
    cast = [{"cast": {"where": {"dtype": ["bfloat16", "float8_e4m3fn"]}, "dtype": "float32", "optional": True}}] if target == "npz" else []
    ran = surgery("run", recipe(load(str(DATA / source)), *cast, {"save": SAVES[target]}))
    assert ran.code == 0, ran.err
    assert values(str(SAVES[target]["path"])) == values(str(DATA / source))


@pytest.mark.parametrize("source", FIXTURES)
def test_output_equals_input_where_nothing_changes(work: Path, recipe: Recipe, surgery: Run, source: str) -> None:
    """Byte for byte for a single file written as the reference does; for shards and bundles key by key."""
    suffix = Path(source).suffix
    options = {"format": "tf"} if source.startswith("tf/") else {"format": "safetensors", "shard_size": "1GB"} if not suffix else {}
    assert surgery("run", recipe(load(str(DATA / source)), {"save": {"path": f"copy{suffix}", **options}})).code == 0
    with api.open(str(DATA / source)) as first, api.open(f"copy{suffix}") as second:
        assert {key: str(tensor.spec) for key, tensor in first.items()} == {key: str(tensor.spec) for key, tensor in second.items()}
        for key, tensor in first.items():
            assert tensor.numpy().tobytes() == second[key].numpy().tobytes() or tensor.numpy().tolist() == second[key].numpy().tolist()


def test_a_tensorflow_bundle_is_copied_byte_for_byte(work: Path, recipe: Recipe, surgery: Run) -> None:
    source = DATA / "tf" / "article" / "with_matrix"
    assert surgery("run", recipe(load(str(source)), {"save": {"path": "m", "format": "tf"}})).code == 0
    for part in ("index", "data-00000-of-00001"):
        assert Path(f"m.{part}").read_bytes() == source.with_name(f"with_matrix.{part}").read_bytes()


def test_an_npz_is_copied_byte_for_byte(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", a=np.arange(5, dtype="f4"), b=np.array(True), c=np.zeros((0, 2)))
    assert surgery("run", recipe(load(), {"save": {"path": "b.npz"}})).code == 0
    assert Path("b.npz").read_bytes() == Path("a.npz").read_bytes()


@pytest.mark.parametrize("form", FILES)
def test_output_may_be_the_input(work: Path, recipe: Recipe, surgery: Run, form: str) -> None:
    save("a.npz", w=np.arange(20, dtype="f4").reshape(4, 5), v=np.ones(30, "f4"))
    assert surgery("run", recipe(load(), {"save": FILES[form]})).code == 0
    path = str(FILES[form]["path"])
    again = recipe(load(path), {"rename": {"keys": {"w": "v", "v": "w"}}}, {"transpose": {"keys": "v"}}, {"save": FILES[form]})
    assert "error[output-exists]" in surgery("run", again).err
    assert surgery("run", "--force", again).code == 0
    assert values(path) == {"v": np.arange(20).reshape(4, 5).T.tolist(), "w": [1.0] * 30}


def test_a_copy_made_by_a_step_is_a_tensor_of_its_own(work: Path, recipe: Recipe, surgery: Run) -> None:
    save("a.npz", w=np.arange(3, dtype="f4"))
    steps = [{"copy": {"keys": {"w": "head"}}}, {"cast": {"keys": "head", "dtype": "float64"}}]
    assert surgery("run", recipe(load(), *steps, {"save": {"path": "b.npz"}})).code == 0
    with np.load("b.npz") as saved:
        assert {key: saved[key].dtype.name for key in saved} == {"w": "float32", "head": "float64"}
