"""Folders with checkpoints in a known state, and recipes that bring them into another known state: for tests that stop runs half-way."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from writers import STALE, TRUE, Fault, Outcome, Surgery, copy, safetensors, snapshot, values


def tensors(scope: str, count: int = 6) -> dict[str, bytes]:
    """Named vectors of 4 to 64 KiB, the same in every process."""
    return {f"{scope}/{number}": random.Random(f"{scope}{number}").randbytes(4096 << number % 5) for number in range(count)}


OLD, SOURCE = tensors("old", 5), tensors("source")
NEW = {key.replace("source/", "new/"): data for key, data in SOURCE.items()}
RENAME: dict[str, Any] = {"rename": {"match": "^source/", "to": "new/", "optional": True}}

WIDTH = 512


def matrices(rows: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Float32 matrices of `WIDTH` columns of whole numbers, the same in every process."""
    dice = np.random.default_rng(rows)
    return {f"source/{number}": dice.integers(1, 1 << 16, (rows, WIDTH)).astype("<f4") for number in range(3)}


NARROW, WIDE = matrices(16), matrices(1024)
DOUBLED = {key: matrix.astype("<f8").tobytes() for key, matrix in NARROW.items()}
TRANSPOSED = {key: matrix.T.tobytes() for key, matrix in WIDE.items()}

Values = Mapping[str, bytes] | None


class Scenario(NamedTuple):
    """`before` are saves that prepare the folder, `saves` those of the run; `outputs` tell for each path what it holds before and after.

    `tensors` are in the source, float32 vectors or matrices of `width` columns; `options` are those of the command.
    """

    saves: list[dict[str, Any]]
    outputs: dict[str, tuple[Values, Values]]
    before: tuple[dict[str, Any], ...] = ()
    source: str = "in.safetensors"
    step: dict[str, Any] = RENAME
    tensors: Mapping[str, bytes] = SOURCE
    width: int = 0
    options: tuple[str, ...] = ("--jobs", "1")

    @property
    def recipe(self) -> str:
        return recipe(self.source, [self.step], [save | REPLACE for save in self.saves])


def recipe(source: str, steps: list[Any], saves: list[dict[str, Any]]) -> str:
    return json.dumps({"surgery": 1, "steps": [{"load": {"path": source}}, *steps, *({"save": save} for save in saves)]})


def shards(size: str) -> dict[str, Any]:
    return {"path": "out", "format": "safetensors", "shard_size": size}


FILE, ZIP = {"path": "out/m.safetensors"}, {"path": "out/m.npz"}
BUNDLE = {"path": "out/m-2", "format": "tf", "latest": False}
STATE = {"path": "out/m-2", "format": "tf"}
OLDER = {"path": "out/m-1", "format": "tf"}
REPLACE, IN_PLACE = {"overwrite": "replace"}, {"in_place": True}
SCENARIOS = {
    "new file": Scenario([FILE], {"out/m.safetensors": (None, NEW)}),
    "new shards": Scenario([shards("70KB")], {"out": (None, NEW)}),
    "new bundle": Scenario([BUNDLE], {"out/m-2": (None, NEW)}),
    "new zip": Scenario([ZIP], {"out/m.npz": (None, NEW)}),
    "replaced file": Scenario([FILE], {"out/m.safetensors": (OLD, NEW)}, (FILE,)),
    "replaced bundle": Scenario([{**BUNDLE, "shard_size": "70KB"}], {"out/m-2": (OLD, NEW)}, ({**BUNDLE, "shard_size": "40KB"},)),
    "more shards to fewer": Scenario([shards("100KB")], {"out": (OLD, NEW)}, (shards("10KB"),)),
    "fewer shards to more": Scenario([shards("10KB")], {"out": (OLD, NEW)}, (shards("100KB"),)),
    "shards to a file": Scenario([shards("1MB")], {"out": (OLD, NEW)}, (shards("10KB"),)),
    "shards of the same names": Scenario([shards("90KB")], {"out": (OLD, NEW)}, (shards("70KB"),)),
    "two saves": Scenario([FILE, BUNDLE], {"out/m.safetensors": (OLD, NEW), "out/m-2": (OLD, NEW)}, (FILE, BUNDLE)),
    "state file": Scenario([STATE], {"out/m-2": (None, NEW), "out/m-1": (OLD, OLD)}, (OLDER,)),
    "output is input, a file": Scenario([{"path": "in.safetensors"}], {"in.safetensors": (SOURCE, NEW)}),
    "output is input, shards": Scenario([shards("50KB")], {"out": (SOURCE, NEW)}, (shards("90KB"),), "out"),
    "in place, one file": Scenario([{"path": "in.safetensors"} | IN_PLACE], {"in.safetensors": (SOURCE, NEW)}),
    "in place, several shards": Scenario([{"path": "out"} | IN_PLACE], {"out": (SOURCE, NEW)}, (shards("90KB"),), "out"),
    "in place, a bundle": Scenario([{"path": "out/m-2"} | IN_PLACE], {"out/m-2": (SOURCE, NEW)}, (BUNDLE,), "out/m-2"),
    "computed in strips": Scenario(
        [shards("70KB")],
        {"out": (OLD, DOUBLED)},
        (shards("10KB"),),
        step={"cast": {"dtype": "float64"}},
        tensors={key: matrix.tobytes() for key, matrix in NARROW.items()},
        width=WIDTH,
    ),
    "computed in tiles": Scenario(
        [BUNDLE],
        {"out/m-2": (OLD, TRANSPOSED)},
        (BUNDLE,),
        step={"transpose": {"keys": "**"}},
        tensors={key: matrix.tobytes() for key, matrix in WIDE.items()},
        width=WIDTH,
        options=("--jobs", "1", "--memory", "1MiB"),
    ),
}


class Stage:
    """A scenario ready to be killed: the prepared folder, what it and a finished run's hold, and the storage calls of a run."""

    def __init__(self, name: str, scenario: Scenario, root: Path, surgery: Surgery) -> None:
        self.name, self.scenario, self.surgery = name, scenario, surgery
        self.folder = root / "before"
        self.folder.mkdir()
        prepare(surgery, self.folder, scenario)
        (self.folder / "recipe.json").write_text(scenario.recipe)
        self.before = snapshot(self.folder)
        self.check(self.folder, 0)
        finished = copy(self.folder, "finished")
        self.calls = self.write(finished).calls
        self.after = snapshot(finished)
        self.check(finished, 1)
        assert self.before != self.after

    def check(self, folder: Path, which: int) -> None:
        assert {path: values(folder / path) for path in self.scenario.outputs} == {path: pair[which] for path, pair in self.scenario.outputs.items()}

    def write(self, folder: Path, fault: Fault | None = None, *options: str) -> Outcome:
        return self.surgery.run(folder, "run", "recipe.json", *self.scenario.options, *options, fault=fault)

    def read(self, folder: Path, fault: Fault | None = None) -> Outcome:
        return self.surgery.run(folder, "inspect", next(iter(self.scenario.outputs)), fault=fault)

    def outcome(self, folder: Path) -> str:
        """`old`, `new`, or of two outputs one `old`, one `new`: each agrees with one of both in bytes and values, and nothing else has changed.

        A manifest may lag behind, but no manifest says of anything but the new outputs that they are what is here.
        """
        here = {name: data for name, data in snapshot(folder).items() if not name.endswith(".surgery") and data != b"(folder)"}
        manifests = {name: data for name, data in here.items() if data in (TRUE, STALE)}
        seen = {name: data for name, data in here.items() if name not in manifests}
        assert manifests.keys() <= self.before.keys() | self.after.keys()
        found = set()
        for path, pair in self.scenario.outputs.items():
            now, before, after = (
                {name: data for name, data in state.items() if self.owner(name) == path and data not in (TRUE, STALE)}
                for state in (seen, self.before, self.after)
            )
            assert now in (before, after), f"{path} is torn: {sorted(now)}"
            assert values(folder / path) == pair[now == after], f"{path} has other values"
            found |= {"new" if now == after else "old"} if before != after else set()
        rest, untouched = ({name: data for name, data in state.items() if self.owner(name) is None} for state in (seen, self.before))
        assert rest == untouched, f"strays or losses: {rest.keys() ^ untouched.keys()}"
        assert TRUE not in manifests.values() or found == {"new"}, "a manifest is wrong"
        return ", ".join(sorted(found))

    def owner(self, name: str) -> str | None:
        """The output that a file belongs to."""
        if name == "out/checkpoint":
            return "out/m-2"
        return next((path for path in self.scenario.outputs if name.startswith(path)), None)


def prepare(surgery: Surgery, folder: Path, scenario: Scenario) -> None:
    (folder / "in.safetensors").write_bytes(safetensors(scenario.tensors, scenario.width))
    if scenario.before:
        kept = OLD if scenario.source == "in.safetensors" else SOURCE
        (folder / "old.safetensors").write_bytes(safetensors(kept))
        (folder / "prepare.json").write_text(recipe("old.safetensors", [], list(scenario.before)))
        assert surgery.run(folder, "run", "prepare.json").code == 0
        (folder / "prepare.json").unlink()
        (folder / "old.safetensors").unlink()


def with_recipe(folder: Path, *saves: dict[str, Any], source: str = "in.safetensors") -> Path:
    """A folder with the source and a recipe that renames it into these saves."""
    if not (folder / "in.safetensors").exists():
        (folder / "in.safetensors").write_bytes(safetensors(SOURCE))
    (folder / "recipe.json").write_text(recipe(source, [RENAME], list(saves)))
    return folder


def faults_told(outcome: Outcome) -> int:
    """How many faults a command has told; none with a traceback."""
    assert "Traceback" not in outcome.text, outcome.text
    return len(
        re.findall(
            r"^error\[|; No such file|^Read less bytes|^Unsuccessful TensorSliceReader|^Couldn't find 'checkpoint'", outcome.text, re.MULTILINE
        )
    )
