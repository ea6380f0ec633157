"""Whole runs into and out of places that are odd, full, forbidden, crowded, or in use by somebody else."""

from __future__ import annotations

import os
import resource
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scenarios import NEW, OLD, RENAME, SOURCE, faults_told, recipe, shards, with_recipe
from writers import Fault, Surgery, safetensors, snapshot, values

import surgery as package
from surgery.api import Source
from surgery.commit import Staging


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
import surgery.commit, surgery.execute
assert main(["plan", "recipe.json"]) == 0
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
sys.exit(main(["run", "recipe.json"]))
"""


class TestPlaces:
    def test_missing_folders_are_made(self, tmp_path: Path, surgery: Surgery) -> None:
        with_recipe(tmp_path, {"path": "a/b/c/m.safetensors"})
        assert surgery.run(tmp_path, "run", "recipe.json").code == 0
        assert values(tmp_path / "a/b/c/m.safetensors") == NEW

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

    @pytest.mark.parametrize("name", ["with space", "ünï", "new\nline", "$HOME", "-n", "*", "[a]", "%s{}", "~", "'\"", ".hidden", "x.surgery"])
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
    def test_two_thousand_shards_need_few_descriptors(self, tmp_path: Path) -> None:
        tensors = {f"source/{number}": struct.pack("<f", number) for number in range(2000)}
        (tmp_path / "in.safetensors").write_bytes(safetensors(tensors))
        with_recipe(tmp_path, {**shards("4B"), "path": "many"})
        few = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))}
        command = [sys.executable, "-m", "surgery", "run", "recipe.json"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, **few)
        with_recipe(tmp_path, *({**shards("4B"), "path": f"again-{number}"} for number in range(3)), source="many")
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, **few)
        assert len(list((tmp_path / "again-2").iterdir())) == 2001
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
        assert found == [*(f"model-{number:05}-of-00006.safetensors" for number in range(1, 7)), "model.safetensors.index.json"]

    def test_the_input_is_replaced_after_all_other_outputs(self, tmp_path: Path, surgery: Surgery) -> None:
        with_recipe(tmp_path, {"path": "in.safetensors", "overwrite": "replace"}, {"path": "other.npz"})
        first = surgery.run(tmp_path, "run", "recipe.json", "--force").calls.index("rename") + 1
        (tmp_path / "other.npz").unlink()
        (tmp_path / "in.safetensors").write_bytes(safetensors(SOURCE))
        assert surgery.run(tmp_path, "run", "recipe.json", "--force", fault=Fault("after", first)).code == -9
        assert (values(tmp_path / "in.safetensors"), values(tmp_path / "other.npz")) == (SOURCE, NEW)
