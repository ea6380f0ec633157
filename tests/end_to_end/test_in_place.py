"""Other names in the files that are there: what is changed, what is not, and everything for which a checkpoint has to be written anew."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import surgery as api

Run = Callable[..., Any]
Recipe = Callable[..., str]
DATA = Path(__file__).parent.parent / "data"
ARRAYS = {"bert/w": np.arange(6, dtype="<f4").reshape(2, 3), "bert/b": np.ones(3, "<f4"), "step": np.array(7)}
RENAME = {"rename": {"match": "^bert/", "to": "x/"}}
RENAMED = {"x/w": ARRAYS["bert/w"].tolist(), "x/b": [1.0] * 3, "step": 7}

SAVES: dict[str, dict[str, Any]] = {
    "m.safetensors": {"path": "m.safetensors", "metadata": {"origin": "a note of some length"}},
    "hf": {"path": "hf", "format": "safetensors", "shard_size": 24},
    "tf/m": {"path": "tf/m", "format": "tf", "shard_size": 24},
    "a.npz": {"path": "a.npz", "overwrite": "replace"},
}
WHOLE = ("m.safetensors", "hf", "tf/m")


@pytest.fixture(autouse=True)
def sources(work: Path, recipe: Recipe, surgery: Run) -> None:
    np.savez("a.npz", **ARRAYS)
    path = recipe({"load": {"path": "a.npz"}}, *({"save": save | {"manifest": False}} for save in SAVES.values()))
    assert surgery("run", path).code == 0


def values(path: str) -> dict[str, Any]:
    with api.open(path) as checkpoint:
        return {key: tensor.numpy().tolist() for key, tensor in checkpoint.items()}


def load(path: str, **options: Any) -> dict[str, Any]:
    return {"load": {"path": path, **options}}


def save(path: str, **options: Any) -> dict[str, Any]:
    return {"save": {"path": path, "in_place": True, **options}}


def snapshot() -> dict[str, tuple[bytes, int, int]]:
    """Content, inode and time of every file."""
    return {str(path): (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(Path().rglob("*")) if path.is_file()}


def refused(surgery: Run, path: str, note: str, *options: str) -> None:
    """The run ends with the fault of this note, and no file has changed."""
    before = snapshot()
    ran = surgery("run", path, *options)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error[not-in-place]: ")
    assert note in ran.err
    assert snapshot() == before
    assert not list(Path().rglob(".*"))


# What works


@pytest.mark.parametrize("path", WHOLE)
def test_keys_change_and_values_stay(recipe: Recipe, surgery: Run, path: str) -> None:
    ran = surgery("run", recipe(load(path), RENAME, save(path)))
    assert (ran.code, ran.err) == (0, "")
    assert f"rename {path}: " in ran.out
    assert f"wrote  {path}: 3 tensors, 44 B left in place\n" in ran.out
    assert values(path) == RENAMED
    assert not list(Path().rglob(".*"))


def data_bytes(path: Path) -> bytes:
    """The data section of a safetensors file; other files as they are."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :] if path.suffix == ".safetensors" else data


@pytest.mark.parametrize(("path", "pattern"), [("m.safetensors", "m.safetensors"), ("hf", "hf/*.safetensors"), ("tf/m", "tf/m.data-*")])
def test_the_files_with_the_tensors_are_the_same_ones(recipe: Recipe, surgery: Run, path: str, pattern: str) -> None:
    before = {file: (file.stat().st_ino, file.stat().st_size, data_bytes(file)) for file in Path().glob(pattern)}
    assert surgery("run", recipe(load(path), RENAME, save(path))).code == 0
    assert {file: (file.stat().st_ino, file.stat().st_size, data_bytes(file)) for file in Path().glob(pattern)} == before
    assert before


def test_data_files_of_tensorflow_are_not_even_touched(recipe: Recipe, surgery: Run) -> None:
    before = {name: stamp for name, stamp in snapshot().items() if ".data-" in name or name == "tf/checkpoint"}
    assert surgery("run", recipe(load("tf/m"), RENAME, save("tf/m"))).code == 0
    assert {name: snapshot()[name] for name in before} == before


def test_a_graph_under_the_old_keys_goes(recipe: Recipe, surgery: Run) -> None:
    shutil.copytree(DATA / "tf" / "scoped_adam", "trained")
    path = "trained/model.ckpt-3"
    ran = surgery("run", recipe(load(path), {"rename": {"match": "^model/", "to": "student/"}}, save(path)))
    assert "removes 1 older file: model.ckpt-3.meta\n" in ran.out
    assert sorted(file.name for file in Path("trained").glob("model.ckpt-3*")) == [
        "model.ckpt-3.data-00000-of-00001",
        "model.ckpt-3.index",
        "model.ckpt-3.surgery.json",
    ]


def test_the_index_of_shards_follows(recipe: Recipe, surgery: Run) -> None:
    before = json.loads(Path("hf/model.safetensors.index.json").read_text())
    assert surgery("run", recipe(load("hf"), RENAME, save("hf"))).code == 0
    after = json.loads(Path("hf/model.safetensors.index.json").read_text())
    assert after == {**before, "weight_map": {key.replace("bert/", "x/"): name for key, name in before["weight_map"].items()}}


def test_keys_can_be_exchanged(recipe: Recipe, surgery: Run) -> None:
    swap = {"rename": {"keys": {"bert/w": "step", "step": "bert/w"}}}
    assert surgery("run", recipe(load("m.safetensors"), swap, save("m.safetensors"))).code == 0
    assert values("m.safetensors") == {"step": ARRAYS["bert/w"].tolist(), "bert/b": [1.0] * 3, "bert/w": 7}


def test_metadata_alone_can_change(recipe: Recipe, surgery: Run) -> None:
    assert surgery("run", recipe(load("m.safetensors"), save("m.safetensors", metadata={"origin": None, "format": "pt"}))).code == 0
    with api.open("m.safetensors") as checkpoint:
        assert checkpoint.metadata == {"format": "pt"}
    assert values("m.safetensors") == {key: array.tolist() for key, array in ARRAYS.items()}


def test_metadata_stays_where_nothing_is_said_of_it(recipe: Recipe, surgery: Run) -> None:
    assert surgery("run", recipe(load("m.safetensors"), RENAME, save("m.safetensors"))).code == 0
    with api.open("m.safetensors") as checkpoint:
        assert checkpoint.metadata == {"origin": "a note of some length"}


def test_other_outputs_of_the_recipe_are_written_as_ever(recipe: Recipe, surgery: Run) -> None:
    path = recipe(load("m.safetensors"), {"save": {"path": "copy.npz"}}, RENAME, save("m.safetensors"))
    assert surgery("run", path).code == 0
    assert values("copy.npz") == {"bert/w": ARRAYS["bert/w"].tolist(), "bert/b": [1.0] * 3, "step": 7}
    assert values("m.safetensors") == RENAMED


def test_a_plan_tells_that_nothing_moves_and_changes_nothing(recipe: Recipe, surgery: Run) -> None:
    path = recipe(load("m.safetensors"), RENAME, save("m.safetensors"))
    before = snapshot()
    told = surgery("plan", "--json", path).json["outputs"][0]
    assert {word: told[f"{word}_bytes"] for word in ("kept", "copied", "shared", "computed")} == {"kept": 44, "copied": 0, "shared": 0, "computed": 0}
    assert snapshot() == before


@pytest.mark.parametrize("path", WHOLE)
def test_the_same_run_again_is_up_to_date(recipe: Recipe, surgery: Run, path: str) -> None:
    again = recipe(load(path), {"rename": {"match": "^bert/", "to": "x/bert/"}}, save(path))
    assert surgery("run", again).code == 0
    before = snapshot()
    assert surgery("run", again).out == f"{path}: up to date\n"
    assert snapshot() == before


def test_forced_it_is_carried_out_once_more(recipe: Recipe, surgery: Run) -> None:
    path = recipe(load("m.safetensors"), {"rename": {"match": "^", "to": "x"}}, save("m.safetensors", metadata={"origin": None}))
    for arguments in ([], ["--force"]):
        assert surgery("run", path, *arguments).code == 0
    assert set(values("m.safetensors")) == {"xxbert/w", "xxbert/b", "xxstep"}


def test_digests_are_those_of_the_files_as_they_are_afterwards(recipe: Recipe, surgery: Run) -> None:
    from hashlib import sha256

    assert surgery("run", "--digest", recipe(load("hf"), RENAME, save("hf"))).code == 0
    (output,) = json.loads(Path("hf/surgery.json").read_text())["outputs"]
    digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in Path("hf").iterdir() if path.name != "surgery.json"}
    assert {Path(name).name: digest for name, digest in output["sha256"].items()} == digests


def test_where_blocks_are_shared_a_clone_takes_the_place_of_the_file(recipe: Recipe, surgery: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of such file systems, on one that copies instead: the other name of the file keeps what it had."""
    monkeypatch.setattr("surgery.files.shares_blocks", lambda path: True)
    os.link("m.safetensors", "other.safetensors")
    assert surgery("run", recipe(load("m.safetensors"), RENAME, save("m.safetensors"))).code == 0
    assert values("m.safetensors") == RENAMED
    assert set(values("other.safetensors")) == set(ARRAYS)


@pytest.mark.parametrize("path", ["m.safetensors", "hf"])
def test_a_clone_may_have_a_longer_header(recipe: Recipe, surgery: Run, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Longer by whole blocks of 4096 bytes, so that those with the tensors can still be shared."""
    monkeypatch.setattr("surgery.files.shares_blocks", lambda path: True)
    before = {file: (file.stat().st_size, data_bytes(file)) for file in Path().rglob("*.safetensors")}
    assert surgery("run", recipe(load(path), {"rename": {"match": "^", "to": "x" * 3000}}, save(path))).code == 0
    assert values(path) == {"x" * 3000 + key: array.tolist() for key, array in ARRAYS.items()}
    changed = [file for file in before if str(file).startswith(path)]
    for file in changed:
        nbytes, data = before[file]
        assert (file.stat().st_size - nbytes) % 4096 == 0
        assert data_bytes(file) == data
    assert changed


# The one-liner


@pytest.mark.parametrize("path", WHOLE)
def test_the_one_liner_needs_no_recipe(surgery: Run, path: str) -> None:
    ran = surgery("rename", path, "--in-place", "--sub", "^bert/", "x/")
    assert (ran.code, ran.err) == (0, "")
    assert values(path) == RENAMED
    assert surgery("rename", path, "--in-place", "--sub", "^bert/", "x/").out == f"{path}: up to date\n"


def test_the_one_liner_tells_what_to_do_instead(surgery: Run) -> None:
    ran = surgery("rename", "a.npz", "--in-place", "--prefix", "x/")
    assert ran.code == 1
    assert ran.err == (
        "error[not-in-place]: `a.npz` cannot be renamed in place\n"
        "  note: npz keeps keys between the tensors\n"
        "  help: give a name for the output, and leave --in-place out\n"
    )


@pytest.mark.parametrize("arguments", [["out.safetensors", "--in-place"], ["--in-place", "--format", "tf"], []])
def test_an_output_or_in_place_but_not_both(surgery: Run, arguments: list[str]) -> None:
    ran = surgery("rename", "m.safetensors", *arguments, "--prefix", "x/")
    assert (ran.code, ran.err.startswith("error[bad-option]: ")) == (2, True)


# What is refused

REFUSED: dict[str, tuple[list[Any], str]] = {
    "a drop": ([{"drop": {"keys": "step"}}], "1 tensor would be dropped, and their bytes would stay: step"),
    "a copy": ([{"copy": {"keys": {"step": "again"}}}], "`again` shares its bytes with another key"),
    "a cast": ([{"cast": {"keys": "bert/w", "dtype": "float16"}}], "`bert/w` is not a tensor of PATH as it is stored there"),
    "a transpose": ([{"transpose": {"keys": "bert/w", "order": [1, 0]}}], "`bert/w` is not a tensor of PATH as it is stored there"),
    "a new tensor": (
        [{"init_missing": {"variables": {"new": {"shape": [2]}}, "init": "zeros"}}],
        "`new` is not a tensor of PATH as it is stored there",
    ),
    "a tensor of another checkpoint": ([load("a.npz", scope="more/")], "`more/bert/w` is not a tensor of PATH as it is stored there"),
}


@pytest.mark.parametrize("path", WHOLE)
@pytest.mark.parametrize("change", REFUSED)
def test_what_needs_other_bytes_is_refused(recipe: Recipe, surgery: Run, path: str, change: str) -> None:
    steps, note = REFUSED[change]
    refused(surgery, recipe(load(path), *steps, save(path)), f"  note: {note.replace('PATH', path)}\n")


@pytest.mark.parametrize("path", WHOLE)
def test_a_selection_leaves_nothing_out(recipe: Recipe, surgery: Run, path: str) -> None:
    refused(surgery, recipe(load(path), save(path, keys="bert/*")), "1 tensor would be dropped, and their bytes would stay: step")


@pytest.mark.parametrize("path", ["m.safetensors", "hf"])
def test_a_header_that_does_not_fit_is_refused(recipe: Recipe, surgery: Run, path: str) -> None:
    refused(surgery, recipe(load(path), {"rename": {"match": "^", "to": "x" * 300}}, save(path)), "and its data begins at byte ")


def test_an_index_of_tensorflow_may_grow(recipe: Recipe, surgery: Run) -> None:
    assert surgery("run", recipe(load("tf/m"), {"rename": {"match": "^", "to": "x" * 300}}, save("tf/m"))).code == 0
    assert set(values("tf/m")) == {"x" * 300 + key for key in ARRAYS}


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_file_with_another_name_is_refused(recipe: Recipe, surgery: Run, link: Callable[[str, str], None]) -> None:
    link("m.safetensors", "other.safetensors")
    note = "  note: other.safetensors is a link, or has another name elsewhere that would change too\n"
    refused(surgery, recipe(load("other.safetensors"), RENAME, save("other.safetensors")), note)


def test_a_shard_that_is_a_link_is_refused(recipe: Recipe, surgery: Run) -> None:
    """As in the caches of model hubs, where several folders point at one file."""
    Path("blobs").mkdir()
    for file in Path("hf").glob("*.safetensors"):
        shutil.move(file, Path("blobs") / file.name)
        file.symlink_to(Path("..") / "blobs" / file.name)
    refused(surgery, recipe(load("hf"), RENAME, save("hf")), " is a link, or has another name elsewhere that would change too\n")


def test_zip_archives_are_refused(recipe: Recipe, surgery: Run) -> None:
    refused(surgery, recipe(load("a.npz"), RENAME, save("a.npz")), "  note: npz keeps keys between the tensors\n")


def test_an_object_graph_would_have_to_follow(recipe: Recipe, surgery: Run) -> None:
    shutil.copytree(DATA / "tf" / "object", "object")
    with api.open("object/plain-1") as checkpoint:
        key = next(key for key in checkpoint if key.endswith("/.ATTRIBUTES/VARIABLE_VALUE"))
    change = {"rename": {"keys": {key: f"new/{key}"}}}
    refused(surgery, recipe(load("object/plain-1"), change, save("object/plain-1")), "its object graph names the keys, and lies in a data file")


def test_partitioned_variables_are_refused(recipe: Recipe, surgery: Run) -> None:
    for file in (DATA / "tf" / "partitioned").iterdir():
        shutil.copy(file, file.name)
    prefix = next(Path().glob("*.index")).stem
    refused(
        surgery,
        recipe(load(prefix), {"rename": {"match": "^", "to": "x/"}}, save(prefix)),
        "is stored in slices, whose entries have names of their own",
    )


def test_only_a_path_that_is_loaded_can_be_renamed(recipe: Recipe, surgery: Run) -> None:
    refused(surgery, recipe(load("m.safetensors"), RENAME, save("other.safetensors")), "  note: loaded are m.safetensors\n")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("format", "safetensors"),
        ("shard_size", "5GB"),
        ("carry", ["config.json"]),
        ("edit", {"config.json": {"a": 1}}),
        ("latest", False),
        ("align", True),
    ],
)
def test_options_about_new_files_have_no_meaning(recipe: Recipe, surgery: Run, option: str, value: Any) -> None:
    ran = surgery("lint", recipe(load("m.safetensors"), save("m.safetensors", **{option: value})))
    assert ran.code == 2
    assert f"error[bad-option]: in place, `{option}` has no meaning\n" in ran.err


def test_damage_is_noticed_where_it_is_looked_for(recipe: Recipe, surgery: Run) -> None:
    (data,) = Path("tf").glob("m.data-00000-*")
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    path = recipe(load("tf/m"), RENAME, save("tf/m"))
    before = snapshot()
    ran = surgery("run", path, "--verify")
    assert (ran.code, "Checksum does not match" in ran.err) == (1, True)
    assert snapshot() == before
    assert surgery("run", path).code == 0


def test_damage_in_strings_is_noticed_too(recipe: Recipe, surgery: Run) -> None:
    data_file = Path("all.data-00000-of-00001")
    for name in (data_file.name, "all.index"):
        Path(name).write_bytes((DATA / "tf" / "dtypes" / name).read_bytes())
    path = recipe(load("all"), {"scope": {"add": "x/"}}, save("all"))
    (text,) = [tensor for tensor in api.open("all").values() if tensor.dtype == "string"][:1]
    (extent,) = text.expr.view() or ()
    data = bytearray(data_file.read_bytes())
    data[extent.stop - 1] ^= 1
    data_file.write_bytes(data)
    ran = surgery("run", path, "--verify")
    assert (ran.code, f"key x/{text.key}" in ran.err) == (1, True)


def test_a_header_may_be_as_long_as_the_format_allows(recipe: Recipe, surgery: Run) -> None:
    header = b'{"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'.ljust(99_999_992)
    Path("long.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"abc")
    ran = surgery("run", recipe(load("long.safetensors"), {"scope": {"add": "x."}}, save("long.safetensors")))
    assert ran.code == 0, ran.err
    assert values("long.safetensors") == {"x.w": [97, 98, 99]}
    assert sorted(path.name for path in Path().glob(".*.surgery")) == []


def test_a_file_that_changed_after_the_plan_is_left_alone(recipe: Recipe) -> None:
    plan = api.plan(recipe(load("m.safetensors"), RENAME, save("m.safetensors")))
    shutil.copy("m.safetensors", "again")
    os.replace("again", "m.safetensors")
    before = snapshot()
    with pytest.raises(api.SurgeryError) as caught:
        plan.run()
    assert caught.value.code == "stale-source"
    assert snapshot() == before


AS_NOBODY = """
import os, sys
from surgery.__main__ import main
import concurrent.futures.thread, hashlib, json, shutil, traceback, surgery.execute, surgery.up_to_date
assert main(["plan", "r.yaml"]) == 0
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
sys.exit(main(["run", "r.yaml"]))
"""


@pytest.mark.parametrize("path", ["m.safetensors", "hf"])
def test_a_file_that_may_not_be_written_is_told_before_anything_changes(recipe: Recipe, work: Path, path: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    recipe(load(path), RENAME, save(path))
    for folder in (work, work / "hf"):
        folder.chmod(0o777)
    Path("m.safetensors").chmod(0o444)
    for file in Path("hf").glob("*-00001-*"):
        os.chown(file, 65534, 65534)
    before = snapshot()
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "error[permission-denied]: " in done.stderr
    assert snapshot() == before
    assert not list(Path().rglob(".*"))
