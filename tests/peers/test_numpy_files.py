"""npz and npy both ways: numpy reads what we write without pickle, and we read every layout that numpy writes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import DATA, load, run, save

import surgery

pytestmark = pytest.mark.peers

DTYPES = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")


def arrays() -> dict[str, Any]:
    """Every type, both byte orders, both memory orders, odd shapes."""
    made: dict[str, Any] = {}
    for code in DTYPES:
        dtype = np.dtype(code)
        base = np.arange(24).reshape(2, 3, 4).astype(dtype)
        made[f"{dtype.name}/c"] = base
        made[f"{dtype.name}/fortran"] = np.asfortranarray(base)
        made[f"{dtype.name}/big"] = base.astype(dtype.newbyteorder(">"))
        made[f"{dtype.name}/big_fortran"] = np.asfortranarray(base.astype(dtype.newbyteorder(">")))
        made[f"{dtype.name}/scalar"] = np.array(1, dtype)
        made[f"{dtype.name}/none"] = np.zeros([3, 0, 2], dtype)
        made[f"{dtype.name}/one"] = np.ones([1, 1], dtype)
    return made


def native(array: Any) -> Any:
    """The same values in the byte order that our output has on any machine."""
    return array.astype(array.dtype.newbyteorder("<"))


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_numpy_reads_our_copy_of_its_archive(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "in.npz", **arrays())
    run(load(tmp_path / "in.npz"), {"rename": {"match": "/", "to": "."}}, save(tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert found.files == [key.replace("/", ".") for key in arrays()]
        for key, array in arrays().items():
            np.testing.assert_array_equal(found[key.replace("/", ".")], native(array), strict=True)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_we_read_every_layout_of_numpys_archive(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "in.npz", **arrays())
    with surgery.open(tmp_path / "in.npz") as checkpoint:
        assert checkpoint.keys() == arrays().keys()
        for key, array in arrays().items():
            np.testing.assert_array_equal(checkpoint[key].numpy(), native(array), strict=True)


@pytest.mark.parametrize("key", arrays())
def test_we_read_numpys_single_array(tmp_path: Path, key: str) -> None:
    np.save(tmp_path / "one.npy", arrays()[key])
    with surgery.open(tmp_path / "one.npy") as checkpoint:
        (found,) = checkpoint.values()
        np.testing.assert_array_equal(found.numpy(), native(arrays()[key]), strict=True)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_we_read_every_version_of_numpys_header(tmp_path: Path, version: tuple[int, int]) -> None:
    with (tmp_path / "one.npy").open("wb") as file:
        np.lib.format.write_array(file, np.arange(5), version=version)
    with surgery.open(tmp_path / "one.npy") as checkpoint:
        (found,) = checkpoint.values()
        assert found.numpy().tolist() == [0, 1, 2, 3, 4]


def test_every_member_of_our_archive_passes_the_zip_check(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "in.npz", **arrays())
    run(load(tmp_path / "in.npz"), {"cast": {"where": {"dtype": "float32"}, "dtype": "float64"}}, save(tmp_path / "out.npz"))
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == len(arrays())


def test_headers_in_our_archive_are_padded_to_64_bytes_as_numpys_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **arrays())
    run(load(tmp_path / "in.npz"), save(tmp_path / "out.npz"))
    raw = (tmp_path / "out.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        for member in archive.infolist():
            assert member.compress_type == zipfile.ZIP_STORED
            start = raw.index(b"\x93NUMPY", member.header_offset)
            header_bytes = int.from_bytes(raw[start + 8 : start + 10], "little")
            assert (10 + header_bytes) % 64 == 0


def test_numpy_reads_a_tensorflow_checkpoint_saved_as_npz(tf: Any, tmp_path: Path) -> None:
    prefix = DATA / "scoped_adam" / "model.ckpt-3"
    run(load(prefix), save(tmp_path / "m.npz"))
    reader = tf.train.load_checkpoint(str(prefix))
    with np.load(tmp_path / "m.npz", allow_pickle=False) as found:
        assert set(found.files) == set(reader.get_variable_to_shape_map())
        for key in found.files:
            np.testing.assert_array_equal(found[key], reader.get_tensor(key), strict=True)
