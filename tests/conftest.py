"""What all tests share: the command line called in this process, small checkpoints, and the `--update` of golden texts."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("shared machine", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

# A shell starts its background jobs with interrupts ignored, and the programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="write golden texts anew instead of comparing with them; read the difference")


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory, so that messages have short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def surgery(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """The command line, run in this process: `surgery("run", "r.yaml").code`."""
    import gc
    import signal

    from surgery.__main__ import main

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        handler = signal.getsignal(signal.SIGTERM)
        try:
            code = main(list(arguments))
        finally:
            gc.unfreeze()
            gc.enable()
            signal.signal(signal.SIGTERM, handler)
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


@pytest.fixture
def recipe(work: Path) -> Callable[..., str]:
    """Write steps as a recipe and return its path."""

    def write(*steps: Any, name: str = "r.yaml", **head: Any) -> str:
        (work / name).write_text(json.dumps({"surgery": 1, **head, "steps": list(steps)}, ensure_ascii=False))
        return name

    return write


@pytest.fixture
def plan() -> Callable[..., Any]:
    """Plan steps on checkpoints that exist only as headers: `plan(steps, {"one": {"a": "f32[2]"}})`."""
    from surgery.dtypes import DTYPES
    from surgery.expr import Stored
    from surgery.files import LocalDisk
    from surgery.formats.base import Indexed
    from surgery.logical import LogicalPlan
    from surgery.logical import plan as plan_logically
    from surgery.recipe import load
    from surgery.several import is_numbered, numbered_files
    from surgery.steps.base import Catalog, Found, Wanted
    from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

    class Names(LocalDisk):
        """A disk with nothing but the names of checkpoints."""

        def __init__(self, checkpoints: dict[str, Any]) -> None:
            self.checkpoints = list(checkpoints)

        def is_file(self, path: str) -> bool:
            return path in self.checkpoints

        def names(self, folder: str) -> list[str]:
            return self.checkpoints

    by_short = {dtype.short: dtype for dtype in DTYPES.values()}

    def spec(text: str) -> TensorSpec:
        short, _, sizes = text.rstrip("]").partition("[")
        return TensorSpec(by_short[short], tuple(int(size) for size in sizes.split(",") if size))

    def checkpoint(name: str, tensors: dict[str, str]) -> Indexed:
        file = SourceFile(name, Fingerprint(1 << 40, 0, 0, 0))
        rows, at = {}, 0
        for key, text in tensors.items():
            rows[key] = Stored(Extent(file, at, spec(text).nbytes, spec(text)))
            at += spec(text).nbytes
        return Indexed("synthetic", name, rows, {}, (file,))

    def run(
        steps: Any,
        checkpoints: dict[str, dict[str, str]],
        targets: dict[str, dict[str, str]] | None = None,
        files: dict[str, str] | None = None,
    ) -> LogicalPlan:
        loaded = load(json.dumps({"surgery": 1, "steps": steps}), "r.yaml")
        wanted = {name: {key: Wanted(spec(text) if text else None) for key, text in keys.items()} for name, keys in (targets or {}).items()}
        reads = [read for item in loaded.steps for read in item.step.reads()]
        found = {read: tuple(map(Found, numbered_files(read.path, Names(checkpoints)))) for read in reads if is_numbered(read.path)}
        contents = {(read.path, read.parse): read.parse((files or {})[read.path].encode(), read.path) for read in reads if read.parse}
        headers = {name: checkpoint(name, tensors) for name, tensors in checkpoints.items()}
        return plan_logically(loaded, Catalog(headers, wanted, found, contents))

    return run
