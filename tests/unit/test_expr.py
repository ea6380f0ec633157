import tracemalloc

import numpy as np
import pytest

from surgery.blocking import blocks, parts, working_bytes
from surgery.dtypes import DTYPES, numpy_dtype
from surgery.expr import Assemble, Cast, Fill, Reshape, Slice, Stored, Transpose, evaluate
from surgery.initializers import parse
from surgery.regions import whole
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

FILE = SourceFile("memory", Fingerprint(0, 0, 0, 0))


class Memory:
    """Bytes that count how they are read."""

    def __init__(self, data):
        self.data = data
        self.reads = []

    def __call__(self, file, start, stop):
        self.reads.append((start, stop))
        return self.data[start:stop]


def stored(shape, dtype="uint8", start=0, big_endian=False):
    spec = TensorSpec(DTYPES[dtype], shape)
    return Stored(Extent(FILE, start, spec.nbytes, spec, big_endian=big_endian))


def joined(*parts, shape, dtype="uint8"):
    return Assemble(TensorSpec(DTYPES[dtype], shape), parts)


def test_only_the_rows_that_are_asked_for_are_read():
    read = Memory(bytes(range(100)))
    assert evaluate(stored((9, 10), start=10), ((2, 4), (0, 10)), read).tolist() == [list(range(30, 40)), list(range(40, 50))]
    assert read.reads == [(30, 50)]


def test_near_runs_are_read_as_one():
    read = Memory(bytes(range(12)))
    assert evaluate(stored((3, 4)), ((0, 3), (1, 3)), read).tolist() == [[1, 2], [5, 6], [9, 10]]
    assert read.reads == [(1, 11)]


def test_far_runs_are_read_one_by_one():
    rows = np.arange(3 * 70_000, dtype=np.uint32).astype(np.uint8)
    read = Memory(rows.tobytes())
    assert evaluate(stored((3, 70_000)), ((0, 3), (1, 3)), read).tolist() == [[1, 2], [113, 114], [225, 226]]
    assert read.reads == [(1, 3), (70_001, 70_003), (140_001, 140_003)]


def test_a_joined_read_has_a_greatest_size():
    read = Memory(bytes(1000 * 8192))
    evaluate(stored((1000, 8192)), ((0, 1000), (0, 8191)), read)
    assert max(stop - start for start, stop in read.reads) <= 1 << 20
    assert len(read.reads) == 8


def test_big_endian_values_are_swapped():
    assert evaluate(stored((2,), "int16", big_endian=True), ((0, 2),), Memory(b"\x01\x02\xff\xfe")).tolist() == [258, -2]
    assert evaluate(stored((1,), "complex64", big_endian=True), ((0, 1),), Memory(b"\x3f\x80\0\0\xc0\0\0\0")).tolist() == [1 - 2j]


def test_big_endian_bytes_are_no_view_unless_elements_are_bytes():
    assert stored((2,), "int16", big_endian=True).view() is None
    assert stored((2,), "int8", big_endian=True).view() is not None


def test_parts_along_the_first_axis_are_the_same_bytes_in_the_order_of_their_origins():
    second, first = stored((1, 3), start=0), stored((2, 3), start=3)
    assert [piece.start for piece in joined(((2, 0), second), ((0, 0), first), shape=(3, 3)).view()] == [3, 0]


def test_parts_along_the_second_axis_are_computed():
    tree = joined(((0, 0), stored((2, 1), start=0)), ((0, 1), stored((2, 2), start=2)), shape=(2, 3))
    assert tree.view() is None
    assert evaluate(tree, whole((2, 3)), Memory(bytes(range(6)))).tolist() == [[0, 2, 3], [1, 4, 5]]


def test_leading_axes_of_one_do_not_hinder_a_view():
    assert joined(((0, 0), stored((1, 2))), ((0, 2), stored((1, 3), start=2)), shape=(1, 5)).view() is not None


def test_a_region_needs_only_the_parts_it_meets():
    tree = joined(((0,), stored((2,))), ((2,), stored((2,), start=2)), shape=(4,))
    assert tree.needs(((1, 2),)) == (((1, 2),), ((0, 0),))


def test_moving_an_axis_of_one_is_a_view():
    assert Transpose(stored((1, 3)), (1, 0)).view() == stored((1, 3)).view()
    assert Transpose(stored((2, 3)), (1, 0)).view() is None


def test_transpose_orders_axes_as_numpy_does():
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    tree = Transpose(stored((2, 3, 4)), (2, 0, 1))
    assert tree.spec.shape == (4, 2, 3)
    assert evaluate(tree, whole((4, 2, 3)), Memory(values.tobytes())).tolist() == np.transpose(values, (2, 0, 1)).tolist()


def part(child, origin, shape):
    return Slice(child, origin, shape)


def test_rows_are_the_same_bytes_under_another_address():
    (extent,) = part(stored((4, 3), "int16", start=100), (1, 0), (2, 3)).view()
    assert (extent.start, extent.nbytes, extent.spec.size) == (106, 12, 6)


def test_columns_are_computed():
    tree = part(stored((2, 3)), (0, 1), (2, 2))
    assert tree.view() is None
    assert evaluate(tree, whole((2, 2)), Memory(bytes(range(6)))).tolist() == [[1, 2], [4, 5]]


def test_a_region_of_a_slice_is_read_where_it_lies():
    read = Memory(bytes(range(100)))
    assert evaluate(part(stored((10, 10)), (4, 0), (6, 10)), ((1, 2), (3, 6)), read).tolist() == [[53, 54, 55]]
    assert read.reads == [(53, 56)]


@pytest.mark.parametrize(
    ("shape", "origin", "wanted", "start"),
    [
        ((1, 6), (0, 2), (1, 3), 2),  # the axis before has one element
        ((4, 6), (3, 2), (1, 3), 20),  # of the axis before one element is taken
        ((4, 1, 6), (2, 0, 0), (2, 1, 6), 12),
        ((4, 6), (1, 0), (1, 6), 6),
    ],
)
def test_what_lies_in_one_run_is_a_view(shape, origin, wanted, start):
    (extent,) = part(stored(shape), origin, wanted).view()
    assert extent.start == start


def test_a_slice_across_the_parts_of_a_tensor_is_cut_out_of_each():
    tree = joined(((0, 0), stored((2, 3), start=50)), ((2, 0), stored((1, 3), start=0)), ((3, 0), stored((2, 3), start=10)), shape=(5, 3))
    assert [(piece.start, piece.stop) for piece in part(tree, (1, 0), (3, 3)).view()] == [(53, 56), (0, 3), (10, 13)]


def test_a_part_has_no_checksum_and_knows_whose_part_it_is():
    spec = TensorSpec(DTYPES["uint8"], (4,))
    known = Extent(FILE, 0, 4, spec, checksum=7)
    (half,) = part(Stored(known), (0,), (2,)).view()
    (quarter,) = part(part(Stored(known), (0,), (2,)), (1,), (1,)).view()
    assert (half.checksum, half.part_of) == (None, known)
    assert (quarter.checksum, quarter.part_of) == (None, known)
    assert part(Stored(known), (0,), (4,)).view() == (known,)


def test_of_encoded_bytes_only_whole_tensors_are_a_view():
    deflated = Stored(Extent(FILE, 0, 3, TensorSpec(DTYPES["uint8"], (2, 4)), codec=object()))
    tree = joined(((0, 0), deflated), ((2, 0), stored((2, 4), start=3)), shape=(4, 4))
    assert part(tree, (1, 0), (2, 4)).view() is None
    assert [piece.nbytes for piece in part(tree, (0, 0), (3, 4)).view()] == [3, 4]
    assert [piece.start for piece in part(tree, (2, 0), (1, 4)).view()] == [3]


def test_bit_packed_elements_are_a_view_from_byte_to_byte():
    packed = stored((4, 3), "float4_e2m1fn_packed", start=10)
    (extent,) = part(packed, (2, 0), (2, 3)).view()
    assert (extent.start, extent.nbytes) == (13, 3)
    assert part(packed, (1, 0), (2, 3)).view() is None
    assert part(packed, (0, 0), (1, 3)).view() is None


def test_big_endian_and_string_tensors_have_no_view_of_a_part():
    assert part(stored((4,), "int16", big_endian=True), (0,), (2,)).view() is None
    assert part(stored((4,), "string"), (0,), (2,)).view() is None


def test_nothing_of_a_tensor_is_nothing_to_copy():
    assert part(stored((4, 3)), (4, 0), (0, 3)).view() == ()


def test_a_fill_is_no_view_and_needs_nothing():
    tree = Fill(TensorSpec(DTYPES["float32"], (2, 2)), parse({"constant": 3}), 0, "w")
    assert (tree.view(), tree.needs(((0, 1), (0, 2)))) == (None, ())
    assert evaluate(tree, ((1, 2), (0, 2)), Memory(b"")).tolist() == [[3.0, 3.0]]


def test_working_bytes_count_every_node():
    tree = Cast(stored((4,), "float32"), TensorSpec(DTYPES["float16"], (4,)))
    assert working_bytes(tree, ((0, 4),)) == 4 * 4 + 4 * 2


def test_strings_count_whole_as_stored_and_as_objects():
    spec = TensorSpec(DTYPES["string"], (3,))
    tree = Stored(Extent(FILE, 0, 1000, spec, codec=object()))
    assert working_bytes(tree, ((0, 1),)) == 2 * 1000 + 3 * 48


def test_blocks_are_rows_where_rows_fit():
    assert list(blocks(stored((5, 4)), whole((5, 4)), 8)) == [((0, 2), (0, 4)), ((2, 4), (0, 4)), ((4, 5), (0, 4))]


def test_blocks_cut_rows_that_do_not_fit():
    assert list(blocks(stored((2, 4)), whole((2, 4)), 3)) == [((0, 1), (0, 3)), ((0, 1), (3, 4)), ((1, 2), (0, 3)), ((1, 2), (3, 4))]


def test_blocks_of_rows_with_unequal_cost_stay_contiguous():
    cheap, dear = (
        stored((6, 2)),
        Cast(Cast(stored((6, 2), start=12), TensorSpec(DTYPES["float64"], (6, 2))), TensorSpec(DTYPES["uint8"], (6, 2)), rounding="nearest"),
    )
    tree = joined(((0, 0), cheap), ((6, 0), dear), shape=(12, 2))
    regions = list(blocks(tree, whole(tree.spec.shape), 60))
    assert all(region[1] == (0, 2) for region in regions)
    assert [region[0][0] for region in regions] == [0, *(region[0][1] for region in regions[:-1])]
    assert all(working_bytes(tree, region) <= 60 for region in regions)


def test_an_empty_tensor_is_one_empty_block():
    assert list(blocks(stored((0, 4)), whole((0, 4)), 1)) == [((0, 0), (0, 4))]


TALL, WIDE, SQUARE, BOX = (200_000, 3), (3, 200_000), (769, 771), (7, 301, 1, 257)
SPAN = 1 << 20


@pytest.mark.parametrize(
    ("shape", "order"),
    [(TALL, (1, 0)), (WIDE, (1, 0)), (SQUARE, (1, 0)), (BOX, (3, 1, 2, 0)), (BOX, (1, 0, 3, 2)), (BOX, (2, 3, 0, 1))],
)
@pytest.mark.parametrize("budget", [256 << 10, 64 << 20])
@pytest.mark.parametrize("big_endian", [False, True])
def test_working_bytes_bound_what_transposing_allocates(shape, order, budget, big_endian):
    source = stored(shape, "float32", big_endian=big_endian)
    tree = Transpose(Cast(source, TensorSpec(DTYPES["float16"], shape), overflow="inf"), order) if shape == SQUARE else Transpose(source, order)

    def read(file, start, stop):
        return memoryview(bytearray(stop - start))

    regions = list(blocks(tree, whole(tree.spec.shape), budget))
    evaluate(tree, ((0, 1),) * len(shape), read)  # imports are not counted
    for region in (regions[0], regions[len(regions) // 2], regions[-1]):
        tracemalloc.start()
        try:
            evaluate(tree, region, read)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= working_bytes(tree, region) + SPAN + (512 << 10)  # a span, and the pieces of a cast


def test_a_tall_matrix_is_transposed_with_few_reads():
    read = Memory(bytes(4 * 600_000))
    evaluate(Transpose(stored(TALL, "float32"), (1, 0)), ((1, 2), (0, 200_000)), read)
    assert len(read.reads) == 3


def test_a_tensor_that_has_to_be_decoded_is_one_part():
    spec = TensorSpec(DTYPES["float32"], (10, 10))
    tree = Transpose(Stored(Extent(FILE, 0, 7, spec, codec=object())), (1, 0))
    assert [part.region for part in parts(tree, 8)] == [whole((10, 10))]


@pytest.mark.parametrize("name", [name for name, dtype in DTYPES.items() if dtype.computable])
def test_values_of_every_type_can_be_reshaped(name):
    values = np.arange(6).reshape(3, 2).astype(bool if name == "bool" else "f4").astype(numpy_dtype(DTYPES[name]))
    turned = Reshape(Transpose(Fill(TensorSpec(DTYPES[name], (3, 2)), parse("zeros"), 0, ""), (1, 0)), (6,))
    assert turned.compute(((1, 5),), (values.T,)).tobytes() == values.T.reshape(6)[1:5].tobytes()
