"""TensorFlow.js models made to take memory, time or other people's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import Tricks
from measured import Measurer

hostile = Tricks()


def tfjs(folder: Path, manifest: str, shard: bytes = b"") -> Path:
    (folder / "s.bin").write_bytes(shard)
    (folder / "model.json").write_text('{"weightsManifest":' + manifest + "}")
    return folder / "model.json"


@hostile("nested too deeply")
def tfjs_brackets(folder: Path) -> Path:
    return tfjs(folder, "[" * 900_000)


@hostile("values")
def tfjs_many_values(folder: Path) -> Path:
    return tfjs(folder, "[" + "[]," * 4_000_000 + "[]]")


@hostile("error[")
def tfjs_one_shard_many_times(folder: Path) -> Path:
    return tfjs(folder, '[{"paths":[' + '"s.bin",' * 900_000 + '"s.bin"],"weights":[]}]')


@hostile("outside the model's folder")
def tfjs_shard_outside(folder: Path) -> Path:
    return tfjs(folder, '[{"paths":["../../etc/passwd"],"weights":[]}]')


@hostile("error[")
def tfjs_many_strings(folder: Path) -> Path:
    return tfjs(folder, '[{"paths":["s.bin"],"weights":[{"name":"w","shape":[50000],"dtype":"string"}]}]', bytes(200_000))


@hostile("CorruptFile")
def tfjs_shape_that_overflows(folder: Path) -> Path:
    return tfjs(folder, '[{"paths":["s.bin"],"weights":[{"name":"w","shape":[4611686018427387904,4],"dtype":"float32"}]}]')


@hostile("CorruptFile")
def tfjs_number_of_a_million_digits(folder: Path) -> Path:
    return tfjs(folder, '[{"paths":["s.bin"],"weights":[{"name":"w","shape":[' + "9" * 1_000_000 + '],"dtype":"float32"}]}]')


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
