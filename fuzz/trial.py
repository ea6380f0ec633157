"""What a checkpoint is put through: listed, read, and converted to safetensors. Anything but a SurgeryError, or equal values, is a finding."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np

import surgery
from surgery import report
from surgery.api import Checkpoint, Source
from surgery.errors import PlanError, SurgeryError
from surgery.files import LocalDisk
from surgery.probe import open_checkpoint, target_spec
from surgery.steps.base import Reads

MOST_SECONDS = 1.0
"""Of the processor, for each stage."""
_MOST_BYTES = 16 << 20
"""Checkpoints that claim more than that (never-written chunks and holes may, honestly) are planned with and not read."""


class TooSlow(BaseException):
    """A stage takes longer than it may; no Exception, so that nothing that is tried out can catch it."""


class OtherValues(Exception):
    """The same checkpoint, read in two ways, has different values."""


def try_out(path: str, out: Path, seconds: float = MOST_SECONDS) -> str:
    """Put what lies at `path` through every stage; `out` is a folder that may be emptied. Returns what became of it, for statistics.

    Raises:
        TooSlow, OtherValues, and any exception that a reader should not have let out.
    """
    with _limited(seconds):
        outcome = _listed(path)
    with _limited(seconds):
        values = _values(path)
    if values is None:
        return outcome
    with _limited(seconds):
        written = _converted(path, out, values)
    return "converted" if written else "read"


def _listed(path: str) -> str:
    try:
        if path.endswith((".meta", ".index.json", ".yaml")):
            target_spec(Reads(path, None, True, ()), LocalDisk())
        if path.endswith(".meta"):
            return "listed"
        with Checkpoint(open_checkpoint(path, LocalDisk(), strict=False)) as checkpoint:
            report.listing(checkpoint)
            json.dumps(report.checkpoint_json(checkpoint))
            report.tree(checkpoint.indexed.tensors)
    except SurgeryError:
        return "refused"
    return "listed"


def _values(path: str) -> dict[str, np.ndarray] | None:
    """The values of all tensors that can be read; None where the checkpoint is refused or claims to be too large to try."""
    try:
        with surgery.open(path) as checkpoint:
            if sum(tensor.spec.nbytes for tensor in checkpoint.values()) > _MOST_BYTES:
                return None
            return dict(_readable(checkpoint))
    except SurgeryError:
        return None


def _readable(checkpoint: Checkpoint) -> Iterator[tuple[str, np.ndarray]]:
    for key, tensor in checkpoint.items():
        try:
            yield key, tensor.numpy()
        except SurgeryError:
            continue


def _converted(path: str, out: Path, values: dict[str, np.ndarray]) -> bool:
    """Whether a safetensors file could be made of what `values` has; what it holds has to be equal."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    target = out / "out.safetensors"
    steps: list[dict[str, object]] = [{"load": {"path": path}}]
    try:
        _run([*steps, {"save": {"path": str(target)}}])
    except PlanError as fault:
        if fault.code != "dtype-not-storable":
            return False
        refused = "|".join(map(re.escape, fault.data["keys"]))
        try:
            _run([*steps, {"drop": {"match": f"^(?:{refused})$"}}, {"save": {"path": str(target)}}])
        except SurgeryError:
            return False
    except SurgeryError:
        return False
    with surgery.open(target) as written:
        for key, tensor in written.items():
            if key in values and tensor.numpy().tobytes() != values[key].tobytes():  # types without an array form are copied, not read
                raise OtherValues(key)
    return True


def _run(steps: list[dict[str, object]]) -> None:
    lines = "\n".join(f"  - {json.dumps(step).replace('${', '$${')}" for step in steps)
    surgery.plan(Source(f"surgery: 1\nsteps:\n{lines}\n", "(fuzz)"), jobs=1, memory=64 << 20).run()


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Stop what takes more processor time; what cannot be stopped (a long call into C) is found out afterwards."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:g} s")

    before = time.process_time()
    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    if time.process_time() - before > seconds:
        raise TooSlow(f"{time.process_time() - before:.1f} s")
