from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import bundle, odd_arrays
from disk import FolderDisk
from executor import RawFile, execute

from surgery.dtypes import DTYPES
from surgery.errors import KeyCollisionError, PlanError
from surgery.expr import Stored
from surgery.formats import npz, zips
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

F32 = DTYPES["float32"]
PAIR = TensorSpec(F32, (2,))


@pytest.fixture
def raw(tmp_path: Path) -> RawFile:
    return RawFile(tmp_path / "raw.bin")


def test_writes_the_very_bytes_of_numpy_savez(tmp_path: Path) -> None:
    arrays: dict[str, Any] = dict(odd_arrays())
    np.savez(tmp_path / "numpy.npz", **arrays)
    tensors = npz.index(str(tmp_path / "numpy.npz"), FolderDisk()).tensors
    execute(npz.layout(bundle(str(tmp_path / "ours.npz"), tensors)), FolderDisk())
    assert (tmp_path / "ours.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()


def test_numpy_reads_it_without_pickles(tmp_path: Path, raw: RawFile) -> None:
    tensors = {"w": raw.tensor(PAIR, b"\0\0\x80?\0\0\0@"), "../größe": raw.tensor(TensorSpec(DTYPES["bool"], ()), b"\x01")}
    execute(npz.layout(bundle(str(tmp_path / "x.npz"), tensors)), FolderDisk())
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert {key: found[key].tolist() for key in found.files} == {"w": [1.0, 2.0], "../größe": True}
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.testzip() is None


def test_writes_the_very_bytes_of_numpy_save(tmp_path: Path, raw: RawFile) -> None:
    np.save(tmp_path / "numpy.npy", np.array([1.0, 2.0], "<f4"))
    layout = npz.layout(bundle(str(tmp_path / "w.npy"), {"w": raw.tensor(PAIR, b"\0\0\x80?\0\0\0@")}))
    execute(layout, FolderDisk())
    assert (tmp_path / "w.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    assert layout.notes == ()


def test_what_the_files_have_no_place_for_is_noted(raw: RawFile) -> None:
    layout = npz.layout(bundle("out.npy", {"w": raw.tensor(PAIR, bytes(8))}, metadata={"a": "b"}))
    assert layout.notes == (
        "metadata is left out: numpy's files have no place for it",
        "the key `w` is left out: an npy file has no key but its own name",
    )


@pytest.mark.parametrize(
    ("key", "says"),
    [("a\0b", "it contains a NUL"), ("bad\udcff", "it is not UTF-8"), ("ä" * 32_766, "it is longer than 65,531 bytes")],
)
def test_refuses_keys_that_a_zip_cannot_hold(raw: RawFile, key: str, says: str) -> None:
    with pytest.raises(PlanError, match=says) as fault:
        npz.layout(bundle("x.npz", {key: raw.tensor(PAIR, bytes(8))}))
    assert fault.value.code == "key-not-storable"


def test_refuses_keys_that_numpy_would_take_for_one(raw: RawFile) -> None:
    with pytest.raises(KeyCollisionError) as fault:
        npz.layout(bundle("x.npz", {key: raw.tensor(PAIR, bytes(8)) for key in ("a", "a.npy")}))
    assert fault.value.collisions == {"a": ["a", "a.npy"]}


def test_an_npy_file_holds_one_tensor(raw: RawFile) -> None:
    with pytest.raises(PlanError, match="holds one tensor, not 2"):
        npz.layout(bundle("x.npy", {key: raw.tensor(PAIR, bytes(8)) for key in "ab"}))
    with pytest.raises(PlanError, match="holds one tensor, not 0"):
        npz.layout(bundle("x.npy", {}))


def test_refuses_more_axes_than_numpy_has(raw: RawFile) -> None:
    with pytest.raises(PlanError, match="`a` has 65 axes"):
        npz.layout(bundle("x.npz", {"a": raw.tensor(TensorSpec(F32, (1,) * 65), bytes(4))}))


def test_refuses_a_path_that_names_no_file() -> None:
    with pytest.raises(PlanError, match="out/ names no file"):
        npz.layout(bundle("out/", {}))


# zip64


def huge(nbytes: int) -> Stored:
    """A tensor of this many bytes that no one will read."""
    return Stored(Extent(SourceFile("huge.bin", Fingerprint(nbytes, 0, 0, 0)), 0, nbytes, TensorSpec(DTYPES["uint8"], (nbytes,))))


def test_sizes_and_offsets_beyond_32_bits_are_zip64(tmp_path: Path) -> None:
    layout = npz.layout(bundle(str(tmp_path / "x.npz"), {"a": huge(5 << 30), "b": huge(7), "c": huge(0)}))
    (file,) = layout.files
    assert layout.seal is not None
    with (tmp_path / "x.npz").open("wb") as stream:
        stream.truncate(file.size)
        for patch in layout.seal({"a": 1, "b": zlib.crc32(bytes(7)), "c": 0}):
            stream.seek(patch.start)
            stream.write(patch.data)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert [(info.filename, info.file_size) for info in archive.infolist()] == [("a.npy", (5 << 30) + 128), ("b.npy", 135), ("c.npy", 128)]
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["b"].tolist() == [0] * 7
    found = npz.index(str(tmp_path / "x.npz"), FolderDisk())
    assert {key: expr.spec.shape for key, expr in found.tensors.items()} == {"a": (5 << 30,), "b": (7,), "c": (0,)}


def test_more_members_than_16_bits_count_are_zip64(tmp_path: Path) -> None:
    names = [f"{number}.npy" for number in range(70_000)]
    start = 0
    records: list[zips.Record] = []
    for name in names:
        records.append(zips.Record(name, 0, start))
        start += len(zips.local_header(records[-1]))
    image = b"".join(map(zips.local_header, records)) + zips.directory(records, [0] * len(records), start)
    assert zipfile.ZipFile(io.BytesIO(image)).namelist() == names
    (tmp_path / "x.npz").write_bytes(image)
    assert [member.name for member in zips.members(*FolderDisk().open(str(tmp_path / "x.npz")))] == names
