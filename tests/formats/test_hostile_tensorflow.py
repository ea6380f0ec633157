"""TensorFlow bundles, their states and V1 checkpoints made to take memory, time or other people's files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hostile import Tricks
from measured import Measurer
from wire_writer import field

from surgery.formats import tf_table
from surgery.formats.tf_varint import varint

hostile = Tricks()


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


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
