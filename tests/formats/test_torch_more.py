"""What lies about besides state dicts: numpy arrays in pickles, plain pickles, compressed archives, the oldest containers; and writing shards."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import bundle
from disk import FolderDisk
from executor import RawFile, content, execute
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_files import Call, Named, pickled, zip_of

from surgery.dtypes import DTYPES
from surgery.errors import PlanError, SourceError, render
from surgery.expr import Expr, Stored
from surgery.formats import torch_pt
from surgery.formats.base import Indexed
from surgery.tensors import TensorSpec

DATA = Path(__file__).parents[1] / "data" / "torch_more"
EXPECTED: dict[str, dict[str, list[Any]]] = json.loads((DATA / "expected.json").read_text())
TAR = (DATA / "tar.pt").read_bytes()


def read(path: Path) -> Indexed:
    location = torch_pt.locate(str(path), FolderDisk())
    assert location is not None
    return torch_pt.index(location, FolderDisk())


def values(indexed: Indexed) -> dict[str, list[Any]]:
    found = {key: (expr.spec, content(expr, FolderDisk())) for key, expr in indexed.tensors.items()}
    return {key: [spec.dtype.name, list(spec.shape), sha256(stored).hexdigest()] for key, (spec, stored) in found.items()}


def refusal(path: Path, stored: bytes) -> str:
    path.write_bytes(stored)
    with pytest.raises(SourceError) as fault:
        values(torch_pt.index(str(path), FolderDisk()))
    assert fault.value.help
    return render(fault.value)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_reads_what_torch_and_pickle_read(name: str) -> None:
    assert values(read(DATA / name)) == EXPECTED[name]


# Numpy arrays


def test_long_arrays_are_byte_ranges_from_protocol_3_on(tmp_path: Path) -> None:
    path = DATA / "plain4.pkl"
    expr = read(path).tensors["model.long"]
    assert isinstance(expr, Stored)
    assert expr.extent.codec is None
    assert path.read_bytes()[expr.extent.start : expr.extent.stop] == np.arange(2100, dtype="<u2").tobytes()


def test_little_is_read_of_a_pickle_with_a_large_array(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": np.zeros(1 << 20, "f4")}, protocol=4))
    disk = FolderDisk()
    torch_pt.index(str(tmp_path / "a.pkl"), disk)
    assert disk.bytes_read < 128 << 10


def test_arrays_that_are_no_tensors_are_left_out_with_the_reason() -> None:
    (note,) = read(DATA / "arrays2.pt").notes
    assert note == "2 tensors left out: `text` is a numpy array of U2, `objects` is a numpy array of O8"


def test_numpy_scalars_and_numbers_are_metadata() -> None:
    assert read(DATA / "plain4.pkl").metadata == {"model.number": "1.5", "epoch": "3"}


def numpy_array(*, shape: object = (2,), kind: object = "f4", raw: object = b"\0" * 8) -> bytes:
    made = Call(Named("numpy._core.multiarray", "_reconstruct"))
    made.made = (*made.made, (1, shape, Call(Named("numpy", "dtype"), kind, False, True), False, raw))  # type: ignore[assignment]
    return pickled({"w": made})


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (numpy_array(shape=(3,)), "[3] of float32 in 8 bytes"),
        (numpy_array(shape=(1 << 62, 1 << 62)), "not as long as its bytes"),
        (numpy_array(shape=(1 << 62,) * 100_000), "whose shape is none"),
        (numpy_array(shape=(-2,)), "whose shape is none"),
        (numpy_array(raw=None), "without bytes"),
        (numpy_array(raw=b"\0" * 5000), "[2] of float32 in 5,000 bytes"),
        (pickled({"w": Call(Named("numpy._core.numeric", "_frombuffer"), b"")}), "without bytes, type, shape and order"),
    ],
)
def test_arrays_that_contradict_themselves_are_refused(tmp_path: Path, stored: bytes, says: str) -> None:
    assert says in refusal(tmp_path / "a.pkl", stored)


def test_text_that_is_no_bytes_is_found_when_it_is_read(tmp_path: Path) -> None:
    text = "\u4e00" * 2000  # 6,000 bytes of UTF-8, no Latin-1
    kind = Call(Named("numpy", "dtype"), "u1", False, True)
    made = Call(Named("numpy._core.multiarray", "_reconstruct"))
    made.made = (*made.made, (1, (4000,), kind, False, Call(Named("_codecs", "encode"), text, "latin1")))  # type: ignore[assignment]
    assert "a pickled array of 4,000 bytes is damaged" in refusal(tmp_path / "a.pkl", pickled({"w": made}))


# Plain pickles


def test_a_pickle_is_recognised_by_content() -> None:
    assert torch_pt.locate(str(DATA / "plain2.pkl"), FolderDisk()) is not None


@pytest.mark.parametrize("stored", [b"\x80\x04}", b"\x80\x04]...x", b"\x80\x09}q.", b"(lp0\n."])
def test_a_file_that_only_begins_like_a_pickle_is_not_ours(tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "a.dat").write_bytes(stored)
    assert torch_pt.locate(str(tmp_path / "a.dat"), FolderDisk()) is None


def test_what_follows_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    assert "goes on behind its pickle" in refusal(tmp_path / "a.pkl", pickle.dumps({}, 4) + b"x.")


def test_the_pickle_of_a_checkpoint_without_its_container_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(DATA / "stored.pt") as archive:
        assert "without its container" in refusal(tmp_path / "a.pkl", archive.read("stored/data.pkl"))


# Objects


def test_storages_inside_of_a_pickle_are_told(tmp_path: Path) -> None:
    storage = Call(Named("torch.storage", "_load_from_bytes"), b"\x80\x02\x8a")  # as torch 2.13 has them in pickle.dump(state_dict)
    told = refusal(tmp_path / "a.pkl", pickled({"w": Call(Named("torch._utils", "_rebuild_tensor_v2"), storage, 0, (1,), (1,), False, {})}))
    assert told.startswith("error[unsupported]")
    assert "as `pickle.dump` leaves them" in told
    assert "torch.save" in told


def test_buffers_that_a_module_does_not_save_are_left_out() -> None:
    assert list(read(DATA / "net.pt").tensors) == ["kept", "blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]


def test_keys_that_are_no_text_are_told_apart_by_position() -> None:
    assert list(read(DATA / "odd_keys.pt").tensors) == ["ones.?0", "ones.?1"]


# Compressed archives


def test_a_deflated_pickle_is_inflated_up_to_a_limit(tmp_path: Path) -> None:
    assert "is compressed and large" in refusal(tmp_path / "a.pt", zip_of({"data.pkl": bytes(65 << 20)}, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("part", ["archive_format", "serialized_exported_program.json"])
def test_a_program_is_refused_by_name(tmp_path: Path, part: str) -> None:
    stored = zip_of({part: b"pt2"})
    (tmp_path / "a.pt2").write_bytes(stored)
    assert torch_pt.locate(str(tmp_path / "a.pt2"), FolderDisk()) is not None
    assert "is a program of torch.export" in refusal(tmp_path / "a.pt2", stored)


# The tar file


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (struct.pack("<q", 6), struct.pack("<q", 1 << 60), "ends within its storage 1"),
        (struct.pack("<q", 6), struct.pack("<q", -1), "ends within its storage 1"),
        (struct.pack("<i4x", 2), struct.pack("<i4x", 1 << 30), "has a tensor of 1,073,741,824 axes"),
        (struct.pack("<5q", 2, 3, 3, 1, 0), struct.pack("<5q", 2, 3, 3, -1, 0), "negative size, stride or offset"),
        (struct.pack("<5q", 2, 3, 3, 1, 0), struct.pack("<5q", 2, 3, 3, 1, 1), "its element 6 is beyond its storage"),
        (b"ctorch\nLongStorage", b"ctorch\nOddsStorage", "a storage of an unknown type"),
        (b"K\x03K\x01K\x02K\x04t", b"K\x03K\x01K\x03K\x04t", "no part of its storage 1"),
        (b"K\x03K\x01K\x02K\x04t", b"K\x03K\x09K\x02K\x04t", "has a view of no storage"),
        (b"X\x02\0\0\x0011", b"X\x02\0\0\x0099", "neither storage nor tensor"),
    ],
)
def test_tar_files_that_contradict_themselves_are_refused(tmp_path: Path, old: bytes, new: bytes, says: str) -> None:
    assert old in TAR
    assert says in refusal(tmp_path / "a.pt", TAR.replace(old, new, 1))


MUTABLE = {name: (DATA / name).read_bytes() for name in ("tar.pt", "deflated.pt", "plain2.pkl", "plain5.pkl", "arrays5.pt")}


@settings(max_examples=150, deadline=1000)
@given(name=st.sampled_from(sorted(MUTABLE)), changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=9)), min_size=1, max_size=4))
def test_mutations_give_nothing_but_source_errors(tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[int, bytes]]) -> None:
    stored = bytearray(MUTABLE[name])
    for at, new in changes:
        stored[at % len(stored) : at % len(stored) + len(new)] = new
    path = tmp_path_factory.getbasetemp() / f"mutated_{name}"
    path.write_bytes(stored)
    with suppress(SourceError):
        values(torch_pt.index(str(path), FolderDisk()))


# Writing shards


def raw_tensors(tmp_path: Path, sizes: dict[str, int]) -> dict[str, Expr]:
    source = RawFile(tmp_path / "raw.bin")
    return {key: source.tensor(TensorSpec(DTYPES["uint8"], (size,)), bytes([number]) * size) for number, (key, size) in enumerate(sizes.items())}


def test_shards_and_their_index_are_named_as_transformers_names_them(tmp_path: Path) -> None:
    tensors = raw_tensors(tmp_path, {"b": 60, "a": 60, "c": 30, "large": 200})
    execute(torch_pt.layout(bundle(str(tmp_path / "out"), tensors, shard_size=100)), FolderDisk())
    names = [f"pytorch_model-0000{number}-of-00003.bin" for number in (1, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*names, "pytorch_model.bin.index.json"]
    assert json.loads((tmp_path / "out" / "pytorch_model.bin.index.json").read_text()) == {
        "metadata": {"total_size": 350},
        "weight_map": {"a": names[1], "b": names[0], "c": names[1], "large": names[2]},
    }
    found = read(tmp_path / "out")
    assert {key: content(expr, FolderDisk()) for key, expr in found.tensors.items()} == {
        "b": bytes(60),
        "a": b"\1" * 60,
        "c": b"\2" * 30,
        "large": b"\3" * 200,
    }


def test_what_fits_is_one_file_without_an_index(tmp_path: Path) -> None:
    layout = torch_pt.layout(bundle(str(tmp_path / "out"), raw_tensors(tmp_path, {"a": 60}), shard_size=100))
    assert [file.name for file in layout.files] == ["pytorch_model.bin"]
    assert [name for name in ("pytorch_model-00001-of-00002.bin", "pytorch_model.bin", "optimizer.bin") if layout.stale(name)] == [
        "pytorch_model-00001-of-00002.bin"
    ]


def test_tied_tensors_are_in_one_shard(tmp_path: Path) -> None:
    tensors = raw_tensors(tmp_path, {"embedding": 80, "middle": 80})
    layout = torch_pt.layout(bundle(str(tmp_path / "out"), tensors | {"head": tensors["embedding"]}, shard_size=100))
    execute(layout, FolderDisk())
    found = read(tmp_path / "out").tensors
    assert found["head"].view() == found["embedding"].view()
    assert layout.notes == ("1 of 3 tensors share the storage of another, which has the same bytes",)


@pytest.mark.parametrize(("name", "size"), [("out", 0), ("out.bin", 100), ("out.pt", 100)])
def test_a_shard_size_that_cannot_be_is_refused(tmp_path: Path, name: str, size: int) -> None:
    with pytest.raises(PlanError) as fault:
        torch_pt.layout(bundle(str(tmp_path / name), {}, shard_size=size))
    assert fault.value.code == "bad-option"
