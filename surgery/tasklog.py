"""The log of finished tasks beside what they wrote, from which `--resume` goes on. Serves apply.

One line a task, with its CRC-32: after a crash the last line may be torn, and is passed over. What the others say is still looked at: the log
tells where to look.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from surgery.commit import Staging
from surgery.work import Outcome, Part

_MOST_BYTES = 1 << 32
_FORM = 1


class TaskLog:
    """Finished tasks of one output. `plan` identifies the plan: the numbers of tasks mean nothing in another one."""

    def __init__(self, staging: Staging, plan: str) -> None:
        self._staging = staging
        self._head = {"form": _FORM, "plan": plan}

    def begin(self) -> None:
        """Start a log without tasks."""
        self._staging.log(_line(self._head))

    def go_on(self) -> None:
        """Go on with the log that is there, whose last line may be torn."""
        self._staging.log(b"\n")

    def add(self, number: int, outcome: Outcome) -> None:
        """Note down a finished task; any thread may."""
        parts = [list(part) for part in outcome.parts]
        self._staging.log(_line([number, parts, list(outcome.verified), outcome.shared_bytes, outcome.written]))

    def finished(self) -> dict[int, Outcome]:
        """The tasks of an earlier run of the same plan; none where there is no such log."""
        lines = _whole_lines(self._staging.logged(_MOST_BYTES))
        if next(lines, None) != self._head:
            return {}
        found: dict[int, Outcome] = {}
        with suppress(TypeError, ValueError):  # nothing that this version wrote
            for number, parts, verified, shared_bytes, written in lines:
                found[number] = Outcome(tuple(Part(*part) for part in parts), tuple(verified), shared_bytes, (), written)
        return found


def _line(fields: object) -> bytes:
    text = json.dumps(fields, separators=(",", ":")).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _whole_lines(data: bytes) -> Iterator[Any]:
    for line in data.split(b"\n"):
        check, _, text = line.partition(b" ")
        if check == b"%08x" % zlib.crc32(text):
            yield json.loads(text)
