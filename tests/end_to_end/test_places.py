"""Whole runs into and out of places that are odd, full, forbidden, crowded, or in use by somebody else."""

from __future__ import annotations

import json
import os
import resource
import stat
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenarios import NEW, OLD, RENAME, SOURCE, faults_told, recipe, shards, with_recipe
from writers import Fault, Surgery, safetensors, snapshot, values

import surgery as package
from surgery import files
from surgery.api import Source
from surgery.commit import Staging
from surgery.errors import PlanError, StaleSource


@pytest.fixture(scope="module")
def surgery() -> Iterator[Surgery]:
    server = Surgery()
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a source and a recipe that renames it to out/m.safetensors."""
    return with_recipe(tmp_path, {"path": "out/m.safetensors"})


# Reads the recipe once as root, so that all is imported that a run needs.
AS_NOBODY = """
import os, sys
from surgery.__main__ import main
import concurrent.futures.thread, hashlib, json, traceback, surgery.execute, surgery.up_to_date
assert main(["plan", "recipe.json"]) == 0
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
sys.exit(main(["run", "recipe.json"]))
"""

IN_THE_WAY = "error[folder-in-the-way]: "
NO_FOLDER = "error[no-folder]: there can be no folder "
TOO_LONG = "error[name-too-long]: a name has 255 bytes at most"
HOPELESS = {
    "a folder where a file goes": (f"{IN_THE_WAY}folder is a folder\n", {"path": "folder", "format": "npz"}),
    "a folder where an index goes": (f"{IN_THE_WAY}folder/m.index is a folder\n", {"path": "folder/m", "format": "tf"}),
    "the working directory as a file": (f"{IN_THE_WAY}. is a folder\n", {"path": ".", "format": "npz"}),
    "the working directory as a prefix": ("error[bad-prefix]: `.` is a folder, not the prefix of a checkpoint\n", {"path": ".", "format": "tf"}),
    "a file as a parent": (f"{NO_FOLDER}in.safetensors: in.safetensors is a file\n", {"path": "in.safetensors/m.npz"}),
    "a file further up": (f"{NO_FOLDER}in.safetensors/a/b: in.safetensors is a file\n", {"path": "in.safetensors/a/b/m.npz"}),
    "a file as a folder of shards": (f"{NO_FOLDER}in.safetensors/a: in.safetensors is a file\n", {**shards("1MB"), "path": "in.safetensors/a"}),
    "a link to nothing": (f"{NO_FOLDER}dangling: dangling is a link to nowhere, which is not there\n", {"path": "dangling/m.npz"}),
    "a long name": (f"{TOO_LONG}, and this output needs one of 264\n", {"path": f"{'é' * 125}m.npz"}),
    "a long name of a manifest": (f"{TOO_LONG}, and this output needs one of 256\n", {"path": f"{'x' * 239}.npz"}),
    "a long name of a folder": (f"{TOO_LONG}, and this output needs one of 256\n", {"path": f"{'x' * 256}/m.npz"}),
    "a name of staging": ("error[bad-name]: '.m.surgery' cannot be the name of an output file\n", {"path": "out/.m.surgery", "format": "npz"}),
}
"""Outputs that cannot be, whatever is replaced, and what the plan says of each."""


class TestPlaces:
    def test_missing_folders_are_made(self, tmp_path: Path, surgery: Surgery) -> None:
        with_recipe(tmp_path, {"path": "a/b/c/m.safetensors"})
        assert surgery.run(tmp_path, "run", "recipe.json").code == 0
        assert values(tmp_path / "a/b/c/m.safetensors") == NEW

    @pytest.mark.parametrize("save", HOPELESS.values(), ids=HOPELESS)
    def test_a_place_where_nothing_can_be_is_told_in_the_plan(self, tmp_path: Path, surgery: Surgery, save: tuple[str, dict[str, Any]]) -> None:
        said, fields = save
        with_recipe(tmp_path, fields)
        (tmp_path / "folder" / "m.index").mkdir(parents=True)
        (tmp_path / "dangling").symlink_to("nowhere")
        before = snapshot(tmp_path)
        outcome = surgery.run(tmp_path, "plan", "recipe.json", "--force")
        assert (outcome.code, faults_told(outcome)) == (1, 1)
        assert said in outcome.text
        assert '{"save": {"path": ' in outcome.text  # the line of the recipe
        assert snapshot(tmp_path) == before

    def test_the_working_directory_can_be_an_output_of_shards(self, tmp_path: Path, surgery: Surgery) -> None:
        with_recipe(tmp_path, {**shards("70KB"), "path": "."})
        assert surgery.run(tmp_path, "run", "recipe.json").code == 0
        assert values(tmp_path / "model.safetensors.index.json") == NEW

    def test_an_output_in_a_folder_may_be_called_as_the_folder_is(self, tmp_path: Path, surgery: Surgery) -> None:
        with_recipe(tmp_path, shards("70KB"), {"path": "out/out", "format": "tf", "latest": False})
        outcome = surgery.run(tmp_path, "run", "recipe.json")
        assert outcome.code == 0, outcome.text
        assert values(tmp_path / "out" / "model.safetensors.index.json") == values(tmp_path / "out" / "out") == NEW
        assert not list((tmp_path / "out").glob(".*"))

    @pytest.mark.parametrize("force", [[], ["--force"]])
    def test_a_folder_under_the_name_of_the_output_stays(self, folder: Path, surgery: Surgery, force: list[str]) -> None:
        (folder / "out" / "m.safetensors").mkdir(parents=True)
        outcome = surgery.run(folder, "run", "recipe.json", *force)
        assert (outcome.code, faults_told(outcome)) == (1, 1)
        assert snapshot(folder)["out/m.safetensors"] == b"(folder)"
        assert len(snapshot(folder)) == 3

    def test_an_output_below_a_file_is_refused(self, tmp_path: Path, surgery: Surgery) -> None:
        with_recipe(tmp_path, {"path": "in.safetensors/m.safetensors"})
        outcome = surgery.run(tmp_path, "run", "recipe.json")
        assert (outcome.code, faults_told(outcome)) == (1, 1)
        assert set(snapshot(tmp_path)) == {"in.safetensors", "recipe.json"}

    def test_a_link_is_replaced_and_its_target_stays(self, folder: Path, surgery: Surgery) -> None:
        (folder / "out").mkdir()
        (folder / "target.safetensors").write_bytes(safetensors(OLD))
        (folder / "out" / "m.safetensors").symlink_to("../target.safetensors")
        assert surgery.run(folder, "run", "recipe.json", "--force").code == 0
        assert not (folder / "out" / "m.safetensors").is_symlink()
        assert (values(folder / "out/m.safetensors"), values(folder / "target.safetensors")) == (NEW, OLD)

    def test_another_name_of_the_replaced_input_keeps_its_content(self, tmp_path: Path, surgery: Surgery) -> None:
        with_recipe(tmp_path, {"path": "in.safetensors", "overwrite": "replace"})
        os.link(tmp_path / "in.safetensors", tmp_path / "same.safetensors")
        assert surgery.run(tmp_path, "run", "recipe.json").code == 0
        assert (values(tmp_path / "in.safetensors"), values(tmp_path / "same.safetensors")) == (NEW, SOURCE)

    def test_a_source_with_a_hole_is_copied_with_its_zeros(self, folder: Path, surgery: Surgery) -> None:
        data = safetensors({"source/a": b"\1" * 8192 + bytes(1 << 20) + b"\2" * 8192})
        start = data.index(bytes(1 << 19))
        with (folder / "in.safetensors").open("wb") as file:
            file.write(data[:start])
            file.seek(start + (1 << 20))
            file.write(b"\2" * 8192)
        assert surgery.run(folder, "run", "recipe.json").code == 0
        assert values(folder / "out/m.safetensors") == {"new/a": b"\1" * 8192 + bytes(1 << 20) + b"\2" * 8192}

    @pytest.mark.parametrize("name", ["with space", "ünï", "new\nline", "$HOME", "-n", "*", "[a]", "%s{}", "a~", "'\"", ".hidden", "x.surgery"])
    def test_odd_folder_names_work(self, tmp_path: Path, surgery: Surgery, name: str) -> None:
        with_recipe(tmp_path, *({"path": f"{name}/{form}", "format": form} for form in ("tf", "npz", "safetensors")))
        outcome = surgery.run(tmp_path, "run", "recipe.json")
        assert outcome.code == 0, outcome.text
        assert [values(tmp_path / name / form) for form in ("tf", "npz", "safetensors")] == [NEW, NEW, NEW]

    @pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
    def test_outputs_have_the_mode_that_the_umask_wants(self, tmp_path: Path, umask: int, mode: int) -> None:
        with_recipe(tmp_path, shards("50KB"))
        subprocess.run([sys.executable, "-m", "surgery", "run", "recipe.json"], cwd=tmp_path, umask=umask, check=True, capture_output=True)
        assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {mode}

    def test_a_read_only_folder_is_told_and_stays_as_it_is(self, folder: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root to become another user")
        (folder / "out").mkdir(mode=0o755)
        folder.chmod(0o755)
        done = subprocess.run([sys.executable, "-c", AS_NOBODY], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("error[permission-denied]: cannot make folder out/.m.safetensors.surgery: permission denied\n")
        assert len(snapshot(folder)) == 3

    def test_a_full_device_is_told_from_the_plan_or_while_writing(self, folder: Path, surgery: Surgery) -> None:
        (folder / "out").mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder / "out")]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount")
        try:
            outcome = surgery.run(folder, "run", "recipe.json")
            assert (outcome.code, faults_told(outcome)) == (1, 1)
            assert "error[disk-full]: " in outcome.text
            assert list((folder / "out").iterdir()) == []
        finally:
            subprocess.run(["umount", str(folder / "out")], check=True)

    def test_what_a_killed_run_staged_does_not_count_as_lost_room(self, folder: Path, surgery: Surgery) -> None:
        (folder / "out").mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(folder / "out")]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount")
        try:
            fsync = surgery.run(folder, "run", "recipe.json").calls.index("fsync") + 1
            (folder / "out" / "m.safetensors").unlink()
            assert surgery.run(folder, "run", "recipe.json", fault=Fault("before", fsync)).code == -9
            assert (folder / "out" / ".m.safetensors.surgery" / "m.safetensors").stat().st_blocks * 512 > 128_000
            assert surgery.run(folder, "run", "recipe.json").code == 0
            assert values(folder / "out/m.safetensors") == NEW
        finally:
            subprocess.run(["umount", str(folder / "out")], check=True)


class TestMany:
    def test_many_shards_need_few_descriptors(self, tmp_path: Path) -> None:
        tensors = {f"source/{number}": struct.pack("<f", number) for number in range(600)}
        (tmp_path / "in.safetensors").write_bytes(safetensors(tensors))
        with_recipe(tmp_path, {**shards("4B"), "path": "many"})
        few = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))}
        command = [sys.executable, "-m", "surgery", "run", "recipe.json"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, **few)
        with_recipe(tmp_path, *({**shards("4B"), "path": f"again-{number}"} for number in range(3)), source="many")
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, **few)
        assert len(list((tmp_path / "again-2").iterdir())) == 602  # with the index and the manifest
        assert values(tmp_path / "again-2") == {key.replace("source", "new"): data for key, data in tensors.items()}

    def test_two_saves_into_one_folder_are_both_in_its_state_file(self, tmp_path: Path, surgery: Surgery) -> None:
        with_recipe(tmp_path, {"path": "out/m-1", "format": "tf"}, {"path": "out/m-2", "format": "tf"})
        assert surgery.run(tmp_path, "run", "recipe.json").code == 0
        assert (tmp_path / "out" / "checkpoint").read_text() == (
            'model_checkpoint_path: "m-2"\nall_model_checkpoint_paths: "m-1"\nall_model_checkpoint_paths: "m-2"\n'
        )

    def test_a_second_run_on_one_output_is_refused_while_the_first_goes_on(self, folder: Path, surgery: Surgery) -> None:
        with Staging.open(str(folder / "out"), "m.safetensors"):
            outcome = surgery.run(folder, "run", "recipe.json")
        assert (outcome.code, faults_told(outcome)) == (1, 1)
        assert "error[locked]: another run is writing out/m.safetensors\n" in outcome.text
        assert surgery.run(folder, "run", "recipe.json").code == 0

    def test_racing_runs_on_one_output_leave_one_whole_result(self, tmp_path: Path) -> None:
        with_recipe(tmp_path, shards("30KB"))
        command = [sys.executable, "-m", "surgery", "run", "recipe.json", "--force"]
        runs = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(4)]
        ends = [(run.communicate()[1], run.returncode) for run in runs]
        assert ("", 0) in ends
        assert all(code == 0 or (code == 1 and text.startswith("error[locked]: ")) for text, code in ends), ends
        assert values(tmp_path / "out") == NEW
        assert not list((tmp_path / "out").glob(".*"))

    def test_threads_of_one_process_run_plans_side_by_side(self, tmp_path: Path) -> None:
        source = tmp_path / "in.safetensors"
        source.write_bytes(safetensors(SOURCE | {"source/counts": np.arange(5000, dtype="<f4").tobytes()}))
        faults: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(5):
                    save = {"path": f"{tmp_path}/out/{number}-{turn}", "format": ("tf", "npz", "safetensors")[turn % 3]}
                    text = recipe(str(source), [RENAME, {"cast": {"keys": "new/counts", "dtype": "float64"}}], [save])
                    package.plan(Source(text, f"{number}"), jobs=2).run()
            except BaseException as fault:
                faults.append(fault)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        expected = NEW | {"new/counts": np.arange(5000, dtype="<f8").tobytes()}
        assert all(values(tmp_path / "out" / f"{number}-{turn}") == expected for number in range(6) for turn in range(5))
        assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]

    def test_shards_that_a_killed_run_had_committed_are_replaced_like_others(self, tmp_path: Path, surgery: Surgery) -> None:
        with_recipe(tmp_path, shards("100KB"))
        committed = surgery.run(tmp_path, "run", "recipe.json", "--jobs", "1").calls.index("rename")
        for path in (tmp_path / "out").iterdir():
            path.unlink()
        assert surgery.run(tmp_path, "run", "recipe.json", "--jobs", "1", fault=Fault("before", committed)).code == -9
        with_recipe(tmp_path, shards("10KB"))
        assert surgery.run(tmp_path, "run", "recipe.json", "--force").code == 0
        found = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert found == [*(f"model-{number:05}-of-00006.safetensors" for number in range(1, 7)), "model.safetensors.index.json", "surgery.json"]

    def test_the_input_is_replaced_after_all_other_outputs(self, tmp_path: Path, surgery: Surgery) -> None:
        with_recipe(tmp_path, {"path": "in.safetensors", "overwrite": "replace"}, {"path": "other.npz"})
        first = surgery.run(tmp_path, "run", "recipe.json", "--force").calls.index("rename") + 1
        for path in (tmp_path / "other.npz", *tmp_path.glob("*.surgery.json")):
            path.unlink()
        (tmp_path / "in.safetensors").write_bytes(safetensors(SOURCE))
        assert surgery.run(tmp_path, "run", "recipe.json", "--force", fault=Fault("after", first)).code == -9
        assert (values(tmp_path / "in.safetensors"), values(tmp_path / "other.npz")) == (SOURCE, NEW)

    def test_a_file_called_checkpoint_beside_a_save_that_updates_it_is_a_conflict(self, tmp_path: Path, surgery: Surgery) -> None:
        bundle, file = {"path": "out/m", "format": "tf"}, {"path": "out/checkpoint", "format": "npz"}
        for saves in ([bundle, file], [file, bundle]):
            with_recipe(tmp_path, *saves)
            outcome = surgery.run(tmp_path, "plan", "recipe.json")
            assert (outcome.code, faults_told(outcome)) == (1, 1)
            assert f"error[path-conflict]: `{saves[1]['path']}` and `{saves[0]['path']}` would both write `out/checkpoint`\n" in outcome.text


class TestBetweenPlanAndRun:
    @pytest.mark.parametrize("save", [{"path": "out/m.safetensors"}, {"path": "out/m", "format": "tf"}, shards("70KB"), shards("1MB")])
    def test_a_plan_writes_its_output_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: dict[str, Any]) -> None:
        monkeypatch.chdir(with_recipe(tmp_path, save))
        plan = package.plan("recipe.json")
        plan.run()
        before = snapshot(tmp_path)
        with pytest.raises(PlanError) as caught:
            plan.run()
        assert (caught.value.code, caught.value.title) == ("output-exists", f"the output `{save['path']}` exists")
        assert caught.value.where is not None
        assert snapshot(tmp_path) == before

    def test_an_output_that_appears_while_the_run_works_is_kept(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        flush = files.fsync_file

        def flush_late(path: str) -> None:
            Path("out/m.safetensors").write_bytes(b"by hand")
            flush(path)

        monkeypatch.setattr(files, "fsync_file", flush_late)
        with pytest.raises(PlanError) as caught:
            package.plan("recipe.json").run()
        assert caught.value.notes == ("found out/m.safetensors",)
        assert {name for name in snapshot(folder) if name.startswith("out/")} == {"out/m.safetensors"}
        assert (folder / "out" / "m.safetensors").read_bytes() == b"by hand"

    def test_shards_of_another_number_that_appeared_are_not_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(with_recipe(tmp_path, shards("70KB")))
        plan = package.plan("recipe.json")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "model-00001-of-00009.safetensors").write_bytes(b"by hand")
        with pytest.raises(PlanError, match=r"the output `out` exists"):
            plan.run()
        assert os.listdir(tmp_path / "out") == ["model-00001-of-00009.safetensors"]

    @pytest.mark.parametrize("how", ["overwrite", "force"])
    def test_who_may_replace_may_run_a_plan_twice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
        monkeypatch.chdir(with_recipe(tmp_path, {"path": "m.npz"} | ({"overwrite": "replace"} if how == "overwrite" else {})))
        plan = package.plan("recipe.json", force=how == "force")
        plan.run()
        plan.run()
        assert values(tmp_path / "m.npz") == NEW

    @pytest.mark.parametrize(
        ("source", "index"), [(shards("70KB"), "out/model.safetensors.index.json"), ({"path": "out/m", "format": "tf"}, "out/m.index")]
    )
    def test_an_index_that_changed_makes_the_plan_stale(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surgery: Surgery, source: dict[str, Any], index: str
    ) -> None:
        with_recipe(tmp_path, source)
        assert surgery.run(tmp_path, "run", "recipe.json").code == 0
        monkeypatch.chdir(with_recipe(tmp_path, {"path": "again.npz"}, source=source["path"]))
        plan = package.plan("recipe.json")
        data = (tmp_path / index).read_bytes()
        (tmp_path / index).write_bytes(data + b" ")
        with pytest.raises(StaleSource) as caught:
            plan.run()
        assert caught.value.title == f"{index} changed after the plan was made"
        assert caught.value.notes == (f"plan saw {len(data):,} bytes, now {len(data) + 1:,}",)
        assert not (tmp_path / "again.npz").exists()


class TestRoom:
    """Each output has 131,072 bytes of tensors and a header of less than 4 KiB."""

    SAVES = tuple({"path": f"{name}/m.safetensors"} for name in "abc")

    @pytest.fixture
    def narrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(files, "free_bytes", lambda folder: 300_000)
        monkeypatch.setattr(files, "shares_blocks", lambda folder: False)
        return tmp_path

    def test_outputs_in_several_folders_of_one_file_system_share_its_room(self, narrow: Path) -> None:
        with_recipe(narrow, *self.SAVES[:2])
        package.plan("recipe.json")
        with_recipe(narrow, *self.SAVES)
        with pytest.raises(PlanError, match=r"`c` has room for 293\.0 KiB, 38\d\.\d KiB are needed") as caught:
            package.plan("recipe.json")
        assert caught.value.code == "disk-full"

    def test_copies_within_a_file_system_that_shares_blocks_need_none(self, narrow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with_recipe(narrow, *self.SAVES)
        monkeypatch.setattr(files, "shares_blocks", lambda folder: True)
        package.plan("recipe.json")
        monkeypatch.setattr(files, "device_of", lambda folder: 0)
        with pytest.raises(PlanError, match=r"are needed"):
            package.plan("recipe.json")

    def test_computed_tensors_need_room_also_where_blocks_are_shared(self, narrow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "shares_blocks", lambda folder: True)
        source = {"source/x": bytes(131_072)}
        (narrow / "in.safetensors").write_bytes(safetensors(source))
        made = {"init_missing": {"variables": {"made": {"shape": [65_536]}}, "init": "zeros"}}
        (narrow / "recipe.json").write_text(recipe("in.safetensors", [made], [*self.SAVES]))
        with pytest.raises(PlanError, match=r"`b` has room for 293\.0 KiB, 5[12]\d\.\d KiB are needed"):
            package.plan("recipe.json")

    def test_what_dead_runs_left_counts_once_for_each_folder(self, narrow: Path) -> None:
        for name in "ab":
            (narrow / name / ".dead.surgery").mkdir(parents=True)
            (narrow / name / ".dead.surgery" / "m").write_bytes(bytes(65_536))
        with_recipe(narrow, *self.SAVES)
        package.plan("recipe.json")
        (narrow / "b" / ".dead.surgery" / "m").unlink()
        with pytest.raises(PlanError, match=r"`c` has room for 357\.0 KiB, "):
            package.plan("recipe.json")


class TestStateFile:
    PICKLE = b"PK\x03\x04 a checkpoint of another program"

    @pytest.fixture
    def occupied(self, tmp_path: Path) -> Path:
        (tmp_path / "ck").mkdir()
        (tmp_path / "ck" / "checkpoint").write_bytes(self.PICKLE)
        return tmp_path

    def test_a_file_that_is_no_state_file_is_not_replaced(self, occupied: Path, surgery: Surgery) -> None:
        with_recipe(occupied, {"path": "ck/m", "format": "tf"})
        for command in ("plan", "run"):
            outcome = surgery.run(occupied, command, "recipe.json")
            assert (outcome.code, faults_told(outcome)) == (1, 1)
            assert "error[output-exists]: the output `ck/m` would replace `ck/checkpoint`, which is something else\n" in outcome.text
        assert os.listdir(occupied / "ck") == ["checkpoint"]

    def test_one_that_appeared_after_the_plan_is_not_replaced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(with_recipe(tmp_path, {"path": "ck/m", "format": "tf"}))
        plan = package.plan("recipe.json")
        (tmp_path / "ck").mkdir()
        (tmp_path / "ck" / "checkpoint").write_bytes(self.PICKLE)
        with pytest.raises(PlanError, match=r"which is something else"):
            plan.run()
        assert snapshot(tmp_path / "ck") == {"checkpoint": self.PICKLE}

    @pytest.mark.parametrize(("fields", "kept"), [({"latest": False}, True), ({"overwrite": "replace"}, False)])
    def test_it_stays_without_latest_and_goes_with_permission(self, occupied: Path, surgery: Surgery, fields: dict[str, Any], kept: bool) -> None:
        with_recipe(occupied, {"path": "ck/m", "format": "tf"} | fields)
        assert surgery.run(occupied, "run", "recipe.json").code == 0
        told = b'model_checkpoint_path: "m"\nall_model_checkpoint_paths: "m"\n'
        assert (occupied / "ck" / "checkpoint").read_bytes() == (self.PICKLE if kept else told)

    def test_an_empty_state_file_holds_nothing_to_lose(self, tmp_path: Path, surgery: Surgery) -> None:
        with_recipe(tmp_path, {"path": "m", "format": "tf"})
        (tmp_path / "checkpoint").write_bytes(b"")
        assert surgery.run(tmp_path, "run", "recipe.json").code == 0


def test_a_planted_journal_makes_no_command_touch_a_file(tmp_path: Path, surgery: Surgery) -> None:
    with_recipe(tmp_path, {"path": "m.npz"})
    staged = tmp_path / ".x.surgery"
    staged.mkdir()
    text = json.dumps({"files": ["recipe.json"], "remove": ["in.safetensors"], "replaces_index": [], "folder": [12345, 0]}).encode()
    (staged / ".journal.surgery").write_bytes(text + b"\n%08x\n" % zlib.crc32(text))
    (staged / "recipe.json").write_bytes(b"planted")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for command in (["inspect", "in.safetensors"], ["plan", "recipe.json"], ["run", "recipe.json"]):
        assert surgery.run(tmp_path, *command).code == 0
    assert {path: path.read_bytes() for path in before} == before
