import numpy as np

from surgery.dtypes import DTYPES
from surgery.expr import Assemble, Cast, Fill, Stored, Transpose, blocks, evaluate, working_bytes
from surgery.initializers import parse
from surgery.regions import runs_of, whole
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


def test_runs_of_rows_are_one_run():
    assert runs_of((4, 5), ((1, 3), (0, 5))) == (10, [5])


def test_runs_of_columns_are_one_per_row():
    assert runs_of((3, 5), ((0, 3), (1, 3))) == (2, [1, 6, 11])


def test_runs_of_a_box_go_through_outer_axes_in_order():
    assert runs_of((2, 3, 4), ((0, 2), (1, 3), (0, 4))) == (8, [4, 16])
    assert runs_of((2, 3, 4), ((0, 2), (1, 3), (2, 3))) == (1, [6, 10, 18, 22])


def test_a_scalar_is_one_run():
    assert runs_of((), ()) == (1, [0])


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
    assert max(stop - start for start, stop in read.reads) <= 4 << 20
    assert len(read.reads) == 2


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


def test_a_fill_is_no_view_and_needs_nothing():
    tree = Fill(TensorSpec(DTYPES["float32"], (2, 2)), parse({"constant": 3}), 0, "w")
    assert (tree.view(), tree.needs(((0, 1), (0, 2)))) == (None, ())
    assert evaluate(tree, ((1, 2), (0, 2)), Memory(b"")).tolist() == [[3.0, 3.0]]


def test_working_bytes_count_every_node():
    tree = Cast(stored((4,), "float32"), TensorSpec(DTYPES["float16"], (4,)))
    assert working_bytes(tree, ((0, 4),)) == 4 * 4 + 4 * 2


def test_an_encoded_tensor_counts_whole():
    spec = TensorSpec(DTYPES["string"], (3,))
    tree = Stored(Extent(FILE, 0, 1000, spec, codec=object()))
    assert working_bytes(tree, ((0, 1),)) == 1 + 1000


def test_blocks_are_rows_where_rows_fit():
    assert list(blocks(stored((5, 4)), 8)) == [((0, 2), (0, 4)), ((2, 4), (0, 4)), ((4, 5), (0, 4))]


def test_blocks_cut_rows_that_do_not_fit():
    assert list(blocks(stored((2, 4)), 3)) == [((0, 1), (0, 3)), ((0, 1), (3, 4)), ((1, 2), (0, 3)), ((1, 2), (3, 4))]


def test_blocks_of_rows_with_unequal_cost_stay_contiguous():
    cheap, dear = (
        stored((6, 2)),
        Cast(Cast(stored((6, 2), start=12), TensorSpec(DTYPES["float64"], (6, 2))), TensorSpec(DTYPES["uint8"], (6, 2)), rounding="nearest"),
    )
    tree = joined(((0, 0), cheap), ((6, 0), dear), shape=(12, 2))
    regions = list(blocks(tree, 60))
    assert all(region[1] == (0, 2) for region in regions)
    assert [region[0][0] for region in regions] == [0, *(region[0][1] for region in regions[:-1])]
    assert all(working_bytes(tree, region) <= 60 for region in regions)


def test_an_empty_tensor_is_one_empty_block():
    assert list(blocks(stored((0, 4)), 1)) == [((0, 0), (0, 4))]
