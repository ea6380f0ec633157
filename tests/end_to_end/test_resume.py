"""`--resume`: what a run finished is found again, byte by byte, and what does not fit is done anew; what other runs keep, and what they remove."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import pytest
from scenarios import OLD, SCENARIOS, Stage, faults_told, recipe
from writers import CHANGES, READS, Fault, Surgery, copy, safetensors, snapshot, values

import surgery as package

KILLED = -9
LOG, KEPT = ".tasks.surgery", ".stays.surgery"


@pytest.fixture(scope="module")
def surgery() -> Iterator[Surgery]:
    server = Surgery()
    yield server
    server.close()


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path, surgery: Surgery) -> Stage:
    return Stage(request.param, SCENARIOS[request.param], tmp_path, surgery)


strips = pytest.mark.parametrize("stage", ["computed in strips"], indirect=True)


def killed(stage: Stage, *options: str, action: str = "after") -> Path:
    """A folder in which a run died after its last task: nothing was sealed or committed yet."""
    folder = copy(stage.folder, "killed")
    at = len(stage.calls) - stage.calls[::-1].index("write")
    assert stage.write(folder, Fault(action, at), *options).code == KILLED
    return folder


def staging(folder: Path) -> Path:
    (found,) = (path for path in folder.rglob("*.surgery") if path.is_dir())
    return found


def staged_files(folder: Path) -> list[Path]:
    return sorted(path for path in staging(folder).iterdir() if not path.name.startswith("."))


def resumed(stage: Stage, folder: Path, *options: str) -> bool:
    """Runs again with `--resume`, and tells whether tasks were there already."""
    again = stage.write(folder, None, "--resume", *options)
    assert again.code == 0, again.text
    assert not list(folder.rglob("*.surgery"))
    return "were there already" in again.text


@strips
@pytest.mark.parametrize("options", [[], ["--resume"]], ids=["killed", "killed, to be resumed"])
def test_a_run_goes_on_where_a_killed_one_stopped(stage: Stage, options: list[str]) -> None:
    folder = killed(stage, *options)
    inodes = {path.name: path.stat().st_ino for path in staged_files(folder)}
    assert resumed(stage, folder)
    assert snapshot(folder) == stage.after
    assert {name: (folder / "out" / name).stat().st_ino for name in inodes} == inodes


@strips
def test_it_looks_at_what_was_written_and_computes_only_the_rest(stage: Stage) -> None:
    folder = copy(stage.folder, "half")
    first = stage.calls.index("write")
    second = stage.calls.index("write", first + 1)  # the head of the log, then a task
    assert stage.write(folder, Fault("after", second + 1)).code == KILLED
    again = stage.write(folder, Fault(calls=("pwrite",)), "--resume")
    assert "64.0 KiB were there already" in again.text  # one tensor of three: 16 rows of 512 float64
    assert snapshot(folder) == stage.after


class TestAnotherRunStartsAnew:
    @strips
    def test_where_the_source_changed(self, stage: Stage) -> None:
        folder = killed(stage)
        source = folder / "in.safetensors"
        os.utime(source, ns=(0, source.stat().st_mtime_ns + 1))
        assert not resumed(stage, folder)
        assert values(folder / "out") == stage.scenario.outputs["out"][1]

    @strips
    def test_for_another_recipe(self, stage: Stage) -> None:
        folder = killed(stage)
        (folder / "recipe.json").write_text(stage.scenario.recipe + "\n")
        assert not resumed(stage, folder)
        assert snapshot(folder).keys() == stage.after.keys()

    @strips
    def test_for_another_parameter(self, stage: Stage) -> None:
        text = json.loads(stage.scenario.recipe)
        text |= {"params": {"note": {"type": "string", "default": "a"}}}
        (stage.folder / "recipe.json").write_text(json.dumps(text))
        assert not resumed(stage, killed(stage), "-p", "note=b")
        assert resumed(stage, killed(stage), "-p", "note=a")

    @strips
    def test_with_another_memory(self, stage: Stage) -> None:
        assert not resumed(stage, killed(stage, "--memory", "64MiB"), "--memory", "65MiB")
        assert resumed(stage, killed(stage, "--memory", "64MiB"), "--memory", "64MiB")

    @strips
    def test_and_removes_what_it_does_not_need(self, stage: Stage) -> None:
        folder = killed(stage, "--resume")
        (staging(folder) / "model-00009-of-00009.safetensors").write_bytes(b"of an older plan")
        assert resumed(stage, folder)
        assert snapshot(folder) == stage.after


class TestDamage:
    @pytest.mark.parametrize("stage", ["computed in strips", "computed in tiles", "fewer shards to more"], indirect=True)
    def test_a_byte_that_changed_in_a_staged_file_is_noticed(self, stage: Stage) -> None:
        dice = random.Random(stage.name)
        for _ in range(12):
            folder = killed(stage)
            path = dice.choice([path for path in staged_files(folder) if path.stat().st_size > 5000])
            with path.open("r+b") as file:
                file.seek(dice.randrange(4096, path.stat().st_size))
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 1 << dice.randrange(8)]))
            resumed(stage, folder)
            assert snapshot(folder) == stage.after

    def test_what_an_unfinished_task_wrote_is_taken_back(self, tmp_path: Path, surgery: Surgery) -> None:
        """The second shard is all zeros, which a copy leaves as a hole; what stood there must not show through."""
        tensors = {"a": random.Random(0).randbytes(1 << 17), "b": bytes(1 << 17)}
        source = tmp_path / "in.safetensors"
        whole = safetensors(tensors)
        with source.open("wb") as file:
            file.write(whole[: -(1 << 17)])
            file.truncate(len(whole))
        (tmp_path / "recipe.json").write_text(recipe("in.safetensors", [], [{"path": "out", "format": "safetensors", "shard_size": "130KB"}]))
        run = ("run", "recipe.json", "--jobs", "1")
        calls = surgery.run(copy(tmp_path, f"../{tmp_path.name}-counted"), *run).calls
        first_task = calls.index("write", calls.index("write") + 1) + 1
        assert surgery.run(tmp_path, *run, fault=Fault("after", first_task)).code == KILLED
        last = staged_files(tmp_path)[1]
        with last.open("r+b") as file:
            file.seek(-5000, os.SEEK_END)
            file.write(b"garbage")
        again = surgery.run(tmp_path, *run, "--resume")
        assert "were there already" in again.text
        assert values(tmp_path / "out") == tensors

    @strips
    @pytest.mark.parametrize(
        ("change", "goes_on"),
        [
            (lambda log: log[:-3], True),
            (lambda log: log + b"0000", True),
            (lambda log: log[: log.index(b"\n") + 1], False),
            (lambda log: log[3:], False),
            (lambda log: b"", False),
            (lambda log: b"\xff\0" * 99 + log, False),
        ],
        ids=["torn", "begun", "no tasks", "torn head", "empty", "garbage"],
    )
    def test_of_a_damaged_log_the_whole_lines_count(self, stage: Stage, change: Callable[[bytes], bytes], goes_on: bool) -> None:
        folder = killed(stage)
        log = staging(folder) / LOG
        log.write_bytes(change(log.read_bytes()))
        assert resumed(stage, folder) is goes_on
        assert snapshot(folder) == stage.after

    @strips
    def test_a_log_of_another_version_counts_as_none(self, stage: Stage) -> None:
        folder = killed(stage)
        log = staging(folder) / LOG
        head, *tasks = log.read_bytes().splitlines()
        fields = json.loads(head.partition(b" ")[2])
        text = json.dumps(fields | {"form": fields["form"] + 1}, separators=(",", ":")).encode()
        log.write_bytes(b"\n".join([b"%08x %s" % (crc32(text), text), *tasks, b""]))
        assert not resumed(stage, folder)
        assert snapshot(folder) == stage.after

    @strips
    @pytest.mark.parametrize("task", [[], [0], [0, 1, 2, 3, 4], ["0", [], [], 0, None], [99, [], [], 0, None], [-1, [], [], 0, None]])
    def test_a_line_with_other_fields_is_no_task(self, stage: Stage, task: list[object]) -> None:
        folder = killed(stage)
        log = staging(folder) / LOG
        text = json.dumps(task).encode()
        log.write_bytes(log.read_bytes().splitlines()[0] + b"\n%08x %s\n" % (crc32(text), text))
        assert not resumed(stage, folder)
        assert snapshot(folder) == stage.after

    @strips
    def test_a_staged_file_that_is_gone_or_of_another_size_starts_anew(self, stage: Stage) -> None:
        for change in (Path.unlink, lambda path: os.truncate(path, 9), lambda path: (path.unlink(), path.symlink_to("/dev/null"))):
            folder = killed(stage)
            change(staged_files(folder)[0])
            assert not resumed(stage, folder)
            assert snapshot(folder) == stage.after


class TestFullDisks:
    @strips
    @pytest.mark.parametrize("name", ["pwrite", "write", "ftruncate", "fsync"])
    def test_a_run_goes_on_when_there_is_room_again(self, stage: Stage, name: str) -> None:
        count = stage.calls.count(name)
        for at in range(1, count + 1):
            folder = copy(stage.folder, "full")
            full = stage.write(folder, Fault("refuse-on", at, errno.ENOSPC, (name,)), "--resume")
            assert (full.code, faults_told(full)) == (1, 1), full.text
            assert "error[disk-full]" in full.text
            finished = any(path.read_bytes().count(b"\n") > 1 for path in folder.rglob(LOG))
            committed = any(folder.rglob(".journal.surgery")) or stage.outcome(folder) == "new"
            assert resumed(stage, folder) == (finished and not committed), (name, at)
            assert snapshot(folder) == stage.after

    @pytest.mark.parametrize("stage", ["fewer shards to more", "computed in strips"], indirect=True)
    def test_whatever_call_a_resumed_run_is_refused_the_next_one_goes_on(self, stage: Stage) -> None:
        counted = (*CHANGES, *READS, "listdir", "lstat", "fstat", "lseek")
        calls = stage.write(killed(stage), Fault(calls=counted), "--resume").calls
        for at in range(1, len(calls) + 1, 7):
            folder = killed(stage, "--resume")
            refused = stage.write(folder, Fault("refuse", at, errno.EIO, counted), "--resume")
            if refused.code:
                assert faults_told(refused) == 1, (at, refused.text)
                stays = any(not path.name.startswith(".") for path in folder.rglob("*.surgery/*"))
                assert stays or stage.read(folder).code == 0, (at, calls[at - 1], refused.text)
                assert stage.write(folder, None, "--resume").code == 0, at
            assert snapshot(folder) == stage.after, (at, calls[at - 1])


class TestWhatStays:
    @strips
    def test_a_run_without_resume_removes_it(self, stage: Stage) -> None:
        folder = killed(stage, "--resume")
        again = stage.write(folder)
        assert "were there already" not in again.text
        assert snapshot(folder) == stage.after

    @strips
    def test_a_run_without_resume_that_fails_leaves_nothing(self, stage: Stage) -> None:
        folder = killed(stage, "--resume")
        assert stage.write(folder, Fault("refuse-on", 1, errno.EIO, ("copy_file_range", "pwrite"))).code == 1
        assert stage.outcome(folder) == "old"
        assert not list(folder.rglob("*.surgery"))

    @strips
    @pytest.mark.parametrize(("options", "stays"), [(["--resume"], True), ([], False)], ids=["to be resumed", "dead"])
    def test_another_output_in_its_folder(self, stage: Stage, options: list[str], stays: bool) -> None:
        folder = killed(stage, *options)
        for word in ([], ["--resume"]):
            (folder / "other.safetensors").write_bytes(safetensors(OLD))
            (folder / "other.json").write_text(recipe("other.safetensors", [], [{"path": "out/other.npz", "overwrite": "replace"}]))
            assert stage.surgery.run(folder, "run", "other.json", "--force", *word).code == 0
            for path in (*folder.glob("other.*"), *folder.glob("out/other.*")):
                path.unlink()
            assert bool(list(folder.rglob("*.surgery"))) == stays
        assert resumed(stage, folder) == stays

    @pytest.mark.parametrize("stage", ["two saves"], indirect=True)
    def test_of_two_outputs_in_one_folder_both_are_found_again(self, stage: Stage) -> None:
        folder = killed(stage)
        again = stage.write(folder, None, "--resume")
        assert "256.0 KiB were there already" in again.text
        assert snapshot(folder) == stage.after

    @strips
    def test_it_is_not_taken_for_room_that_another_output_gets(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = killed(stage, "--resume")
        staged = sum(path.stat().st_blocks * 512 for path in staging(folder).iterdir())
        assert staged > 128 << 10
        monkeypatch.chdir(folder)
        monkeypatch.setattr("surgery.files.free_bytes", lambda path: 100 << 10)
        Path("other.json").write_text(recipe("in.safetensors", [], [{"path": "out/other.npz"}, {"path": "out/another.npz"}]))
        with pytest.raises(package.PlanError, match=r"(?m)`out` has room for 100\.0 KiB, 193\.5 KiB are needed$"):
            package.plan("other.json")
        assert package.plan("recipe.json").nbytes > 128 << 10  # of its own room the run can count on what it staged
        (staging(folder) / KEPT).unlink()
        assert package.plan("other.json").nbytes == 192 << 10  # and of a dead run's, everybody
