from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from contract import Arrays, FormatContract, bundle
from disk import FolderDisk
from executor import content, execute

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, SourceError, UnsupportedFeature, render
from surgery.expr import Expr
from surgery.formats import safetensors
from surgery.tensors import TensorSpec

DATA = Path(__file__).parents[1] / "data" / "safetensors"
DTYPE_OF = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn_packed",
    "F6_E2M3": "float6_e2m3fn_packed",
    "F6_E3M2": "float6_e3m2fn_packed",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
BYTE = TensorSpec(DTYPES["uint8"], (1,))


def file_of(header: object, data: bytes = b"") -> bytes:
    """A safetensors file, right or wrong, as its README describes it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(start: object, stop: object, dtype: object = "U8", shape: object = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": [2] if shape is None else shape, "data_offsets": [start, stop]}


class TestSafetensors(FormatContract):
    format = safetensors
    filename = "out.safetensors"
    holds = frozenset(DTYPE_OF.values())

    def make(self, folder: Path, arrays: Arrays) -> str:
        codes = {name: code for code, name in DTYPE_OF.items()}
        header = {}
        data = b""
        for key, array in arrays.items():
            header[key] = {"dtype": codes[array.dtype.name], "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
            data += array.tobytes()
        (folder / "in.safetensors").write_bytes(file_of(header, data))
        return str(folder / "in.safetensors")


class TestSharded(TestSafetensors):
    def save(self, folder: Path, tensors: Mapping[str, Expr]) -> str:
        execute(safetensors.layout(bundle(str(folder), tensors, shard_size=40)), FolderDisk())
        return str(folder)


# Reading


def test_lists_the_tensors_of_the_reference_in_data_order() -> None:
    found = safetensors.index(str(DATA / "plain.safetensors"), FolderDisk())
    assert {key: str(expr.spec) for key, expr in found.tensors.items()} == {
        "größe": "i64[1]",
        "layer.0.bias": "f64[2]",
        "layer.0.weight": "f32[2,3]",
        "none": "f16[0,4]",
        "flag\n": "bool[]",
    }
    assert list(found.tensors) == ["größe", "layer.0.bias", "layer.0.weight", "none", "flag\n"]
    assert found.metadata == {"format": "np"}
    assert content(found.tensors["layer.0.bias"], FolderDisk()).hex() == "000000000000e03f000000000000e0bf"


def test_knows_every_element_type_of_the_reference() -> None:
    found = safetensors.index(str(DATA / "all_dtypes.safetensors"), FolderDisk())
    assert {key: expr.spec.dtype.name for key, expr in found.tensors.items()} == {code.lower(): name for code, name in DTYPE_OF.items()}
    assert content(found.tensors["f6_e3m2"], FolderDisk()) == b"\x03" * 6


@pytest.mark.parametrize("path", ["sharded", "sharded/", "sharded/model.safetensors.index.json"])
def test_reads_shards_through_folder_or_index(path: str) -> None:
    location = safetensors.locate(str(DATA) + "/" + path, FolderDisk())
    assert location == str(DATA) + "/" + path.rstrip("/")
    found = safetensors.index(location, FolderDisk())
    assert list(found.tensors) == ["a", "b", "c"]
    assert found.metadata == {"format": "pt"}
    assert [Path(file.path).name for file in found.files] == [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert [Path(companion).name for companion in found.companions] == ["config.json", "tokenizer_config.json"]


def test_shards_that_disagree_about_metadata_leave_a_note(tmp_path: Path) -> None:
    for name, said in (("a", "pt"), ("b", "tf")):
        (tmp_path / f"{name}.st").write_bytes(file_of({"__metadata__": {"format": said}, name: entry(0, 2)}, b"12"))
    (tmp_path / "m.safetensors.index.json").write_text('{"weight_map": {"a": "a.st", "b": "b.st"}}')
    found = safetensors.index(str(tmp_path), FolderDisk())
    assert found.metadata == {"format": "pt"}
    assert found.notes == (f"{tmp_path}/b.st disagrees about metadata `format`",)


def test_data_order_need_not_be_header_order(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(file_of({"late": entry(2, 4), "empty": entry(2, 2, shape=[0]), "early": entry(0, 2)}, b"abcd"))
    found = safetensors.index(str(tmp_path / "x"), FolderDisk())
    assert {key: content(expr, FolderDisk()) for key, expr in found.tensors.items()} == {"early": b"ab", "empty": b"", "late": b"cd"}
    assert list(found.tensors) == ["early", "empty", "late"]


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (b"", "too short"),
        (b"\x02\0\0\0\0\0\0", "too short"),
        (b"\xff" * 8 + b"{}", "the header claims 18,446,744,073,709,551,615 bytes"),
        (file_of(b""), "does not begin with {"),
        (file_of(b" {}"), "does not begin with {"),
        (file_of(b"[]"), "does not begin with {"),
        (file_of(b"{"), "Expecting property name"),
        (file_of(b"{}\0"), "Extra data"),
        (file_of(b'{"\xff": 1}'), "can't decode byte 0xff"),
        (file_of(b'{"\\ud800": 1}'), "surrogates not allowed"),
        (file_of(b'{"a":' + b"[" * 100_000), "nested too deeply"),
        (file_of(b'{"a": NaN}'), "NaN is no JSON number"),
        (file_of(b'{"a": ' + b"1" * 5000 + b"}"), "integer string conversion"),
        (file_of(b'{"a": 1, "a": 1}'), "key `a` occurs twice"),
        (file_of(b'{"a": {"dtype": "U8", "dtype": "U8"}}'), "key `dtype` occurs twice"),
        (file_of({"__metadata__": {"a": 1}}), "not a mapping of text to text"),
        (file_of({"__metadata__": []}), "not a mapping of text to text"),
        (file_of({"__metadata__": ""}), "not a mapping of text to text"),
        (file_of({"a": 1}, b"12"), "needs `dtype`, `shape` and two `data_offsets`"),
        (file_of({"a": {"dtype": "U8", "shape": [2]}}, b"12"), "needs `dtype`, `shape` and two `data_offsets`"),
        (file_of({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0]}}, b"12"), "needs `dtype`, `shape` and two `data_offsets`"),
        (file_of({"a": entry(0, 2, dtype=["U8"])}, b"12"), "`dtype` must be text"),
        (file_of({"a": entry(0, 2, shape="2")}, b"12"), "`shape` a list"),
        (file_of({"a": entry(0, 2, shape=[True, 2])}, b"12"), "True is not a count"),
        (file_of({"a": entry(0, 2, shape=[-1, -2])}, b"12"), "-1 is not a count"),
        (file_of({"a": entry(0, 2.0)}, b"12"), "2.0 is not a count"),
        (file_of({"a": entry("0", 2)}, b"12"), "'0' is not a count"),
        (file_of({"a": entry(2, 0)}, b"12"), "begins at 2 and ends before that, at 0"),
        (file_of({"a": entry(0, 2, dtype="F32")}, b"12"), "F32 [2] needs 8 bytes, its range has 2"),
        (file_of({"a": entry(0, 2, dtype="F4", shape=[3])}, b"12"), "F4 [3] does not end at a whole byte"),
        (file_of({"a": entry(0, 0, shape=[1 << 62, 4, 0])}), "is too large"),
        (file_of({"a": entry(0, 2), "b": entry(1, 3)}, b"123"), "`b` in"),
        (file_of({"a": entry(0, 2), "b": entry(1, 3)}, b"123"), "overlaps the tensor before it"),
        (file_of({"a": entry(0, 2), "b": entry(3, 5)}, b"12345"), "leaves a hole of 1 bytes before it"),
        (file_of({"a": entry(1, 3)}, b"123"), "leaves a hole of 1 bytes before it"),
        (file_of({"a": entry(0, 2)}, b"1"), "would end behind the end"),
        (file_of({"a": entry(0, 2)}, b"123"), "bytes that belong to no tensor"),
    ],
)
def test_damage_is_named_with_file_and_bytes(tmp_path: Path, stored: bytes, says: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(stored)
    assert safetensors.locate(str(path), FolderDisk()) == str(path)
    with pytest.raises(CorruptFile) as fault:
        safetensors.index(str(path), FolderDisk())
    assert says in render(fault.value)
    assert f"note: {path}, bytes " in render(fault.value)


def test_a_header_above_the_formats_cap_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.safetensors").open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little") + b"{")
        file.truncate(200_000_000)
    disk = FolderDisk()
    with pytest.raises(CorruptFile, match="larger than the format allows"):
        safetensors.index(str(tmp_path / "x.safetensors"), disk)
    assert disk.bytes_read == 8


@pytest.mark.parametrize("wrong", [entry(0, 2, dtype="F128"), entry(0, 2, shape=[1] * 64 + [2])])
def test_what_this_version_does_not_know_is_told_apart_from_damage(tmp_path: Path, wrong: object) -> None:
    (tmp_path / "x").write_bytes(file_of({"a": wrong}, b"12"))
    with pytest.raises(UnsupportedFeature, match="`a` in"):
        safetensors.index(str(tmp_path / "x"), FolderDisk())


@pytest.mark.parametrize(
    ("weight_map", "says"),
    [
        (None, "has no mapping `weight_map`"),
        ([], "has no mapping `weight_map`"),
        ({"a": 1}, "puts `a` into 1"),
        ({"a": "../x"}, "puts `a` into '../x'"),
        ({"a": "/x"}, "puts `a` into '/x'"),
        ({"a": ".."}, "puts `a` into '..'"),
        ({"a": ""}, "puts `a` into ''"),
        ({"a": "1.st", "b": "absent.st"}, "1 shard of"),
        ({"a": "1.st", "b": "absent.st"}, "absent.st should hold `b`"),
        ({"c": "3.st"}, "`d` lies in"),
        ({"c": "3.st"}, "the index does not list it"),
        ({"a": "1.st", "c": "3.st", "d": "1.st"}, "the index puts it in 1.st"),
        ({"a": "1.st", "b": "2.st", "x": "2.st"}, "lists `x`, which is not in its shard"),
    ],
)
def test_an_index_that_contradicts_its_shards_is_refused(tmp_path: Path, weight_map: object, says: str) -> None:
    (tmp_path / "1.st").write_bytes(file_of({"a": entry(0, 2)}, b"12"))
    (tmp_path / "2.st").write_bytes(file_of({"b": entry(0, 2)}, b"12"))
    (tmp_path / "3.st").write_bytes(file_of({"c": entry(0, 2), "d": entry(2, 4)}, b"1234"))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(SourceError) as fault:
        safetensors.index(str(tmp_path), FolderDisk())
    assert says in render(fault.value)
    assert str(tmp_path) in render(fault.value)


# Recognising


def test_a_file_is_recognised_by_content_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(file_of({}))
    (tmp_path / "other.bin").write_bytes(b"\x80\x02}q\x00.........")
    assert safetensors.locate(str(tmp_path / "weights.bin"), FolderDisk()) == str(tmp_path / "weights.bin")
    assert safetensors.locate(str(tmp_path / "other.bin"), FolderDisk()) is None
    assert safetensors.locate(str(tmp_path / "absent.safetensors"), FolderDisk()) is None


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["other.safetensors"], "other.safetensors"),
        (["other.safetensors", "model.safetensors"], "model.safetensors"),
        (["model.safetensors", "x.safetensors.index.json"], "x.safetensors.index.json"),
        (["x.safetensors.index.json", "model.safetensors.index.json"], "model.safetensors.index.json"),
    ],
)
def test_a_folder_stands_for_its_index_or_its_only_file(tmp_path: Path, names: list[str], taken: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b'{"weight_map": {}}' if name.endswith("json") else file_of({}))
    found = safetensors.index(str(tmp_path), FolderDisk())
    assert [Path(file.path).name for file in found.files] == [taken]


def test_a_folder_of_several_files_without_an_index_is_ambiguous(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(file_of({}))
    assert safetensors.locate(str(tmp_path), FolderDisk()) == str(tmp_path)
    with pytest.raises(SourceError) as fault:
        safetensors.index(str(tmp_path), FolderDisk())
    assert fault.value.notes == ("a.safetensors, b.safetensors",)
    assert fault.value.help == f"name one of them, such as {tmp_path}/a.safetensors"


def test_a_folder_without_safetensors_is_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert safetensors.locate(str(tmp_path), FolderDisk()) is None
