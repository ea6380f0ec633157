"""What the executor is given: outputs, laid out and cut into tasks, and checks on values.

Tasks are independent units of work. Each writes its own range of a file whose size is fixed, so they share nothing."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from surgery.errors import PlanError
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


class DecodeStream(NamedTuple):
    """A stored tensor behind a `StreamCodec`, written as it is decoded: a single pass in little memory."""

    output: int
    file: str
    start: int
    key: str
    extent: Extent


class VerifyExtent(NamedTuple):
    """A stored tensor with a checksum whose bytes are read in parts by several blocks."""

    output: int
    key: str
    extent: Extent


Task = CopyRun | ComputeBlock | DecodeStream | VerifyExtent


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
    """One output, ready to be written. `stale` are names in its folder that go after success.

    `overwrites`: something stood there when the plan was made; `may_replace`: whatever stands there may be replaced.
    """

    path: str
    step: int
    layout: Layout
    tasks: tuple[Task, ...]
    companions: tuple[Companion, ...]
    stale: tuple[str, ...]
    overwrites: bool
    may_replace: bool
    tensors: int
    copied_bytes: int
    computed_bytes: int

    @property
    def names(self) -> list[str]:
        """The files that are its own, by their names in its folder; one that it shares with other outputs is not."""
        return [*(file.name for file in self.layout.files), *(companion.name for companion in self.companions)]

    @property
    def nbytes(self) -> int:
        """Bytes of tensors in the output."""
        return self.copied_bytes + self.computed_bytes


class PhysicalPlan(NamedTuple):
    """All outputs, the checks on values, and the most memory that arrays will take at once.

    `block_bytes` is what one thread may use for a block, and for a part of a check. `sources` are all files of the checkpoints
    that outputs come from, the indexes included.
    """

    outputs: tuple[OutputPlan, ...]
    checks: tuple[Check, ...]
    block_bytes: int
    peak_bytes: int
    notes: tuple[str, ...]
    sources: tuple[SourceFile, ...] = ()


def standing_in_the_way(path: str, folder: str, names: Sequence[str], step: int) -> PlanError:
    """The fault of an output whose files, or those of an older save under its name, are there and may not be replaced."""
    found = [posixpath.normpath(posixpath.join(folder, name)) for name in names]
    return PlanError(
        f"the output `{path}` exists",
        code="output-exists",
        at=("path",),
        notes=[f"found {', '.join(found[:5])}" + (" …" if len(found) > 5 else "")],
        help="set `overwrite: replace` in this step, or run with --force",
        data={"step": step},
    )


def not_of_its_kind(path: str, folder: str, update: str, step: int) -> PlanError:
    """The fault of an output that goes on from a file in its folder, where one of that name is something else."""
    return PlanError(
        f"the output `{path}` would replace `{posixpath.normpath(posixpath.join(folder, update))}`, which is something else",
        code="output-exists",
        at=("path",),
        notes=[f"the save goes on from a file called `{update}`; this one is not of that kind"],
        help="save elsewhere; or set `latest: false` to leave it alone, `overwrite: replace` to lose it",
        data={"step": step},
    )
