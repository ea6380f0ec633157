"""What tasks learnt, put together: checksums of parts in any order, and a verdict on each stored tensor once all of it has passed by."""

from __future__ import annotations

import random
import zlib
from itertools import pairwise
from typing import Any

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile
from surgery.expr import Cast, Expr, Stored
from surgery.formats.base import FileLayout, Layout, Placement
from surgery.results import Results
from surgery.tasks import ComputeBlock, OutputPlan, PhysicalPlan
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec
from surgery.verify import ReadPart
from surgery.work import Outcome, Part

DATA = random.Random(7).randbytes(100)
SOURCE = SourceFile("a.data", Fingerprint(200, 0, 0, 0), "stored {stored} vs. calculated {computed}")
REFERENCE = {"crc32": zlib.crc32, "crc32c": google_crc32c.value}


def stored(checksum: int | None, start: int = 0) -> Stored:
    spec = TensorSpec(DTYPES["float32"], (25,))
    return Stored(Extent(SOURCE, start, 100, spec, checksum))


def float64(child: Expr) -> Cast:
    return Cast(child, TensorSpec(DTYPES["float64"], child.spec.shape))


def results(kind: str, *placements: tuple[str, Expr]) -> Results:
    """Of a run with one output that wants checksums of this kind."""
    files = (FileLayout("m", 400, tuple(Placement(key, expr, 0) for key, expr in placements)),)
    output = OutputPlan("m", 0, Layout("tf", ".", files, checksum=kind), (), (), (), False, False, len(placements), 0, 0, "", False)
    return Results(PhysicalPlan((output,), (), 0, 0, 0, ()))


def block(expr: Expr, key: str = "w", *, contiguous: bool = True) -> ComputeBlock:
    return ComputeBlock(0, "m", 0, key, expr, ((0, 25),), 100, 100, contiguous)


def cuts(positions: list[int]) -> list[tuple[int, int]]:
    ends = sorted({0, 100, *positions})
    return list(pairwise(ends))


@given(positions=st.lists(st.integers(0, 100)), seed=st.integers(), kind=st.sampled_from(["crc32", "crc32c"]))
def test_the_checksum_of_parts_in_any_order_is_that_of_the_whole(positions: list[int], seed: int, kind: str) -> None:
    found = results(kind, ("w", stored(None)))
    parts = [Part("w", start, stop - start, REFERENCE[kind](DATA[start:stop])) for start, stop in cuts(positions)]
    random.Random(seed).shuffle(parts)
    for part in parts:
        found.add(block(stored(None)), Outcome((part,)))
    assert found.checksums(0) == {"w": REFERENCE[kind](DATA)}


def test_a_tensor_without_bytes_has_the_checksum_of_nothing() -> None:
    assert results("crc32c", ("w", stored(None))).checksums(0) == {"w": google_crc32c.value(b"")}


def read(expr: Stored, positions: list[int], data: bytes = DATA) -> list[ReadPart]:
    """The parts of a stored tensor as they passed by."""
    return [ReadPart(expr.extent, start, stop - start, google_crc32c.value(data[start:stop])) for start, stop in cuts(positions)]


@given(positions=st.lists(st.integers(0, 100)), seed=st.integers())
def test_a_tensor_that_passed_by_in_parts_is_verified(positions: list[int], seed: int) -> None:
    tensor = stored(google_crc32c.value(DATA))
    found = results("", ("w", tensor))
    parts = read(tensor, positions)
    random.Random(seed).shuffle(parts)
    for part in parts:
        found.add(block(float64(tensor)), Outcome(read=(part,)))
    assert (found.verified, found.unverified()) == ([{"w"}], {})


@given(positions=st.lists(st.integers(0, 100)), at=st.integers(0, 99))
def test_a_damaged_tensor_is_told_once_its_last_part_is_there(positions: list[int], at: int) -> None:
    tensor = stored(google_crc32c.value(DATA))
    found = results("", ("w", tensor))
    *parts, last = read(tensor, positions, DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :])
    for part in parts:
        found.add(block(float64(tensor)), Outcome(read=(part,)))
    with pytest.raises(CorruptFile) as caught:
        found.add(block(float64(tensor)), Outcome(read=(last,)))
    assert (caught.value.code, caught.value.data) == ("checksum", {"key": "w", "file": "a.data", "start": 0, "stop": 100})
    assert found.verified == [set()]


@pytest.mark.parametrize(
    ("spans", "why"),
    [
        ([(0, 60)], "the end is missing"),
        ([(0, 40), (60, 100)], "the middle is missing"),
        ([(0, 60), (40, 100)], "a part was read twice"),
        ([(0, 60), (20, 60)], "as many bytes, not these"),
    ],
)
def test_what_did_not_pass_by_exactly_once_is_left_to_a_later_reading(spans: list[tuple[int, int]], why: str) -> None:
    tensor = stored(google_crc32c.value(DATA))
    found = results("", ("w", tensor))
    for start, stop in spans:
        part = ReadPart(tensor.extent, start, stop - start, google_crc32c.value(DATA[start:stop]))
        found.add(block(float64(tensor)), Outcome(read=(part,)))
    assert (found.verified, found.unverified()) == ([set()], {tensor.extent: [(0, "w")]}), why


def test_two_keys_of_one_stored_tensor_are_each_judged_by_what_they_read() -> None:
    tensor = stored(google_crc32c.value(DATA))
    found = results("", ("v", tensor), ("w", tensor))
    first, second = read(tensor, [50])
    for key, part in (("v", first), ("w", first), ("w", second)):
        found.add(block(float64(tensor), key), Outcome(read=(part,)))
    assert (found.verified, found.unverified()) == ([{"w"}], {tensor.extent: [(0, "v")]})


def test_tiles_judge_nothing() -> None:
    tensor = stored(google_crc32c.value(DATA))
    found = results("", ("w", tensor))
    found.add(block(float64(tensor), contiguous=False), Outcome(read=tuple(read(tensor, []))))
    assert (found.verified, found.unverified()) == ([set()], {})


def test_what_tasks_verified_and_shared_is_counted_up() -> None:
    found = results("", ("w", stored(None)))
    outcomes: list[Any] = [Outcome(verified=("a", "b"), shared_bytes=5), Outcome(verified=("b",), shared_bytes=7)]
    for outcome in outcomes:
        found.add(block(stored(None)), outcome)
    assert (found.verified, found.shared_bytes) == ([{"a", "b"}], [12])
