from __future__ import annotations

import gzip
import json
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import Arrays, ReadContract
from disk import FolderDisk
from executor import content
from hypothesis import given, settings
from hypothesis import strategies as st

from surgery.errors import CorruptFile, SourceError, UnsupportedFeature, render
from surgery.expr import Fill, Slice, Stored
from surgery.formats import zarr
from surgery.formats.zarr_codecs import unpacked, zstd_room

DATA = Path(__file__).parents[1] / "data" / "zarr"
VALUES = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]
TYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64", "complex64", "complex128")
OF_NUMCODECS = ("zstd", "lz4", "blosc")


def array_at(path: Path) -> Any:
    """The one array at a path."""
    (expr,) = zarr.index(str(path), FolderDisk()).tensors.values()
    return np.frombuffer(content(expr, FolderDisk()), np.dtype(expr.spec.dtype.numpy).newbyteorder("<")).reshape(expr.spec.shape)


def written(folder: Path, key: str, array: np.ndarray[Any, np.dtype[Any]], **fields: object) -> None:
    """One array of version 2 in one plain chunk, as the specification has it."""
    place = folder / key
    place.mkdir(parents=True)
    chunks = [max(size, 1) for size in array.shape]
    metadata = {"shape": array.shape, "chunks": chunks, "dtype": array.dtype.str, "order": "C", "compressor": None, "filters": None}
    (place / ".zarray").write_text(json.dumps({"zarr_format": 2, "fill_value": 0, **metadata, **fields}))
    if array.size:
        (place / (".".join("0" for _ in array.shape) or "0")).write_bytes(array.tobytes())


class TestZarr(ReadContract):
    format = zarr
    holds = frozenset([*TYPES, "bfloat16"])

    def make(self, folder: Path, arrays: Arrays) -> str:
        (folder / "in.zarr").mkdir()
        (folder / "in.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
        for key, array in arrays.items():
            for depth in range(1, key.count("/") + 1):
                group = folder / "in.zarr" / "/".join(key.split("/")[:depth])
                group.mkdir(exist_ok=True)
                (group / ".zgroup").write_text('{"zarr_format": 2}')
            written(folder / "in.zarr", key, array)
        return str(folder / "in.zarr")


@pytest.mark.parametrize("name", [each.name for each in sorted((DATA / "v2" / "codecs").iterdir()) if each.is_dir()])
def test_reads_every_codec(name: str) -> None:
    if name in OF_NUMCODECS:
        pytest.importorskip("numcodecs", reason="numcodecs is not installed")
    assert array_at(DATA / "v2" / "codecs" / name).tolist() == VALUES


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("order", ["types", "swapped"])
def test_reads_every_type_in_both_byte_orders(order: str, name: str) -> None:
    found = array_at(DATA / "v2" / order / name)
    assert found.dtype == np.dtype(name)
    assert found.tolist() == np.array(VALUES).astype(name).tolist()


@pytest.mark.parametrize("name", ["big_gzip", "fortran", "fortran_chunks", "slashes", "rows"])
def test_reads_every_order_and_naming_of_version_2(name: str) -> None:
    assert array_at(DATA / "v2" / name).tolist() == VALUES


@pytest.mark.parametrize("name", ["plain", "gzip", "zstd", "checked", "big", "transposed", "dots", "old_names", "sharded", "sharded_gzip"])
def test_reads_every_pipeline_of_version_3(name: str) -> None:
    if name in OF_NUMCODECS:
        pytest.importorskip("numcodecs", reason="numcodecs is not installed")
    assert array_at(DATA / "v3" / name).tolist() == VALUES


def test_reads_three_axes_in_another_order() -> None:
    assert array_at(DATA / "v3" / "cube").tolist() == np.arange(24).reshape(2, 3, 4).tolist()


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_reads_the_small_floats_of_tensorstore(name: str, version: str) -> None:
    (expr,) = zarr.index(str(DATA / "small_floats" / f"{name}_{version}"), FolderDisk()).tensors.values()
    stored = content(expr, FolderDisk())
    width = len(stored) // 6
    assert expr.spec.dtype.name == name
    assert [struct.unpack("<H" if width == 2 else "B", stored[at : at + width])[0] for at in range(0, len(stored), width)] == {
        "bfloat16": [0x0000, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0],
        "float8_e4m3fn": [0x00, 0x38, 0x40, 0x44, 0x48, 0x4A],
        "float8_e5m2": [0x00, 0x3C, 0x40, 0x42, 0x44, 0x45],
    }[name]


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_refuses_int4(version: str) -> None:
    with pytest.raises(UnsupportedFeature, match="the element type 'int4'"):
        zarr.index(str(DATA / "small_floats" / f"int4_{version}"), FolderDisk())


def test_what_was_never_written_is_the_fill_value() -> None:
    assert isinstance(zarr.index(str(DATA / "v2" / "never"), FolderDisk()).tensors["never"], Fill)
    assert array_at(DATA / "v2" / "never").tolist() == [2.5, 2.5, 2.5, 2.5]
    assert array_at(DATA / "v2" / "holes").tolist() == [7, 7, 1, 2, 7, 7]
    assert array_at(DATA / "v3" / "sharded_holes").tolist() == [7, 7, 1, 2, 7, 7, 7, 7]


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_reads_scalars(version: str) -> None:
    assert array_at(DATA / version / "scalar").tolist() == 1.5


def test_reads_arrays_without_elements() -> None:
    assert array_at(DATA / "v2" / "empty").shape == (0, 3)


def test_groups_are_scopes_and_attributes_of_the_top_are_metadata() -> None:
    found = zarr.index(str(DATA / "v2" / "types"), FolderDisk())
    assert sorted(found.tensors) == sorted(TYPES)
    pytest.importorskip("numcodecs", reason="numcodecs is not installed")
    whole = zarr.index(str(DATA / "v2"), FolderDisk())
    assert {"types/bool", "codecs/plain", "scalar"} < set(whole.tensors)
    assert whole.metadata == {"note": "made", "count": "3"}
    assert whole.notes == ("attributes of 1 array or group are left out",)


def test_a_plain_chunk_is_a_range_of_its_file() -> None:
    (expr,) = zarr.index(str(DATA / "v2" / "types" / "int32"), FolderDisk()).tensors.values()
    assert isinstance(expr, Stored)
    assert (Path(expr.extent.file.path).name, expr.extent.start, expr.extent.nbytes, expr.extent.codec) == ("0.0", 0, 60, None)


def test_plain_chunks_of_whole_rows_are_ranges() -> None:
    (expr,) = zarr.index(str(DATA / "v2" / "rows"), FolderDisk()).tensors.values()
    assert [Path(extent.file.path).name for extent in expr.view() or ()] == ["0.0", "1.0", "2.0"]


def test_a_chunk_larger_than_its_array_is_cut(tmp_path: Path) -> None:
    written(tmp_path, "w", np.arange(4, dtype="<i4"), shape=[3])
    (expr,) = zarr.index(str(tmp_path / "w"), FolderDisk()).tensors.values()
    assert isinstance(expr, Slice)
    assert array_at(tmp_path / "w").tolist() == [0, 1, 2]


# Hostile folders

SOUND: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [4],
    "chunks": [4],
    "dtype": "<i4",
    "order": "C",
    "compressor": None,
    "filters": None,
    "fill_value": 0,
}


def fault_of(folder: Path, chunk: bytes = bytes(16), **fields: object) -> SourceError:
    (folder / "w").mkdir()
    (folder / "w" / ".zarray").write_text(json.dumps(SOUND | fields))
    (folder / "w" / "0").write_bytes(chunk)
    with pytest.raises(SourceError) as fault:
        array_at(folder / "w")
    assert fault.value.help
    return fault.value


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": [-1]},
        {"shape": [1 << 63]},
        {"shape": [1.5]},
        {"shape": [True]},
        {"shape": None},
        {"shape": [4] * 65, "chunks": [1] * 65},
        {"shape": [1 << 40, 1 << 40], "chunks": [1, 1]},
        {"chunks": [0]},
        {"chunks": [4, 4]},
        {"chunks": [1 << 62]},
        {"order": "A"},
        {"dimension_separator": "x"},
        {"zarr_format": 3},
    ],
)
def test_metadata_that_cannot_be_is_told(tmp_path: Path, fields: dict[str, object]) -> None:
    assert isinstance(fault_of(tmp_path, **fields), CorruptFile)


@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": "|O"},
        {"dtype": "<U4"},
        {"dtype": [["a", "<f4"]]},
        {"dtype": "<M8[s]"},
        {"filters": [{"id": "delta"}]},
        {"compressor": {"id": "pickle"}},
        {"compressor": {"id": 3}},
    ],
)
def test_what_is_not_read_is_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    assert isinstance(fault_of(tmp_path, **fields), UnsupportedFeature)


@pytest.mark.parametrize("chunk", [b"", bytes(15), bytes(17)])
def test_a_plain_chunk_of_another_size_is_told_with_its_bytes(tmp_path: Path, chunk: bytes) -> None:
    fault = fault_of(tmp_path, chunk)
    assert f"note: {tmp_path}/w/0, bytes 0 to {len(chunk)} of {len(chunk)}" in render(fault)


@pytest.mark.parametrize("content", [bytes(15), bytes(17), bytes(1 << 20)])
def test_a_compressed_chunk_of_another_size_is_told(tmp_path: Path, content: bytes) -> None:
    assert isinstance(fault_of(tmp_path, gzip.compress(content), compressor={"id": "gzip"}), CorruptFile)


def test_no_chunk_is_larger_than_its_codec_could_make_it(tmp_path: Path) -> None:
    fault = fault_of(tmp_path, gzip.compress(bytes(16)), compressor={"id": "gzip"}, chunks=[1 << 40], shape=[1 << 40])
    assert "cannot become i32[1099511627776]" in render(fault)


def test_an_array_of_countless_chunks_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / ".zarray").write_text(json.dumps(SOUND | {"shape": [1 << 60], "chunks": [1]}))
    (tmp_path / "w" / "7").write_bytes(bytes(4))
    began = time.monotonic()
    zarr.index(str(tmp_path / "w"), FolderDisk())
    assert time.monotonic() - began < 1


def test_deep_json_is_told(tmp_path: Path) -> None:
    (tmp_path / ".zarray").write_bytes(b"[" * 100_000)
    with pytest.raises(SourceError, match="is no JSON"):
        zarr.index(str(tmp_path), FolderDisk())


def test_json_of_countless_values_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / ".zarray").write_bytes(b"[" + b"[]," * 3_000_000 + b"0]")
    with pytest.raises(UnsupportedFeature, match="too many values"):
        zarr.index(str(tmp_path), FolderDisk())


def test_a_shard_whose_chunk_lies_outside_is_told(tmp_path: Path) -> None:
    fields = json.loads((DATA / "v3" / "sharded" / "zarr.json").read_text())
    fields["codecs"][0]["configuration"]["index_codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    (tmp_path / "c" / "0").mkdir(parents=True)
    (tmp_path / "zarr.json").write_text(json.dumps(fields))
    (tmp_path / "c" / "0" / "0").write_bytes(bytes(40) + struct.pack("<10Q", *([0, 8, 1 << 63, 8] + [0, 8] * 3)))
    with pytest.raises(CorruptFile, match="does not fit its values"):
        zarr.index(str(tmp_path), FolderDisk())


def test_a_damaged_index_of_a_shard_is_told(tmp_path: Path) -> None:
    shard = bytearray((DATA / "v3" / "sharded" / "c" / "0" / "0").read_bytes())
    shard[-5] ^= 1
    (tmp_path / "c" / "0").mkdir(parents=True)
    (tmp_path / "zarr.json").write_bytes((DATA / "v3" / "sharded" / "zarr.json").read_bytes())
    (tmp_path / "c" / "0" / "0").write_bytes(shard)
    with pytest.raises(CorruptFile, match=r"the index of a shard of .* is damaged"):
        zarr.index(str(tmp_path), FolderDisk())


# Codecs

RUN = b"\x28\xb5\x2f\xfd\x00\x58"
"""A zstd frame's magic, a descriptor without content size, and a window of 2 MiB."""


def test_the_room_of_a_zstd_frame_is_told_by_its_blocks() -> None:
    run = (1 << 17 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (5 << 3 | 1).to_bytes(3, "little") + b"hello"
    assert zstd_room(RUN + run * 3 + last) == 3 * (1 << 17) + 5


@pytest.mark.parametrize("data", [b"", RUN, RUN + b"\0\0", RUN + b"\1\0\0more", b"\0" * 20])
def test_what_is_no_zstd_frame_is_told(data: bytes) -> None:
    with pytest.raises(ValueError):
        zstd_room(data)


def test_a_zstd_bomb_is_never_expanded() -> None:
    bomb = RUN + ((1 << 17 << 3 | 1 << 1).to_bytes(3, "little") + b"\0") * 100_000 + b"\1\0\0"
    with pytest.raises(CorruptFile, match="`w` is damaged"):
        unpacked("zstd", bomb, 1 << 20, "`w`")


@pytest.mark.parametrize("claims", [(1 << 31, 16, 20), (16, 1 << 31, 20), (16, 16, 1 << 31)])
def test_a_blosc_header_that_claims_too_much_is_told(claims: tuple[int, int, int]) -> None:
    with pytest.raises(CorruptFile, match="`w` is damaged"):
        unpacked("blosc", b"\2\1\1\4" + struct.pack("<3I", *claims) + bytes(4), 16, "`w`")


@settings(max_examples=300, deadline=2000)
@given(
    name=st.sampled_from(["v2/holes", "v2/big_gzip", "v2/slashes", "v3/sharded_gzip", "v3/checked", "v3/transposed"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6)), min_size=1, max_size=6),
)
def test_mutated_arrays_give_nothing_but_source_errors(tmp_path_factory: pytest.TempPathFactory, name: str, edits: list[tuple[float, bytes]]) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    files = [path for path in sorted((DATA / name).rglob("*")) if path.is_file()]
    stored = {path: bytearray(path.read_bytes()) for path in files}
    total = sum(map(len, stored.values()))
    for place, data in edits:
        at = int(place * total)
        for path in files:
            if at < len(stored[path]):
                stored[path][at : at + len(data)] = data
                break
            at -= len(stored[path])
    for path, data in stored.items():
        target = folder / path.relative_to(DATA / name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    began = time.monotonic()
    with suppress(SourceError):
        zarr.index(str(folder), FolderDisk())
    assert time.monotonic() - began < 1
