"""Whole runs on machines that refuse: one message, the old output as it was, nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scenarios import NEW, SCENARIOS, Stage, faults_told, recipe, with_recipe
from writers import CHANGES, READS, Fault, Surgery, copy, snapshot, values

import surgery as package
from surgery import execute

STAGED = ["new shards", "replaced bundle", "replaced file", "output is input, shards", "two saves"]
IN_PLACE = ["in place, one file", "in place, several shards", "in place, a bundle"]
COMPUTED = ["computed in strips", "computed in tiles"]
REFUSALS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT)
UNSEEN = "stat", "lstat", "fstat", "statvfs", "flock", "ioctl", "listdir", "scandir", "close"
COUNTED = (*CHANGES, *READS, *UNSEEN)


@pytest.fixture(scope="module")
def surgery() -> Iterator[Surgery]:
    server = Surgery()
    yield server
    server.close()


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path, surgery: Surgery) -> Stage:
    return Stage(request.param, SCENARIOS[request.param], tmp_path, surgery)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a source and a recipe that renames it to out/m.safetensors."""
    return with_recipe(tmp_path, {"path": "out/m.safetensors"})


MOMENTS = int(os.environ.get("SURGERY_FAULT_MOMENTS", "25"))
"""Calls of each scenario that are struck; CI strikes them all."""


def moments(calls: list[str]) -> range:
    """The numbers of the calls that are struck: spread over all of them, from the first on, each kind of refusal in turn."""
    step = -(-len(calls) // MOMENTS) or 1
    return range(1, len(calls) + 1, step + (step % len(REFUSALS) == 0))


REFUSED = [*((name, "refuse") for name in STAGED + IN_PLACE), ("replaced bundle", "refuse-on"), ("in place, one file", "refuse-on")]


@pytest.mark.parametrize(("stage", "action"), REFUSED, indirect=["stage"])
def test_whatever_call_is_refused_the_output_is_old_or_the_next_call_makes_it_new(stage: Stage, action: str) -> None:
    calls = stage.write(copy(stage.folder, "counted"), Fault(calls=COUNTED)).calls
    for at in moments(calls):
        folder = copy(stage.folder, "refused")
        outcome = stage.write(folder, Fault(action, at, REFUSALS[at % len(REFUSALS)], calls=COUNTED))
        what = f"{stage.name}: call {at}, {calls[at - 1]}, {errno.errorcode[REFUSALS[at % len(REFUSALS)]]}\n{outcome.text}"
        if outcome.code == 0:
            assert snapshot(folder) == stage.after, what
            continue
        assert outcome.code in (1, 2), what  # 2: the recipe itself cannot be read
        assert faults_told(outcome) == 1, what
        left = snapshot(folder)
        if left == stage.before:
            continue
        staged = [name for name in left if name.endswith(".surgery")]
        assert not staged or action == "refuse-on" or "next `surgery` command" in outcome.text, what
        assert stage.read(folder).code in (0, 1), what
        assert stage.outcome(folder) in ("old", "new", "new, old"), what
        assert stage.write(folder).code == 0, what
        assert snapshot(folder) == stage.after, what


KERNELS = {"copy_file_range": (), "sendfile": ("copy_file_range",), "pwrite": ("copy_file_range", "sendfile")}


@pytest.mark.parametrize("way", KERNELS)
@pytest.mark.parametrize("stage", [*STAGED, *COMPUTED, "in place, several shards"], indirect=True)
def test_short_reads_and_writes_give_the_same_bytes(stage: Stage, way: str) -> None:
    outcome = stage.write(stage.folder, Fault("short", calls=(*READS, "pwrite", "write", "copy_file_range", "sendfile"), lacks=KERNELS[way]))
    assert outcome.code == 0, outcome.text
    moves = sum(outcome.calls.count(name) for name in ("pwrite", "copy_file_range", "sendfile"))
    assert moves > 30 or "in place" in stage.name  # 128 KiB in pieces of 4
    assert snapshot(stage.folder) == stage.after


@pytest.mark.parametrize("stage", [*STAGED[:3], *IN_PLACE], indirect=True)
def test_an_interrupt_at_any_call_leaves_nothing_and_exits_with_130(stage: Stage) -> None:
    counted = (*CHANGES, *READS)
    for at in range(1, len(stage.write(copy(stage.folder, "counted"), Fault(calls=counted)).calls) + 1):
        folder = copy(stage.folder, "interrupted")
        outcome = stage.write(folder, Fault("interrupt", at, calls=counted))
        assert outcome.code == 130, (at, outcome)
        assert outcome.text.endswith("interrupted; outputs are as they were before, or complete\n")
        assert stage.outcome(folder) in ("old", "new", "new, old")
        assert not [name for name in snapshot(folder) if name.endswith(".surgery")], at


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_long_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    nbytes = 512 << 20
    header = json.dumps({"a": {"dtype": "F32", "shape": [nbytes // 4], "data_offsets": [0, nbytes]}}).encode()
    with (tmp_path / "in.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + nbytes)  # a hole: the source takes no space
    steps = [{"cast": {"dtype": "bfloat16"}}]
    (tmp_path / "recipe.json").write_text(recipe("in.safetensors", steps, [{"path": "out/m.safetensors"}]))
    before = snapshot(tmp_path)
    command = [sys.executable, "-m", "surgery", "run", "recipe.json", "--jobs", "1", "--memory", "1MiB"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "out" / ".m.safetensors.surgery" / ".tasks.surgery"
    while not (log.exists() and log.read_bytes().count(b"\n") > 1):  # the first of its eight parts is done
        time.sleep(0.001)
        assert process.poll() is None
    process.send_signal(number)
    assert process.communicate() == (None, "interrupted; outputs are as they were before, or complete\n")
    assert process.returncode == 130
    assert snapshot(tmp_path) == before


def test_real_interruptions_of_system_calls_are_gone_through(folder: Path) -> None:
    program = "import signal, sys; signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)"
    program += "; from surgery.__main__ import main; code = main(['run', 'recipe.json']); signal.setitimer(signal.ITIMER_REAL, 0); sys.exit(code)"
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, capture_output=True)
    assert values(folder / "out/m.safetensors") == NEW


def rewritten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5000)


def replaced(path: Path) -> None:
    path.with_name("other").write_bytes(path.read_bytes())
    path.with_name("other").replace(path)


Change = Callable[[Path], None]
changes = pytest.mark.parametrize("change", [rewritten, cut, replaced])
saves = pytest.mark.parametrize("save", [{"path": "out/m.safetensors"}, {"path": "out/m", "format": "tf"}], ids=["copied", "checksummed"])


class TestSourcesThatChange:
    @changes
    @saves
    def test_between_plan_and_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, save: dict[str, Any]) -> None:
        monkeypatch.chdir(with_recipe(tmp_path, save))
        plan = package.plan("recipe.json")
        change(tmp_path / "in.safetensors")
        with pytest.raises(package.StaleSource, match=r"in\.safetensors changed after the plan was made"):
            plan.run()
        assert set(snapshot(tmp_path)) == {"in.safetensors", "recipe.json"}

    @changes
    @saves
    def test_during_the_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, save: dict[str, Any]) -> None:
        monkeypatch.chdir(with_recipe(tmp_path, save))
        opened = execute.Staging.opened
        changed = []

        def change_then_open(staging: Any, name: str) -> Any:
            if not changed:
                changed.append(change(tmp_path / "in.safetensors"))
            return opened(staging, name)

        monkeypatch.setattr(execute.Staging, "opened", change_then_open)
        with pytest.raises(package.StaleSource, match=r"in\.safetensors changed after the plan was made"):
            package.plan("recipe.json").run()
        assert set(snapshot(tmp_path)) == {"in.safetensors", "recipe.json"}

    def test_gone_before_the_run(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        plan = package.plan("recipe.json")
        (folder / "in.safetensors").unlink()
        with pytest.raises(package.SourceError, match=r"in\.safetensors; No such file or directory"):
            plan.run()
        assert set(snapshot(folder)) == {"recipe.json"}
