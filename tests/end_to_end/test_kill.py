"""Whole runs under SIGKILL: after at most one further `surgery` call every output is wholly old or wholly new, and no input is lost.

`SURGERY_KILL_MOMENTS` sets the number of moments for all scenarios together. The moments depend on nothing but that number and the
scenario's name, so a failure repeats with the command that it prints.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest
from scenarios import SCENARIOS, Stage
from writers import CHANGES, Fault, Surgery, copy, snapshot, values

MOMENTS = int(os.environ.get("SURGERY_KILL_MOMENTS", "100"))
DATA = Path(__file__).parents[1] / "data" / "tf"
KILLED = -9


BUNDLES = json.loads((DATA / "expected.json").read_text())["bundles"]
ADAM = {tensor["name"]: tensor["sha256"] for tensor in BUNDLES["scoped_adam/model.ckpt-3"]["tensors"]}


@pytest.fixture(scope="module")
def surgery() -> Iterator[Surgery]:
    server = Surgery()
    yield server
    server.close()


@pytest.fixture(params=SCENARIOS)
def stage(request: pytest.FixtureRequest, tmp_path: Path, surgery: Surgery) -> Stage:
    return Stage(request.param, SCENARIOS[request.param], tmp_path, surgery)


def repeat(test: str, stage: Stage, what: object) -> str:
    return f"{stage.name}, killed at {what}; repeat: SURGERY_KILL_MOMENTS={MOMENTS} pytest {__file__} -k '{test} and {stage.name.split(', ')[-1]}'"


def test_a_killed_run_is_wholly_old_or_wholly_new_after_one_more_call(stage: Stage) -> None:
    dice = random.Random(stage.name)
    seen: Counter[str] = Counter()
    for number in range(share(MOMENTS)):
        fault = Fault(dice.choice(["before", "after", "torn"]), dice.randint(1, len(stage.calls)))
        folder = copy(stage.folder, f"{number}")
        assert stage.write(folder, fault).code == KILLED
        seen[after_one_call(stage, folder, writer=number % 2 == 0, what=repeat("after_one_more_call", stage, fault))] += 1
        shutil.rmtree(folder)
    print(f"{stage.name}: {seen.total()} kills at {len(stage.calls)} calls to storage, then {dict(seen)}")


def after_one_call(stage: Stage, folder: Path, *, writer: bool, what: str) -> str:
    """Makes one more call and looks at everything; returns who was called, and the state it left."""
    try:
        if writer:
            again = stage.write(folder)
            assert again.code == 0, again.text
            assert stage.outcome(folder) == "new"
            assert snapshot(folder) == stage.after  # no staging folder, no strays
            return "writer: new"
        again = stage.read(folder)
        state = stage.outcome(folder)
        first = next(iter(stage.scenario.outputs))
        assert again.code == (0 if values(folder / first) is not None else 1), again.text
        assert not again.code or "Failed to find any matching files" in again.text or "Couldn't find" in again.text
        assert stage.write(folder).code == 0
        assert snapshot(folder) == stage.after  # whatever a manifest says
    except AssertionError as error:
        raise AssertionError(what) from error
    return f"reader: {state}"


def share(moments: int) -> int:
    return -(-moments // len(SCENARIOS))


TIMED = ["new shards", "shards of the same names", "output is input, a file", "state file", "in place, several shards", "computed in tiles"]


@pytest.mark.parametrize("stage", TIMED, indirect=True)
def test_a_command_killed_by_the_clock_is_wholly_old_or_wholly_new(stage: Stage) -> None:
    dice = random.Random(stage.name)
    command = partial(subprocess.Popen, [sys.executable, "-m", "surgery", "run", "recipe.json"], stdout=subprocess.DEVNULL)
    began = time.monotonic()
    assert command(cwd=copy(stage.folder, "timed")).wait() == 0
    seconds = time.monotonic() - began
    seen: Counter[str] = Counter()
    for number in range(max(3, share(MOMENTS) // 4)):
        folder, moment = copy(stage.folder, f"{number}"), dice.uniform(0.6, 1.05) * seconds  # before that, it still imports
        process = command(cwd=folder)
        time.sleep(moment)
        process.kill()
        process.wait()
        seen[after_one_call(stage, folder, writer=number % 2 == 0, what=repeat("by_the_clock", stage, f"{moment:.3f} s"))] += 1
    print(f"{stage.name}: {seen.total()} kills within {seconds:.2f} s, then {dict(seen)}")


JOURNALED = [
    "new bundle",
    "more shards to fewer",
    "fewer shards to more",
    "shards of the same names",
    "state file",
    "output is input, shards",
    "in place, one file",
    "in place, several shards",
]


@pytest.mark.parametrize("stage", JOURNALED, indirect=True)
def test_a_kill_during_recovery_is_made_good_by_the_next_call(stage: Stage) -> None:
    dice = random.Random(stage.name)
    seen: Counter[str] = Counter()
    for number, at in enumerate(journaled(stage, dice, max(2, share(MOMENTS) // 4))):
        folder = copy(stage.folder, f"{number}")
        assert stage.write(folder, Fault("after", at)).code == KILLED
        counted = copy(stage.folder, "counted")  # killed likewise: a journal is not obeyed in a copy of its folder
        assert stage.write(counted, Fault("after", at)).code == KILLED
        steps = len(stage.read(counted).calls)
        fault = Fault(dice.choice(["before", "after", "torn"]), dice.randint(1, steps))
        assert stage.read(folder, fault).code == KILLED
        what = repeat("during_recovery", stage, f"call {at} of the run, and in the recovery at {fault}")
        seen[after_one_call(stage, folder, writer=number % 2 == 0, what=what)] += 1
        assert stage.outcome(folder) == "new", what
    print(f"{stage.name}: {seen.total()} kills during recovery, then {dict(seen)}")


def journaled(stage: Stage, dice: random.Random, count: int) -> list[int]:
    """Calls after which a killed run leaves a journal: from the last one before the first rename or change in place, to the last rename."""
    first = min(stage.calls.index(name) for name in ("rename", "utime") if name in stage.calls)
    last = len(stage.calls) - 1 - stage.calls[::-1].index("rename")
    return [dice.randint(first, last + 1) for _ in range(count)]


RESUMED = [
    "new shards",
    "new zip",
    "replaced bundle",
    "fewer shards to more",
    "two saves",
    "output is input, shards",
    "in place, several shards",
    "computed in strips",
    "computed in tiles",
]


@pytest.mark.parametrize("stage", RESUMED, indirect=True)
def test_a_run_that_is_killed_and_resumed_ends_as_an_undisturbed_one(stage: Stage) -> None:
    dice = random.Random(f"resumed {stage.name}")
    seen: Counter[str] = Counter()
    for number in range(share(MOMENTS)):
        folder = copy(stage.folder, f"{number}")
        faults = [Fault(dice.choice(["before", "after", "torn"]), dice.randint(1, len(stage.calls))) for _ in range(dice.randint(1, 3))]
        what = repeat("killed_and_resumed", stage, [fault[:2] for fault in faults])
        for fault in faults:
            killed = stage.write(folder, fault, "--resume")
            assert killed.code in (KILLED, 0), what
            assert stage.read(folder).code in (0, 1), what
            stage.outcome(folder)
            seen["killed" if killed.code else "done"] += 1
        finished = tasks_finished(folder)
        again = stage.write(folder, None, "--resume")
        assert again.code == 0, what + again.text
        done = again.text.endswith("up to date\n")
        assert done or ("were there already" in again.text) == (finished > 0), what + again.text
        assert snapshot(folder) == stage.after, what
        seen["up to date" if done else "resumed" if finished else "begun anew"] += 1
        shutil.rmtree(folder)
    print(f"{stage.name}: {dict(seen)}")


def tasks_finished(folder: Path) -> int:
    """How many tasks the logs beside staged files tell of: whole lines but the first of each. A manifest may be left when these are in place."""
    own = (".surgery", "surgery.json")
    logs = (log for log in folder.rglob(".tasks.surgery") if any(not other.name.endswith(own) for other in log.parent.iterdir()))
    return sum(max(0, sum(map(is_whole, log.read_bytes().split(b"\n"))) - 1) for log in logs)


def is_whole(line: bytes) -> bool:
    check, _, text = line.partition(b" ")
    return check == b"%08x" % crc32(text) and text != b""


class TestOutputIsInputAsABundleOfTensorFlow:
    """The bundle that TensorFlow wrote; its values are known by their sha256."""

    STEPS = json.dumps(
        {
            "surgery": 1,
            "steps": [
                {"load": {"path": "model.ckpt-3"}},
                {"rename": {"match": "^model/", "to": "encoder/", "optional": True}},
                {"save": {"path": "model.ckpt-3", "format": "tf", "overwrite": "replace"}},
            ],
        }
    )
    NEW = {key.replace("model/", "encoder/", 1) if key.startswith("model/") else key: digest for key, digest in ADAM.items()}

    def test_it_is_wholly_old_or_wholly_new(self, tmp_path: Path, surgery: Surgery) -> None:
        before = shutil.copytree(DATA / "scoped_adam", tmp_path / "before")
        (before / "recipe.json").write_text(self.STEPS)
        done = surgery.run(copy(before, "done"), "run", "recipe.json", "--jobs", "1")
        assert self.digests(before) == ADAM
        assert self.digests(tmp_path / "done") == self.NEW
        dice = random.Random("TensorFlow")
        seen: Counter[str] = Counter()
        for number in range(share(MOMENTS)):
            fault = Fault(dice.choice(["before", "after", "torn"]), dice.randint(1, len(done.calls)))
            folder = copy(before, f"{number}")
            assert surgery.run(folder, "run", "recipe.json", "--jobs", "1", fault=fault).code == KILLED
            again = surgery.run(folder, *(["run", "recipe.json"] if number % 2 else ["inspect", "model.ckpt-3"]))
            assert again.code == 0, (fault, again.text)
            held = self.digests(folder)
            assert held == self.NEW or (held == ADAM and number % 2 == 0), fault
            assert number % 2 == 0 or snapshot(folder) == snapshot(tmp_path / "done"), fault
            seen["new" if held == self.NEW else "old"] += 1
        print(f"a bundle of TensorFlow as input and output: {seen.total()} kills at {len(done.calls)} calls to storage, then {dict(seen)}")

    def digests(self, folder: Path) -> dict[str, str]:
        held = values(folder / "model.ckpt-3")
        assert held is not None
        return {key: sha256(data).hexdigest() for key, data in held.items()}


def test_the_kills_go_through_every_call_that_changes_storage(tmp_path: Path, surgery: Surgery) -> None:
    called: set[str] = set()
    for number, name in enumerate(("new bundle", "fewer shards to more", "in place, one file")):
        root = tmp_path / f"{number}"
        root.mkdir()
        called |= set(Stage(name, SCENARIOS[name], root, surgery).calls)
    assert called == set(CHANGES)
