from __future__ import annotations

import hashlib
import json
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
from contract import Arrays, ReadContract
from disk import FolderDisk
from executor import content
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_writer import field, varint

from surgery.errors import CorruptFile, SourceError, UnsupportedFeature
from surgery.expr import Stored, evaluate
from surgery.formats import onnx
from surgery.formats.base import Indexed
from surgery.formats.wire import Message
from surgery.regions import whole
from surgery.tensors import Fingerprint, SourceFile

DATA = Path(__file__).parents[1] / "data" / "onnx"
NUMBERS = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7, "bool": 9, "float64": 11}


def opened(path: Path) -> Indexed:
    return onnx.index(str(path), FolderDisk())


def contents(path: Path) -> dict[str, bytes]:
    return {key: content(expr, FolderDisk()) for key, expr in opened(path).tensors.items()}


def tensor(name: str, dims: tuple[int, ...], data_type: int, *values: bytes) -> bytes:
    return b"".join([*(field(1, size) for size in dims), field(2, data_type), field(8, name), *values])


def model(*tensors: bytes) -> bytes:
    return field(1, 8) + field(7, b"".join(field(5, each) for each in tensors))


def fault_of(tmp_path: Path, stored: bytes) -> SourceError:
    (tmp_path / "m.onnx").write_bytes(stored)
    with pytest.raises(SourceError) as fault:
        opened(tmp_path / "m.onnx")
    assert fault.value.help
    return fault.value


class TestOnnx(ReadContract):
    format = onnx
    holds = frozenset(NUMBERS)

    def make(self, folder: Path, arrays: Arrays) -> str:
        tensors = [tensor(key, array.shape, NUMBERS[array.dtype.name], field(9, array.tobytes())) for key, array in arrays.items()]
        (folder / "m.onnx").write_bytes(model(*tensors))
        return str(folder / "m.onnx")


# Against the onnx package


def test_every_type_reads_as_the_onnx_package_reads_it_raw_and_listed() -> None:
    told = {key: (dtype, shape, digest) for key, (dtype, shape, digest) in json.loads((DATA / "expected.json").read_text()).items()}
    found = {}
    for key, expr in opened(DATA / "typed.onnx").tensors.items():
        if key == "list/STRING":
            continue
        array = evaluate(expr, whole(expr.spec.shape), read)
        found[key] = (expr.spec.dtype.name, list(expr.spec.shape), hashlib.sha256(array.tobytes()).hexdigest())
    assert told.pop("list/STRING") == ("object", [2], None)
    assert found == told


def read(file: SourceFile, start: int, stop: int) -> bytes:
    return FolderDisk().open(file.path)[1](start, stop)


def test_strings_are_bytes() -> None:
    expr = opened(DATA / "typed.onnx").tensors["list/STRING"]
    assert evaluate(expr, whole((2,)), read).tolist() == [b"a", "größe".encode()]


def test_raw_data_and_lists_of_floats_are_byte_ranges() -> None:
    tensors = opened(DATA / "typed.onnx").tensors
    for key in ("raw/INT64", "raw/BFLOAT16", "list/FLOAT", "list/COMPLEX128"):
        expr = tensors[key]
        assert isinstance(expr, Stored)
        assert (expr.extent.codec, expr.extent.nbytes) == (None, expr.spec.nbytes)


def test_tensors_of_nested_graphs_constants_and_functions_have_their_path() -> None:
    found = opened(DATA / "nested.onnx")
    assert {key: content(expr, FolderDisk()).hex() for key, expr in found.tensors.items()} == {
        "c": "01",
        "choice.else_branch/w": "0000004000000040",
        "choice.then_branch/w": "0000803f0000803f",
        "z.else_branch/w": "0000804000008040",
        "z.then_branch/w": "0000404000004040",
        "shift/by": "0700000000000000",
    }
    assert found.metadata == {"author": "größe"}


# External data


def test_external_data_is_read_from_beside_the_model() -> None:
    found = opened(DATA / "external" / "model.onnx")
    assert {key: str(expr.spec) for key, expr in found.tensors.items()} == {"w": "f32[3,4]", "n": "i64[5]"}
    assert content(found.tensors["n"], FolderDisk()) == b"".join(number.to_bytes(8, "little") for number in range(5))
    assert [Path(file.path).name for file in found.files] == ["model.onnx", "model.data"]


def test_missing_external_data_is_told_and_does_not_hide_the_specs(tmp_path: Path) -> None:
    shutil.copy(DATA / "external" / "model.onnx", tmp_path)
    with pytest.raises(SourceError) as fault:
        opened(tmp_path / "model.onnx")
    assert fault.value.code == "missing-shard"
    found = onnx.index(str(tmp_path / "model.onnx"), FolderDisk(), strict=False)
    assert {key: str(expr.spec) for key, expr in found.tensors.items()} == {"w": "f32[3,4]", "n": "i64[5]"}
    assert len(found.notes) == 1


def outside(**where: str) -> bytes:
    pairs = b"".join(field(13, field(1, key) + field(2, value)) for key, value in where.items())
    return model(tensor("w", (2,), 1, pairs, field(14, 1)))


@pytest.mark.parametrize("location", ["", "/etc/passwd", "../w", "a/../../w", "..", ".", "c:w", "a\\w", "a\nb"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    assert "outside the model's folder" in fault_of(tmp_path, outside(location=location)).title


@pytest.mark.parametrize(
    "where", [{"offset": "8"}, {"length": "4"}, {"offset": "-4"}, {"offset": "9" * 30}, {"length": "x"}, {"offset": "12", "length": "8"}]
)
def test_external_ranges_that_do_not_fit_are_refused(tmp_path: Path, where: dict[str, str]) -> None:
    (tmp_path / "w").write_bytes(bytes(12))
    assert isinstance(fault_of(tmp_path, outside(location="w", **where)), CorruptFile)


# Hostile bytes


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        field(1, 8),
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x3b\x00",
        model(tensor("w", (2,), 1)),
        model(tensor("w", (2,), 1, field(9, bytes(7)))),
        model(tensor("w", (3,), 6, field(5, bytes(2)))),
        model(tensor("w", (1 << 40, 1 << 40), 1, field(9, b""))),
        model(tensor("w", (1 << 40,), 6, field(5, b"\x00"))),
        model(tensor("w", (-1,), 1, field(9, b""))),
        model(tensor("w", (1,) * 65, 1, field(9, bytes(4)))),
        model(tensor("", (1,), 1, field(9, bytes(4)))),
        model(tensor("w", (), 8, field(9, b""))),
        model(*[tensor("w", (1,), 1, field(9, bytes(4)))] * 2),
        model(tensor("w", (1,), 1, field(9, bytes(4)), field(8, b"\xff"))),
        field(7, b"\x2a\x7f"),
    ],
)
def test_models_that_contradict_themselves_are_corrupt(tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(stored)
    with pytest.raises(CorruptFile) as fault:
        contents(tmp_path / "m.onnx")
    assert fault.value.help


@pytest.mark.parametrize(
    "stored",
    [
        model(tensor("w", (1,), 27, field(9, bytes(1)))),
        model(tensor("w", (1,), 0, field(9, bytes(1)))),
        model(tensor("w", (1,), 1, field(3, b""), field(9, bytes(4)))),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path: Path, stored: bytes) -> None:
    assert isinstance(fault_of(tmp_path, stored), UnsupportedFeature)


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    graph = b""
    for _ in range(1000):
        graph = field(1, field(3, "n") + field(5, field(1, "body") + field(6, graph)))
    assert "nests graphs" in fault_of(tmp_path, field(7, graph)).title


def test_a_list_that_ends_within_a_number_is_found_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(model(tensor("w", (2,), 6, field(5, b"\x01\x80"))))
    with pytest.raises(CorruptFile, match="do not fit"):
        content(opened(tmp_path / "m.onnx").tensors["w"], FolderDisk())


def test_a_file_of_tiny_fields_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgery.formats.wire._MOST_FIELDS", 1000)
    assert "fields" in fault_of(tmp_path, field(7, field(5, b"\x08\x01" * 2000))).title


SEEDS = [(DATA / name).read_bytes() for name in ("typed.onnx", "nested.onnx", "external/model.onnx")]


class MemoryDisk(FolderDisk):
    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data

    def is_file(self, path: str) -> bool:
        return path == "m.onnx"

    def open(self, path: str, checksum_fault: str = "") -> tuple[SourceFile, object]:
        def read_at(start: int, stop: int) -> bytes:
            assert 0 <= start <= stop <= len(self.data)
            return self.data[start:stop]

        return SourceFile(path, Fingerprint(len(self.data), 0, 0, 0)), read_at


@settings(max_examples=400, deadline=2000, database=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4), st.booleans())
def test_mutated_models_give_source_errors_only(stored: bytes, changes: list[tuple[int, bytes]], insert: bool) -> None:
    damaged = bytearray(stored)
    for at, data in changes:
        at %= len(damaged)
        damaged[at : at + (0 if insert else len(data))] = data
    disk = MemoryDisk(bytes(damaged))
    with suppress(SourceError):
        for expr in onnx.index("m.onnx", disk).tensors.values():
            if expr.spec.dtype.kind != "string":
                content(expr, disk)


# Recognising


def test_a_model_is_recognised_without_its_suffix(tmp_path: Path) -> None:
    shutil.copy(DATA / "typed.onnx", tmp_path / "model")
    assert onnx.locate(str(tmp_path / "model"), FolderDisk()) == str(tmp_path / "model")


def test_other_files_are_not_recognised(tmp_path: Path) -> None:
    for number, stored in enumerate([b"", b"\x08", b"\x08\x01\x12\x00", b"PK\x03\x04", b"\x08\x08\x3a\x7f"]):
        (tmp_path / f"f{number}").write_bytes(stored)
        assert onnx.locate(str(tmp_path / f"f{number}"), FolderDisk()) is None


def test_sparse_initializers_are_left_out_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(field(7, field(15, field(3, 2)) + field(5, tensor("w", (1,), 1, field(9, bytes(4))))))
    found = opened(tmp_path / "m.onnx")
    assert list(found.tensors) == ["w"]
    assert found.notes == ("1 sparse initializer left out; a copy of the model keeps it",)


def test_a_large_sparse_model_is_listed_in_a_moment(tmp_path: Path) -> None:
    gigabytes = 10 << 30
    inner = tensor("w", (gigabytes // 4,), 1) + varint(9 << 3 | 2) + varint(gigabytes)
    graph = varint(5 << 3 | 2) + varint(len(inner) + gigabytes) + inner
    with (tmp_path / "m.onnx").open("wb") as file:
        file.write(field(1, 8) + varint(7 << 3 | 2) + varint(len(graph) + gigabytes) + graph)
        file.truncate(file.tell() + gigabytes)
    began = time.perf_counter()
    assert str(opened(tmp_path / "m.onnx").tensors["w"].spec) == "f32[2684354560]"
    assert time.perf_counter() - began < 1


def test_fixed_width_fields_are_numbers() -> None:
    message = Message.of_bytes(b"\x0d\x01\x00\x00\x00\x11\x02\x00\x00\x00\x00\x00\x00\x00", "m")
    assert [(each.number, each.value) for each in message.fields()] == [(1, 1), (2, 2)]
