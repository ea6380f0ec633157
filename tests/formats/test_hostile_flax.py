"""Flax msgpack files made to take memory, time or other people's files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hostile import Tricks
from measured import Measurer

hostile = Tricks()


def msgpack(folder: Path, data: bytes) -> Path:
    (folder / "a.msgpack").write_bytes(data)
    return folder / "a.msgpack"


@hostile("error[")
def msgpack_maps_in_maps(folder: Path) -> Path:
    return msgpack(folder, b"\x81\xa1a" * 1_000_000)


@hostile("error[")
def msgpack_count_that_overflows(folder: Path) -> Path:
    return msgpack(folder, b"\xdf\xff\xff\xff\xff\xa1a\xc0")


@hostile("error[")
def msgpack_many_items(folder: Path) -> Path:
    count = 3_000_000
    return msgpack(folder, b"\xdf" + struct.pack(">L", count) + b"".join(b"\xa7%07d\xc0" % number for number in range(count)))


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
