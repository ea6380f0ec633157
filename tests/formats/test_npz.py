from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import Arrays, FormatContract
from disk import FolderDisk

import surgery
from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, SourceError, UnsupportedFeature, render
from surgery.expr import Stored, Transpose, evaluate
from surgery.formats import deflate, npz
from surgery.tensors import SourceFile, TensorSpec

DATA = Path(__file__).parents[1] / "data" / "npz"
F32 = DTYPES["float32"]
MATRIX = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def array_of(path: Path, key: str) -> Any:
    def read(file: SourceFile, start: int, stop: int) -> bytes:
        return FolderDisk().open(file.path)[1](start, stop)

    expr = npz.index(str(path), FolderDisk()).tensors[key]
    return evaluate(expr, tuple((0, size) for size in expr.spec.shape), read)


def npy_of(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode("latin-1") + data


def fault_of(path: Path, stored: bytes) -> SourceError:
    path.write_bytes(stored)
    with pytest.raises(SourceError) as fault:
        npz.index(str(path), FolderDisk())
    assert fault.value.help
    return fault.value


class TestNpz(FormatContract):
    format = npz
    filename = "out.npz"
    holds = frozenset(
        ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "complex64", "complex128"]
    )

    def make(self, folder: Path, arrays: Arrays) -> str:
        named: dict[str, Any] = dict(arrays)
        np.savez(folder / "in.npz", **named)
        return str(folder / "in.npz")


class TestCompressedNpz(TestNpz):
    def make(self, folder: Path, arrays: Arrays) -> str:
        named: dict[str, Any] = dict(arrays)
        np.savez_compressed(folder / "in.npz", **named)
        return str(folder / "in.npz")


# Reading


@pytest.mark.parametrize("name", ["plain.npz", "deflated.npz"])
def test_reads_both_orders_of_axes_and_bytes(name: str) -> None:
    found = npz.index(str(DATA / name), FolderDisk())
    assert list(found.tensors)[:6] == ["w", "fortran", "big", "größe", "scalar", "none"]
    assert [str(expr.spec) for expr in found.tensors.values()][:6] == ["f32[2,3]", "f32[2,3]", "f32[2,3]", "i64[1]", "bool[]", "f16[0,4]"]
    for key in ("w", "fortran", "big"):
        assert array_of(DATA / name, key).tolist() == MATRIX
        assert array_of(DATA / name, key).dtype == np.dtype("<f4")
    assert array_of(DATA / name, "größe").tolist() == [7]


def test_inflates_arrays_that_are_big_endian_and_fortran() -> None:
    assert array_of(DATA / "deflated.npz", "fortran_big").tolist() == MATRIX
    assert array_of(DATA / "deflated.npz", "half").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ["one", "fortran", "version2", "version3"])
def test_a_single_array_has_the_files_name_as_key(name: str) -> None:
    assert array_of(DATA / f"{name}.npy", name).tolist() == MATRIX


def test_stored_members_are_byte_ranges_and_fortran_is_a_transposition() -> None:
    tensors = npz.index(str(DATA / "plain.npz"), FolderDisk()).tensors
    plain, fortran, big = tensors["w"], tensors["fortran"], tensors["big"]
    assert isinstance(plain, Stored)
    assert (plain.extent.start, plain.extent.nbytes, plain.extent.codec) == (183, 24, None)
    assert isinstance(fortran, Transpose)
    assert fortran.children[0].spec.shape == (3, 2)
    assert big.view() is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("object", "object arrays are pickles"),
        ("bfloat16", "the name of their type is lost"),
        ("float8", "the name of their type is lost"),
        ("structured", "is a structured array"),
        ("text", "arrays of text are no tensors"),
        ("bytes", "arrays of bytes are no tensors"),
        ("date", "dates are no tensors"),
        ("extended", "extended precision differs"),
    ],
)
def test_arrays_that_are_no_tensors_are_refused_with_the_reason(name: str, says: str) -> None:
    with pytest.raises(UnsupportedFeature) as fault:
        npz.index(str(DATA / f"{name}.npy"), FolderDisk())
    assert says in render(fault.value)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': '', 'shape': (2,)}",
        "{'descr': (2,), 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904, 0)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 65 + ")}",
        "{'descr': '<f4', 'fortran_order': __import__('os').abort(), 'shape': (2,)}",
        "(" * 60_000,
    ],
)
def test_an_odd_npy_header_is_refused_without_being_run(tmp_path: Path, header: str) -> None:
    assert isinstance(fault_of(tmp_path / "a.npy", npy_of(header, bytes(8))), CorruptFile)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }   \n",
        '{"shape":(2L,),"fortran_order":False,"descr":"<f4"}',
        "{ 'fortran_order' : True ,'shape': ( 2 , ) , 'descr' : '<f4' }",
    ],
)
def test_npy_headers_of_other_writers_are_understood(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.npy").write_bytes(npy_of(header, b"\0\0\x80?\0\0\0@"))
    assert array_of(tmp_path / "a.npy", "a").tolist() == [1.0, 2.0]


def test_bytes_behind_an_array_are_not_dropped_silently(tmp_path: Path) -> None:
    assert "is not as long as its array" in fault_of(tmp_path / "a.npy", (DATA / "one.npy").read_bytes() + b"\0").title


def test_a_newer_npy_version_is_refused(tmp_path: Path) -> None:
    assert "version from 1 to 3" in fault_of(tmp_path / "a.npy", npy_of("{}", version=b"\x04\x00")).title


def test_arrays_that_are_no_tensors_are_left_out_of_an_archive(tmp_path: Path) -> None:
    no_tensors = {name: np.load(DATA / f"{name}.npy", allow_pickle=True) for name in ("object", "text", "bytes", "date", "structured")}
    np.savez(tmp_path / "a.npz", w=np.float32(MATRIX), **no_tensors, names=np.array(["x"]))
    found = npz.index(str(tmp_path / "a.npz"), FolderDisk())
    assert list(found.tensors) == ["w"]
    assert found.notes == (
        "`object` left out: object arrays are pickles, and pickles run code",
        "`text`, `names` left out: arrays of text are no tensors",
        "`bytes` left out: arrays of bytes are no tensors",
        "`date` left out: dates are no tensors",
        "`structured` left out: records are no tensors",
    )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_sparse_matrix_of_scipy_is_read_without_the_name_of_its_kind(tmp_path: Path, save: Callable[..., None]) -> None:
    """The members that `scipy.sparse.save_npz` writes."""
    save(tmp_path / "a.npz", indices=np.int32([1]), indptr=np.int32([0, 1]), format=b"csr", shape=np.int64([1, 2]), data=np.float32([5]))
    assert list(npz.index(str(tmp_path / "a.npz"), FolderDisk()).tensors) == ["indices", "indptr", "shape", "data"]


def test_an_archive_without_a_tensor_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array(["x"]), b=np.array([b"y"]))
    assert "`a.npy` in" in fault_of(tmp_path / "a.npz", (tmp_path / "a.npz").read_bytes()).title


def test_numbers_of_a_lost_type_are_not_left_out(tmp_path: Path) -> None:
    stored = zip_of({"a.npy": ONE, "b.npy": (DATA / "bfloat16.npy").read_bytes()})
    assert "`b.npy` in" in fault_of(tmp_path / "a.npz", stored).title


# Hostile archives


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


ONE = (DATA / "one.npy").read_bytes()
TWO = zip_of({"a.npy": ONE, "b.npy": ONE})


def patched(field: int, value: bytes, entry: int = 0) -> bytes:
    """TWO with bytes of a directory entry exchanged; `field` counts from the entry's start."""
    at = TWO.index(b"PK\x01\x02") if entry == 0 else TWO.rindex(b"PK\x01\x02")
    return TWO[: at + field] + value + TWO[at + field + len(value) :]


BAD_NAME = patched(8, b"\x00\x08\x00\x00").replace(b"\x00a.npyPK", b"\x00\xff.npyPK")
"""The name in the directory claims to be UTF-8."""


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (b"", "has no zip directory at its end"),
        (TWO[:-1], "has no zip directory at its end"),
        (TWO + b"\0", "has no zip directory at its end"),
        (b"front" + TWO, "does not end at the end record"),
        (TWO.replace(b"b.npy", b"a.npy"), "holds `a.npy` twice"),
        (patched(46, b"c.npy"), "calls `c.npy` by another name"),
        (patched(42, bytes(4), entry=1), "runs into what follows"),
        (patched(42, b"\xff\xff\xff\x7f", entry=1), "runs into what follows"),
        (patched(20, b"\xff\xff\xff\x7f\xff\xff\xff\x7f"), "runs into what follows"),
        (patched(8, b"\x01\x00"), "is encrypted"),
        (patched(10, b"\x08\x00"), "contradicts the directory"),
        (patched(0, b"XX"), "has a broken zip directory"),
        (patched(28, b"\xff\xff"), "has a broken zip directory"),
        (patched(24, b"\xff\xff\xff\xff"), "has a broken zip directory"),
        (BAD_NAME, "has a broken zip directory"),
        (TWO[:-12] + b"\x03\x00" + TWO[-10:], "does not list as many members"),
        (TWO[:-18] + b"\x01\x00" + TWO[-16:], "one of several disks"),
        (zip_of({"a.npy": ONE, "data.pkl": b""}), "holds 1 file that are no arrays"),
        (zip_of({"a.npy": ONE[:-1]}), "is not as long as its array"),
        (zip_of({"a.npy": b""}), "is not an npy file"),
        (zip_of({"a.npy": ONE}, zipfile.ZIP_BZIP2), "is compressed by method 12"),
        (zip_of({"a.npy": ONE[:-1]}, zipfile.ZIP_DEFLATED), "cannot inflate to its array"),
    ],
)
def test_archives_that_contradict_themselves_are_refused(tmp_path: Path, stored: bytes, says: str) -> None:
    assert says in fault_of(tmp_path / "a.npz", stored).title


def test_an_inflation_that_deflate_cannot_reach_is_refused_unread(tmp_path: Path) -> None:
    header = npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000,)}")
    stored = bytearray(zip_of({"a.npy": header + bytes(100)}, zipfile.ZIP_DEFLATED))
    at = stored.index(b"PK\x01\x02") + 24
    stored[at : at + 4] = (len(header) + 1_000_000_000).to_bytes(4, "little")
    assert "cannot inflate to its array" in fault_of(tmp_path / "a.npz", bytes(stored)).title


def damage_crc(stored: bytearray) -> None:
    stored[stored.index(b"PK\x01\x02") + 16] ^= 1


def damage_stream(stored: bytearray) -> None:
    stored[stored.index(b"PK\x01\x02") - 2] ^= 0xFF


@pytest.mark.parametrize("damage", [damage_crc, damage_stream])
def test_damage_in_deflated_data_is_noticed(tmp_path: Path, damage: Callable[[bytearray], None]) -> None:
    array = npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (9000,)}", bytes(range(250)) * 36)
    stored = bytearray(zip_of({"a.npy": array}, zipfile.ZIP_DEFLATED))
    damage(stored)
    (tmp_path / "a.npz").write_bytes(stored)
    with pytest.raises(CorruptFile, match="is damaged"):
        array_of(tmp_path / "a.npz", "a")


def test_a_name_of_old_zip_programs_is_read(tmp_path: Path) -> None:
    """It is longer as UTF-8 than in the archive, and than all that comes behind it."""
    (tmp_path / "a.npz").write_bytes(zip_of({"x" * 300 + ".npy": ONE}).replace(b"x" * 300, b"\xb0" * 300))
    assert list(npz.index(str(tmp_path / "a.npz"), FolderDisk()).tensors) == ["░" * 300]


# Recognising


def test_other_zip_archives_are_not_recognised(tmp_path: Path) -> None:
    files = {"arrays": TWO, "torch.pt": zip_of({"x/data.pkl": b"", "x/data/0": b""}), "empty.zip": zip_of({}), "array": ONE, "text": b"text"}
    for name, stored in files.items():
        (tmp_path / name).write_bytes(stored)
    assert [name for name in files if npz.locate(str(tmp_path / name), FolderDisk())] == ["arrays", "array"]


def test_a_broken_file_with_the_suffix_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"text")
    assert npz.locate(str(tmp_path / "a.npz"), FolderDisk()) == str(tmp_path / "a.npz")
    assert npz.locate(str(tmp_path), FolderDisk()) is None
    assert npz.locate(str(tmp_path / "absent.npz"), FolderDisk()) is None


# Deflated members in a run


RAMP = np.repeat(np.arange(1 << 20, dtype=np.float32), 4).reshape(4096, 1024)


def run_deflated(folder: Path, monkeypatch: pytest.MonkeyPatch, steps: str, target: str, values: Any = RAMP) -> tuple[int, surgery.Plan]:
    """How often the member was inflated in a run that has 1 MiB, and the plan of it."""
    monkeypatch.chdir(folder)
    np.savez_compressed("in.npz", w=values)
    Path("r.yaml").write_text(f"surgery: 1\nsteps: [load: {{path: in.npz}}, {steps}save: {{path: {target}}}]\n")
    inflations, chunks = [], deflate.Deflated.chunks

    def counted(codec: deflate.Deflated, stored: Iterable[bytes | memoryview], spec: TensorSpec) -> Iterator[bytes | memoryview]:
        inflations.append(codec.label)
        return chunks(codec, stored, spec)

    monkeypatch.setattr(deflate.Deflated, "chunks", counted)
    plan = surgery.plan("r.yaml", jobs=2, memory=1 << 20)
    plan.run()
    return len(inflations), plan


def test_a_deflated_member_is_inflated_once_into_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inflations, plan = run_deflated(tmp_path, monkeypatch, "", "out.npz")
    assert (inflations, plan.physical.peak_bytes, plan.physical.notes) == (1, 0, ())
    np.testing.assert_array_equal(np.load("out.npz")["w"], RAMP)  # numpy looks at the CRC-32


def test_a_deflated_member_of_the_other_byte_order_is_turned_round_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_deflated(tmp_path, monkeypatch, "", "w.npy", RAMP.astype(">f4"))[0] == 1
    assert np.load("w.npy").dtype == np.dtype("<f4")
    np.testing.assert_array_equal(np.load("w.npy"), RAMP)


def test_a_deflated_member_that_is_computed_with_is_inflated_once_and_the_plan_tells_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inflations, plan = run_deflated(tmp_path, monkeypatch, "transpose: {keys: w}, ", "out.npz")
    assert inflations == 1
    assert plan.physical.peak_bytes == 20 << 20
    assert plan.physical.notes == ("`w` needs 20.0 MiB at once, more than --memory",)
    np.testing.assert_array_equal(np.load("out.npz")["w"], RAMP.T)


def test_inflating_little_by_little_takes_little_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "in.npz", w=np.zeros(32 << 20, np.uint8))
    leaf = npz.index(str(tmp_path / "in.npz"), FolderDisk()).tensors["w"]
    assert isinstance(leaf, Stored)
    assert isinstance(leaf.extent.codec, deflate.Deflated)
    stored = FolderDisk().open(str(tmp_path / "in.npz"))[1](leaf.extent.start, leaf.extent.stop)
    tracemalloc.start()
    try:
        total = sum(map(len, leaf.extent.codec.chunks([stored], leaf.spec)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 32 << 20
    assert peak < 6 << 20


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_inflating_does_not_depend_on_how_the_stored_bytes_are_cut(step: int) -> None:
    found = npz.index(str(DATA / "deflated.npz"), FolderDisk())
    read = FolderDisk().open(str(DATA / "deflated.npz"))[1]
    leaf = next(found.tensors["fortran_big"].leaves())
    assert isinstance(leaf, Stored)
    assert isinstance(leaf.extent.codec, deflate.Deflated)
    stored = read(leaf.extent.start, leaf.extent.stop)
    pieces = [stored[start : start + step] for start in range(0, len(stored), step)]
    content = b"".join(leaf.extent.codec.chunks(pieces, leaf.spec))
    assert content == struct.pack("<6f", 0, 3, 1, 4, 2, 5)


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_a_deflate_stream_that_ends_early_is_damaged(cut: int) -> None:
    read = FolderDisk().open(str(DATA / "deflated.npz"))[1]
    leaf = npz.index(str(DATA / "deflated.npz"), FolderDisk()).tensors["w"]
    assert isinstance(leaf, Stored)
    assert isinstance(leaf.extent.codec, deflate.Deflated)
    with pytest.raises(CorruptFile, match=r"`w\.npy` in .*deflated\.npz is damaged"):
        list(leaf.extent.codec.chunks([read(leaf.extent.start, leaf.extent.stop - cut)], leaf.spec))
