"""No function of `surgery.files` that calls the operating system goes without a fault in a whole run: each is struck here, in every kind of run."""

from __future__ import annotations

import errno
import inspect
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Any

import pytest
from scenarios import SCENARIOS, Stage, faults_told, recipe, with_recipe
from test_faults import COUNTED, KERNELS
from writers import Fault, Surgery, copy, safetensors, snapshot, values

import surgery as package
from surgery import files

CALLS = (*COUNTED, "lseek", "sendfile", "readlink")
KILLED = -9
RUNS = {
    "two saves": (),
    "fewer shards to more": ("--resume",),
    "computed in strips": ("--resume",),
    "in place, one file": (),
    "output is input, shards": ("--verify",),
}
NOT_STRUCK = {
    "os_fault": "tells faults, and meets none",
    "remove_folder": "tidies up behind another fault, and need not succeed",
    "sha256": "reads through a file object; see below",
    "unlock": "closes a folder, to which nothing was written",
}


@pytest.fixture(scope="module")
def surgery() -> Iterator[Surgery]:
    server = Surgery()
    yield server
    server.close()


def prepared(name: str, stage: Stage) -> Path:
    """A fresh folder for a run; one that goes on has its first task done."""
    folder = copy(stage.folder, "folder")
    if "--resume" in RUNS[name]:
        head = stage.calls.index("write")
        assert stage.write(folder, Fault("after", stage.calls.index("write", head + 1) + 1)).code == KILLED
    return folder


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory, surgery: Surgery) -> dict[str, Stage]:
    return {name: Stage(name, SCENARIOS[name], tmp_path_factory.mktemp("stage"), surgery) for name in RUNS}


def test_every_function_that_calls_the_system_is_struck(stages: dict[str, Stage]) -> None:
    struck: set[str] = set()
    for name, stage in stages.items():
        fault = Fault(calls=CALLS, lacks=("copy_file_range",))
        within = stage.write(prepared(name, stage), fault, *RUNS[name]).within
        for function, at in within.items():
            if function in struck or function.startswith("_"):
                continue
            struck.add(function)
            folder = prepared(name, stage)
            outcome = stage.write(folder, fault._replace(action="refuse", at=at, errno=errno.EIO), *RUNS[name])
            told = faults_told(outcome)
            assert (outcome.code, told) == (0, 0) or (outcome.code in (1, 2) and told == 1), (name, function, outcome.text)
            assert stage.write(folder, None, *RUNS[name]).code == 0, (name, function)
            assert snapshot(folder) == stage.after, (name, function)
    callers = set(calling_the_system())
    assert len(callers) > 40
    assert callers - {function.partition(".<locals>")[0] for function in struck} == NOT_STRUCK.keys() & callers


def calling_the_system() -> Iterator[str]:
    """The public functions and methods of `surgery.files` in whose code, or in that of what they call in their package, such a call stands."""
    for name in files.__all__:
        value = getattr(files, name)
        methods = vars(value).values() if inspect.isclass(value) else [value]
        for function in map(inspect.unwrap, methods):
            public = isinstance(function, FunctionType) and (function.__name__ == name or not function.__name__.startswith("_"))
            if public and _calls(function, set()):
                yield function.__qualname__


def _calls(function: FunctionType, seen: set[FunctionType]) -> bool:
    if function in seen or function.__name__ in ("name_of", "storage"):  # they name files in messages
        return False
    seen.add(function)
    names = set(_names(function.__code__))
    modules = [module for name in ("os", "fcntl") if name in names and (module := function.__globals__[name])]
    direct = any(isinstance(getattr(module, name, None), BuiltinFunctionType) for module in modules for name in names - {"fspath", "strerror"})
    return direct or any(_calls(inspect.unwrap(called), seen) for name in names if isinstance(called := function.__globals__.get(name), FunctionType))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


class TestHolesAndKernels:
    """A source of data, hole and data, copied by `sendfile`, by hand, and as the kernel likes."""

    TENSORS = {"a": random.Random(0).randbytes(1 << 16), "hole": bytes(1 << 20), "z": random.Random(1).randbytes(1 << 16)}

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        whole = safetensors(self.TENSORS)
        with (tmp_path / "in.safetensors").open("wb") as file:
            file.write(whole[: -(1 << 16) - (1 << 20)])
            file.seek(1 << 20, os.SEEK_CUR)
            file.write(whole[-(1 << 16) :])
        (tmp_path / "recipe.json").write_text(recipe("in.safetensors", [], [{"path": "out.safetensors"}]))
        return tmp_path

    @pytest.mark.parametrize("way", KERNELS)
    def test_they_stay_holes_whoever_copies(self, folder: Path, surgery: Surgery, way: str) -> None:
        outcome = surgery.run(folder, "run", "recipe.json", fault=Fault(calls=(way, "lseek"), lacks=KERNELS[way]))
        assert outcome.code == 0, outcome.text
        assert {way, "lseek"} == set(outcome.calls)
        assert values(folder / "out.safetensors") == self.TENSORS
        assert (folder / "out.safetensors").stat().st_blocks * 512 < 1 << 19

    @pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EINVAL, errno.EACCES])  # ENXIO from lseek says that there is a hole
    @pytest.mark.parametrize("way", KERNELS)
    def test_a_refusal_is_told_or_gone_around(self, folder: Path, surgery: Surgery, way: str, code: int) -> None:
        fault = Fault("refuse", 1, code, ("lseek", *({"copy_file_range", "sendfile", "pwrite"} - {*KERNELS[way]})), lacks=KERNELS[way])
        count = len(surgery.run(folder, "run", "recipe.json", "--force", fault=fault._replace(action="count")).calls)
        assert count >= 4
        for at in range(1, count + 1):
            (folder / "out.safetensors").unlink(missing_ok=True)
            before = snapshot(folder)
            outcome = surgery.run(folder, "run", "recipe.json", "--force", fault=fault._replace(at=at))
            if outcome.code:
                assert (outcome.code, faults_told(outcome)) == (1, 1), outcome.text
                assert snapshot(folder) == before
            else:
                assert values(folder / "out.safetensors") == self.TENSORS, (at, outcome.text)


def test_a_digest_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.chdir(with_recipe(tmp_path, {"path": "out/m.safetensors"}))
    plan = package.plan("recipe.json")
    monkeypatch.setattr("surgery.files.stamps.open", failing, raising=False)
    with pytest.raises(package.ApplyError, match=r"cannot read .*m\.safetensors: input/output error"):
        plan.run(digest=True)
    assert snapshot(tmp_path).keys() == {"in.safetensors", "recipe.json"}


FULL_ELSEWHERE = """
import errno, os, sys
def refuse(event, arguments):
    if event in ("open", "os.mkdir") and isinstance(arguments[0], str) and (event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        path = os.path.abspath(arguments[0])
        if not path.startswith((os.getcwd(), "/proc/self/fd/")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
sys.addaudithook(refuse)
from surgery.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", ["computed in tiles", "in place, one file", "two saves"])
def test_no_room_is_needed_but_where_the_output_is(tmp_path: Path, surgery: Surgery, name: str) -> None:
    """Be it that `/tmp` is full, or the home folder."""
    stage = Stage(name, SCENARIOS[name], tmp_path, surgery)
    command = [sys.executable, "-B", "-c", FULL_ELSEWHERE, "run", "recipe.json", *stage.scenario.options]
    subprocess.run(command, cwd=stage.folder, check=True, capture_output=True)
    assert snapshot(stage.folder) == stage.after
