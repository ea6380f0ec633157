"""Make the files beside this one: `python make.py`, with h5py 3.16 (HDF5 2.0) and numpy installed."""

from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).parent
MATRIX = np.arange(6, dtype="<f4").reshape(2, 3)
GRID = np.arange(100, dtype="<i4").reshape(10, 10)


def fill(file: h5py.File) -> None:
    """All kinds of datasets, attributes and links that are read."""
    for code in ("?", "i1", "<i2", ">i4", "<i8", "u1", ">u2", "<u4", "<u8", "<f2", ">f4", "<f8", ">c8", "<c16"):
        file[f"types/{np.dtype(code).name}"] = MATRIX.astype(code)
    for number in range(20):
        file[f"wide/n{number}"] = np.int16(number)
        file.attrs[f"a{number}"] = ["x", "yy"] if number % 2 else "text"
    file.create_dataset("never", (3,), "<f4")
    file.create_dataset("sevens", (3,), ">i4", fillvalue=7)
    file.create_dataset("one_chunk", data=GRID, chunks=(10, 10), compression="gzip")
    file["tied"] = file["sevens"]
    file["alias"] = h5py.SoftLink("/wide")
    file["elsewhere"] = h5py.ExternalLink("other.h5", "/w")
    file["zz"] = file["wide"]
    file["words"] = ["a", "bb"]
    file.attrs["count"] = 3


def chunk(file: h5py.File) -> None:
    """Chunks with every filter, at the edge, in both byte orders, and never written."""
    file.create_dataset("plain", data=GRID, chunks=(3, 4))
    file.create_dataset("all", data=GRID, chunks=(3, 4), compression="gzip", shuffle=True, fletcher32=True)
    file.create_dataset("big", data=GRID.astype(">i4"), chunks=(4, 10), compression="gzip", shuffle=True)
    part = file.create_dataset("part", (10,), "<i4", chunks=(4,), fillvalue=5)
    part[5:6] = 1


def index_late(file: h5py.File) -> None:
    """One dataset for each index of chunks that HDF5 1.10 brought, long enough for pages, and with axes that may grow."""
    for name, most in {"fixed": None, "wider": (20, 30), "extensible": (None, 10), "last": (11, None), "tree": (None, None)}.items():
        file.create_dataset(f"{name}/plain", data=GRID, chunks=(3, 4), maxshape=most)
        file.create_dataset(f"{name}/packed", data=GRID, chunks=(3, 4), maxshape=most, compression="gzip", shuffle=True)
    for name, size, most in (("fixed", 3000, (3000,)), ("extensible", 200_000, (None,))):
        long = file.create_dataset(f"{name}/long", (size,), "i1", chunks=(1,), maxshape=most, fillvalue=9)
        long[0], long[1500], long[size - 10 : size - 5] = 1, 2, 3
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_chunk((3, 4))
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    space = h5py.h5s.create_simple((10, 10), (20, 30))
    h5py.Dataset(h5py.h5d.create(file["wider"].id, b"implicit", h5py.h5t.STD_I32LE, space, early))[...] = GRID


for version in ("earliest", "v108", "latest"):
    with h5py.File(HERE / f"{version}.h5", "w", libver=version, track_order=version != "earliest") as file:
        fill(file)
with h5py.File(HERE / "chunks.h5", "w") as file:
    chunk(file)
with h5py.File(HERE / "user_block.h5", "w", userblock_size=512) as file:
    file["w"] = MATRIX
with h5py.File(HERE / "lzf.h5", "w") as file:
    file.create_dataset("w", data=GRID, chunks=(5, 5), compression="lzf")
    chance = np.random.default_rng(1)
    file.create_dataset("runs", data=np.repeat(chance.integers(0, 9, 40), 25).astype("<i2"), chunks=(500,), compression="lzf", shuffle=True)
    file.create_dataset("noise", data=chance.integers(0, 256, 600, np.uint8), chunks=(300,), compression="lzf")
    file.create_dataset("checked", data=np.zeros(2000, ">f4"), chunks=(2000,), compression="lzf", fletcher32=True)
with h5py.File(HERE / "mixed.h5", "w") as file:
    file["w"] = MATRIX
    file.create_dataset("packed", data=GRID, chunks=(5, 5), scaleoffset=True)
    file.create_dataset("outside", (2,), "<f4", external=[("other.bin", 0, 8)])
with h5py.File(HERE / "late_chunks.h5", "w", libver=("v110", "v110")) as file:
    index_late(file)
with h5py.File(HERE / "large_attributes.h5", "w", libver="latest") as file:
    file["w"] = MATRIX
    file.attrs["many"] = np.arange(9000)
    for number in range(40):
        file["w"].attrs[f"text_{number}"] = "x" * number
with h5py.File(HERE / "bits.h5", "w") as file:
    h5py.Dataset(h5py.h5d.create(file.id, b"flags", h5py.h5t.STD_B8LE, h5py.h5s.create_simple((3,))))[...] = np.array([1, 0, 1], "u1")
with h5py.File(HERE / "open.h5", "w", libver="latest") as file:
    file["w"] = MATRIX
    file.flush()
    (HERE / "open.h5.copy").write_bytes((HERE / "open.h5").read_bytes())
(HERE / "open.h5.copy").replace(HERE / "open.h5")
with h5py.File(HERE / "external.h5", "w") as file:
    file.create_dataset("w", (2,), "<f4", external=[("other.bin", 0, 8)])
with h5py.File(HERE / "virtual.h5", "w", libver="latest") as file:
    view = h5py.VirtualLayout((2, 3), "<f4")
    view[:] = h5py.VirtualSource("user_block.h5", "w", (2, 3))
    file.create_virtual_dataset("w", view)
