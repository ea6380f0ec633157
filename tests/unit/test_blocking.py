"""Parts of computed tensors: together the tensor, each within the budget, and read in long runs where that can be."""

from __future__ import annotations

from math import inf, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.blocking import STRIP, Part, blocks, parts, shortest_run, working_bytes
from surgery.chunked import Chunked
from surgery.dtypes import DTYPES
from surgery.expr import Cast, Expr, Slice, Stored, Transpose
from surgery.regions import Region, extent_of, whole
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

FILE = SourceFile("memory", Fingerprint(0, 0, 0, 0))
MIB = 1 << 20


def stored(shape: tuple[int, ...], dtype: str = "float32") -> Stored:
    spec = TensorSpec(DTYPES[dtype], shape)
    return Stored(Extent(FILE, 0, spec.nbytes, spec))


def to_float64(child: Expr) -> Cast:
    return Cast(child, TensorSpec(DTYPES["float64"], child.spec.shape))


def slices(region: Region) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in region)


@st.composite
def trees(draw: st.DrawFn) -> Expr:
    """Stored tensors of up to some MiB, cast, transposed, both in either order, or cut out."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 7, 60, 300]), min_size=1, max_size=4)))
    tree: Expr = stored(shape if prod(shape) < 4 * MIB else (300, 60, 7))
    for change in draw(st.lists(st.sampled_from(["cast", "transpose", "slice"]), max_size=3)):
        sizes = tree.spec.shape
        if change == "cast":
            tree = to_float64(tree)
        elif change == "transpose":
            tree = Transpose(tree, tuple(draw(st.permutations(range(len(sizes))))))
        else:
            tree = Slice(tree, tuple(size // 3 for size in sizes), tuple(size - size // 3 for size in sizes))
    return tree


@given(tree=trees(), budget=st.sampled_from([1, 1000, 64 << 10, MIB, 64 * MIB]))
def test_parts_cover_each_element_once_within_the_budget(tree: Expr, budget: int) -> None:
    seen = np.zeros(tree.spec.shape, np.uint8)
    found = []
    for number, part in enumerate(parts(tree, budget)):
        seen[slices(part.region)] += 1
        assert part.working_bytes <= budget or prod(extent_of(next(blocks(tree, part.region, part.block_bytes)))) == 1
        assert part.working_bytes >= max(working_bytes(tree, block) for block in _first(tree, part))
        found.append(part)
        if number > 3000:
            break
    else:
        assert (seen == 1).all()
    assert len({part.contiguous for part in found}) == 1
    if found[0].contiguous:
        at = 0
        places = np.arange(tree.spec.size).reshape(tree.spec.shape)
        for part in found:
            inside = places[slices(part.region)].reshape(-1)
            assert inside[0] == at
            assert inside[-1] - inside[0] + 1 == inside.size
            at += inside.size


def _first(tree: Expr, part: Part) -> list[Region]:
    """Some of the blocks in which a part is computed."""
    return [region for region, _ in zip(blocks(tree, part.region, part.block_bytes), range(5), strict=False)]


@given(tree=trees(), budget=st.sampled_from([1, 5000, MIB]))
def test_blocks_of_a_region_are_it_in_c_order(tree: Expr, budget: int) -> None:
    region = tuple((size // 4, size) for size in tree.spec.shape)
    places = np.arange(tree.spec.size).reshape(tree.spec.shape)
    wanted = places[slices(region)].reshape(-1)
    at = 0
    for number, block in enumerate(blocks(tree, region, budget)):
        inside = places[slices(block)].reshape(-1)
        assert (inside == wanted[at : at + inside.size]).all()
        assert working_bytes(tree, block) <= budget or inside.size == 1
        at += inside.size
        if number > 3000:
            return
    assert at == wanted.size


def test_a_cast_goes_in_strips() -> None:
    found = list(parts(to_float64(stored((4096, 4096))), 256 * MIB))
    assert {part.contiguous for part in found} == {True}
    assert {part.block_bytes for part in found} == {STRIP}
    assert max(part.working_bytes for part in found) <= STRIP
    assert len(found) == 4  # 192 MiB of both arrays together, at most 64 MiB a task, and a row of 48 KiB is left over


def test_a_transposed_tensor_that_fits_is_taken_whole() -> None:
    (part,) = parts(Transpose(stored((1024, 1024)), (1, 0)), 64 * MIB)
    assert part.region == whole((1024, 1024))
    assert part.contiguous
    assert 4 * MIB <= part.working_bytes <= 8 * MIB


@pytest.mark.parametrize("order", [(1, 0), (1, 0, 2), (2, 0, 1)])
def test_moving_axes_of_one_needs_no_tiles(order: tuple[int, ...]) -> None:
    shape = (1, 1 << 20) if len(order) == 2 else (1, 1 << 20, 1)
    assert all(part.contiguous for part in parts(to_float64(Transpose(stored(shape), order)), 2 * MIB))


def test_a_huge_transposed_matrix_goes_in_few_tiles_that_are_nearly_square() -> None:
    huge = Transpose(stored((100_000, 100_000)), (1, 0))
    found = list(parts(huge, 8 * MIB))
    assert not any(part.contiguous for part in found)
    assert max(part.working_bytes for part in found) <= 8 * MIB
    rows, columns = extent_of(found[0].region)
    assert max(rows, columns) <= 2 * min(rows, columns)
    assert 4 * 10**10 / (8 * MIB) < len(found) < 4 * 4 * 10**10 / (8 * MIB)
    assert sum(prod(extent_of(part.region)) for part in found) == 10**10


def test_tiles_take_other_axes_whole_only_where_there_is_room() -> None:
    tree = Transpose(stored((2000, 16, 2000)), (2, 1, 0))
    found = list(parts(tree, MIB))
    rows, middle, columns = extent_of(found[0].region)
    assert middle < 16 or min(rows, columns) > 50
    assert max(rows, columns) <= 2 * min(rows, columns)
    assert max(part.working_bytes for part in found) <= MIB


def test_what_is_put_in_order_strip_by_strip_counts_twice() -> None:
    """Long rows exchanged: nothing is allocated but what was read and what is written."""
    found = list(parts(Transpose(stored((8, 8, 65536)), (1, 0, 2)), MIB))
    assert all(part.contiguous for part in found)
    assert {part.block_bytes for part in found} == {MIB // 2}
    assert max(part.working_bytes for part in found) == MIB


def test_rows_far_apart_of_a_slice_are_no_reason_for_tiles() -> None:
    """They would be read in bits of the same length."""
    half = Slice(stored((100_000, 512)), (0, 0), (100_000, 256))
    assert all(part.contiguous for part in parts(half, 8 * MIB))


def test_the_shortest_run_is_that_of_the_source() -> None:
    matrix = stored((1000, 50))
    assert shortest_run(matrix, ((3, 9), (0, 50))) == 6 * 50 * 4
    assert shortest_run(matrix, ((3, 9), (0, 20))) == 20 * 4
    assert shortest_run(Transpose(matrix, (1, 0)), ((0, 1), (0, 1000))) == 4
    assert shortest_run(Transpose(matrix, (1, 0)), ((0, 50), (7, 9))) == 2 * 50 * 4
    assert shortest_run(to_float64(matrix), whole((1000, 50))) == 200_000


def test_nothing_is_read_for_what_is_empty() -> None:
    assert shortest_run(stored((5, 5)), ((2, 2), (0, 5))) == inf


def test_working_bytes_count_each_new_array() -> None:
    region = ((0, 10), (0, 50))
    matrix = stored((1000, 50))
    assert working_bytes(matrix, region) == 2000
    assert working_bytes(to_float64(matrix), region) == 2000 + 4000
    assert working_bytes(Transpose(stored((50, 1000)), (1, 0)), region) == 2000


# Encoded chunks


def chunked(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Chunked:
    spec = TensorSpec(DTYPES["float32"], shape)
    return Chunked(Extent(FILE, 0, spec.nbytes, spec), chunk, lambda place: None, None, encoded=True)


def test_encoded_chunks_are_cut_between_them_in_one_run_where_rows_of_chunks_fit() -> None:
    found = list(parts(chunked((1000, 1000), (64, 100)), 3 * MIB))
    assert all(part.contiguous for part in found)
    assert {part.region[0][0] % 64 for part in found} == {0}
    assert {part.region[1] for part in found} == {(0, 1000)}
    assert len(found) == 2


def test_rows_of_chunks_beyond_the_budget_are_cut_across() -> None:
    found = list(parts(chunked((1000, 100_000), (250, 100)), MIB))
    assert {(low % 250, first % 100) for (low, _), (first, _) in (part.region for part in found)} == {(0, 0)}
    assert max(part.working_bytes for part in found) <= MIB
    assert sum(prod(extent_of(part.region)) for part in found) == 100_000_000


def test_a_transposed_tensor_is_cut_along_the_chunks_of_its_source() -> None:
    found = [part.region for part in parts(to_float64(Transpose(chunked((1000, 3000), (250, 100)), (1, 0))), 4 * MIB)]
    assert {(low % 100, first % 250) for (low, _), (first, _) in found} == {(0, 0)}
    assert len(found) > 1


def test_a_single_chunk_is_never_cut_however_large() -> None:
    (part,) = parts(chunked((1000, 1000), (1000, 1000)), MIB)
    assert part.region == ((0, 1000), (0, 1000))
    assert part.working_bytes == 20_000_000
