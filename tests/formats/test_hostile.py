"""Files made to take memory, time or other people's files. Each costs less than 200 MiB and, on any machine, little time."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from measured import Measurer
from wire_writer import field

from surgery.formats import tf_table
from surgery.formats.tf_varint import varint

MOST_BYTES = 200 << 20
MOST_SECONDS = 5
"""Of the processor; the aim is one second, which a busy machine with slow cores may miss."""


@pytest.fixture(scope="module")
def measurer() -> Iterator[Measurer]:
    running = Measurer()
    yield running
    running.close()


Make = Callable[[Path], Path]
CASES: dict[str, tuple[Make, str]] = {}
"""What writes the files and returns the path to open, and what the outcome has to say."""


def hostile(says: str) -> Callable[[Make], Make]:
    def kept(make: Make) -> Make:
        CASES[make.__name__] = make, says
        return make

    return kept


# safetensors


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


# numpy


def npy(shape: str, data: bytes = b"", descr: str = "|u1") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def npz(folder: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "a.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def deflated_zeros(nbytes: int, before: bytes = b"") -> tuple[bytes, int]:
    """A raw deflate stream, and the CRC-32 of what it holds."""
    deflater, block = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1 << 24)
    crc32 = zlib.crc32(before)
    parts = [deflater.compress(before)]
    for _ in range(nbytes >> 24):
        parts.append(deflater.compress(block))
        crc32 = zlib.crc32(block, crc32)
    return b"".join([*parts, deflater.flush()]), crc32


def raw_zip(path: Path, name: bytes, stored: bytes, crc32: int, nbytes: int, offset: int = 0) -> Path:
    wide = struct.pack("<2H2Q", 1, 16, nbytes, len(stored))
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 8, 0, 33, crc32, 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(wide)) + name + wide + stored
    central = struct.pack("<4s4B4H3L5H2L", b"PK\1\2", 45, 3, 45, 0, 0, 8, 0, 33, crc32, 0xFFFFFFFF, 0xFFFFFFFF, len(name), 20, 0, 0, 0, 0, offset)
    central += name + wide
    path.write_bytes(local + central + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0))
    return path


@hostile("read")
def npz_bomb_of_a_gigabyte_that_is_honest(folder: Path) -> Path:
    nbytes = 1 << 30
    head = npy(f"({nbytes},)")
    stored, crc32 = deflated_zeros(nbytes, head)
    return raw_zip(folder / "a.npz", b"a.npy", stored, crc32, nbytes + len(head))


@hostile("is damaged")
def npz_bomb_that_claims_to_be_small(folder: Path) -> Path:
    head = npy("(1000000,)")
    stored, crc32 = deflated_zeros(1 << 28, head)
    return raw_zip(folder / "a.npz", b"a.npy", stored, crc32, 1_000_000 + len(head))


@hostile("cannot inflate to its array")
def npz_that_claims_ten_terabytes(folder: Path) -> Path:
    head = npy(f"({10 << 40},)")
    stored, crc32 = deflated_zeros(1 << 24, head)
    return raw_zip(folder / "a.npz", b"a.npy", stored, crc32, (10 << 40) + len(head))


@hostile("runs into what follows")
def npz_with_a_member_behind_the_end(folder: Path) -> Path:
    return raw_zip(folder / "a.npz", b"a.npy", b"\3\0", 0, 0, 0x7FFFFFFF)


@hostile("runs into what follows")
def npz_whose_members_share_their_bytes(folder: Path) -> Path:
    npz(folder, {f"{number}.npy": npy("(8,)", bytes(8)) for number in range(2)}, zipfile.ZIP_STORED)
    data = bytearray((folder / "a.npz").read_bytes())
    at = data.rindex(b"PK\1\2") + 42
    data[at : at + 4] = bytes(4)
    (folder / "a.npz").write_bytes(data)
    return folder / "a.npz"


@hostile("read")
def npz_with_a_member_outside_the_folder(folder: Path) -> Path:
    return npz(folder, {"../../../../escaped.npy": npy("(8,)", bytes(8)), "/etc/escaped.npy": npy("(8,)", bytes(8))})


@hostile("CorruptFile")
def npz_whose_directory_lists_nothing_but_itself(folder: Path) -> Path:
    path = folder / "a.npz"
    central = struct.pack("<4s4B4H3L5H2L", b"PK\1\2", 45, 3, 45, 0, 0, 0, 0, 33, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0) + b"a.npy"
    path.write_bytes(central * 60_000 + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 60_000, 60_000, len(central) * 60_000, 0, 0))
    return path


@hostile("does not fit")
def npy_with_a_long_header(folder: Path) -> Path:
    path = folder / "a.npy"
    header = b"{'shape': (" + b"(" * 20_000_000
    path.write_bytes(b"\x93NUMPY\2\0" + struct.pack("<L", len(header)) + header)
    return path


@hostile("CorruptFile")
def npy_with_spaces(folder: Path) -> Path:
    path = folder / "a.npy"
    path.write_bytes(b"\x93NUMPY\1\0\xff\xff" + (b"{" + b" " * 0xFFFF)[:0xFFFF])
    return path


@hostile("CorruptFile")
def npy_of_exabytes(folder: Path) -> Path:
    path = folder / "a.npy"
    path.write_bytes(npy(f"({1 << 62}, 4)", descr="<f8"))
    return path


# TensorFlow


def table(folder: Path, blocks: list[bytes], kind: int = 0, times: int = 1, footer: bytes = b"") -> Path:
    """An index with these blocks, whose index block lists each as often as `times` says."""
    out = bytearray()
    handles = []
    for block in blocks:
        handles.append(varint(len(out)) + varint(len(block)))
        append_block(out, block, kind)
    listed = b"".join(b"\0" + varint(1) + varint(len(handle)) + bytes([number % 255 + 1]) + handle for number, handle in enumerate(handles * times))
    index = varint(len(out)) + varint(len(listed) + 8)
    append_block(out, listed + struct.pack("<2L", 0, 1), 0)
    out += (footer or b"\0\0" + index).ljust(40, b"\0") + tf_table.MAGIC
    path = folder / "a.ckpt.index"
    path.write_bytes(out)
    return folder / "a.ckpt"


def append_block(out: bytearray, block: bytes, kind: int) -> None:
    import google_crc32c

    out += block + bytes([kind]) + tf_table.mask(google_crc32c.value(block + bytes([kind]))).to_bytes(4, "little")


@hostile("corrupted compressed block contents")
def tf_snappy_that_claims_a_terabyte(folder: Path) -> Path:
    return table(folder, [varint((1 << 32) - 1) + b"\xfe\1\0" * 1000], kind=1)


@hostile("CorruptFile")
def tf_snappy_bomb(folder: Path) -> Path:
    copies = b"\xfe\1\0" * 3_000_000
    return table(folder, [varint(1 + 64 * 3_000_000) + b"\0\0" + copies], kind=1)


@hostile("CorruptFile")
def tf_snappy_bomb_of_many_blocks(folder: Path) -> Path:
    copies = b"\xfe\1\0" * 30_000
    return table(folder, [varint(1 + 64 * 30_000) + b"\0\0" + copies] * 100, kind=1)


@hostile("CorruptFile")
def tf_block_with_restarts_beyond_it(folder: Path) -> Path:
    return table(folder, [b"\0\0\0" + b"\xff\xff\xff\xff"])


@hostile("bad block handle")
def tf_index_that_lists_one_block_many_times(folder: Path) -> Path:
    return table(folder, [bytes(60_000) + struct.pack("<2L", 0, 1)], times=200)


@hostile("bad block handle")
def tf_footer_with_endless_varints(folder: Path) -> Path:
    return table(folder, [b"\0" * 8], footer=b"\xff" * 40)


@hostile("CorruptFile")
def tf_index_block_that_is_its_own_data(folder: Path) -> Path:
    path = table(folder, [])
    data = bytearray(Path(f"{path}.index").read_bytes())
    out = bytearray()
    handle = varint(0) + varint(16)
    append_block(out, (b"\0\1" + varint(len(handle)) + b"a" + handle).ljust(8, b"\0")[:8] + struct.pack("<2L", 0, 1), 0)
    Path(f"{path}.index").write_bytes(out + (b"\0\0" + handle).ljust(40, b"\0") + data[-8:])
    return path


@hostile("bad entry in block")
def tf_keys_that_grow_from_shared_prefixes(folder: Path) -> Path:
    first = b"\0" + varint(60_000) + b"\0" + b"a" * 60_000
    grown = b"".join(varint(60_000 + number) + b"\1\0" + b"a" for number in range(60_000))
    return table(folder, [first + grown + struct.pack("<2L", 0, 1)])


def bundle_entry(shape: bytes, dtype: int = 1, size: int = 0) -> bytes:
    return field(1, dtype) + field(2, shape) + (field(5, size) if size else b"")


def bundle(folder: Path, entries: list[tuple[bytes, bytes]], data: bytes = b"") -> Path:
    header = field(1, 1) + field(3, field(1, 1))
    (folder / "a.ckpt.index").write_bytes(tf_table.write_table([(b"", header), *entries]))
    (folder / "a.ckpt.data-00000-of-00001").write_bytes(data)
    return folder / "a.ckpt"


@hostile("CorruptFile")
def tf_shape_that_overflows(folder: Path) -> Path:
    sizes = b"".join(field(2, field(1, 1 << 62)) for _ in range(4))
    return bundle(folder, [(b"a", bundle_entry(sizes, size=16))], bytes(16))


@hostile("Invalid tensor shape: a")
def tf_shape_of_a_million_axes(folder: Path) -> Path:
    return bundle(folder, [(b"a", bundle_entry(field(2, field(1, 1)) * 1_000_000, size=4))], bytes(4))


@hostile("No such file or directory")
def tf_header_of_many_shards(folder: Path) -> Path:
    header = field(1, (1 << 31) - 1) + field(3, field(1, 1))
    (folder / "a.ckpt.index").write_bytes(tf_table.write_table([(b"", header), (b"a", bundle_entry(b"", size=4))]))
    return folder / "a.ckpt"


@hostile("does not correspond to a valid tensorflow::DataType")
def tf_message_that_nests(folder: Path) -> Path:
    inner = b""
    for _ in range(5000):
        inner = field(2, inner)
    return bundle(folder, [(b"a", inner)])


@hostile("CorruptFile")
def tf_strings_longer_than_their_bytes(folder: Path) -> Path:
    return bundle(folder, [(b"a", bundle_entry(field(2, field(1, 1 << 40)), 7, 100))], bytes(100))


@hostile("CorruptFile")
def tf_data_behind_the_end(folder: Path) -> Path:
    return bundle(folder, [(b"a", field(1, 1) + field(2, field(2, field(1, 4))) + field(4, 1 << 62) + field(5, 16))], bytes(16))


@hostile("Couldn't match files for checkpoint /dev/zero")
def tf_state_that_names_a_device(folder: Path) -> Path:
    (folder / "checkpoint").write_text('model_checkpoint_path: "/dev/zero"\n')
    return folder


@hostile("Couldn't match files for checkpoint")
def tf_state_that_names_itself(folder: Path) -> Path:
    (folder / "checkpoint").write_text('model_checkpoint_path: "checkpoint"\n')
    return folder


@hostile("error[unsupported]")
def tf_v1_of_nested_messages(folder: Path) -> Path:
    inner = b""
    for _ in range(20_000):
        inner = field(1, inner)
    (folder / "a.ckpt").write_bytes(tf_table.write_table([(b"", inner)]))
    return folder / "a.ckpt"


# ONNX


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


# TensorFlow.js


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


# HDF5


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


# GGUF, msgpack, pickle


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


def msgpack(folder: Path, data: bytes) -> Path:
    (folder / "a.msgpack").write_bytes(data)
    return folder / "a.msgpack"


@hostile("error[")
def msgpack_maps_in_maps(folder: Path) -> Path:
    return msgpack(folder, b"\x81\xa1a" * 1_000_000)


@hostile("error[")
def msgpack_count_that_overflows(folder: Path) -> Path:
    return msgpack(folder, b"\xdf\xff\xff\xff\xff\xa1a\xc0")


@hostile("error[")
def msgpack_many_items(folder: Path) -> Path:
    count = 3_000_000
    return msgpack(folder, b"\xdf" + struct.pack(">L", count) + b"".join(b"\xa7%07d\xc0" % number for number in range(count)))


def torch(folder: Path, pickle: bytes) -> Path:
    path = folder / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle)
        archive.writestr("a/version", "3\n")
    return path


@hostile("read")
def torch_pickle_that_would_run_a_command(folder: Path) -> Path:
    return torch(folder, b"cos\nsystem\n(S'touch ran'\ntR.")


@hostile("error[")
def torch_pickle_that_doubles(folder: Path) -> Path:
    return torch(folder, b"\x80\2]q\0" + b"(h\0h\0tq\0" * 200 + b".")


@hostile("error[")
def torch_pickle_of_marks(folder: Path) -> Path:
    return torch(folder, b"\x80\2" + b"(" * 20_000_000 + b".")


@hostile("error[")
def torch_pickle_of_nested_lists(folder: Path) -> Path:
    return torch(folder, b"\x80\2" + b"]" * 2_000_000 + b"a" * 1_999_999 + b".")


@hostile("error[")
def torch_pickle_of_a_long_number(folder: Path) -> Path:
    return torch(folder, b"\x80\2\x8b" + struct.pack("<l", 30_000_000) + b"\x7f" * 30_000_000 + b".")


@hostile("error[")
def torch_deflated_pickle_of_a_gigabyte(folder: Path) -> Path:
    stored, crc32 = deflated_zeros(1 << 30)
    return raw_zip(folder / "a.pt", b"a/data.pkl", stored, crc32, 1 << 30)


@pytest.mark.parametrize("name", CASES)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    make, says = CASES[name]
    cost = measurer.open(make(tmp_path))
    assert says in cost.outcome
    assert not cost.outcome.startswith(("BUG", "ended"))
    assert cost.memory_bytes < MOST_BYTES
    assert cost.cpu_seconds < MOST_SECONDS
    assert not Path("ran").exists()
