"""The commit protocol: wholly old or wholly new, wherever a process dies, and never two writers at once."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from surgery import commit, files
from surgery.commit import Staging, clean, recover
from surgery.errors import ApplyError

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Scenario(NamedTuple):
    """What a folder has (`old`), what is committed over it (`new`, index last), and what has to go."""

    old: dict[str, bytes]
    new: dict[str, bytes]
    remove: tuple[str, ...] = ()
    replaces_index: tuple[str, ...] = ()

    @property
    def result(self) -> dict[str, bytes]:
        gone = self.remove + self.replaces_index
        return {name: data for name, data in self.old.items() if name not in gone} | self.new


BYSTANDER = {"readme": b"keep me"}
OLD = {"m-1-of-2": b"old 1", "m-2-of-2": b"old 2", "m.index": b"old index"} | BYSTANDER
SCENARIOS = {
    "new single file": Scenario({}, {"m.npz": b"new"}),
    "replaced single file": Scenario({"m.npz": b"old"} | BYSTANDER, {"m.npz": b"new"}),
    "new set": Scenario(BYSTANDER, {"m-1-of-2": b"new 1", "m-2-of-2": b"new 2", "m.index": b"new index"}),
    "same names": Scenario(OLD, {"m-1-of-2": b"new 1", "m-2-of-2": b"new 2", "m.index": b"new index"}),
    "stale removals": Scenario(OLD, {"m-1-of-1": b"new 1", "m.index": b"new index"}, remove=("m-1-of-2", "m-2-of-2", "never-there")),
    "index of another name": Scenario(OLD, {"m-1-of-2": b"new 1", "m-2-of-2": b"new 2", "m.json": b"new index"}, replaces_index=("m.index",)),
}
scenarios = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())


def fill(folder: Path, content: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)


def content(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, so that what is left over shows."""
    return {path.name: path.read_bytes() if path.is_file() else b"(folder)" for path in folder.iterdir()} if folder.exists() else {}


def visible(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in content(folder).items() if not name.endswith(".surgery")}


def write(folder: Path, scenario: Scenario) -> None:
    with Staging.open(str(folder), "m") as staging:
        for name, data in scenario.new.items():
            staging.create(name, len(data))
            staging.write(name, 0, data)
        staging.commit(list(scenario.new), scenario.remove, scenario.replaces_index)


def stage_and_fail(folder: Path, scenario: Scenario, error: type[BaseException]) -> None:
    with Staging.open(str(folder), "m") as staging:
        for name in scenario.new:
            staging.create(name, 10)
            assert visible(folder) == scenario.old
        raise error


EVENTS = ("open", "close", "mkdir", "rmdir", "rename", "unlink", "ftruncate", "pwrite", "fsync")


def dies_at(event: int, action: Callable[[], object], *, torn: bool = False) -> bool:
    """Run `action` in a child that is gone right after its n-th call to storage (or, `torn`, in the middle of a write); False if it lived."""
    child = os.fork()
    if child == 0:
        try:
            count_events(event, torn)
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def count_events(last: int, torn: bool) -> None:
    left = last
    lock = threading.Lock()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **options: Any) -> Any:
            nonlocal left
            with lock:
                left -= 1
                if left == 0 and torn and name == "pwrite":
                    descriptor, data, offset = args
                    call(descriptor, data[: len(data) // 2], offset)
                    os._exit(9)
                result = None if name == "fsync" else call(*args, **options)
                if left == 0:
                    os._exit(9)
                return result

        return counting

    for name in EVENTS:
        setattr(os, name, counted(name, getattr(os, name)))
    fcntl.flock = counted("flock", fcntl.flock)


@scenarios
@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_commit_is_wholly_old_or_wholly_new(tmp_path: Path, scenario: Scenario, torn: bool) -> None:
    outcomes = []
    for event in range(1, 1000):
        folder = tmp_path / str(event)
        if scenario.old:
            fill(folder, scenario.old)
        died = dies_at(event, lambda folder=folder: write(folder, scenario), torn=torn)  # type: ignore[misc]
        seen = visible(folder)
        finished = recover(str(folder))
        clean(str(folder))
        after = content(folder)
        assert after in (scenario.old, scenario.result), event
        assert finished in ([], [f"{folder}/{list(scenario.new)[-1]}"])
        assert finished or seen == after, event  # before the commit point and after the end nothing is half there
        assert_not_mixed(seen, scenario)
        outcomes.append(after == scenario.result)
        if not died:
            break
    assert outcomes == sorted(outcomes)  # old up to the commit point, new from there on
    assert [outcomes[0], outcomes[-1]] == [False, True]
    assert len(outcomes) > 20


class TestManifest:
    """The file that tells of the others: with them in a set, right after a single one, never before it."""

    SET = {"m-1-of-2": b"new 1", "m-2-of-2": b"new 2", "m.index": b"new index"}

    def write(self, folder: Path, new: dict[str, bytes], told: bytes | None) -> None:
        with Staging.open(str(folder), "m") as staging:
            for name, data in ({**new, "m.json": told} if told else new).items():
                staging.create(name)
                staging.write(name, 0, data)
            staging.commit(list(new), manifest="m.json")

    @pytest.mark.parametrize("told", [b"new manifest", None])
    @pytest.mark.parametrize("old", [{}, {"m.npz": b"old", "m.json": b"old manifest"}], ids=["new", "replaced"])
    def test_of_a_single_file_it_lags_behind_and_never_runs_ahead(self, tmp_path: Path, old: dict[str, bytes], told: bytes | None) -> None:
        states: list[dict[str, bytes]] = []
        for event in range(1, 100):
            folder = tmp_path / str(event)
            fill(folder, old)
            died = dies_at(event, lambda folder=folder: self.write(folder, {"m.npz": b"new"}, told))  # type: ignore[misc]
            assert recover(str(folder)) == []  # one change of names: no journal
            clean(str(folder))
            states += [content(folder)] if content(folder) not in states[-1:] else []
            if not died:
                break
        lagging = {"m.npz": b"new"} | {name: data for name, data in old.items() if name == "m.json"}
        last = {"m.npz": b"new"} | ({"m.json": told} if told else {})
        assert states == [old, *([lagging] if lagging != last else []), last]

    @pytest.mark.parametrize("told", [b"new manifest", None])
    def test_of_a_set_it_is_as_old_as_the_set(self, tmp_path: Path, told: bytes | None) -> None:
        old = OLD | {"m.json": b"old manifest"}
        new = BYSTANDER | self.SET | ({"m.json": told} if told else {})
        outcomes = []
        for event in range(1, 1000):
            folder = tmp_path / str(event)
            fill(folder, old)
            died = dies_at(event, lambda folder=folder: self.write(folder, self.SET, told))  # type: ignore[misc]
            recover(str(folder))
            clean(str(folder))
            assert content(folder) in (old, new), event
            outcomes.append(content(folder) == new)
            if not died:
                break
        assert outcomes == sorted(outcomes)
        assert [outcomes[0], outcomes[-1]] == [False, True]

    def test_a_folder_by_its_name_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "m.json").mkdir()
        with pytest.raises(ApplyError) as caught:
            self.write(tmp_path, {"m.npz": b"new"}, b"told")
        assert caught.value.code == "folder-in-the-way"
        assert content(tmp_path) == {"m.json": b"(folder)"}


def assert_not_mixed(seen: dict[str, bytes], scenario: Scenario) -> None:
    """Where an index can be seen, it stands beside its own data."""
    index = list(scenario.new)[-1]
    if seen.get(index) == scenario.new[index]:
        assert {name: seen[name] for name in scenario.new} == scenario.new
    elif "m.index" in seen:  # not the new one: the old
        assert {name: seen[name] for name in scenario.old} == scenario.old


def test_a_killed_recovery_is_finished_by_the_next_one(tmp_path: Path) -> None:
    scenario = SCENARIOS["stale removals"]
    journaled = [folder for event in range(1, 50) if (folder := killed_with_journal(tmp_path / str(event), event, scenario))]
    assert len(journaled) > 8
    for killed in journaled:
        expected = recovered(shutil.copytree(killed, f"{killed}-at-once"))
        for event in range(1, 50):
            folder = shutil.copytree(killed, Path(f"{killed}-{event}"))
            died = dies_at(event, lambda folder=folder: recover(str(folder)))  # type: ignore[misc]
            assert_not_mixed(visible(folder), scenario)
            assert recovered(folder) == expected, folder
            if not died:
                break


def killed_with_journal(folder: Path, event: int, scenario: Scenario) -> Path | None:
    fill(folder, scenario.old)
    dies_at(event, lambda: write(folder, scenario))
    return folder if (folder / ".m.surgery" / ".journal.surgery").exists() else None


def recovered(folder: Path | str) -> dict[str, bytes]:
    recover(str(folder))
    clean(str(folder))
    return content(Path(folder))


class TestOneRun:
    @scenarios
    def test_puts_the_new_files_in_place_and_leaves_nothing_else(self, tmp_path: Path, scenario: Scenario) -> None:
        fill(tmp_path / "out", scenario.old)
        write(tmp_path / "out", scenario)
        assert content(tmp_path / "out") == scenario.result

    @scenarios
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_a_fault_while_staging_leaves_the_folder_as_it_was(self, tmp_path: Path, scenario: Scenario, error: type[BaseException]) -> None:
        fill(tmp_path / "out", scenario.old)
        with pytest.raises(error):
            stage_and_fail(tmp_path / "out", scenario, error)
        assert content(tmp_path / "out") == scenario.old

    def test_an_interrupt_behind_the_commit_point_is_obeyed_after_the_commit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        scenario = SCENARIOS["same names"]
        fill(tmp_path / "out", scenario.old)
        rename = files.rename
        calls: list[str] = []

        def interrupted(source: str, target: str) -> None:
            calls.append(target)
            if len(calls) == 2:
                raise KeyboardInterrupt
            rename(source, target)

        monkeypatch.setattr(files, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "out", scenario)
        assert content(tmp_path / "out") == scenario.result

    @pytest.mark.parametrize(
        ("call", "code"), [("create_file", errno.ENOSPC), ("write_at", errno.EDQUOT), ("fsync_file", errno.EIO), ("write_file", errno.ENOSPC)]
    )
    def test_a_full_or_failing_disk_leaves_the_folder_as_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
        scenario = SCENARIOS["same names"]
        fill(tmp_path / "out", scenario.old)

        def fail(*_: object, **__: object) -> None:
            raise files.os_fault(OSError(code, os.strerror(code)), "m-1-of-2", "write")

        monkeypatch.setattr(files, call, fail)
        with pytest.raises(ApplyError, match=r"cannot write m-1-of-2"):
            write(tmp_path / "out", scenario)
        assert content(tmp_path / "out") == scenario.old

    def test_a_fault_behind_the_commit_point_is_finished_by_the_next_command(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        scenario = SCENARIOS["same names"]
        fill(tmp_path / "out", scenario.old)

        def fail(source: str, target: str) -> None:
            raise files.os_fault(OSError(errno.EIO, "Input/output error"), target, "write")

        with monkeypatch.context() as patched:
            patched.setattr(files, "rename", fail)
            with pytest.raises(ApplyError, match=r"input/output error"):
                write(tmp_path / "out", scenario)
        assert recover(str(tmp_path / "out")) == [f"{tmp_path}/out/m.index"]
        assert content(tmp_path / "out") == scenario.result

    def test_storage_is_changed_in_the_order_that_survives_a_power_cut(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fill(tmp_path / "out", OLD)
        trace: list[str] = []

        def traced(name: str) -> Callable[..., Any]:
            call = getattr(files, name)

            def tracing(path: str, *args: Any, **options: Any) -> Any:
                trace.append(f"{name} {os.path.relpath(path, tmp_path)}")
                return call(path, *args, **options)

            return tracing

        with Staging.open(f"{tmp_path}/out", "m") as staging:
            for name in ("m-1-of-1", "m.index"):
                staging.create(name)
            monkeypatch.setattr(commit, "_FLUSHERS", 1)
            for name in ("fsync_file", "fsync_folder", "write_file", "rename", "unlink", "remove_tree"):
                monkeypatch.setattr(files, name, traced(name))
            staging.commit(["m-1-of-1", "m.index"], ["m-1-of-2", "m-2-of-2"])
        assert trace == [
            "fsync_file out/.m.surgery/m-1-of-1",
            "fsync_file out/.m.surgery/m.index",
            "write_file out/.m.surgery/.journal.surgery",
            "fsync_folder out/.m.surgery",
            "fsync_folder out",
            "unlink out/m.index",
            "rename out/.m.surgery/m-1-of-1",
            "rename out/.m.surgery/m.index",
            "unlink out/m-1-of-2",
            "unlink out/m-2-of-2",
            "fsync_folder out",
            "unlink out/.m.surgery/.journal.surgery",
            "fsync_folder out/.m.surgery",
            "remove_tree out/.m.surgery",
        ]

    @pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
    def test_outputs_have_the_mode_the_umask_wants_also_in_place_of_older_ones(self, tmp_path: Path, umask: int, mode: int) -> None:
        fill(tmp_path / "out", OLD)
        (tmp_path / "out" / "m.index").chmod(0o400)
        before = os.umask(umask)
        try:
            write(tmp_path / "out", SCENARIOS["same names"])
        finally:
            os.umask(before)
        assert {stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in ("m-1-of-2", "m-2-of-2", "m.index")} == {mode}

    def test_missing_folders_are_made_and_go_again_if_the_run_fails(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError), Staging.open(f"{tmp_path}/a/b/c", "m"):
            raise RuntimeError
        assert content(tmp_path) == {}
        write(tmp_path / "a" / "b" / "c", SCENARIOS["new single file"])
        assert content(tmp_path / "a" / "b" / "c") == {"m.npz": b"new"}

    def test_the_empty_folder_is_the_working_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with Staging.open("", "m.npz") as staging:
            staging.create("m.npz", 3)
            staging.commit(["m.npz"])
        assert content(tmp_path) == {"m.npz": b"\0\0\0"}

    def test_odd_names_work(self, tmp_path: Path) -> None:
        names = ["a b", "new\nline", "ü", os.fsdecode(b"\xff\xfe"), '"quoted"', "index"]
        fill(tmp_path / "out", {"st\nale": b"", "index": b"old"})
        with Staging.open(str(tmp_path / "out"), "ü\n\udcff") as staging:
            for name in names:
                staging.create(name)
            staging.commit(names, ["st\nale"])
        assert sorted(content(tmp_path / "out")) == sorted(names)

    @pytest.mark.parametrize("name", [".", "..", "a/b", "/etc/passwd", "nul\0", ".other.surgery"])
    def test_names_that_are_not_plain_are_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ApplyError, match=r"cannot be the name of an output file"):
            Staging.open(str(tmp_path), name)
        with Staging.open(str(tmp_path), "m") as staging, pytest.raises(ApplyError, match=r"cannot be the name of an output file"):
            staging.create(name)
        assert content(tmp_path) == {}

    def test_a_folder_in_the_way_is_told_before_anything_changes(self, tmp_path: Path) -> None:
        fill(tmp_path / "out", OLD)
        (tmp_path / "out" / "m-1-of-1").mkdir()
        with pytest.raises(ApplyError, match=r"m-1-of-1 is a folder"):
            write(tmp_path / "out", SCENARIOS["stale removals"])
        assert content(tmp_path / "out") == OLD | {"m-1-of-1": b"(folder)"}

    def test_an_output_that_is_the_folder_itself_is_staged_under_no_name(self, tmp_path: Path) -> None:
        with Staging.open(str(tmp_path), "") as whole, Staging.open(str(tmp_path), "out") as inner:
            assert sorted(content(tmp_path)) == [".out.surgery", ".surgery"]
            for staging, name in ((whole, "a"), (inner, "b")):
                staging.create(name)
                staging.commit([name])
        assert content(tmp_path) == {"a": b"", "b": b""}

    @pytest.mark.parametrize(
        ("folder", "path", "name"),
        [
            ("out", "out", ""),
            ("out", "out/", ""),
            (".", ".", ""),
            ("/", "/", ""),
            ("out", "out/out", "out"),
            (".", "m.npz", "m.npz"),
            ("a/", "a//b", "b"),
        ],
    )
    def test_the_staging_folder_is_called_after_the_path(self, folder: str, path: str, name: str) -> None:
        assert commit.staging_name(folder, path) == name

    @pytest.mark.parametrize("scenario", ["new single file", "same names"])
    def test_the_last_look_is_taken_when_all_is_flushed_and_nothing_changed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: str
    ) -> None:
        old, new = SCENARIOS[scenario].old, SCENARIOS[scenario].new
        fill(tmp_path / "out", old)
        flushed: list[str] = []
        monkeypatch.setattr(files, "fsync_file", lambda path: flushed.append(os.path.basename(path)))

        def look() -> None:
            assert (sorted(flushed), visible(tmp_path / "out")) == (sorted(new), old)
            raise ApplyError("somebody was faster")

        with Staging.open(str(tmp_path / "out"), "m") as staging:
            for name in new:
                staging.create(name)
            with pytest.raises(ApplyError, match=r"somebody was faster"):
                staging.commit(list(new), last_look=look)
        assert content(tmp_path / "out") == old

    def test_threads_write_ranges_of_many_files(self, tmp_path: Path) -> None:
        names = [f"m-{n}" for n in range(100)]
        with Staging.open(str(tmp_path), "m") as staging:
            for name in names:
                staging.create(name, 80)

            def work(part: int) -> None:
                for name in names:
                    staging.write(name, part * 10, b"%d" % part * 10)

            threads = [threading.Thread(target=work, args=(part,)) for part in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            staging.commit(names)
        assert set(content(tmp_path).values()) == {b"".join(b"%d" % part * 10 for part in range(8))}


class TestSeveralProcesses:
    def test_a_second_writer_of_the_same_output_is_refused(self, tmp_path: Path) -> None:
        with Staging.open(str(tmp_path), "m.npz") as first:
            first.create("m.npz", 3)
            with pytest.raises(ApplyError) as caught:
                Staging.open(str(tmp_path), "m.npz")
            assert (caught.value.code, caught.value.title) == ("locked", f"another run is writing {tmp_path}/m.npz")
            first.commit(["m.npz"])
        assert content(tmp_path) == {"m.npz": b"\0\0\0"}

    def test_writers_of_different_outputs_share_a_folder(self, tmp_path: Path) -> None:
        with Staging.open(str(tmp_path), "a") as first, Staging.open(str(tmp_path), "b") as second:
            for staging, name in ((first, "a"), (second, "b")):
                staging.create(name)
                staging.commit([name])
        assert content(tmp_path) == {"a": b"", "b": b""}

    def test_a_living_writer_is_left_alone(self, tmp_path: Path) -> None:
        with Staging.open(str(tmp_path), "m") as staging:
            staging.create("m", 3)
            assert recover(str(tmp_path)) == []
            clean(str(tmp_path))
            staging.commit(["m"])
        assert content(tmp_path) == {"m": b"\0\0\0"}

    def test_a_reader_waits_for_a_commit_that_is_under_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        scenario = SCENARIOS["same names"]
        fill(tmp_path / "out", scenario.old)
        journaled, rename = threading.Event(), files.rename

        def slow(source: str, target: str) -> None:
            journaled.set()
            time.sleep(0.1)
            rename(source, target)

        monkeypatch.setattr(files, "rename", slow)
        writer = threading.Thread(target=write, args=(tmp_path / "out", scenario))
        writer.start()
        journaled.wait()
        assert recover(str(tmp_path / "out")) == []
        assert visible(tmp_path / "out") == scenario.result
        writer.join()

    def test_a_reader_does_not_wait_for_ever(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(commit, "_COMMITTING", 0.1)
        leave_journal(tmp_path, {"files": ["m"], "remove": [], "replaces_index": []})
        lock = files.lock_folder(str(tmp_path / ".m.surgery"))
        assert lock is not None
        assert recover(str(tmp_path)) == []
        files.unlock(lock)
        assert recover(str(tmp_path)) == [f"{tmp_path}/m"]

    def test_racing_writers_and_readers_leave_one_whole_set(self, tmp_path: Path) -> None:
        folder = tmp_path / "out"
        children = []
        for writer in range(4):
            child = os.fork()
            if child == 0:
                try:
                    race(folder, b"%d" % writer)
                except BaseException:
                    os._exit(1)
                os._exit(0)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0, 0]
        assert content(folder) in [{"m-1": b"%d" % writer, "m.index": b"%d" % writer} for writer in range(4)]


def race(folder: Path, mark: bytes) -> None:
    done = 0
    while done < 10:
        recover(str(folder))
        try:
            write(folder, Scenario({}, {"m-1": mark, "m.index": mark}))
            done += 1
        except ApplyError as fault:
            if fault.code != "locked":
                raise


def leave_journal(folder: Path, plan: object, *, check: int | None = None) -> Path:
    """A dead run's staging folder with a journal, written out independently of the code."""
    staged = folder / ".m.surgery"
    staged.mkdir()
    home = {"folder": [staged.stat().st_ino, staged.stat().st_uid]}
    text = json.dumps(home | plan if isinstance(plan, dict) else plan).encode()
    (staged / ".journal.surgery").write_bytes(text + b"\n%08x\n" % (zlib.crc32(text) if check is None else check))
    return staged


class TestLeftovers:
    def test_a_folder_that_others_took_and_left_full_meanwhile_is_settled_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make = files.make_folder

        def make_then_die(path: str) -> list[str]:
            made = make(path)
            monkeypatch.setattr(files, "make_folder", make)
            shutil.rmtree(path)
            (leave_journal(tmp_path, {"files": ["m"], "remove": [], "replaces_index": []}) / "m").write_bytes(b"committed")
            return made

        monkeypatch.setattr(files, "make_folder", make_then_die)
        with Staging.open(str(tmp_path), "m") as staging:
            assert os.listdir(staging.path("")) == []
        assert content(tmp_path) == {"m": b"committed"}

    def test_a_journal_is_rolled_forward(self, tmp_path: Path) -> None:
        (tmp_path / "m.index").write_bytes(b"old")
        (tmp_path / "stale").write_bytes(b"old")
        staged = leave_journal(tmp_path, {"files": ["m-1", "m.index"], "remove": ["stale"], "replaces_index": []})
        (staged / "m-1").write_bytes(b"new")
        (staged / "m.index").write_bytes(b"new")
        assert recover(str(tmp_path)) == [f"{tmp_path}/m.index"]
        assert content(tmp_path) == {"m-1": b"new", "m.index": b"new"}

    @pytest.mark.parametrize(
        "plan",
        [
            {"files": ["../victim"], "remove": [], "replaces_index": []},
            {"files": ["m"], "remove": ["../victim"], "replaces_index": []},
            {"files": ["m"], "remove": [], "replaces_index": ["/etc/passwd"]},
            {"files": ["m"], "remove": [".."], "replaces_index": []},
            {"files": ["m"], "remove": [7], "replaces_index": []},
            {"files": ["m"], "remove": "victim", "replaces_index": []},
            {"files": [], "remove": ["victim"], "replaces_index": []},
            {"files": ["m"]},
            {"files": ["m"], "remove": [], "replaces_index": [], "more": []},
            ["m"],
            None,
        ],
    )
    def test_a_journal_with_anything_but_plain_names_is_no_journal(self, tmp_path: Path, plan: object) -> None:
        (tmp_path / "victim").write_bytes(b"")
        fill(tmp_path / "out", {"victim": b""})
        leave_journal(tmp_path / "out", plan)
        assert recover(str(tmp_path / "out")) == []
        clean(str(tmp_path / "out"))
        assert content(tmp_path / "out") == {"victim": b""}
        assert (tmp_path / "victim").exists()

    @pytest.mark.parametrize("data", [b"", b"{", b'{"files": ["m"], "remove": ["victim"], "replaces_index": []}\n', b"[" * 100_000, b"\n00000000\n"])
    def test_a_torn_journal_is_no_journal(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "victim").write_bytes(b"")
        staged = leave_journal(tmp_path, None)
        (staged / ".journal.surgery").write_bytes(data)
        assert recover(str(tmp_path)) == []
        assert content(tmp_path) == {"victim": b"", ".m.surgery": b"(folder)"}
        clean(str(tmp_path))
        assert content(tmp_path) == {"victim": b""}

    def test_a_journal_whose_checksum_does_not_fit_is_no_journal(self, tmp_path: Path) -> None:
        (tmp_path / "victim").write_bytes(b"")
        leave_journal(tmp_path, {"files": ["m"], "remove": ["victim"], "replaces_index": []}, check=0x12345678)
        assert recover(str(tmp_path)) == []
        assert (tmp_path / "victim").exists()

    @pytest.mark.parametrize("home", [{}, {"folder": None}, {"folder": []}, {"folder": [1, 0]}, {"folder": "any"}])
    def test_a_planted_journal_is_not_obeyed(self, tmp_path: Path, home: dict[str, object]) -> None:
        fill(tmp_path / "out", {"victim": b"", "m": b"old"})
        staged = leave_journal(tmp_path / "out", None)
        text = json.dumps({"files": ["m"], "remove": ["victim"], "replaces_index": []} | home).encode()
        (staged / ".journal.surgery").write_bytes(text + b"\n%08x\n" % zlib.crc32(text))
        (staged / "m").write_bytes(b"planted")
        assert recover(str(tmp_path / "out")) == []
        clean(str(tmp_path / "out"))
        assert visible(tmp_path / "out") == {"victim": b"", "m": b"old"}

    def test_a_copied_folder_with_a_journal_is_left_alone_and_told_to_who_wants_its_name(self, tmp_path: Path) -> None:
        fill(tmp_path / "out", {"stale": b"old"})
        (leave_journal(tmp_path / "out", {"files": ["m"], "remove": ["stale"], "replaces_index": []}) / "m").write_bytes(b"new")
        copied = shutil.copytree(tmp_path / "out", tmp_path / "copied")
        assert recover(str(copied)) == []
        clean(str(copied))
        assert commit.leftover_bytes(str(copied)) == {"": 0}
        with pytest.raises(ApplyError) as caught:
            Staging.open(str(copied), "m")
        assert (caught.value.code, caught.value.title) == ("foreign-journal", f"{copied}/.m.surgery is not of a run in this folder")
        assert (copied / ".m.surgery" / "m").read_bytes() == b"new"
        assert visible(copied) == {"stale": b"old"}
        with Staging.open(str(copied), "other"):
            pass
        assert recover(str(tmp_path / "out")) == [f"{tmp_path}/out/m"]
        assert content(tmp_path / "out") == {"m": b"new"}

    def test_a_journal_is_obeyed_where_its_folder_was_renamed_with_all_in_it(self, tmp_path: Path) -> None:
        fill(tmp_path / "out", {"stale": b"old"})
        (leave_journal(tmp_path / "out", {"files": ["m"], "remove": ["stale"], "replaces_index": []}) / "m").write_bytes(b"new")
        (tmp_path / "out").rename(tmp_path / "moved")
        assert recover(str(tmp_path / "moved")) == [f"{tmp_path}/moved/m"]
        assert content(tmp_path / "moved") == {"m": b"new"}

    def test_a_deeply_nested_journal_is_no_journal(self, tmp_path: Path) -> None:
        staged = leave_journal(tmp_path, None)
        text = b"[" * 100_000
        (staged / ".journal.surgery").write_bytes(text + b"\n%08x\n" % zlib.crc32(text))
        assert recover(str(tmp_path)) == []

    def test_a_staging_folder_that_is_a_link_is_not_followed(self, tmp_path: Path) -> None:
        fill(tmp_path / "elsewhere", {})
        leave_journal(tmp_path / "elsewhere", {"files": ["m"], "remove": ["victim"], "replaces_index": []})
        fill(tmp_path / "out", {"victim": b""})
        (tmp_path / "out" / ".m.surgery").symlink_to(tmp_path / "elsewhere" / ".m.surgery")
        assert recover(str(tmp_path / "out")) == []
        clean(str(tmp_path / "out"))
        assert (tmp_path / "out" / "victim").exists()
        assert (tmp_path / "elsewhere" / ".m.surgery").exists()
        with pytest.raises(ApplyError, match=r"cannot lock .*/\.m\.surgery: "):
            Staging.open(str(tmp_path / "out"), "m")

    @pytest.mark.parametrize("staged_as", ["link", "folder", "pipe"])
    def test_only_regular_files_are_put_in_place(self, tmp_path: Path, staged_as: str) -> None:
        staged = leave_journal(tmp_path, {"files": ["m"], "remove": [], "replaces_index": []})
        {"link": lambda path: path.symlink_to("/etc/passwd"), "folder": Path.mkdir, "pipe": os.mkfifo}[staged_as](staged / "m")
        (tmp_path / "m").write_bytes(b"old")
        assert recover(str(tmp_path)) == [f"{tmp_path}/m"]
        assert content(tmp_path) == {"m": b"old"}

    def test_a_journal_that_is_no_file_is_no_journal(self, tmp_path: Path) -> None:
        os.mkfifo(leave_journal(tmp_path, None).parent / "pipe")
        (tmp_path / ".m.surgery" / ".journal.surgery").unlink()
        (tmp_path / "pipe").rename(tmp_path / ".m.surgery" / ".journal.surgery")
        assert recover(str(tmp_path)) == []
        clean(str(tmp_path))
        assert content(tmp_path) == {}

    def test_the_next_writer_removes_what_dead_runs_staged(self, tmp_path: Path) -> None:
        for name in (".m.npz.surgery", ".other.surgery"):
            (tmp_path / name / "deep").mkdir(parents=True)
        with Staging.open(str(tmp_path), "m.npz") as staging:
            assert sorted(content(tmp_path)) == [".m.npz.surgery"]
            assert os.listdir(staging.path("")) == []

    def test_the_next_writer_first_finishes_what_was_committed(self, tmp_path: Path) -> None:
        (leave_journal(tmp_path, {"files": ["m"], "remove": [], "replaces_index": []}) / "m").write_bytes(b"committed")
        with pytest.raises(RuntimeError), Staging.open(str(tmp_path), "m"):
            raise RuntimeError
        assert content(tmp_path) == {"m": b"committed"}

    def test_a_folder_that_is_missing_or_not_listed_needs_nothing(self, tmp_path: Path) -> None:
        assert recover(str(tmp_path / "none")) == []
        clean(str(tmp_path / "none"))
        (tmp_path / "file").write_bytes(b"")
        assert recover(str(tmp_path / "file")) == []

    @pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
    def test_reading_goes_on_where_nothing_can_be_changed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        leave_journal(tmp_path, {"files": ["m"], "remove": ["old"], "replaces_index": []})

        def refuse(path: str) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "unlink", refuse)
        assert recover(str(tmp_path)) == []

    def test_read_only_media_can_be_read(self, read_only: Path) -> None:
        assert recover(str(read_only)) == []
        clean(str(read_only))
        with pytest.raises(ApplyError) as caught:
            Staging.open(str(read_only), "other")
        assert caught.value.code == "read-only"

    @pytest.fixture
    def read_only(self, tmp_path: Path) -> Iterator[Path]:
        leave_journal(tmp_path, {"files": ["m"], "remove": ["old"], "replaces_index": []})
        (tmp_path / "old").write_bytes(b"")
        (tmp_path / "view").mkdir()
        bind = ["mount", "-o", "bind", str(tmp_path), str(tmp_path / "view")]
        if subprocess.run(bind, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount")
        subprocess.run(["mount", "-o", "remount,ro,bind", str(tmp_path / "view")], check=True)
        yield tmp_path / "view"
        subprocess.run(["umount", str(tmp_path / "view")], check=True)

    def test_a_folder_without_leftovers_costs_one_listing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fill(tmp_path / "out", OLD)
        for call in ("open", "stat", "lstat", "listdir"):
            monkeypatch.setattr(os, call, None)
        assert recover(str(tmp_path / "out")) == []
