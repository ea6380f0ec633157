"""Safetensors files and indexes made to take memory, time or other people's files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hostile import Tricks
from measured import Measurer

hostile = Tricks()


def safetensors(folder: Path, header: bytes, data: bytes = b"") -> Path:
    path = folder / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def entry(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def safetensors_of(folder: Path, entries: dict[str, object], data: bytes = b"") -> Path:
    return safetensors(folder, json.dumps(entries).encode(), data)


@hostile("not the JSON it should be")
def safetensors_brackets(folder: Path) -> Path:
    return safetensors(folder, b'{"a":' + b"[" * 50_000_000)


@hostile("not the JSON it should be")
def safetensors_many_lists(folder: Path) -> Path:
    return safetensors(folder, b'{"a":[' + b"[]," * 10_000_000 + b"[]]}")


@hostile("not the JSON it should be")
def safetensors_many_objects(folder: Path) -> Path:
    return safetensors(folder, b'{"a":[' + b"{}," * 10_000_000 + b"{}]}")


@hostile("not the JSON it should be")
def safetensors_many_numbers(folder: Path) -> Path:
    return safetensors(folder, b'{"a":[' + b"7," * 40_000_000 + b"7]}")


@hostile("not the JSON it should be")
def safetensors_many_keys(folder: Path) -> Path:
    return safetensors(folder, b"{" + b",".join(b'"%d":0' % number for number in range(2_000_000)) + b"}")


@hostile("not the JSON it should be")
def safetensors_many_texts(folder: Path) -> Path:
    return safetensors(folder, b'{"__metadata__":{"a":[' + b'"ab",' * 5_000_000 + b'""]}}')


@hostile("CorruptFile")
def safetensors_a_long_number(folder: Path) -> Path:
    return safetensors(folder, b'{"a":{"dtype":"F32","shape":[' + b"9" * 20_000_000 + b'],"data_offsets":[0,0]}}')


@hostile("not the JSON it should be")
def safetensors_the_same_key_a_million_times(folder: Path) -> Path:
    one = b'"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}'
    return safetensors(folder, b"{" + b",".join([one] * 200_000) + b"}", bytes(4))


@hostile("CorruptFile")
def safetensors_overflowing_shape(folder: Path) -> Path:
    return safetensors_of(folder, {"a": entry([1 << 62, 4], 0, 0)})


@hostile("CorruptFile")
def safetensors_overlap(folder: Path) -> Path:
    return safetensors_of(folder, {"a": entry([4], 0, 16), "b": entry([4], 8, 24)}, bytes(24))


@hostile("CorruptFile")
def safetensors_hole(folder: Path) -> Path:
    return safetensors_of(folder, {"a": entry([4], 0, 16), "b": entry([4], 1 << 40, (1 << 40) + 16)}, bytes(32))


@hostile("CorruptFile")
def safetensors_header_longer_than_the_file(folder: Path) -> Path:
    path = folder / "a.safetensors"
    path.write_bytes(b"\xff" * 7 + b"\x7f{}")
    return path


@hostile("is not a name in its folder")
def safetensors_index_that_leads_outside(folder: Path) -> Path:
    safetensors_of(folder, {"a": entry([], 0, 4)}, bytes(4))
    path = folder / "inner" / "model.safetensors.index.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    return path


@hostile("CorruptFile")
def safetensors_index_of_brackets(folder: Path) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_bytes(b'{"weight_map":{"a":' + b"[[]," * 8_000_000)
    return path


@hostile("not the JSON it should be")
def safetensors_index_of_lists(folder: Path) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_bytes(b'{"weight_map":[' + b"[]," * 10_000_000 + b"[]]}")
    return path


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
