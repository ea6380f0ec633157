"""Orbax checkpoints, and databases of OCDBT in them, made to take memory, time or other people's files."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import pytest
from hostile import Tricks
from measured import Measurer

from surgery.formats.tf_varint import varint

hostile = Tricks()


def sealed(magic: int, body: bytes) -> bytes:
    head = struct.pack(">L", magic) + struct.pack("<Q", len(body) + 18) + b"\0\0"
    return head + body + struct.pack("<L", google_crc32c.value(head + body))


def varints(*numbers: int) -> bytes:
    return b"".join(map(varint, numbers))


def paths(*names: bytes) -> bytes:
    """A table of data files that share nothing."""
    same, sizes = [0] * (len(names) - 1), [len(name) for name in names]
    return varints(len(names), *same, *sizes, *[0] * len(names)) + b"".join(names)


def references(places: Sequence[tuple[int, int]]) -> bytes:
    """Columns of references into the first file of a table."""
    starts, sizes = [start for start, _ in places], [nbytes for _, nbytes in places]
    ones = [1] * len(places)
    return varints(*[0] * len(places), *starts, *sizes, *ones, *ones, *ones)


def leaf(keys: Sequence[bytes], same: Sequence[int]) -> bytes:
    """A node of empty values; each key begins with so many bytes of the one before."""
    count = len(keys)
    body = b"\0" + paths(b"") + varints(count, *same[1:], *map(len, keys)) + b"".join(keys)
    return sealed(0x0CDB20DE, body + bytes(2 * count))


def interior(places: Sequence[tuple[int, int]], height: int = 1) -> bytes:
    """A node whose children all have keys without a beginning."""
    count = len(places)
    body = bytes([height]) + paths(b"nodes") + varints(count, *[0] * (count - 1), *[0] * count, *[0] * count)
    return sealed(0x0CDB20DE, body + references(places))


def orbax(folder: Path, node: bytes, name: bytes = b"nodes") -> Path:
    """A checkpoint whose database has this root."""
    settings = bytes(16) + varints(0, 0, 0) + b"\4" + varints(0)
    versions = paths(name) + varints(1, 1) + b"\1" + references([(0, len(node))]) + bytes(8) + varints(0)
    (folder / "manifest.ocdbt").write_bytes(sealed(0x0CDB3A2A, settings + versions))
    (folder / "nodes").write_bytes(node)
    (folder / "_METADATA").write_text(json.dumps({"tree_metadata": {}, "use_ocdbt": True}))
    return folder


@hostile("the tree contains itself")
def a_node_that_is_its_own_child(folder: Path) -> Path:
    return orbax(folder, interior([(0, len(interior([(0, 99)])))]))


@hostile("the tree contains itself")
def a_node_with_one_child_many_times(folder: Path) -> Path:
    return orbax(folder, interior([(0, 100)] * 200_000))


@hostile("has more than 300,000 keys")
def a_node_with_a_million_children(folder: Path) -> Path:
    return orbax(folder, interior([(number, 100) for number in range(1_000_000)]))


@hostile("read")
def as_many_keys_as_are_read(folder: Path) -> Path:
    count = 300_000
    return orbax(folder, leaf([struct.pack(">L", number)[1:] for number in range(count)], [0] * count))


@hostile("has more than 300,000 keys")
def millions_of_keys(folder: Path) -> Path:
    count = 4_000_000
    return orbax(folder, leaf([struct.pack(">L", number)[1:] for number in range(count)], [0] * count))


@hostile("error[")
def long_keys_that_begin_alike(folder: Path) -> Path:
    count = 500_000
    return orbax(folder, leaf([b"k" * 60_000, *[b"k"] * (count - 1)], [0, *[60_000] * (count - 1)]))


@hostile("error[")
def a_count_that_overflows(folder: Path) -> Path:
    return orbax(folder, sealed(0x0CDB20DE, b"\0" + paths(b"") + varints((1 << 63) - 1)))


@hostile("is not one of this database")
def nodes_outside_of_the_folder(folder: Path) -> Path:
    return orbax(folder, leaf([], []), b"../../../../etc/passwd")


@hostile("is not one of this database")
def nodes_at_an_absolute_path(folder: Path) -> Path:
    return orbax(folder, leaf([], []), b"/etc/passwd")


@hostile("error[")
def metadata_of_brackets(folder: Path) -> Path:
    orbax(folder, leaf([b"a"], [0]))
    (folder / "_METADATA").write_text('{"tree_metadata":' + "[" * 2_000_000)
    return folder


@hostile("error[")
def metadata_of_many_values(folder: Path) -> Path:
    orbax(folder, leaf([b"a"], [0]))
    (folder / "_METADATA").write_text('{"tree_metadata":{' + ",".join(f'"{number}":[]' for number in range(2_000_000)) + "}}")
    return folder


@pytest.mark.parametrize("name", hostile.names)
def test_hostile_files_cost_little(name: str, tmp_path: Path, measurer: Measurer) -> None:
    hostile.check(name, tmp_path, measurer)
