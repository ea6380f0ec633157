"""PyTorch archives and their pickles made to take memory, time or other people's files."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
from hostile import Tricks
from hostile_zips import deflated_zeros, raw_zip
from measured import Measurer

hostile = Tricks()


def torch(folder: Path, pickle: bytes) -> Path:
    path = folder / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle)
        archive.writestr("a/version", "3\n")
    return path


@hostile("read")
def torch_pickle_that_would_run_a_command(folder: Path) -> Path:
    return torch(folder, b"cos\nsystem\n(S'touch ran'\ntR.")


@hostile("error[")
def torch_pickle_that_doubles(folder: Path) -> Path:
    return torch(folder, b"\x80\2]q\0" + b"(h\0h\0tq\0" * 200 + b".")


@hostile("error[")
def torch_pickle_of_marks(folder: Path) -> Path:
    return torch(folder, b"\x80\2" + b"(" * 20_000_000 + b".")


@hostile("error[")
def torch_pickle_of_nested_lists(folder: Path) -> Path:
    return torch(folder, b"\x80\2" + b"]" * 2_000_000 + b"a" * 1_999_999 + b".")


@hostile("error[")
def torch_pickle_of_a_long_number(folder: Path) -> Path:
    return torch(folder, b"\x80\2\x8b" + struct.pack("<l", 30_000_000) + b"\x7f" * 30_000_000 + b".")


@hostile("error[")
def torch_deflated_pickle_of_a_gigabyte(folder: Path) -> Path:
    stored, crc32 = deflated_zeros(1 << 30)
    return raw_zip(folder / "a.pt", b"a/data.pkl", stored, crc32, 1 << 30)


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
