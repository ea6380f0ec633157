from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import pytest
from contract import Arrays, FormatContract, bundle
from disk import FolderDisk
from executor import RawFile, content, execute
from hypothesis import given, settings
from hypothesis import strategies as st

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, PlanError, SourceError, UnsupportedFeature, render
from surgery.formats import flax_msgpack as flax
from surgery.formats import safetensors
from surgery.formats.base import Indexed, Layout, Origin
from surgery.formats.msgpack import pack
from surgery.tensors import TensorSpec

DATA = Path(__file__).parents[1] / "data" / "flax"
FLOATS = TensorSpec(DTYPES["float32"], (2, 3))


def array(shape: Any = (2,), name: Any = "int8", data: Any = b"ab", code: int = 1) -> bytes:
    """An array as flax packs it, right or wrong."""
    inner = b"\x93" + b"".join(map(pack, (list(shape) if isinstance(shape, tuple) else shape, name, data)))
    return b"\xc9" + struct.pack(">IB", len(inner), code) + inner


def tree(**leaves: bytes) -> bytes:
    return bytes([0x80 + len(leaves)]) + b"".join(pack(name) + leaf for name, leaf in leaves.items())


def index(path: Path) -> Indexed:
    return flax.index(str(path), FolderDisk())


def fault_of(path: Path, stored: bytes) -> SourceError:
    path.write_bytes(stored)
    with pytest.raises(SourceError) as fault:
        index(path)
    expect_well_said(fault.value)
    assert f"{path}, byte" in render(fault.value)
    return fault.value


def expect_well_said(fault: SourceError) -> None:
    assert fault.help
    assert "\n" not in fault.title


class TestFlax(FormatContract):
    format = flax
    filename = "out.msgpack"
    holds = frozenset(name for name, dtype in DTYPES.items() if dtype.kind in ("bool", "int", "uint", "float", "complex"))

    def make(self, folder: Path, arrays: Arrays) -> str:
        nested: dict[str, bytes] = {}
        for key, leaf in arrays.items():
            name, _, inner = key.partition("/")
            packed = array(leaf.shape, leaf.dtype.name, leaf.tobytes())
            nested[name] = tree(**{inner: packed}) if inner else packed
        (folder / "in.msgpack").write_bytes(tree(**nested))
        return str(folder / "in.msgpack")


# Reading


def test_reads_every_type_that_flax_restores() -> None:
    found = index(DATA / "types.msgpack").tensors
    assert {key: expr.spec.dtype.name for key, expr in found.items()} == {name: name for name in TestFlax.holds}
    assert content(found["bfloat16"], FolderDisk()).hex() == "0000803f803f"


@pytest.mark.parametrize("name", ["plain", "chunked"])
def test_names_are_joined_and_chunks_too(name: str) -> None:
    found = index(DATA / f"{name}.msgpack").tensors
    specs = {key: str(expr.spec) for key, expr in found.items() if key != "step"}
    assert specs == {
        "params/Dense_0/kernel": "f32[2,3]",
        "params/Dense_0/bias": "f32[3]",
        "params/größe": "i64[]",
        "params/none": "f16[0,2]",
    }
    assert content(found["params/Dense_0/kernel"], FolderDisk()) == struct.pack("<6f", 0, 1, 2, 3, 4, 5)
    assert found["params/Dense_0/kernel"].view() is not None


def test_a_file_may_be_one_array() -> None:
    found = index(DATA / "array.msgpack").tensors
    assert {key: content(expr, FolderDisk()) for key, expr in found.items()} == {"array": struct.pack("<3h", 0, 1, 2)}


def test_other_leaves_are_metadata() -> None:
    found = index(DATA / "leaves.msgpack")
    assert list(found.tensors) == ["a", "list/1"]
    assert found.metadata == {
        "empty": "{}",
        "none": "null",
        "yes": "true",
        "step": "-1000",
        "rate": "0.5",
        "name": '"tiny"',
        "z": '{"complex": [1.0, 2.0]}',
        "raw": '{"bytes": "01"}',
        "3": "1.0",
        "list/0": "1",
        "x/y": "0",
    }
    assert list(found.notes) == [
        "numbers as names become text when it is saved as flax",
        "lists become mappings of numbers when it is saved as flax",
        "names that contain `/` become nested when it is saved as flax",
    ]


def chunked(shape: bytes, chunks: bytes, first: str = "__msgpack_chunked_array__") -> bytes:
    return tree(w=b"\x83" + pack(first) + b"\xc3" + pack("shape") + shape + pack("chunks") + chunks)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (b"", "ends within an item"),
        (b"\x81", "an item would end at byte 3 or later, of 1"),
        (b"\xc1", "no item begins with the byte 0xc1"),
        (b"\xdf\xff\xff\xff\xff", "an item would end at byte 8,589,934,595 or later"),
        (b"\xdd\xff\xff\xff\xff", "an item would end at byte 4,294,967,300 or later"),
        (b"\x81\xdb\xff\xff\xff\xff", "an item would end at byte 4,294,967,301 or later"),
        (b"\x81\xa1a\xca\0", "ends within an item"),
        (b"\x81\xa1\xff\xc0", "a text is not UTF-8"),
        (b"\x81\xc0\xc0", "a name is neither text nor a number"),
        (b"\x82\xa1a\xc0\xa1a\xc0", "`a` occurs twice"),
        (b"\x82\xa11\xc0\x01\xc0", "`1` occurs twice"),
        (tree(a=array()) + b"\0", "there are bytes behind the tree"),
        (tree(a=array(data=b"abc")), "i8[2] does not take 3 bytes"),
        (tree(a=array(shape=(1 << 60, 4, 0))), "an array has an impossible shape"),
        (tree(a=array(shape=(-1,))), "an array has an impossible shape"),
        (tree(a=array(shape=(1.0,))), "an array has an impossible shape"),
        (tree(a=array(shape=(1,) * 65)), "an array is not shape, type and bytes"),
        (tree(a=array(shape=5)), "an array is not shape, type and bytes"),
        (tree(a=array(name=5)), "an array is not shape, type and bytes"),
        (tree(a=array(data=5)), "an array is not shape, type and bytes"),
        (tree(a=b"\xd4\x01\xc0"), "ends within an item"),
        (chunked(b"\x81\xa10\x04", b"\x81\xa10" + array()), "the chunks of an array do not make its shape"),
        (chunked(b"\x81\xa10\x02", b"\x80"), "the chunks of an array do not make its shape"),
        (chunked(b"\x81\xa10\x04", b"\x82\xa10" + array() + b"\xa11" + array(name="uint8")), "the chunks of an array do not make its shape"),
        (chunked(b"\x81\xa11\x02", b"\x81\xa10" + array()), "`shape` of a chunked array is not in order"),
        (chunked(b"\x81\xa10\x02", b"\x81\xa10\xc0"), "an array should stand here"),
        (tree(w=b"\x82" + pack("__msgpack_chunked_array__") + b"\xc3" + pack("chunks") + b"\x80"), "a chunked array has no `shape`"),
    ],
)
def test_damage_is_named_with_file_and_bytes(tmp_path: Path, stored: bytes, says: str) -> None:
    fault = fault_of(tmp_path / "a.msgpack", stored)
    assert isinstance(fault, CorruptFile)
    assert says in render(fault)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (b"\x81\xa1a" * 200 + b"\xc0", "mappings nested more than 100 deep"),
        (b"\x91" * 100_000, "nested more than 100 deep"),
        (tree(a=array(name="object")), "the element type 'object'"),
        (tree(a=array(name="x" * 5000)), "the element type ''"),
        (tree(a=pack("x" * (5 << 20))), "too much that is no tensor"),
        (b"\x81" + pack("x" * (5 << 20)) + b"\xc0", "a text of 5,242,880 bytes"),
        (
            (b"\x81" + pack("x" * 60_000)) * 90 + b"\xde\x03\xe8" + b"".join(pack(str(number)) + b"\xc0" for number in range(1000)),
            "keys that are too long",
        ),
        (tree(a=b"\xdd" + struct.pack(">I", 70_000) + bytes(70_000)), "too much that is no tensor"),
        (tree(a=b"\xdd" + struct.pack(">I", 60_000) + array((), data=b"a") * 60_000), "more than 300,000 items"),
        (
            tree(
                a=b"\x83"
                + pack("__msgpack_chunked_array__")
                + b"\xc3"
                + pack("shape")
                + b"\xdf\0\4\0\0"
                + b"".join(pack(str(number)) + b"\1" for number in range(1 << 18))
            ),
            "more than 300,000 items",
        ),
    ],
    ids=["deep maps", "deep lists", "objects", "long type", "long text", "long name", "long keys", "many leaves", "many arrays", "many chunks"],
)
def test_what_this_version_does_not_read_is_told_apart_from_damage(tmp_path: Path, stored: bytes, says: str) -> None:
    began = time.process_time()
    fault = fault_of(tmp_path / "a.msgpack", stored)
    assert time.process_time() - began < 5
    assert isinstance(fault, UnsupportedFeature)
    assert says in render(fault)


@pytest.mark.parametrize("name", ["plain", "chunked", "leaves"])
@settings(deadline=2000, max_examples=250)
@given(data=st.data())
def test_any_mutation_is_read_or_refused_in_time(tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    stored = bytearray((DATA / f"{name}.msgpack").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stored) - 5))
        stored[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=6))
    path = tmp_path_factory.getbasetemp() / "mutated.msgpack"
    path.write_bytes(stored)
    began = time.process_time()
    try:
        for expr in index(path).tensors.values():
            content(expr, FolderDisk())
    except SourceError as fault:
        expect_well_said(fault)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("name", ["plain", "chunked", "array", "types"])
def test_a_file_is_recognised_by_content_whatever_its_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.bin").write_bytes((DATA / f"{name}.msgpack").read_bytes())
    assert flax.locate(str(tmp_path / "model.bin"), FolderDisk()) == str(tmp_path / "model.bin")


def test_a_file_is_recognised_whose_first_leaf_is_a_number(tmp_path: Path) -> None:
    array = (DATA / "array.msgpack").read_bytes()
    (tmp_path / "checkpoint_0").write_bytes(b"\x84\xa7version\x03\xa1n\xc0\xa1s\xa2ok\xa6target\x81\xa1w" + array)
    assert flax.locate(str(tmp_path / "checkpoint_0"), FolderDisk()) == str(tmp_path / "checkpoint_0")


@pytest.mark.parametrize(
    "stored", [b"", b"\x89HDF\r\n\x1a\n", b"\x80\x04}q\0.", b"\x81\xa1a\xc0", b"\x81\x01\xc0", b"{}", b"\x80", tree(a=b"\xd4\x01\0")]
)
def test_other_files_are_not_recognised(tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "other.bin").write_bytes(stored)
    assert flax.locate(str(tmp_path / "other.bin"), FolderDisk()) is None


# Writing


def layout_of(source: Indexed, path: Path, metadata: dict[str, str]) -> Layout:
    wanted = bundle(str(path), source.tensors, metadata=metadata)
    origins = {key: Origin(source.location, key) for key in source.tensors}
    return flax.layout(wanted._replace(sources={source.location: source}, origins=origins))


@pytest.mark.parametrize("name", ["plain", "types"])
def test_a_file_of_flax_comes_out_byte_for_byte(tmp_path: Path, name: str) -> None:
    execute(layout_of(index(DATA / f"{name}.msgpack"), tmp_path / "out.msgpack", {}), FolderDisk())
    assert (tmp_path / "out.msgpack").read_bytes() == (DATA / f"{name}.msgpack").read_bytes()


def test_all_kinds_of_leaves_come_out_again(tmp_path: Path) -> None:
    source = index(DATA / "leaves.msgpack")
    execute(layout_of(source, tmp_path / "out.msgpack", dict(source.metadata)), FolderDisk())
    found = index(tmp_path / "out.msgpack")
    assert found.metadata == source.metadata
    assert list(found.tensors) == list(source.tensors)


def test_metadata_of_other_formats_is_left_out_and_what_the_recipe_sets_is_not(tmp_path: Path) -> None:
    header = b'{"__metadata__":{"format":"pt"}}'
    (tmp_path / "in.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    source = safetensors.index(str(tmp_path / "in.safetensors"), FolderDisk())
    planned = layout_of(source, tmp_path / "out.msgpack", {"format": "pt", "step": "7"})
    assert planned.notes == ("1 entry of metadata left out: a leaf more in the tree would fit no model",)
    execute(planned, FolderDisk())
    assert index(tmp_path / "out.msgpack").metadata == {"step": "7"}


def test_large_arrays_are_written_in_chunks_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flax, "_CHUNK_NBYTES", 8)
    source = index(DATA / "plain.msgpack")
    execute(layout_of(source, tmp_path / "out.msgpack", {}), FolderDisk())
    found = index(tmp_path / "out.msgpack").tensors
    kernel = found["params/Dense_0/kernel"]
    assert [extent.nbytes for extent in kernel.view() or ()] == [8, 4, 8, 4]
    assert {key: (expr.spec, content(expr, FolderDisk())) for key, expr in found.items()} == {
        key: (expr.spec, content(expr, FolderDisk())) for key, expr in source.tensors.items()
    }


@pytest.mark.parametrize(
    "keys", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b"), ("\udcff",), ("a/" * 101,), ("x/__msgpack_chunked_array__",)], ids=lambda keys: keys[0][:9]
)
def test_keys_that_are_no_tree_are_refused(tmp_path: Path, keys: tuple[str, ...]) -> None:
    raw = RawFile(tmp_path / "raw")
    with pytest.raises(PlanError) as fault:
        flax.layout(bundle(str(tmp_path / "out.msgpack"), {key: raw.tensor(FLOATS, bytes(24)) for key in keys}))
    assert fault.value.code == "key-not-storable"
    assert fault.value.help


def test_all_keys_that_are_no_tree_are_named(tmp_path: Path) -> None:
    raw = RawFile(tmp_path / "raw")
    with pytest.raises(PlanError) as fault:
        flax.layout(bundle(str(tmp_path / "out.msgpack"), {key: raw.tensor(FLOATS, bytes(24)) for key in ("a", "a/b", "c/d", "c")}))
    assert fault.value.data == {"keys": ["a/b", "c"]}


@pytest.mark.parametrize("text", [str(1 << 64), '{"bytes": "x"}', '{"bytes": "00", "ext": 300}', '{"complex": 5}', "[" * 900 + "]" * 900])
def test_metadata_that_msgpack_cannot_hold_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PlanError) as fault:
        flax.layout(bundle(str(tmp_path / "out.msgpack"), {}, metadata={"a": text}))
    assert (fault.value.code, fault.value.at) == ("bad-option", ("metadata", "a"))


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="names no file"):
        flax.layout(bundle(f"{tmp_path}/", {}))


def test_more_tensors_than_can_be_read_again_are_not_written(tmp_path: Path) -> None:
    one = RawFile(tmp_path / "raw").tensor(TensorSpec(DTYPES["int8"], (1,)), b"a")
    with pytest.raises(PlanError, match="holds 25,000 tensors here, not 25,001") as fault:
        flax.layout(bundle(str(tmp_path / "out.msgpack"), {str(number): one for number in range(25_001)}))
    assert fault.value.code == "too-many-tensors"
