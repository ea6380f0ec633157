"""What opening a checkpoint costs, measured in a process of its own that starts warm: `Measurer.open(path)`.

Run as a script it is the other side: for each path on its input it forks, opens, lists, reads and plans with it, and tells what became of
it, how much processor time that took and how far the memory rose.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

_SMALL = 16 << 20
"""Only tensors up to this size are read whole."""
_RUNAWAY_SECONDS = 60


class Cost(NamedTuple):
    """What became of a checkpoint (`read`, or the name of an exception with its text), and at what cost."""

    outcome: str
    cpu_seconds: float
    memory_bytes: int


class Measurer:
    """A running other side."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def open(self, path: Path) -> Cost:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(str(path)), file=self._process.stdin, flush=True)
        return Cost(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


def _serve() -> None:
    from surgery import formats

    for name in formats.NAMES:
        formats.by_name(name)
    for path in sys.argv[1:]:
        _use(path)
    for line in sys.stdin:
        print(json.dumps(_measured(json.loads(line))), flush=True)


def _measured(path: str) -> tuple[str, float, int]:
    """Fork, so that each measurement starts from the same state."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, json.dumps(_cost(path)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    status = os.waitpid(child, 0)[1]
    return tuple(json.loads(told)) if told else (f"ended with status {status}", 0.0, 0)


def _cost(path: str) -> tuple[str, float, int]:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (_RUNAWAY_SECONDS, _RUNAWAY_SECONDS))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, start = _peak_bytes(), time.process_time()
    outcome = _use(path)
    return outcome, time.process_time() - start, _peak_bytes() - before


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def _use(path: str) -> str:
    import surgery
    from surgery import report
    from surgery.api import Source
    from surgery.errors import SurgeryError, render

    try:
        with surgery.open(path) as checkpoint:
            report.listing(checkpoint)
            for tensor in checkpoint.values():
                if tensor.spec.nbytes <= _SMALL:
                    tensor.numpy()
        steps: list[dict[str, Any]] = [{"load": {"path": path}}, {"save": {"path": "planned.safetensors"}}]
        surgery.plan(Source("surgery: 1\nsteps:\n" + "".join(f"  - {json.dumps(step)}\n" for step in steps), "(test)"))
    except SurgeryError as fault:
        return f"{type(fault).__name__}: {render(fault)}"[:2000]
    except (Exception, RecursionError) as fault:
        return f"BUG {fault!r}"[:2000]
    return "read"


if __name__ == "__main__":
    _serve()
