"""HDF5 files made to take memory, time or other people's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile import Tricks
from measured import Measurer

hostile = Tricks()


def hdf5(folder: Path, fill: Callable[[object], None]) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "a.h5", "w") as file:
        fill(file)
    return folder / "a.h5"


@hostile("read")
def hdf5_deflated_zeros(folder: Path) -> Path:
    return hdf5(folder, lambda file: file.create_dataset("w", (1 << 30,), "u1", chunks=(1 << 24,), compression="gzip", data=np.zeros(1 << 30, "u1")))


@hostile("was never written")
def hdf5_chunks_that_were_never_written(folder: Path) -> Path:
    return hdf5(folder, lambda file: file.create_dataset("w", (1 << 40,), "f4", chunks=(1 << 20,)))


@hostile("read")
def hdf5_group_in_itself(folder: Path) -> Path:
    def fill(file) -> None:
        file["a/w"] = np.zeros(4)
        file["a/again"] = file["a"]
        file["a/root"] = file["/"]

    return hdf5(folder, fill)


@hostile("read")
def hdf5_groups_by_the_power_of_two(folder: Path) -> Path:
    def fill(file) -> None:
        file["g0/w"] = np.zeros(4)
        for number in range(40):
            group = file.create_group(f"g{number + 1}")
            group["a"] = group["b"] = file[f"g{number}"]

    return hdf5(folder, fill)


@hostile("nested deeper")
def hdf5_deep_groups(folder: Path) -> Path:
    return hdf5(folder, lambda file: file.create_group("/".join("g" * 3000)))


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
