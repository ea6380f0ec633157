"""The same run again: nothing to do where nothing changed, a run like any other where anything did, and manifests that stand in nobody's way."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import surgery as package
from surgery import up_to_date

Run = Callable[..., Any]
Recipe = Callable[..., str]
FOLDER = {"path": "hf"}
SHARDS = {"path": "out", "format": "safetensors", "shard_size": 16}
RENAME = {"rename": {"match": "^", "to": "x/"}}
SAVES: dict[str, dict[str, Any]] = {
    "file": {"path": "out/m.safetensors"},
    "shards": SHARDS,
    "bundle": {"path": "out/m", "format": "tf"},
    "zip": {"path": "m.npz"},
}
MANIFESTS = {"file": "out/m.safetensors.surgery.json", "shards": "out/surgery.json", "bundle": "out/m.surgery.json", "zip": "m.npz.surgery.json"}


@pytest.fixture(autouse=True)
def source(work: Path, surgery: Run) -> None:
    """A folder of shards with companions, made by the tool and then stripped of its manifest."""
    np.savez("a.npz", **{f"w{number}": np.full(4, number, "f4") for number in range(3)})
    (work / "make.json").write_text(
        json.dumps({"surgery": 1, "steps": [{"load": {"path": "a.npz"}}, {"save": SHARDS | FOLDER | {"manifest": False}}]})
    )
    assert surgery("run", "make.json").code == 0
    (work / "hf" / "config.json").write_text('{"size": 4}')
    (work / "hf" / "tokenizer.json").write_text("{}")
    (work / "make.json").unlink()


def stamps(path: Path) -> dict[str, tuple[int, int]]:
    return {str(file.relative_to(path)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in sorted(path.rglob("*"))}


def is_up_to_date(surgery: Run, *arguments: str) -> bool:
    """Runs the command, and looks whether a file has changed."""
    before = stamps(Path())
    ran = surgery("run", *arguments)
    said = "up to date" in ran.out
    assert (ran.code, ran.err) == (0, ""), ran
    assert (stamps(Path()) == before) == said
    return said


def rewritten(path: Path) -> None:
    """Other bytes of the same number, some time later."""
    changed = path.stat().st_mtime_ns + 10**9
    path.write_bytes(path.read_bytes()[:-1] + b"\n")
    os.utime(path, ns=(changed, changed))


def touched(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def replaced(path: Path) -> None:
    """By another file of the same size and time."""
    shutil.copy2(path, "copy")
    os.replace("copy", path)


def cut(path: Path) -> None:
    stamp = path.stat().st_mtime_ns
    os.truncate(path, path.stat().st_size - 1)
    os.utime(path, ns=(stamp, stamp))


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("form", SAVES)
def test_a_second_run_says_up_to_date_although_the_output_exists(recipe: Recipe, surgery: Run, form: str) -> None:
    path = recipe({"load": FOLDER}, RENAME, {"save": SAVES[form]})
    assert surgery("run", path).code == 0
    assert Path(MANIFESTS[form]).is_file()
    assert surgery("run", path) == (0, f"{SAVES[form]['path']}: up to date\n", "")
    assert is_up_to_date(surgery, path)


@pytest.mark.parametrize("form", SAVES)
@pytest.mark.parametrize("change", [touched, rewritten, replaced, cut, removed])
def test_a_changed_output_is_made_again(recipe: Recipe, surgery: Run, form: str, change: Callable[[Path], None]) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES[form] | {"overwrite": "replace"}})
    assert surgery("run", path).code == 0
    for name in sorted(set(stamps(Path())) & set(files_of(MANIFESTS[form]))):
        change(Path(name))
        assert not is_up_to_date(surgery, path), name
        assert is_up_to_date(surgery, path), name


def files_of(manifest: str) -> list[str]:
    return [path for output in json.loads(Path(manifest).read_text())["outputs"] for path in output["files"]]


@pytest.mark.parametrize("change", [touched, rewritten, replaced])
@pytest.mark.parametrize("name", ["model-00002-of-00003.safetensors", "model.safetensors.index.json", "tokenizer.json"])
def test_a_changed_source_is_read_again(recipe: Recipe, surgery: Run, name: str, change: Callable[[Path], None]) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES["file"] | {"carry": ["tokenizer*"], "overwrite": "replace"}})
    assert surgery("run", path).code == 0
    change(Path("hf", name))
    assert not is_up_to_date(surgery, path)
    assert is_up_to_date(surgery, path)


def test_a_new_companion_is_taken_along(recipe: Recipe, surgery: Run) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES["file"] | {"carry": ["tokenizer*"], "overwrite": "replace"}})
    assert surgery("run", path).code == 0
    Path("hf/tokenizer.model").write_bytes(b"new")
    assert not is_up_to_date(surgery, path)
    assert Path("out/tokenizer.model").read_bytes() == b"new"


def test_a_changed_target_spec_is_read_again(recipe: Recipe, surgery: Run) -> None:
    spec = Path("spec.yaml")
    spec.write_text("variables: {w0: {shape: [4]}, head: {shape: [1]}}")
    path = recipe({"load": FOLDER}, {"init_missing": {"like": "spec.yaml", "init": "zeros"}}, {"save": SAVES["zip"] | {"overwrite": "replace"}})
    assert surgery("run", path).code == 0
    assert is_up_to_date(surgery, path)
    spec.write_text("variables: {w0: {shape: [4]}, head: {shape: [12]}}")
    assert not is_up_to_date(surgery, path)
    with package.open("m.npz") as made:
        assert made["head"].shape == (12,)


def test_a_folder_whose_newest_checkpoint_is_another_now_is_read_again(recipe: Recipe, surgery: Run) -> None:
    for step in (1, 2):
        np.savez("a.npz", step=np.array(step))
        assert surgery("run", recipe({"load": {"path": "a.npz"}}, {"save": {"path": f"ck/m-{step}", "format": "tf"}})).code == 0
        path = recipe({"load": {"path": "ck"}}, {"save": SAVES["zip"] | {"overwrite": "replace"}}, name="last.yaml")
        assert not is_up_to_date(surgery, path)
        assert is_up_to_date(surgery, path)
    with package.open("m.npz") as made:
        assert made["step"].numpy() == 2


def test_another_save_in_the_folder_of_a_bundle_changes_nothing(recipe: Recipe, surgery: Run) -> None:
    both = [recipe({"load": FOLDER}, {"save": {"path": f"ck/m-{step}", "format": "tf"}}, name=f"{step}.yaml") for step in (1, 2)]
    assert surgery("run", *both).code == 0
    assert surgery("run", *both) == (0, "ck/m-1: up to date\nck/m-2: up to date\n", "")
    Path("ck/checkpoint").unlink()
    assert surgery("run", both[0]).code == 1  # it would be made anew, and the bundle exists


def test_parameters_are_compared_by_their_values(recipe: Recipe, surgery: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"dtype": {"type": "string"}, "n": {"type": "integer", "default": 1}}
    save = {"save": SAVES["zip"] | {"overwrite": "replace"}}
    path = recipe({"load": FOLDER}, {"cast": {"dtype": "${dtype}"}}, {"scope": {"add": "${n}${env.WHERE}/"}}, save, params=params, env=["WHERE"])
    monkeypatch.setenv("WHERE", "here")
    assert not is_up_to_date(surgery, path, "-p", "dtype=float16")
    assert is_up_to_date(surgery, path, "-p", "dtype=float16", "-p", "n=1")
    assert not is_up_to_date(surgery, path, "-p", "dtype=float64")
    assert not is_up_to_date(surgery, path, "-p", "dtype=float64", "-p", "n=2")
    monkeypatch.setenv("WHERE", "there")
    assert not is_up_to_date(surgery, path, "-p", "dtype=float64", "-p", "n=2")
    assert is_up_to_date(surgery, path, "-p", "dtype=float64", "-p", "n=2")


def test_another_text_of_the_recipe_or_version_of_the_tool_is_another_run(recipe: Recipe, surgery: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES["zip"] | {"overwrite": "replace"}})
    assert surgery("run", path).code == 0
    Path(path).write_text(Path(path).read_text() + "\n")
    assert not is_up_to_date(surgery, path)
    monkeypatch.setattr(up_to_date, "__version__", "0.0.1")
    assert not is_up_to_date(surgery, path)
    assert is_up_to_date(surgery, path)


def test_options_that_do_not_change_the_output_do_not_count(recipe: Recipe, surgery: Run) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES["zip"]})
    assert surgery("run", path, "--jobs", "1").code == 0
    assert is_up_to_date(surgery, path, "--jobs", "3", "--memory", "1MiB")


@pytest.mark.parametrize("option", ["--force", "--verify"])
def test_an_option_that_asks_for_a_run_gets_one(recipe: Recipe, surgery: Run, option: str) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES["zip"] | {"overwrite": "replace"}})
    assert surgery("run", path).code == 0
    assert not is_up_to_date(surgery, path, option)


def test_strict_is_not_met_by_a_run_without_it(recipe: Recipe, surgery: Run) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES["zip"] | {"match": "w0"}})
    assert surgery("run", path).code == 0
    assert "error[left-over]" in surgery("run", path, "--strict").err


def test_a_plan_is_a_plan(recipe: Recipe, surgery: Run) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES["zip"] | {"overwrite": "replace"}})
    assert surgery("run", path).code == 0
    for words in (["plan", path], ["run", "--dry-run", path]):
        assert surgery(*words).out.startswith("read   hf: safetensors, 3 tensors")


class TestOutputIsInput:
    @pytest.mark.parametrize(
        ("loaded", "save"),
        [
            ("hf", {**SHARDS, "path": "hf", "shard_size": 32}),
            ("./hf/model.safetensors.index.json", {**SHARDS, "path": "hf", "shard_size": "1MB"}),
            ("hf/model-00001-of-00003.safetensors", {"path": "hf/model-00001-of-00003.safetensors"}),
            ("a.npz", {"path": "a.npz"}),
            ("tf", {"path": "tf/m", "format": "tf"}),
        ],
    )
    def test_what_the_run_left_is_not_renamed_again(self, recipe: Recipe, surgery: Run, loaded: str, save: dict[str, Any]) -> None:
        assert surgery("run", recipe({"load": FOLDER}, {"save": {"path": "tf/m", "format": "tf"}})).code == 0
        path = recipe({"load": {"path": loaded}}, RENAME, {"save": save | {"overwrite": "replace"}})
        assert not is_up_to_date(surgery, path)
        assert is_up_to_date(surgery, path)
        with package.open(save["path"]) as made:
            assert {key.rpartition("/")[0] for key in made} == {"x"}

    def test_a_new_input_is_renamed(self, recipe: Recipe, surgery: Run) -> None:
        path = recipe({"load": {"path": "a.npz"}}, RENAME, {"save": {"path": "a.npz", "overwrite": "replace"}})
        assert surgery("run", path).code == 0
        np.savez("a.npz", other=np.zeros(1))
        assert not is_up_to_date(surgery, path)
        with package.open("a.npz") as made:
            assert list(made) == ["x/other"]


class TestTwoOutputs:
    SAVES = ({"save": SAVES["file"] | {"overwrite": "replace"}}, {"save": SAVES["bundle"] | {"overwrite": "replace"}})

    def test_both_are_told(self, recipe: Recipe, surgery: Run) -> None:
        path = recipe({"load": FOLDER}, *self.SAVES)
        assert surgery("run", path).code == 0
        assert surgery("run", path).out == "out/m.safetensors: up to date\nout/m: up to date\n"

    @pytest.mark.parametrize("name", ["out/m.safetensors", "out/m.index", "out/m.surgery.json", "out/m.safetensors.surgery.json"])
    def test_one_file_less_and_both_are_made(self, recipe: Recipe, surgery: Run, name: str) -> None:
        path = recipe({"load": FOLDER}, *self.SAVES)
        assert surgery("run", path).code == 0
        Path(name).unlink()
        assert not is_up_to_date(surgery, path)
        assert is_up_to_date(surgery, path)


class TestManifestsInTheWay:
    def test_without_manifest_there_is_none_and_an_old_one_goes(self, recipe: Recipe, surgery: Run) -> None:
        for form in SAVES:
            assert surgery("run", recipe({"load": FOLDER}, {"save": SAVES[form]})).code == 0
            assert Path(MANIFESTS[form]).is_file()
            path = recipe({"load": FOLDER}, {"save": SAVES[form] | {"manifest": False, "overwrite": "replace"}})
            assert not is_up_to_date(surgery, path)
            assert not Path(MANIFESTS[form]).exists(), form
            assert not is_up_to_date(surgery, path)

    @pytest.mark.parametrize("form", SAVES)
    def test_a_file_of_the_user_by_its_name_is_not_replaced(self, recipe: Recipe, surgery: Run, form: str) -> None:
        theirs = Path(MANIFESTS[form])
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_text('{"patients": []}')
        ran = surgery("run", recipe({"load": FOLDER}, {"save": SAVES[form]}))
        assert ran.code == 1
        assert f"error[output-exists]: the output `{SAVES[form]['path']}` exists" in ran.err
        assert f"found {theirs}\n" in ran.err
        assert surgery("run", recipe({"load": FOLDER}, {"save": SAVES[form] | {"manifest": False}})).code == 0
        assert theirs.read_text() == '{"patients": []}'

    def test_one_that_comes_between_plan_and_run_is_kept(self, recipe: Recipe) -> None:
        plan = package.plan(recipe({"load": FOLDER}, {"save": SAVES["zip"]}))
        Path(MANIFESTS["zip"]).write_text("mine")
        with pytest.raises(package.PlanError, match=r"the output `m\.npz` exists"):
            plan.run()
        assert Path(MANIFESTS["zip"]).read_text() == "mine"
        assert not Path("m.npz").exists()

    def test_whoever_may_replace_replaces_it(self, recipe: Recipe, surgery: Run) -> None:
        Path(MANIFESTS["zip"]).write_text("mine")
        path = recipe({"load": FOLDER}, {"save": SAVES["zip"]})
        assert surgery("run", "--force", path).code == 0
        assert is_up_to_date(surgery, path)

    def test_a_manifest_whose_output_is_gone_is_not_in_the_way(self, recipe: Recipe, surgery: Run) -> None:
        path = recipe({"load": FOLDER}, {"save": SAVES["zip"]})
        assert surgery("run", path).code == 0
        Path("m.npz").unlink()
        assert not is_up_to_date(surgery, path)

    def test_an_output_by_the_name_of_a_manifest_is_a_conflict(self, recipe: Recipe, surgery: Run) -> None:
        ran = surgery("plan", recipe({"load": FOLDER}, {"save": SAVES["file"]}, {"save": {"path": MANIFESTS["file"], "format": "npz"}}))
        other, path = MANIFESTS["file"], SAVES["file"]["path"]
        assert f"error[path-conflict]: `{other}` and `{path}` would both write `{other}`\n" in ran.err

    def test_a_folder_by_its_name_is_told_in_the_plan(self, recipe: Recipe, surgery: Run) -> None:
        Path(MANIFESTS["zip"]).mkdir()
        ran = surgery("plan", recipe({"load": FOLDER}, {"save": SAVES["zip"] | {"overwrite": "replace"}}))
        assert "error[folder-in-the-way]: m.npz.surgery.json is a folder\n" in ran.err

    @pytest.mark.parametrize("name", ["tokenizer.safetensors", "vocab.safetensors"])
    def test_it_is_no_companion_and_confuses_no_format(self, recipe: Recipe, surgery: Run, name: str) -> None:
        assert surgery("run", recipe({"load": {"path": "a.npz"}}, {"save": {"path": f"one/{name}"}})).code == 0
        assert surgery("inspect", "one").out == "[('w0', [4]), ('w1', [4]), ('w2', [4])]\n"
        ran = surgery("plan", recipe({"load": {"path": "one"}}, {"save": SAVES["file"] | {"carry": ["*.surgery.json"]}}))
        assert "error[nothing-matched]" in ran.err


def test_a_damaged_manifest_only_costs_a_run(recipe: Recipe, surgery: Run) -> None:
    dice = random.Random(3)
    path, manifest = recipe({"load": FOLDER}, {"save": SAVES["zip"] | {"overwrite": "replace"}}), Path(MANIFESTS["zip"])
    assert surgery("run", path).code == 0
    whole = manifest.read_bytes()
    damages = [
        b"",
        b"{}",
        bytes(len(whole)),
        b"\xff" * 9,
        b"[" * 10_000,
        whole[:-3],
        whole.replace(b'"inode": ', b'"inode": -'),
        whole.replace(b"a.npz", b"\0"),
    ]
    damages += [whole[:at] + dice.randbytes(3) + whole[at:] for at in sorted(dice.sample(range(len(whole)), 20))]
    for damaged in damages:
        manifest.write_bytes(damaged)
        ran = surgery("run", path)
        assert ran.code == 0, damaged
        assert is_up_to_date(surgery, path)


def test_json(recipe: Recipe, surgery: Run) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES["bundle"]})
    assert surgery("run", "--json", path).json["up_to_date"] is False
    outputs = [{"path": "out/m", "files": ["out/m.data-00000-of-00001", "out/m.index", "out/checkpoint"]}]
    assert surgery("run", "--json", path).json == {"up_to_date": True, "outputs": outputs}


def test_each_recipe_of_a_command_stands_for_itself(recipe: Recipe, surgery: Run) -> None:
    first = recipe({"load": FOLDER}, {"save": SAVES["file"]}, name="1.yaml")
    second = recipe({"load": {"path": "out/m.safetensors"}}, {"save": SAVES["zip"]}, name="2.yaml")
    assert surgery("run", first).code == 0
    ran = surgery("run", first, second)
    assert ran.out.startswith("out/m.safetensors: up to date\nread   out/m.safetensors: ")
    assert surgery("run", first, second).out == "out/m.safetensors: up to date\nm.npz: up to date\n"


def test_digests_are_those_of_sha256sum(recipe: Recipe, surgery: Run) -> None:
    path = recipe(
        {"load": FOLDER}, {"save": SHARDS | {"carry": ["config.json"], "overwrite": "replace"}}, {"save": SAVES["bundle"] | {"path": "tf/m"}}
    )
    assert surgery("run", path).code == 0
    assert surgery("run", "--force", "--digest", path).code == 0
    told = {name: digest for output in json.loads(Path("tf/m.surgery.json").read_text())["outputs"] for name, digest in output["sha256"].items()}
    summed = subprocess.run(["sha256sum", *sorted(told)], capture_output=True, text=True, check=True).stdout.split()
    assert dict(sorted(told.items())) == dict(zip(summed[1::2], summed[::2], strict=True))
    assert len(told) == 8  # three shards, their index, a companion; a data file, its index, the state file
    assert told["tf/m.index"] == sha256(Path("tf/m.index").read_bytes()).hexdigest()
    assert is_up_to_date(surgery, path, "--digest")


def test_digests_that_an_earlier_run_did_not_take_cost_a_run(recipe: Recipe, surgery: Run) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES["zip"] | {"overwrite": "replace"}})
    assert surgery("run", path).code == 0
    assert not is_up_to_date(surgery, path, "--digest")
    assert is_up_to_date(surgery, path)


def test_a_recipe_that_saves_nothing_is_run(recipe: Recipe, surgery: Run) -> None:
    path = recipe({"load": FOLDER}, {"assert": {"count": 3}})
    assert not any("up to date" in surgery("run", path).out for _ in range(2))


def test_the_manifests_of_the_python_interface_are_the_same(recipe: Recipe, surgery: Run) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES["zip"]})
    package.plan(path).run(digest=True)
    assert is_up_to_date(surgery, path, "--digest")


def test_nothing_is_left_of_a_dead_run_beside_an_output_that_is_up_to_date(recipe: Recipe, surgery: Run) -> None:
    path = recipe({"load": FOLDER}, {"save": SAVES["zip"]})
    assert surgery("run", path).code == 0
    Path(".m.npz.surgery").mkdir()
    assert surgery("run", path).out == "m.npz: up to date\n"
    assert not Path(".m.npz.surgery").exists()
