"""What the executor is given: outputs, laid out and cut into tasks, and checks on values.

Tasks are independent units of work. Each writes its own range of a file whose size is fixed, so they share nothing."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from surgery.errors import PlanError
from surgery.expr import Expr
from surgery.formats.base import FileLayout, Layout
from surgery.regions import Region, extent_of, runs
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
    """One region of a computed tensor, worked out in blocks of `block_bytes`, at the cost of `working_bytes` of memory.

    `start` is where the tensor begins in the file. `contiguous`: the region is one run of the tensor in C order, and so is each block.
    """

    output: int
    file: str
    start: int
    key: str
    expr: Expr
    region: Region
    block_bytes: int
    working_bytes: int
    contiguous: bool

    @property
    def rel_start(self) -> int:
        """Bytes of the tensor before the first one of the region."""
        return next(runs(self.expr.spec.shape, self.region)[1]) * self.expr.spec.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the region in the output."""
        return prod(extent_of(self.region)) * self.expr.spec.dtype.itemsize


class DecodeStream(NamedTuple):
    """A stored tensor behind a `StreamCodec`, written as it is decoded: a single pass in little memory."""

    output: int
    file: str
    start: int
    key: str
    extent: Extent


class VerifyExtent(NamedTuple):
    """A stored tensor with a checksum of which other tasks read or copy parts only."""

    output: int
    key: str
    extent: Extent


Task = CopyRun | ComputeBlock | DecodeStream | VerifyExtent


def memory_of(task: Task) -> int:
    """Bytes of the arrays that a task holds at the same time, as far as they grow with its tensors."""
    if isinstance(task, ComputeBlock):
        return task.working_bytes
    if isinstance(task, CopyRun):
        return max((2 * piece.nbytes for piece in task.pieces if piece.codec is not None), default=0)
    return 0


def has_to_pass(task: CopyRun, kind: str) -> bool:
    """Whether bytes have to be read on their way to an output that wants checksums of this `kind` ("": none).

    They need not where the output hands on the stored checksums, nor where neither side keeps any.
    """
    stored = task.source.checksum_kind
    return any(piece.codec is not None or kind != (stored if piece.expected is not None else "") for piece in task.pieces)


def bytes_of(task: Task) -> int:
    """Bytes of the output that a task writes."""
    if isinstance(task, VerifyExtent):
        return 0
    return task.extent.spec.nbytes if isinstance(task, DecodeStream) else task.nbytes


def key_of(task: Task) -> str:
    """The key that stands for a task in messages: the one that needs most memory."""
    if isinstance(task, CopyRun):
        return max(task.pieces, key=lambda piece: piece.nbytes).key
    return task.key


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


class Edit(NamedTuple):
    """A file of the recipe's own input that gets another beginning where it lies, and keeps its size."""

    name: str
    file: SourceFile
    beginning: bytes


class OutputPlan(NamedTuple):
    """One output, ready to be written. `stale` are names in its folder that go after success.

    `kept` are files of its layout that are there already and stay as they are, `edits` those that get another beginning. Of the
    `copied_bytes`, the file system can share `shared_bytes`.

    `overwrites`: something stood there when the plan was made; `may_replace`: whatever stands there may be replaced. `manifest` is
    the name of its manifest, which the run writes or, unless `keeps_manifest`, takes away.
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
    manifest: str
    keeps_manifest: bool
    kept: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    shared_bytes: int = 0

    @property
    def staged(self) -> list[FileLayout]:
        """The files that are written beside those that are there, the index last."""
        there = {*self.kept, *(edit.name for edit in self.edits)}
        return [file for file in self.layout.files if file.name not in there]

    @property
    def names(self) -> list[str]:
        """The files that are its own, by their names in its folder; one that it shares with other outputs is not."""
        return [*(file.name for file in self.layout.files), *(companion.name for companion in self.companions)]

    @property
    def kept_bytes(self) -> int:
        """Bytes of tensors that stay where they lie."""
        staged = {file.name for file in self.staged}
        left = (file for file in self.layout.files if file.name not in staged)
        return sum(placement.expr.spec.nbytes for file in left for placement in file.placements)

    @property
    def nbytes(self) -> int:
        """Bytes of tensors that are written."""
        return self.copied_bytes + self.computed_bytes


class PhysicalPlan(NamedTuple):
    """All outputs, the checks on values, and the most memory that arrays will take at once.

    `memory` is the budget of all arrays together, `block_bytes` the share of one thread. `sources` are all files of the checkpoints
    that outputs come from, the indexes included.
    """

    outputs: tuple[OutputPlan, ...]
    checks: tuple[Check, ...]
    memory: int
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
