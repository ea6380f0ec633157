from __future__ import annotations

import json
from pathlib import Path

import pytest
from contract import bundle
from disk import FolderDisk
from executor import RawFile, content, execute

from surgery.dtypes import DTYPES
from surgery.errors import PlanError
from surgery.expr import Cast, Expr
from surgery.formats import safetensors
from surgery.tensors import TensorSpec

DATA = Path(__file__).parents[1] / "data" / "safetensors"
F32 = DTYPES["float32"]
BYTES = TensorSpec(DTYPES["uint8"], (2,))


@pytest.fixture
def raw(tmp_path: Path) -> RawFile:
    return RawFile(tmp_path / "raw.bin")


def test_a_rewritten_file_of_the_reference_is_the_same_file(tmp_path: Path) -> None:
    source = safetensors.index(str(DATA / "plain.safetensors"), FolderDisk())
    execute(safetensors.layout(bundle(str(tmp_path / "x"), source.tensors, metadata=source.metadata)), FolderDisk())
    assert (tmp_path / "x").read_bytes() == (DATA / "plain.safetensors").read_bytes()


def test_a_small_file_byte_for_byte(tmp_path: Path, raw: RawFile) -> None:
    tensors = {"ä/1": raw.tensor(BYTES, b"\x01\x02"), "s": raw.tensor(TensorSpec(F32, ()), b"\0\0\x80?", offset=1003)}
    execute(safetensors.layout(bundle(str(tmp_path / "x"), tensors, metadata={"b": "1", "a": "2"})), FolderDisk())
    assert (tmp_path / "x").read_bytes() == (
        b"\x90\0\0\0\0\0\0\0"
        b'{"__metadata__":{"b":"1","a":"2"},'
        b'"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
        b'"\xc3\xa4/1":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}   '
        b"\0\0\x80?\x01\x02"
    )


def test_the_empty_file_byte_for_byte(tmp_path: Path) -> None:
    execute(safetensors.layout(bundle(str(tmp_path / "x"), {})), FolderDisk())
    assert (tmp_path / "x").read_bytes() == b"\x08\0\0\0\0\0\0\0{}      "


def test_wide_elements_come_first_and_equals_keep_their_order(raw: RawFile) -> None:
    widths = {"b8": "int8", "d32": "float32", "c64": "int64", "a32": "int32", "e16": "bfloat16", "z64": "float64"}
    tensors: dict[str, Expr] = {key: raw.tensor(TensorSpec(DTYPES[name], (1,)), bytes(DTYPES[name].itemsize)) for key, name in widths.items()}
    (file,) = safetensors.layout(bundle("x.safetensors", tensors)).files
    assert [placement.key for placement in file.placements] == ["c64", "z64", "d32", "a32", "e16", "b8"]


@pytest.mark.parametrize(("offset", "start"), [(0, 4096), (72, 72), (80, 80), (4096 * 3 + 808, 808), (56, 4152)])
def test_copied_bytes_keep_their_offset_within_a_page(raw: RawFile, offset: int, start: int) -> None:
    tensor = raw.tensor(TensorSpec(F32, (1 << 14,)), bytes(1 << 16), offset=offset)
    (file,) = safetensors.layout(bundle("x.safetensors", {"a": tensor})).files
    assert [placement.start for placement in file.placements] == [start]
    assert file.size == start + (1 << 16)


def test_most_bytes_decide_about_the_offset(raw: RawFile) -> None:
    small = raw.tensor(TensorSpec(F32, (2,)), bytes(8), offset=800)
    large = raw.tensor(TensorSpec(F32, (1 << 14,)), bytes(1 << 16), offset=1000)
    (file,) = safetensors.layout(bundle("x.safetensors", {"small": small, "large": large})).files
    assert [(placement.key, placement.start) for placement in file.placements] == [("small", 992), ("large", 1000)]


def test_a_few_bytes_are_not_worth_a_padded_header(raw: RawFile) -> None:
    tensor = raw.tensor(TensorSpec(F32, (2,)), bytes(8), offset=1000)
    (file,) = safetensors.layout(bundle("x.safetensors", {"a": tensor})).files
    assert file.placements[0].start == 64


def test_an_offset_that_would_break_the_alignment_is_not_kept(raw: RawFile) -> None:
    tensor = raw.tensor(TensorSpec(F32, (1 << 14,)), bytes(1 << 16), offset=1001)
    (file,) = safetensors.layout(bundle("x.safetensors", {"a": tensor})).files
    assert file.placements[0].start == 72


def test_computed_tensors_have_the_shortest_header(raw: RawFile) -> None:
    tensor = Cast(raw.tensor(TensorSpec(F32, (2,)), bytes(8), offset=1000), TensorSpec(DTYPES["float16"], (2,)))
    (file,) = safetensors.layout(bundle("x.safetensors", {"a": tensor})).files
    assert file.placements[0].start == 64


def test_a_path_without_folder_is_in_the_working_directory() -> None:
    layout = safetensors.layout(bundle("weights", {}))
    assert (layout.folder, layout.files[0].name) == (".", "weights")


# Shards


def test_shards_are_cut_in_order_and_listed_in_an_index(tmp_path: Path, raw: RawFile) -> None:
    tensors = {key: raw.tensor(BYTES, key.encode() * 2) for key in "dcba"} | {"large": raw.tensor(TensorSpec(F32, (3,)), bytes(12))}
    layout = safetensors.layout(bundle(str(tmp_path / "out") + "/", tensors, metadata={"format": "pt"}, shard_size=5))
    execute(layout, FolderDisk())
    assert {file.name: [placement.key for placement in file.placements] for file in layout.files} == {
        "model-00001-of-00003.safetensors": ["d", "c"],
        "model-00002-of-00003.safetensors": ["b", "a"],
        "model-00003-of-00003.safetensors": ["large"],
        "model.safetensors.index.json": [],
    }
    assert (tmp_path / "out" / "model.safetensors.index.json").read_text() == (
        "{\n"
        '  "metadata": {\n'
        '    "total_size": 20\n'
        "  },\n"
        '  "weight_map": {\n'
        '    "a": "model-00002-of-00003.safetensors",\n'
        '    "b": "model-00002-of-00003.safetensors",\n'
        '    "c": "model-00001-of-00003.safetensors",\n'
        '    "d": "model-00001-of-00003.safetensors",\n'
        '    "large": "model-00003-of-00003.safetensors"\n'
        "  }\n"
        "}\n"
    )
    again = safetensors.index(str(tmp_path / "out"), FolderDisk())
    assert again.metadata == {"format": "pt"}
    assert content(again.tensors["b"], FolderDisk()) == b"bb"


def test_one_shard_needs_no_index(raw: RawFile) -> None:
    layout = safetensors.layout(bundle("out", {"a": raw.tensor(BYTES, b"12")}, shard_size=5))
    assert (layout.folder, [file.name for file in layout.files]) == ("out", ["model.safetensors"])


def test_a_smaller_save_sweeps_away_the_shards_of_a_larger_one(raw: RawFile) -> None:
    layout = safetensors.layout(bundle("out", {key: raw.tensor(BYTES, b"12") for key in "ab"}, shard_size=2))
    names = [
        "model-00001-of-00002.safetensors",
        "model-00001-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "adapter_model.safetensors",
        "model.safetensors.bak",
    ]
    assert [name for name in names if layout.stale(name)] == [
        "model-00001-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors",
    ]


def test_a_single_file_sweeps_nothing_away() -> None:
    layout = safetensors.layout(bundle("out/model.safetensors", {}))
    assert not layout.stale("model-00001-of-00002.safetensors")


# Refusals


@pytest.mark.parametrize(
    ("key", "says"),
    [("bad\udcff", "it is not UTF-8"), ("__metadata__", "the format reserves it")],
)
def test_refuses_keys_that_the_header_cannot_hold(raw: RawFile, key: str, says: str) -> None:
    with pytest.raises(PlanError, match=says) as fault:
        safetensors.layout(bundle("x.safetensors", {key: raw.tensor(BYTES, b"12")}))
    assert fault.value.code == "key-not-storable"


def test_refuses_metadata_that_is_not_unicode() -> None:
    with pytest.raises(PlanError, match="it is not UTF-8"):
        safetensors.layout(bundle("x.safetensors", {}, metadata={"a": "\udcff"}))


@pytest.mark.parametrize("size", [0, -1, "5GB", 1.5, True])
def test_refuses_a_shard_size_that_is_no_size(size: object) -> None:
    with pytest.raises(PlanError, match="`shard_size` is"):
        safetensors.layout(bundle("out", {}, shard_size=size))


def test_a_sharded_save_wants_a_folder() -> None:
    with pytest.raises(PlanError) as fault:
        safetensors.layout(bundle("out/model.safetensors", {}, shard_size=5))
    assert fault.value.help == "write `path: out/model, format: safetensors`"


def test_refuses_a_path_that_names_no_file() -> None:
    with pytest.raises(PlanError, match="out/ names no file"):
        safetensors.layout(bundle("out/", {}))


@pytest.mark.peers
def test_the_reference_reads_what_we_write(tmp_path: Path, raw: RawFile) -> None:
    reference = pytest.importorskip("safetensors")
    source = safetensors.index(str(DATA / "all_dtypes.safetensors"), FolderDisk())
    odd = {"empty": raw.tensor(TensorSpec(F32, (0, 3)), b""), "scalar": raw.tensor(TensorSpec(F32, ()), b"abcd")}
    tensors = {**source.tensors, **odd}
    execute(safetensors.layout(bundle(str(tmp_path / "x"), tensors, metadata={"format": "pt"})), FolderDisk())
    found = dict(reference.deserialize((tmp_path / "x").read_bytes()))
    assert {key: bytes(view["data"]) for key, view in found.items()} == {key: content(expr, FolderDisk()) for key, expr in tensors.items()}
    assert {key: tuple(view["shape"]) for key, view in found.items()} == {key: expr.spec.shape for key, expr in tensors.items()}
    assert json.loads((tmp_path / "x").read_bytes()[8:].split(b"}}")[0] + b"}}")["__metadata__"] == {"format": "pt"}
