"""Distributed checkpoints of PyTorch made to take memory, time or other people's files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hostile import Tricks
from measured import Measurer

hostile = Tricks()

SOUND = Path(__file__).parents[1] / "data" / "torch_dcp" / "nested"


RECOGNISED = b"ctorch.distributed.checkpoint.metadata\nMetadata\n0"
"""Puts the module's name on the stack by which the folder is recognised, and takes it off again."""


def dcp(folder: Path, metadata: bytes) -> Path:
    shutil.copy(SOUND / "__0_0.distcp", folder)
    (folder / ".metadata").write_bytes(metadata)
    return folder


@hostile("error[")
def metadata_that_would_run_a_command(folder: Path) -> Path:
    return dcp(folder, RECOGNISED + b"cos\nsystem\n(S'touch ran'\ntR.")


@hostile("error[")
def metadata_that_doubles(folder: Path) -> Path:
    return dcp(folder, RECOGNISED + b"]q\0" + b"(h\0h\0tq\0" * 200 + b".")


@hostile("error[")
def metadata_of_marks(folder: Path) -> Path:
    return dcp(folder, RECOGNISED + b"" + b"(" * 20_000_000 + b".")


@hostile("error[")
def data_outside_of_the_folder(folder: Path) -> Path:
    sound = (SOUND / ".metadata").read_bytes()
    return dcp(folder, sound.replace(b"__0_0.distcp", b"/etc/passwd\0"))


@hostile("error[")
def data_in_a_device(folder: Path) -> Path:
    dcp(folder, (SOUND / ".metadata").read_bytes())
    (folder / "__0_0.distcp").unlink()
    (folder / "__0_0.distcp").symlink_to("/dev/zero")
    return folder


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
