"""GGUF files made to take memory, time or other people's files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hostile import Tricks
from measured import Measurer

hostile = Tricks()


def gguf(folder: Path, tensors: int, values: int, rest: bytes) -> Path:
    (folder / "a.gguf").write_bytes(b"GGUF" + struct.pack("<LQQ", 3, tensors, values) + rest)
    return folder / "a.gguf"


def gguf_text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@hostile("error[")
def gguf_counts_that_overflow(folder: Path) -> Path:
    return gguf(folder, 1 << 63, 1 << 63, b"")


@hostile("error[")
def gguf_arrays_in_arrays(folder: Path) -> Path:
    return gguf(folder, 0, 1, gguf_text(b"k") + struct.pack("<L", 9) + struct.pack("<LQ", 9, 1) * 2_000_000)


@hostile("error[")
def gguf_an_array_of_many_texts(folder: Path) -> Path:
    return gguf(folder, 0, 1, gguf_text(b"k") + struct.pack("<LLQ", 9, 8, 4_000_000) + bytes(8 * 4_000_000 - 8))


@hostile("error[")
def gguf_shape_that_overflows(folder: Path) -> Path:
    return gguf(folder, 1, 0, gguf_text(b"w") + struct.pack("<L4QLQ", 4, *[1 << 62] * 4, 0, 0))


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
