"""Makes the zarr groups beside this file with zarr-python and TensorStore. Needs: zarr 3.1.6, numcodecs 0.16.6, tensorstore 0.1.86."""

import shutil
from pathlib import Path

import numcodecs
import numpy as np
import tensorstore as ts
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec

HERE = Path(__file__).parent
VALUES = np.arange(15).reshape(3, 5)
COMPRESSORS = {
    "plain": None,
    "gzip": numcodecs.GZip(1),
    "zlib": numcodecs.Zlib(1),
    "bz2": numcodecs.BZ2(1),
    "zstd": numcodecs.Zstd(1),
    "lz4": numcodecs.LZ4(),
    "blosc": numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE),
}
TYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64", "complex64", "complex128")


def put(group: zarr.Group, name: str, values: np.ndarray, chunks: tuple[int, ...], **options: object) -> None:
    group.create_array(name, shape=values.shape, chunks=chunks, dtype=values.dtype, **options)[...] = values


def version_2() -> None:
    group = zarr.create_group(HERE / "v2", zarr_format=2, overwrite=True, attributes={"note": "made", "count": 3})
    for name, compressor in COMPRESSORS.items():
        put(group, f"codecs/{name}", VALUES.astype("<f4"), (2, 2), compressors=compressor)
    for name in TYPES:
        put(group, f"types/{name}", VALUES.astype(name), (3, 5), compressors=None)
        put(group, f"swapped/{name}", VALUES.astype(np.dtype(name).newbyteorder(">")), (3, 5), compressors=None)
    put(group, "big_gzip", VALUES.astype(">i4"), (2, 2), compressors=numcodecs.GZip(1))
    put(group, "fortran", VALUES.astype("<i4"), (3, 5), compressors=None, order="F")
    put(group, "fortran_chunks", VALUES.astype("<i4"), (2, 2), compressors=None, order="F")
    put(group, "slashes", VALUES.astype("<i4"), (2, 2), compressors=None, chunk_key_encoding={"name": "v2", "separator": "/"})
    put(group, "rows", VALUES.astype("<i4"), (1, 5), compressors=None)
    put(group, "scalar", np.array(1.5, "<f4"), (), compressors=None)
    put(group, "empty", np.zeros((0, 3), "<f4"), (1, 3), compressors=None)
    group.create_array("never", shape=(4,), chunks=(2,), dtype="<f4", fill_value=2.5)
    holes = group.create_array("holes", shape=(6,), chunks=(2,), dtype="<i4", fill_value=7, compressors=None)
    holes[2:4] = [1, 2]
    group["scalar"].attrs["unit"] = "m"


def version_3() -> None:
    group = zarr.create_group(HERE / "v3", zarr_format=3, overwrite=True, attributes={"note": "made"})
    put(group, "plain", VALUES.astype("<i4"), (2, 2), compressors=None)
    put(group, "gzip", VALUES.astype("<i4"), (2, 2), compressors=GzipCodec(level=1))
    put(group, "zstd", VALUES.astype("<i4"), (2, 2))
    put(group, "checked", VALUES.astype("<i4"), (2, 2), compressors=[GzipCodec(level=1), Crc32cCodec()])
    put(group, "big", VALUES.astype("<i4"), (2, 2), compressors=None, serializer=BytesCodec(endian="big"))
    put(group, "transposed", VALUES.astype("<i4"), (2, 2), compressors=None, filters=[TransposeCodec(order=(1, 0))])
    put(group, "dots", VALUES.astype("<i4"), (2, 2), compressors=None, chunk_key_encoding={"name": "default", "separator": "."})
    put(group, "old_names", VALUES.astype("<i4"), (2, 2), compressors=None, chunk_key_encoding={"name": "v2", "separator": "."})
    put(group, "sharded", VALUES.astype("<i4"), (2, 1), shards=(2, 5), compressors=None)
    put(group, "sharded_gzip", VALUES.astype("<i4"), (2, 1), shards=(2, 5), compressors=GzipCodec(level=1))
    put(group, "scalar", np.array(1.5, "<f4"), (), compressors=None)
    holes = group.create_array("sharded_holes", shape=(8,), chunks=(2,), shards=(4,), dtype="<i4", fill_value=7, compressors=None)
    holes[2:4] = [1, 2]
    cube = np.arange(24, dtype="<i4").reshape(2, 3, 4)
    put(group, "cube", cube, (2, 2, 3), compressors=None, filters=[TransposeCodec(order=(2, 0, 1))])


def tensorstore() -> None:
    """The element types that only TensorStore spells."""
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"):
        for version, driver in ((2, "zarr"), (3, "zarr3")):
            path = HERE / "small_floats" / f"{name}_v{version}"
            spec = {"driver": driver, "kvstore": f"file://{path}", "create": True, "dtype": name}
            if version == 2:
                spec["metadata"] = {"compressor": None}
            store = ts.open(spec, shape=[6]).result()
            store.write(np.arange(6).astype(store.dtype.numpy_dtype)).result()


for name in ("v2", "v3", "small_floats"):
    shutil.rmtree(HERE / name, ignore_errors=True)
version_2()
version_3()
tensorstore()
