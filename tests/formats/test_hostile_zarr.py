"""Zarr groups and arrays made to take memory, time or other people's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile import Tricks
from measured import Measurer

hostile = Tricks()


def group(folder: Path) -> Path:
    (folder / "a.zarr").mkdir()
    (folder / "a.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    return folder / "a.zarr"


def array(folder: Path, **other: Any) -> Path:
    """An array of version 2 in a group, with one chunk of 64 bytes, that says of itself what `other` says."""
    path = group(folder) / "w"
    path.mkdir()
    sound = {"zarr_format": 2, "shape": [4, 4], "chunks": [4, 4], "dtype": "<f4", "compressor": None, "fill_value": 0, "order": "C", "filters": None}
    (path / ".zarray").write_text(json.dumps(sound | other))
    (path / "0.0").write_bytes(bytes(64))
    return folder / "a.zarr"


def array3(folder: Path, **other: Any) -> Path:
    """An array of version 3 alone, with one chunk of 64 bytes."""
    path = folder / "a.zarr"
    (path / "c" / "0").mkdir(parents=True)
    sound = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4, 4],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4]}},
        "chunk_key_encoding": {"name": "default"},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "fill_value": 0,
    }
    (path / "zarr.json").write_text(json.dumps(sound | other))
    (path / "c" / "0" / "0").write_bytes(bytes(64))
    return path


@hostile("error[")
def a_shape_that_overflows(folder: Path) -> Path:
    return array(folder, shape=[1 << 62, 1 << 62])


@hostile("error[")
def more_chunks_than_could_be_listed(folder: Path) -> Path:
    return array(folder, shape=[1 << 40, 4], chunks=[1, 1])


@hostile("error[")
def chunks_larger_than_memory(folder: Path) -> Path:
    return array(folder, shape=[4, 4], chunks=[1 << 40, 1 << 10])


@hostile("error[")
def chunks_without_elements(folder: Path) -> Path:
    return array(folder, chunks=[0, 4])


@hostile("error[")
def a_million_axes(folder: Path) -> Path:
    return array(folder, shape=[1] * 1_000_000, chunks=[1] * 1_000_000)


@hostile("error[")
def a_compressor_that_would_be_imported(folder: Path) -> Path:
    return array(folder, compressor={"id": "os.system", "command": "touch ran"})


@hostile("error[")
def an_object_array(folder: Path) -> Path:
    return array(folder, dtype="|O", filters=[{"id": "pickle"}])


@hostile("error[")
def a_header_of_brackets(folder: Path) -> Path:
    (group(folder) / "w").mkdir()
    (folder / "a.zarr" / "w" / ".zarray").write_text("[" * 5_000_000)
    return folder / "a.zarr"


@hostile("error[")
def a_header_of_many_values(folder: Path) -> Path:
    return array(folder, other=list(range(4_000_000)))


@hostile("is one above it once more")
def a_group_that_holds_itself_twice(folder: Path) -> Path:
    path = array(folder)
    (path / "a").symlink_to(".")
    (path / "b").symlink_to(".")
    return path


@hostile("error[")
def a_shard_whose_index_would_be_exabytes(folder: Path) -> Path:
    inner = {"chunk_shape": [1, 1], "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}], "index_codecs": [{"name": "bytes"}]}
    grid = {"name": "regular", "configuration": {"chunk_shape": [1 << 30, 1 << 30]}}
    return array3(folder, shape=[1 << 30, 1 << 30], chunk_grid=grid, codecs=[{"name": "sharding_indexed", "configuration": inner}])


@hostile("error[")
def shards_in_shards(folder: Path) -> Path:
    codecs: list[Any] = [{"name": "bytes"}]
    for _ in range(200):
        codecs = [{"name": "sharding_indexed", "configuration": {"chunk_shape": [4, 4], "codecs": codecs, "index_codecs": [{"name": "bytes"}]}}]
    return array3(folder, codecs=codecs)


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
