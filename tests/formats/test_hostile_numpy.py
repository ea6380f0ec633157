"""Numpy arrays and archives made to take memory, time or other people's files."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
from hostile import Tricks
from hostile_zips import deflated_zeros, raw_zip
from measured import Measurer

hostile = Tricks()


def npy(shape: str, data: bytes = b"", descr: str = "|u1") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def npz(folder: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "a.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@hostile("read")
def npz_bomb_of_a_gigabyte_that_is_honest(folder: Path) -> Path:
    nbytes = 1 << 30
    head = npy(f"({nbytes},)")
    stored, crc32 = deflated_zeros(nbytes, head)
    return raw_zip(folder / "a.npz", b"a.npy", stored, crc32, nbytes + len(head))


@hostile("is damaged")
def npz_bomb_that_claims_to_be_small(folder: Path) -> Path:
    head = npy("(1000000,)")
    stored, crc32 = deflated_zeros(1 << 28, head)
    return raw_zip(folder / "a.npz", b"a.npy", stored, crc32, 1_000_000 + len(head))


@hostile("cannot inflate to its array")
def npz_that_claims_ten_terabytes(folder: Path) -> Path:
    head = npy(f"({10 << 40},)")
    stored, crc32 = deflated_zeros(1 << 24, head)
    return raw_zip(folder / "a.npz", b"a.npy", stored, crc32, (10 << 40) + len(head))


@hostile("runs into what follows")
def npz_with_a_member_behind_the_end(folder: Path) -> Path:
    return raw_zip(folder / "a.npz", b"a.npy", b"\3\0", 0, 0, 0x7FFFFFFF)


@hostile("runs into what follows")
def npz_whose_members_share_their_bytes(folder: Path) -> Path:
    npz(folder, {f"{number}.npy": npy("(8,)", bytes(8)) for number in range(2)}, zipfile.ZIP_STORED)
    data = bytearray((folder / "a.npz").read_bytes())
    at = data.rindex(b"PK\1\2") + 42
    data[at : at + 4] = bytes(4)
    (folder / "a.npz").write_bytes(data)
    return folder / "a.npz"


@hostile("read")
def npz_with_a_member_outside_the_folder(folder: Path) -> Path:
    return npz(folder, {"../../../../escaped.npy": npy("(8,)", bytes(8)), "/etc/escaped.npy": npy("(8,)", bytes(8))})


@hostile("CorruptFile")
def npz_whose_directory_lists_nothing_but_itself(folder: Path) -> Path:
    path = folder / "a.npz"
    central = struct.pack("<4s4B4H3L5H2L", b"PK\1\2", 45, 3, 45, 0, 0, 0, 0, 33, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0) + b"a.npy"
    path.write_bytes(central * 60_000 + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 60_000, 60_000, len(central) * 60_000, 0, 0))
    return path


@hostile("does not fit")
def npy_with_a_long_header(folder: Path) -> Path:
    path = folder / "a.npy"
    header = b"{'shape': (" + b"(" * 20_000_000
    path.write_bytes(b"\x93NUMPY\2\0" + struct.pack("<L", len(header)) + header)
    return path


@hostile("CorruptFile")
def npy_with_spaces(folder: Path) -> Path:
    path = folder / "a.npy"
    path.write_bytes(b"\x93NUMPY\1\0\xff\xff" + (b"{" + b" " * 0xFFFF)[:0xFFFF])
    return path


@hostile("CorruptFile")
def npy_of_exabytes(folder: Path) -> Path:
    path = folder / "a.npy"
    path.write_bytes(npy(f"({1 << 62}, 4)", descr="<f8"))
    return path


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
