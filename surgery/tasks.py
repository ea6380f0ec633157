"""What the executor is given: outputs, laid out and cut into tasks, and checks on values.

Tasks are independent units of work. Each writes its own range of a file whose size is fixed, so they share nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from surgery.expr import Expr
from surgery.formats.base import Layout
from surgery.regions import Region
from surgery.tensors import Codec, Extent, SourceFile, TensorSpec


class Piece(NamedTuple):
    """The bytes of one tensor (or of one part of it) within a run.

    `rel_start` counts from the start of the tensor. `expected` is the stored plain CRC-32C; `codec` tells how it is taken
    where that is not simply over the bytes, for a tensor of this `spec`.
    """

    key: str
    rel_start: int
    nbytes: int
    expected: int | None
    codec: Codec | None
    spec: TensorSpec


class CopyRun(NamedTuple):
    """Neighbouring stored bytes that stay neighbours: `nbytes` from `source_start` to `start` of an output file."""

    output: int
    file: str
    start: int
    source: SourceFile
    source_start: int
    nbytes: int
    pieces: tuple[Piece, ...]


class ComputeBlock(NamedTuple):
    """One region of a computed tensor, contiguous in the output. `verified`: it reads stored tensors whole and checks their checksums."""

    output: int
    file: str
    start: int
    key: str
    rel_start: int
    nbytes: int
    expr: Expr
    region: Region
    verified: bool


class VerifyExtent(NamedTuple):
    """A stored tensor with a checksum whose bytes are read in parts by several blocks."""

    output: int
    key: str
    extent: Extent


Task = CopyRun | ComputeBlock | VerifyExtent


class Check(NamedTuple):
    """A fact about values that is looked at while the plan is applied; a failure stops the run before the commit.

    `kind` is `finite`, `equal`, `close` or `sha256`.
    """

    kind: str
    step: int
    key: str
    expr: Expr
    other_key: str = ""
    other: Expr | None = None
    rtol: float = 0.0
    atol: float = 0.0
    digest: str = ""


class Companion(NamedTuple):
    """A file taken along: read whole, with JSON fields set, written under `name`."""

    path: str
    name: str
    edit: Mapping[str, Any]


class OutputPlan(NamedTuple):
    """One output, ready to be written. `stale` are names in its folder that go after success."""

    path: str
    step: int
    layout: Layout
    tasks: tuple[Task, ...]
    companions: tuple[Companion, ...]
    stale: tuple[str, ...]
    overwrites: bool
    tensors: int
    copied_bytes: int
    computed_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes of tensors in the output."""
        return self.copied_bytes + self.computed_bytes


class PhysicalPlan(NamedTuple):
    """All outputs, the checks on values, and the most memory that arrays will take at once."""

    outputs: tuple[OutputPlan, ...]
    checks: tuple[Check, ...]
    peak_bytes: int
    notes: tuple[str, ...]
