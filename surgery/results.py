"""What the tasks of a run learnt, put together by output and key. Serves apply."""

from __future__ import annotations

from threading import Lock

from surgery.checksums import COMBINE
from surgery.expr import checksummed
from surgery.tasks import ComputeBlock, PhysicalPlan, Task
from surgery.tensors import Extent
from surgery.verify import ReadPart, compare
from surgery.work import Outcome, Part


class Results:
    """Grows with each outcome; any thread may add one."""

    def __init__(self, plan: PhysicalPlan) -> None:
        self.verified: list[set[str]] = [set() for _ in plan.outputs]
        self.shared_bytes = [0] * len(plan.outputs)
        self._plan = plan
        self._lock = Lock()
        self._parts: list[dict[str, list[Part]]] = [{} for _ in plan.outputs]
        self._read: dict[tuple[int, str, Extent], list[ReadPart]] = {}
        self._judged: set[tuple[int, str, Extent]] = set()

    def add(self, task: Task, outcome: Outcome) -> None:
        """Take in an outcome. Raises CorruptFile where it completes a stored tensor whose checksum does not fit."""
        with self._lock:
            for part in outcome.parts:
                self._parts[task.output].setdefault(part.key, []).append(part)
            self.verified[task.output].update(outcome.verified)
            self.shared_bytes[task.output] += outcome.shared_bytes
            if isinstance(task, ComputeBlock) and task.contiguous:
                for extent in checksummed(task.expr):
                    self._judge((task.output, task.key, extent), [part for part in outcome.read if part.extent == extent])

    def _judge(self, tensor: tuple[int, str, Extent], parts: list[ReadPart]) -> None:
        found = self._read.setdefault(tensor, [])
        found += parts
        output, key, extent = tensor
        if sum(part.nbytes for part in found) == extent.nbytes and _tile(found):
            computed = _joined([(part.rel_start, part.nbytes, part.checksum) for part in found], extent.file.checksum_kind)
            compare(key, extent.file, extent.start, extent.nbytes, extent.checksum or 0, computed)
            self._judged.add(tensor)
            self.verified[output].add(key)

    def unverified(self) -> dict[Extent, list[tuple[int, str]]]:
        """The stored tensors that did not pass by once from the first byte to the last, each with the outputs and keys computed from it."""
        found: dict[Extent, list[tuple[int, str]]] = {}
        for output, key, extent in self._read.keys() - self._judged:
            found.setdefault(extent, []).append((output, key))
        return found

    def checksums(self, output: int) -> dict[str, int]:
        """The checksum of each tensor of an output, joined from those of its parts; 0 for tensors without bytes."""
        layout = self._plan.outputs[output].layout
        sums = dict.fromkeys((placement.key for file in layout.files for placement in file.placements), 0)
        return sums | {
            key: _joined([(part.rel_start, part.nbytes, part.checksum) for part in parts], layout.checksum)
            for key, parts in self._parts[output].items()
        }


def _tile(parts: list[ReadPart]) -> bool:
    """Whether the parts, one after the other, begin at the first byte and leave nothing out."""
    parts.sort(key=lambda part: part.rel_start)
    at = 0
    for part in parts:
        if part.rel_start != at:
            return False
        at += part.nbytes
    return True


def _joined(parts: list[tuple[int, int, int]], kind: str) -> int:
    """The checksum of parts (offset, bytes, checksum) one after the other."""
    parts.sort()
    value = parts[0][2]
    for _, nbytes, checksum in parts[1:]:
        value = COMBINE[kind](value, checksum, nbytes)
    return value
