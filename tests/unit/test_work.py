"""One task at a time: its own range of the staged file and no other, what it learnt, and whether what it wrote is still there."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from surgery.commit import Staging
from surgery.dtypes import DTYPES
from surgery.expr import Cast, Expr, Stored, Transpose
from surgery.files import LocalDisk, Sources
from surgery.formats.base import FileLayout, Layout
from surgery.regions import Region
from surgery.tasks import ComputeBlock, CopyRun, OutputPlan, PhysicalPlan, Piece, Task
from surgery.tensors import Extent, SourceFile, TensorSpec
from surgery.work import Part, Work

SHAPE = (700, 500)
VALUES = np.random.default_rng(2).integers(-99, 99, SHAPE).astype("<f4")
START, SIZE = 4096, 4 << 20
OUTSIDE = random.Random(5).randbytes(SIZE)


@pytest.fixture
def file(tmp_path: Path) -> SourceFile:
    (tmp_path / "a.data").write_bytes(VALUES.tobytes())
    return LocalDisk().open(str(tmp_path / "a.data"))[0]


class Bench(Work):
    """A `Work` with one staged file `m` of noise, for an output that wants CRC-32C checksums; counts the bytes told as progress."""

    def __init__(self, staging: Staging, sources: Sources) -> None:
        self.told: list[int] = []
        layout = Layout("tf", ".", (FileLayout("m", SIZE),), checksum="crc32c")
        output = OutputPlan("m", 0, layout, (), (), (), False, False, 1, 0, 0, "", False)
        super().__init__(PhysicalPlan((output,), (), 0, 0, 0, ()), sources, [staging], False, self.told.append)
        staging.create("m", SIZE)
        staging.write("m", 0, OUTSIDE)
        self.path = Path(staging.path("m"))

    def content(self) -> bytes:
        return self.path.read_bytes()

    def flip(self, at: int) -> None:
        with self.path.open("r+b") as opened:
            data = os.pread(opened.fileno(), 1, at)
            os.pwrite(opened.fileno(), bytes([data[0] ^ 1]), at)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Staging.open(str(tmp_path / "out"), "m") as staging, Sources() as sources:
        yield Bench(staging, sources)


def stored(file: SourceFile) -> Stored:
    spec = TensorSpec(DTYPES["float32"], SHAPE)
    return Stored(Extent(file, 0, spec.nbytes, spec, google_crc32c.value(VALUES.tobytes())))


def cast(file: SourceFile) -> Expr:
    return Cast(stored(file), TensorSpec(DTYPES["float64"], SHAPE))


def transposed(file: SourceFile) -> Expr:
    return Transpose(stored(file), (1, 0))


def block(expr: Expr, region: Region, *, contiguous: bool, block_bytes: int = 1 << 16) -> ComputeBlock:
    return ComputeBlock(0, "m", START, "w", expr, region, block_bytes, block_bytes, contiguous)


def expected(array: Any, region: Region) -> bytes:
    """The file after a region of a tensor was written into it."""
    whole = np.frombuffer(OUTSIDE, np.uint8, array.nbytes, START).copy().view(array.dtype).reshape(array.shape)
    inside = tuple(slice(*pair) for pair in region)
    whole[inside] = array[inside]
    return OUTSIDE[:START] + whole.tobytes() + OUTSIDE[START + array.nbytes :]


def test_a_strip_writes_its_rows_and_tells_their_checksum(file: SourceFile, bench: Bench) -> None:
    outcome = bench.do(block(cast(file), ((100, 300), (0, 500)), contiguous=True))
    assert bench.content() == expected(VALUES.astype("f8"), ((100, 300), (0, 500)))
    rows = VALUES[100:300].astype("f8").tobytes()
    assert outcome.parts == (Part("w", 100 * 500 * 8, len(rows), google_crc32c.value(rows)),)
    assert outcome.written == google_crc32c.value(rows)
    assert [(part.rel_start, part.nbytes) for part in outcome.read] == [(100 * 500 * 4, 200 * 500 * 4)]
    assert sum(bench.told) == len(rows)


@pytest.mark.parametrize("region", [((0, 64), (0, 700)), ((30, 222), (100, 350)), ((499, 500), (5, 6)), ((0, 500), (0, 1))])
def test_a_tile_writes_each_of_its_rows_where_it_belongs(file: SourceFile, bench: Bench, region: Region) -> None:
    task = block(transposed(file), region, contiguous=False, block_bytes=1 << 30)
    outcome = bench.do(task)
    assert bench.content() == expected(VALUES.T, region)
    assert (outcome.parts, outcome.read) == ((), ())  # of a tile nobody can tell the checksum of the tensor
    assert bench.is_done(task, outcome)


def test_a_transposed_tensor_that_is_taken_whole_has_a_checksum(file: SourceFile, bench: Bench) -> None:
    outcome = bench.do(block(transposed(file), ((0, 500), (0, 700)), contiguous=True, block_bytes=1 << 30))
    assert bench.content() == expected(VALUES.T, ((0, 500), (0, 700)))
    assert outcome.parts == (Part("w", 0, VALUES.nbytes, google_crc32c.value(VALUES.T.tobytes())),)


def copy(file: SourceFile) -> CopyRun:
    spec = TensorSpec(DTYPES["float32"], SHAPE)
    piece = Piece("w", 0, VALUES.nbytes, google_crc32c.value(VALUES.tobytes()), None, spec)
    return CopyRun(0, "m", START, file, 0, VALUES.nbytes, (piece,))


def test_a_copy_is_verified_on_its_way(file: SourceFile, bench: Bench) -> None:
    outcome = bench.do(copy(file))
    assert bench.content() == expected(VALUES, ((0, 700), (0, 500)))
    assert outcome.verified == ("w",)
    assert outcome.parts == (Part("w", 0, VALUES.nbytes, google_crc32c.value(VALUES.tobytes())),)


TASKS = {
    "copy": (copy, START, VALUES.nbytes),
    "strip": (lambda file: block(cast(file), ((100, 300), (0, 500)), contiguous=True), START + 100 * 500 * 8, 200 * 500 * 8),
    "tile": (lambda file: block(transposed(file), ((7, 8), (10, 300)), contiguous=False), START + (7 * 700 + 10) * 4, 290 * 4),
}


@pytest.mark.parametrize("name", TASKS)
def test_what_was_done_is_recognised_until_one_of_its_bytes_changes(file: SourceFile, bench: Bench, name: str) -> None:
    make, start, nbytes = TASKS[name]
    task: Task = make(file)
    outcome = bench.do(task)
    for beside in (start - 1, start + nbytes):
        bench.flip(beside)
        assert bench.is_done(task, outcome)
    for inside in (start, start + nbytes // 2, start + nbytes - 1):
        bench.flip(inside)
        assert not bench.is_done(task, outcome)
        bench.flip(inside)
    assert bench.is_done(task, outcome)


@pytest.mark.parametrize("name", TASKS)
def test_what_a_dead_run_wrote_for_a_task_is_taken_back(file: SourceFile, bench: Bench, name: str) -> None:
    make, _, _ = TASKS[name]
    task: Task = make(file)
    before = bench.content()
    bench.do(task)
    written = [at for at, (old, new) in enumerate(zip(before, bench.content(), strict=True)) if old != new]
    bench.clear(task)
    after = bench.content()
    assert {after[at] for at in written} == {0}
    _, start, nbytes = TASKS[name]
    assert (after[:start], after[start + nbytes :]) == (OUTSIDE[:start], OUTSIDE[start + nbytes :])
    assert after[start : start + nbytes] == bytes(nbytes)
