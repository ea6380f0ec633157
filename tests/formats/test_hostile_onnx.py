"""ONNX models made to take memory, time or other people's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import Tricks
from measured import Measurer
from wire_writer import field

hostile = Tricks()


def onnx(folder: Path, *initializers: bytes, nodes: bytes = b"") -> Path:
    path = folder / "a.onnx"
    path.write_bytes(field(1, 8) + field(7, nodes + b"".join(field(5, each) for each in initializers)))
    return path


def tensor_proto(dims: list[int], raw: bytes = b"", dtype: int = 1, **outside: str) -> bytes:
    where = b"".join(field(13, field(1, key) + field(2, value)) for key, value in outside.items())
    return b"".join(field(1, size) for size in dims) + field(2, dtype) + field(8, "w") + (where + field(14, 1) if outside else field(9, raw))


@hostile("has the shape")
def onnx_dims_that_overflow(folder: Path) -> Path:
    return onnx(folder, tensor_proto([1 << 62, 4, 1 << 62]))


@hostile("has the shape")
def onnx_a_million_dims(folder: Path) -> Path:
    return onnx(folder, tensor_proto([1] * 300_000))


@hostile("lies outside the model's folder")
def onnx_data_outside(folder: Path) -> Path:
    return onnx(folder, tensor_proto([1], location="../../../../etc/passwd"))


@hostile("lies outside the model's folder")
def onnx_data_at_an_absolute_path(folder: Path) -> Path:
    return onnx(folder, tensor_proto([1], location="/etc/passwd"))


@hostile("error[missing-shard]")
def onnx_data_in_a_device(folder: Path) -> Path:
    (folder / "data").symlink_to("/dev/zero")
    return onnx(folder, tensor_proto([1 << 40], location="data"))


@hostile("does not fit its shape")
def onnx_data_behind_the_end_of_the_other_file(folder: Path) -> Path:
    (folder / "data").write_bytes(bytes(8))
    return onnx(folder, tensor_proto([1], location="data", offset="9" * 18, length="4"))


@hostile("deep")
def onnx_graphs_in_graphs(folder: Path) -> Path:
    graph = b""
    for _ in range(2000):
        graph = field(1, field(5, field(1, "body") + field(6, graph)))
    return onnx(folder, nodes=graph)


@hostile("fields")
def onnx_millions_of_fields(folder: Path) -> Path:
    return onnx(folder, nodes=field(1, field(5, b"\x10\0" * 4_000_000)))


@hostile("CorruptFile")
def onnx_one_value_for_a_billion(folder: Path) -> Path:
    return onnx(folder, field(1, 1 << 30) + field(2, 6) + field(8, "w") + field(5, 1))


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
