from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from contract import Arrays, ReadContract
from disk import FolderDisk
from executor import content
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_writer import field, varint

from surgery.errors import CorruptFile, SourceError, UnsupportedFeature
from surgery.expr import evaluate
from surgery.formats import tf_v1
from surgery.formats.base import Indexed
from surgery.formats.tf_slices import Slice, slice_key
from surgery.formats.tf_table import write_table
from surgery.regions import whole
from surgery.tensors import SourceFile

DATA = Path(__file__).parents[1] / "data" / "tf"
NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10}
FIELDS = {"float32": 5, "float64": 6, "int32": 7, "uint8": 7, "int64": 10, "bool": 11}


def opened(path: str) -> Indexed:
    location = tf_v1.locate(path, FolderDisk())
    assert location is not None
    return tf_v1.index(location, FolderDisk())


def read(file: SourceFile, start: int, stop: int) -> bytes:
    return FolderDisk().open(file.path)[1](start, stop)


def values(array: np.ndarray) -> bytes:
    if array.dtype.kind == "f":
        return array.tobytes()
    return b"".join(varint(int(number)) for number in array.reshape(-1))


def shape_message(shape: tuple[int, ...]) -> bytes:
    return b"".join(field(2, field(1, size)) for size in shape)


def saved(arrays: Arrays, meta: bytes = b"") -> bytes:
    """A V1 file with whole tensors, built field by field; `meta` stands in for what it tells of them."""
    told, entries = b"", []
    for name, array in arrays.items():
        everything = field(1, b"") * array.ndim
        told += field(1, field(1, name) + field(2, shape_message(array.shape)) + field(3, NUMBERS[array.dtype.name]) + field(4, everything))
        proto = field(FIELDS[array.dtype.name], values(array))
        key = slice_key(name.encode(), Slice(((0, None),) * array.ndim))
        entries.append((key, field(2, field(1, name) + field(2, everything) + field(3, proto))))
    return write_table([(b"", field(1, meta or told)), *sorted(entries)])


class TestV1(ReadContract):
    format = tf_v1
    holds = frozenset(NUMBERS)
    detects_flips = True

    def make(self, folder: Path, arrays: Arrays) -> str:
        (folder / "m.ckpt").write_bytes(saved(arrays))
        return str(folder / "m.ckpt")


@pytest.mark.parametrize("name", ["one", "sharded"])
def test_every_type_reads_as_tensorflow_reads_it(name: str) -> None:
    tensors = opened(f"{DATA}/v1_more/{name}").tensors
    found = {}
    for key, expr in tensors.items():
        array = evaluate(expr, whole(expr.spec.shape), read)
        digest = None if expr.spec.dtype.kind == "string" else hashlib.sha256(array.tobytes()).hexdigest()
        found[key] = [expr.spec.dtype.name, list(array.shape), digest]
    assert found == json.loads((DATA / "v1_more" / "expected.json").read_text())
    assert evaluate(tensors["text"], whole((3,)), read).tolist() == [b"a", b"", "größe".encode()]


def test_partitioned_tensors_are_joined_and_told() -> None:
    assert opened(f"{DATA}/v1_more/one").notes == ("1 partitioned tensor joined from slices",)


@pytest.mark.parametrize("path", ["v1_format/old.ckpt", "v1_format", "v1_format/checkpoint"])
def test_a_checkpoint_is_found_by_file_folder_and_state_file(path: str) -> None:
    found = opened(f"{DATA}/{path}")
    assert {key: str(expr.spec) for key, expr in found.tensors.items()} == {
        "a": "f32[]",
        "big_int": "i64[]",
        "flag": "bool[]",
        "sc/b": "f32[3,2]",
        "sc/ints": "i32[7]",
    }
    assert content(found.tensors["sc/ints"], FolderDisk()) == np.arange(-3, 4, dtype="<i4").tobytes()
    assert found.companions == (f"{DATA}/v1_format/old.ckpt.meta",)


@pytest.mark.parametrize("path", ["article/two_scalars", "article/two_scalars.index", "article", "absent", "make_v1.py"])
def test_other_paths_are_not_recognised(path: str) -> None:
    assert tf_v1.locate(f"{DATA}/{path}", FolderDisk()) is None


def test_a_missing_shard_is_told(tmp_path: Path) -> None:
    shutil.copy(DATA / "v1_more" / "sharded-00001-of-00002", tmp_path)
    with pytest.raises(SourceError) as fault:
        opened(f"{tmp_path}/sharded")
    assert fault.value.code == "missing-shard"


def test_the_values_are_not_read_before_they_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(saved({"w": np.zeros(1 << 20, "<f4"), "x": np.zeros(1 << 20, "<f4")}))
    disk = FolderDisk()
    tf_v1.index(str(tmp_path / "m"), disk)
    assert disk.bytes_read < 1000


def told(name: str, shape: tuple[int, ...], number: int, *slices: bytes) -> bytes:
    return field(1, field(1, name) + field(2, shape_message(shape)) + field(3, number) + b"".join(field(4, each) for each in slices))


EVERYTHING = field(1, b"")


@pytest.mark.parametrize(
    "meta",
    [
        told("w", (2,), 1),
        told("w", (2,), 1, EVERYTHING, field(1, field(1, 0) + field(2, 1))),
        told("w", (2,), 1, field(1, field(1, 0) + field(2, 1))),
        told("w", (2,), 1, field(1, field(1, 1) + field(2, 5))),
        told("w", (2,), 1, field(1, field(1, -1) + field(2, -5))),
        told("w", (2,), 1, EVERYTHING * 2),
        told("w", (-2,), 1, EVERYTHING),
        told("w", (1 << 40,), 1, EVERYTHING),
        told("w", (1 << 62, 1 << 62), 1, EVERYTHING * 2),
        told("w", (1,) * 255, 1, EVERYTHING * 255),
        told("w", (3,), 1, EVERYTHING),
        told("v", (2,), 1, EVERYTHING),
        told("zzz", (2,), 1, EVERYTHING),
        b"\x0a\x7f",
    ],
)
def test_tables_that_contradict_themselves_are_corrupt(tmp_path: Path, meta: bytes) -> None:
    (tmp_path / "m").write_bytes(saved({"w": np.zeros(2, "<f4")}, meta))
    with pytest.raises(CorruptFile) as fault:
        [content(expr, FolderDisk()) for expr in opened(str(tmp_path / "m")).tensors.values()]
    assert fault.value.help


def test_a_table_without_an_account_of_its_tensors_is_corrupt(tmp_path: Path) -> None:
    for number, entries in enumerate([[], [(b"a", b"b")]]):
        (tmp_path / f"m{number}").write_bytes(write_table(entries))
        with pytest.raises(CorruptFile, match="no sound V1 checkpoint"):
            opened(f"{tmp_path}/m{number}")


def test_a_type_that_v1_checkpoints_lack_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(saved({}, told("w", (2,), 20, EVERYTHING)))
    with pytest.raises(UnsupportedFeature, match="type 20"):
        opened(str(tmp_path / "m"))


META = field(1, told("w", (2, 3), 1, EVERYTHING * 2) + told("v", (4,), 9, field(1, field(2, 3)), field(1, field(1, 3) + field(2, 1))))


@settings(max_examples=300, deadline=2000, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(META) - 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=3))
def test_a_mutated_account_gives_source_errors_only(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    """The table's checksums are right, so that the damage gets behind them."""
    damaged = bytearray(META)
    for at, data in changes:
        damaged[at : at + len(data)] = data
    (tmp_path / "m").write_bytes(write_table([(b"", bytes(damaged)), (b"\x00w", field(2, field(3, field(5, bytes(24)))))]))
    with suppress(SourceError):
        for expr in opened(str(tmp_path / "m")).tensors.values():
            if expr.spec.dtype.kind != "string":
                content(expr, FolderDisk())
