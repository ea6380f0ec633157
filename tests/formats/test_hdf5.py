from __future__ import annotations

import hashlib
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import KEYS, Arrays, FormatContract, bundle
from disk import FolderDisk
from executor import RawFile, content, execute
from hypothesis import given, settings
from hypothesis import strategies as st

from surgery.chunked import Chunked
from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, PlanError, SourceError, UnsupportedFeature, render
from surgery.expr import Fill, Stored, evaluate
from surgery.formats import hdf5
from surgery.tensors import SourceFile, TensorSpec

DATA = Path(__file__).parents[1] / "data" / "hdf5"
SAME = ("earliest.h5", "v108.h5", "latest.h5")
MATRIX = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
NUMPY = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "complex64", "complex128")
UNSPEAKABLE = {"/absolute", "../outside/", "trailing/"}
"""Keys with an empty name in them."""


def array_of(path: Path, key: str) -> Any:
    expr = hdf5.index(str(path), FolderDisk()).tensors[key]
    data = content(expr, FolderDisk())
    return np.frombuffer(data, np.dtype(expr.spec.dtype.numpy).newbyteorder("<")).reshape(expr.spec.shape)


class TestHdf5(FormatContract):
    format = hdf5
    filename = "out.h5"
    holds = frozenset([*NUMPY, "bfloat16"])
    keys = tuple(key for key in KEYS if key not in UNSPEAKABLE)

    def make(self, folder: Path, arrays: Arrays) -> str:
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        with h5py.File(folder / "in.h5", "w") as file:
            for key, array in arrays.items():
                file[key] = array
        return str(folder / "in.h5")


class TestLatestHdf5(TestHdf5):
    def make(self, folder: Path, arrays: Arrays) -> str:
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        with h5py.File(folder / "in.h5", "w", libver="latest", track_order=True) as file:
            for key, array in arrays.items():
                file[key] = array
        return str(folder / "in.h5")


class TestChunkedHdf5(TestHdf5):
    def make(self, folder: Path, arrays: Arrays) -> str:
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        with h5py.File(folder / "in.h5", "w") as file:
            for key, array in arrays.items():
                options = {"chunks": (2,) * array.ndim, "compression": "gzip", "fletcher32": True} if 1 < array.size < 100 else {}
                file.create_dataset(key, data=array, maxshape=(None,) * array.ndim if options else None, **options)
        return str(folder / "in.h5")


# Reading


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("dtype", NUMPY)
def test_reads_every_type_of_every_library_version(name: str, dtype: str) -> None:
    found = array_of(DATA / name, f"types/{dtype}")
    assert found.dtype == np.dtype(dtype).newbyteorder("<")
    assert found.tolist() == np.array(MATRIX).astype(dtype).tolist()


@pytest.mark.parametrize("name", SAME)
def test_reads_groups_too_wide_for_their_header(name: str) -> None:
    keys = [key for key in hdf5.index(str(DATA / name), FolderDisk()).tensors if key.startswith("wide/")]
    numbers = [f"wide/n{number}" for number in range(20)]
    assert keys == (sorted(numbers) if name == "earliest.h5" else numbers)
    assert array_of(DATA / name, "wide/n17").tolist() == 17


@pytest.mark.parametrize("name", SAME)
def test_attributes_of_the_file_are_metadata(name: str) -> None:
    metadata = hdf5.index(str(DATA / name), FolderDisk()).metadata
    assert metadata == {"count": "3"} | {f"a{number}": '["x", "yy"]' if number % 2 else "text" for number in range(20)}


@pytest.mark.parametrize("name", SAME)
def test_what_is_no_tensor_is_left_out_with_a_note(name: str) -> None:
    assert sorted(hdf5.index(str(DATA / name), FolderDisk()).notes) == [
        "`alias` is left out: a soft link to /wide is not followed",
        "`elsewhere` is left out: an external link to other.h5 /w is not followed",
        "`words` is left out: text, no tensor",
        "`zz` is left out: it is the group `wide` once more",
    ]


@pytest.mark.parametrize("name", SAME)
def test_what_was_never_written_is_its_fill_value(name: str) -> None:
    tensors = hdf5.index(str(DATA / name), FolderDisk()).tensors
    assert isinstance(tensors["never"], Fill)
    assert array_of(DATA / name, "never").tolist() == [0.0, 0.0, 0.0]
    assert array_of(DATA / name, "sevens").tolist() == [7, 7, 7]


@pytest.mark.parametrize("name", SAME)
def test_a_tensor_with_two_names_is_one_extent(name: str) -> None:
    tensors = hdf5.index(str(DATA / name), FolderDisk()).tensors
    assert tensors["tied"] is tensors["sevens"]


@pytest.mark.parametrize("name", SAME)
def test_a_single_chunk_is_inflated(name: str) -> None:
    assert array_of(DATA / name, "one_chunk").tolist() == np.arange(100).reshape(10, 10).tolist()


def test_contiguous_datasets_are_byte_ranges_behind_a_user_block() -> None:
    tensor = hdf5.index(str(DATA / "user_block.h5"), FolderDisk()).tensors["w"]
    assert isinstance(tensor, Stored)
    assert (tensor.extent.start, tensor.extent.nbytes, tensor.extent.codec) == (2560, 24, None)
    assert array_of(DATA / "user_block.h5", "w").tolist() == MATRIX


@pytest.mark.parametrize("key", ["plain", "all", "big"])
def test_chunks_are_put_together(key: str) -> None:
    assert array_of(DATA / "chunks.h5", key).tolist() == np.arange(100).reshape(10, 10).tolist()


def test_each_chunk_is_a_range_of_its_own() -> None:
    tensor = hdf5.index(str(DATA / "chunks.h5"), FolderDisk()).tensors["big"]
    assert isinstance(tensor, Chunked)
    found = [tensor.find((row, 0)) for row in range(3)]
    assert [(each.start, each.nbytes, str(each.spec)) for each in found if each] == [
        (4884, 51, "i32[4,10]"),
        (4935, 52, "i32[4,10]"),
        (4987, 35, "i32[4,10]"),
    ]


def test_a_chunk_that_was_never_written_shows_the_fill_value() -> None:
    assert array_of(DATA / "chunks.h5", "part").tolist() == [5, 5, 5, 5, 5, 1, 5, 5, 5, 5]


@pytest.mark.parametrize("index", ["fixed", "wider", "extensible", "last", "tree"])
@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_every_index_of_chunks_is_read(index: str, kind: str) -> None:
    assert array_of(DATA / "late_chunks.h5", f"{index}/{kind}").tolist() == np.arange(100).reshape(10, 10).tolist()


def test_chunks_without_an_index_lie_on_the_largest_grid() -> None:
    assert array_of(DATA / "late_chunks.h5", "wider/implicit").tolist() == np.arange(100).reshape(10, 10).tolist()


@pytest.mark.parametrize(("index", "size"), [("fixed", 3000), ("extensible", 200_000)])
def test_long_indexes_come_in_pages(index: str, size: int) -> None:
    tensor = hdf5.index(str(DATA / "late_chunks.h5"), FolderDisk()).tensors[f"{index}/long"]
    assert tensor.spec.shape == (size,)
    assert [region_of(tensor, start, start + 3) for start in (0, 1499, size - 11, size - 6)] == [[1, 9, 9], [9, 2, 9], [9, 3, 3], [3, 9, 9]]


def region_of(tensor: Any, start: int, stop: int) -> Any:
    disk = FolderDisk()

    def read(file: SourceFile, low: int, high: int) -> bytes:
        return disk.open(file.path)[1](low, high)

    return evaluate(tensor, ((start, stop),), read).tolist()


def test_plain_chunks_of_whole_rows_are_copied_as_they_are(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("w", data=np.arange(50, dtype="<i4").reshape(10, 5), chunks=(4, 5))
    ranges = hdf5.index(str(tmp_path / "x.h5"), FolderDisk()).tensors["w"].view()
    assert ranges is not None
    assert [str(extent.spec) for extent in ranges] == ["i32[4,5]", "i32[4,5]", "i32[2,5]"]
    stored = (tmp_path / "x.h5").read_bytes()
    assert b"".join(stored[extent.start : extent.stop] for extent in ranges) == np.arange(50, dtype="<i4").tobytes()


def test_two_chunks_for_one_place_are_damage(tmp_path: Path) -> None:
    stored = sound()
    second = struct.pack("<2I3Q", 52, 0, 4, 0, 0)
    assert stored.count(second) == 1
    found = fault_of(tmp_path, bytes(stored).replace(second, struct.pack("<2I3Q", 52, 0, 0, 0, 0)))
    assert found.title.endswith(f"has two chunks for one place, `big` in {tmp_path}/x.h5")


def test_a_chunk_beside_the_grid_is_damage(tmp_path: Path) -> None:
    stored = bytes(sound()).replace(struct.pack("<2I3Q", 52, 0, 4, 0, 0), struct.pack("<2I3Q", 52, 0, 5, 0, 0))
    assert "it begins at [5, 0]" in render(fault_of(tmp_path, stored))


def test_a_chunk_that_would_inflate_beyond_what_deflate_can_is_refused_unread(tmp_path: Path) -> None:
    stored = sound()
    at = stored.index(struct.pack("<2B2Q", 3, 2, 0, 0)[:2] + b"\3")
    sizes = stored.index(struct.pack("<3I", 4, 10, 4), at)
    stored[sizes : sizes + 4] = struct.pack("<I", 1 << 24)
    assert "should become" in render(fault_of(tmp_path, bytes(stored)))


def test_large_attributes_and_those_of_tensors_are_read() -> None:
    found = hdf5.index(str(DATA / "large_attributes.h5"), FolderDisk())
    assert found.metadata == {"many": str(list(range(9000)))}
    assert list(found.tensors) == ["w"]


def test_bit_fields_are_unsigned_integers() -> None:
    found = array_of(DATA / "bits.h5", "flags")
    assert (found.dtype, found.tolist()) == (np.dtype("u1"), [1, 0, 1])


def test_a_file_that_was_not_closed_is_told() -> None:
    found = hdf5.index(str(DATA / "open.h5"), FolderDisk())
    assert found.notes == ("the program that wrote it did not close it; it may lack the last changes",)
    assert array_of(DATA / "open.h5", "w").tolist() == MATRIX


@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_user_blocks_of_any_size_are_passed_over(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.h5").write_bytes(bytes(size) + (DATA / "user_block.h5").read_bytes()[512:])
    assert hdf5.locate(str(tmp_path / "x.h5"), FolderDisk()) == str(tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("external.h5", "lies in another file"),
        ("virtual.h5", "is a view of other datasets"),
    ],
)
def test_tensors_that_cannot_be_read_are_refused(name: str, says: str) -> None:
    with pytest.raises(UnsupportedFeature) as fault:
        hdf5.index(str(DATA / name), FolderDisk())
    assert says in render(fault.value)
    assert fault.value.help.startswith("rewrite it with h5repack")


def test_tensors_that_cannot_be_read_are_left_out_where_others_can() -> None:
    indexed = hdf5.index(str(DATA / "mixed.h5"), FolderDisk())
    assert list(indexed.tensors) == ["w"]
    assert [note.partition(" in ")[0] + " … " + note.rpartition("; ")[0].rpartition(".h5 ")[2] for note in indexed.notes] == [
        "left out: `outside` … lies in another file",
        "left out: `packed` … is compressed by scaleoffset",
    ]


@pytest.mark.parametrize(
    ("key", "sha256"),  # of what h5py reads
    [
        ("checked", "668946bab9868b28489bb906205ee1026045c8bcd3ca62a1bdf733c65491351b"),
        ("noise", "5eda10c12dc0096293c64324313bc2acfc12d63903de0d0a0d42e4aa4f57b5f7"),
        ("runs", "e35bb5cd8f11e1c346b0c715e5cb370a411a8405f9f38b75d713eba96c310673"),
        ("w", "077897d1b034053b87f9dcf857eddf68e4eab2d68a726c2865ff8800599dd95c"),
    ],
)
def test_lzf_is_read_as_h5py_reads_it(key: str, sha256: str) -> None:
    expr = hdf5.index(str(DATA / "lzf.h5"), FolderDisk()).tensors[key]
    assert hashlib.sha256(content(expr, FolderDisk())).hexdigest() == sha256


def test_a_damaged_chunk_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    expr = hdf5.index(str(DATA / "chunks.h5"), FolderDisk()).tensors["all"]
    assert isinstance(expr, Chunked)
    extent = expr.find((0, 0))
    assert extent is not None
    stored = bytearray((DATA / "chunks.h5").read_bytes())
    stored[extent.stop - 1] ^= 1
    (tmp_path / "x.h5").write_bytes(stored)
    damaged = hdf5.index(str(tmp_path / "x.h5"), FolderDisk()).tensors["all"]
    with pytest.raises(CorruptFile, match=r"`all` in .* is damaged"):
        content(damaged, FolderDisk())


# Hostile files


def fault_of(tmp_path: Path, stored: bytes) -> SourceError:
    (tmp_path / "x.h5").write_bytes(stored)
    with pytest.raises(SourceError) as fault:
        hdf5.index(str(tmp_path / "x.h5"), FolderDisk())
    assert fault.value.help
    return fault.value


def sound(name: str = "chunks.h5") -> bytearray:
    return bytearray((DATA / name).read_bytes())


@pytest.mark.parametrize("stored", [b"", b"\x89HDF", b"\x89HDF\r\n\x1a\n", b"no HDF5 at all" * 99])
def test_a_file_that_is_none_is_told_with_its_bytes(tmp_path: Path, stored: bytes) -> None:
    assert f"note: {tmp_path}/x.h5, bytes 0 to " in render(fault_of(tmp_path, stored))


def test_a_file_cut_short_is_told(tmp_path: Path) -> None:
    assert "it should have 14,208 bytes and has 14,207" in render(fault_of(tmp_path, bytes(sound()[:-1])))


def test_a_later_superblock_is_told_apart_from_damage(tmp_path: Path) -> None:
    stored = sound()
    stored[8] = 4
    assert isinstance(fault_of(tmp_path, bytes(stored)), UnsupportedFeature)


def test_a_tree_that_contains_itself_ends(tmp_path: Path) -> None:
    stored = sound()
    tree = struct.unpack_from("<Q", stored, 80)[0]
    stored[tree + 5] = 1
    stored[tree + 32 : tree + 40] = struct.pack("<Q", tree)
    assert isinstance(fault_of(tmp_path, bytes(stored)), CorruptFile)


def test_a_header_that_continues_in_itself_ends(tmp_path: Path) -> None:
    stored = sound()
    root = struct.unpack_from("<Q", stored, 64)[0]
    stored[root + 16 : root + 40] = struct.pack("<2H4x2Q", 16, 16, root + 16, 24)
    stored[root + 2 : root + 4] = b"\xff\xff"
    assert isinstance(fault_of(tmp_path, bytes(stored)), CorruptFile)


def test_a_tensor_that_no_one_wrote_cannot_fill_the_memory(tmp_path: Path) -> None:
    stored = sound("earliest.h5")
    at = stored.index(struct.pack("<2B2Q", 3, 1, 2**64 - 1, 12))
    space = stored.rindex(struct.pack("<Q", 3), 0, at)
    while stored[space - 8 : space - 6] != b"\1\1":
        space = stored.rindex(struct.pack("<Q", 3), 0, space)
    stored[space : space + 8] = struct.pack("<Q", 1 << 40)
    (tmp_path / "x.h5").write_bytes(stored)
    indexed = hdf5.index(str(tmp_path / "x.h5"), FolderDisk())
    assert "never" not in indexed.tensors
    assert "`never`" in indexed.notes[0]
    assert "is larger than its file could ever be" in indexed.notes[0]


def test_a_heap_larger_than_the_file_is_not_read(tmp_path: Path) -> None:
    stored = sound()
    heap = struct.unpack_from("<Q", stored, 88)[0]
    stored[heap + 8 : heap + 16] = b"\xff" * 7 + b"\x7f"
    (tmp_path / "x.h5").write_bytes(stored)
    disk = FolderDisk()
    with pytest.raises(CorruptFile, match="outside of it"):
        hdf5.index(str(tmp_path / "x.h5"), disk)
    assert disk.bytes_read < len(stored)


@settings(max_examples=300, deadline=1000)
@given(
    name=st.sampled_from([*SAME, "chunks.h5", "user_block.h5", "large_attributes.h5"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), min_size=1, max_size=8),
)
def test_mutated_files_give_nothing_but_source_errors(tmp_path_factory: pytest.TempPathFactory, name: str, edits: list[tuple[float, bytes]]) -> None:
    stored = bytearray((DATA / name).read_bytes())
    for place, data in edits:
        at = int(place * len(stored))
        stored[at : at + len(data)] = data
    path = tmp_path_factory.getbasetemp() / "mutated.h5"
    path.write_bytes(stored)
    began = time.monotonic()
    with suppress(SourceError):
        hdf5.index(str(path), FolderDisk())
    assert time.monotonic() - began < 1


@settings(max_examples=100, deadline=None)
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), min_size=1, max_size=30))
def test_mutated_indexes_of_chunks_give_nothing_but_source_errors(tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[float, bytes]]) -> None:
    stored = bytearray((DATA / "late_chunks.h5").read_bytes())
    for place, data in edits:
        at = int(place * len(stored))
        stored[at : at + len(data)] = data
    path = tmp_path_factory.getbasetemp() / "indexes.h5"
    path.write_bytes(stored)
    began = time.monotonic()
    with suppress(SourceError):
        tensors = hdf5.index(str(path), FolderDisk()).tensors
        assert time.monotonic() - began < 1
        for expr in tensors.values():
            if expr.spec.nbytes <= 400:
                content(expr, FolderDisk())


# Writing


def saved(tmp_path: Path, keys: list[str], **metadata: str) -> str:
    raw = RawFile(tmp_path / "raw.bin")
    tensors = {key: raw.tensor(TensorSpec(DTYPES["int8"], ()), b"\1") for key in keys}
    execute(hdf5.layout(bundle(str(tmp_path / "out.h5"), tensors, metadata=metadata)), FolderDisk())
    return str(tmp_path / "out.h5")


def test_metadata_of_any_length_is_kept(tmp_path: Path) -> None:
    metadata = {"format": "pt", "größe": "", "config": "ü" * 100_000}
    assert hdf5.index(saved(tmp_path, ["w"], **metadata), FolderDisk()).metadata == metadata


@pytest.mark.parametrize(
    "keys", [["/a"], ["a/"], ["a//b"], ["."], ["a/./b"], [""], ["a\0"], ["a", "a/b"], ["a/b", "a"], ["\ud800"], ["/".join("a" * 101)]]
)
def test_keys_that_are_no_paths_are_refused(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(PlanError) as fault:
        saved(tmp_path, keys)
    assert fault.value.code == "key-not-storable"


def test_all_keys_that_are_no_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as fault:
        saved(tmp_path, ["a", "a/b", "ok", "c//d"])
    assert fault.value.data == {"keys": ["a/b", "c//d"]}
    assert fault.value.notes == ("2 keys are affected: 'a/b' (`a` would be a tensor and a scope), 'c//d' (an empty name, `.` and NUL are no names)",)


def test_more_axes_than_hdf5_has_are_refused(tmp_path: Path) -> None:
    tensor = RawFile(tmp_path / "raw.bin").tensor(TensorSpec(DTYPES["int8"], (1,) * 33), b"\1")
    with pytest.raises(PlanError) as fault:
        hdf5.layout(bundle(str(tmp_path / "out.h5"), {"w": tensor}))
    assert fault.value.code == "shape-not-storable"


def test_large_copies_keep_their_place_in_the_page(tmp_path: Path) -> None:
    raw, spec = RawFile(tmp_path / "raw.bin"), TensorSpec(DTYPES["uint8"], (70_000,))
    tensors = {"a": raw.tensor(spec, bytes(70_000), offset=1234), "b": raw.tensor(spec, bytes(70_000), offset=100_001)}
    placements = hdf5.layout(bundle("out.h5", tensors)).files[0].placements
    assert [placement.start % 4096 for placement in placements] == [1234, 100_001 % 4096]


def test_the_superblock_is_that_of_the_oldest_version(tmp_path: Path) -> None:
    stored = Path(saved(tmp_path, ["w"])).read_bytes()
    assert stored[:24].hex() == "894844460d0a1a0a00000000000808000400100000000000"
    assert struct.unpack_from("<Q", stored, 40)[0] == len(stored)
