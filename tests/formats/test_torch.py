from __future__ import annotations

import io
import json
import shutil
import struct
import time
import zipfile
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files
from contract import Arrays, FormatContract, bundle
from disk import FolderDisk
from executor import content, execute
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import Measurer
from torch_files import Call, Named, legacy_file, pickled, zip_file, zip_of

from surgery.dtypes import DTYPES
from surgery.errors import NotFoundError, PlanError, SourceError, render
from surgery.expr import Expr, Stored, Transpose, evaluate
from surgery.formats import torch_pt
from surgery.formats.base import Indexed
from surgery.formats.torch_views import Strided
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec

DATA = Path(__file__).parents[1] / "data" / "torch"
EXPECTED: dict[str, dict[str, list[Any]]] = json.loads((DATA / "expected.json").read_text())
"""What torch reads from the files: element type, shape and bytes by key."""
PAIR = {"w": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.array([7], "<i8")}


def read(path: Path | str) -> Indexed:
    location = torch_pt.locate(str(path), FolderDisk())
    assert location is not None
    return torch_pt.index(location, FolderDisk())


def values(indexed: Indexed) -> dict[str, list[Any]]:
    return {key: [expr.spec.dtype.name, list(expr.spec.shape), content(expr, FolderDisk()).hex()] for key, expr in indexed.tensors.items()}


def fault_of(path: Path, stored: bytes) -> SourceError:
    path.write_bytes(stored)
    with pytest.raises(SourceError) as fault:
        torch_pt.index(str(path), FolderDisk())
    assert fault.value.help
    return fault.value


class TestTorchZip(FormatContract):
    format = torch_pt
    filename = "out.pt"
    holds = frozenset(EXPECTED["new_types.pt"])

    def make(self, folder: Path, arrays: Arrays) -> str:
        (folder / "in.pt").write_bytes(zip_file(arrays))
        return str(folder / "in.pt")


class TestTorchLegacy(TestTorchZip):
    def make(self, folder: Path, arrays: Arrays) -> str:
        (folder / "in.pth").write_bytes(legacy_file(arrays))
        return str(folder / "in.pth")


# What torch wrote


def test_storages_of_a_big_endian_machine_are_turned_round(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(zip_file(PAIR, "big"))
    assert values(read(tmp_path / "a.pt")) == {"w": ["float32", [2, 3], PAIR["w"].tobytes().hex()], "b": ["int64", [1], "0700000000000000"]}


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"scripted.pt"}))
def test_reads_what_torch_reads(name: str) -> None:
    assert values(read(DATA / name)) == EXPECTED[name]


def test_a_torchscript_archive_shows_the_tensors_of_its_modules_and_says_what_it_is() -> None:
    indexed = read(DATA / "scripted.pt")
    attribute = {"table.a": ["float32", [2], "0000803f0000803f"]}
    assert values(indexed) == EXPECTED["scripted.pt"] | attribute
    assert "a TorchScript archive" in indexed.notes[0]


def test_a_contiguous_view_is_a_byte_range_and_a_permuted_one_a_transposition() -> None:
    tensors = read(DATA / "views.pt").tensors
    whole, part, transposed = tensors["whole"], tensors["part"], tensors["transposed"]
    assert isinstance(whole, Stored)
    assert isinstance(part, Stored)
    assert part.extent.start == whole.extent.start + 48
    assert part.extent.part_of is not None
    assert part.extent.part_of.checksum == whole.extent.checksum
    assert isinstance(transposed, Transpose)
    assert transposed.children[0].view() is not None


@pytest.mark.parametrize("key", ["columns", "steps", "diagonal", "repeated"])
def test_a_region_of_a_strided_tensor_is_that_of_the_whole(key: str) -> None:
    expr = read(DATA / "views.pt").tensors[key]
    assert isinstance(expr, Strided)
    dtype, shape, stored = EXPECTED["views.pt"][key]
    everything = np.frombuffer(bytes.fromhex(stored), dtype).reshape(shape)
    for region in product(*([(low, high) for low in range(size) for high in range(low, size + 1)] for size in shape)):
        found = evaluate(expr, region, lambda file, start, stop: FolderDisk().open(file.path)[1](start, stop))
        np.testing.assert_array_equal(found, everything[tuple(slice(*pair) for pair in region)], strict=True)


def test_tied_tensors_are_one_extent_and_share_a_storage_when_written(tmp_path: Path) -> None:
    tensors = read(DATA / "views.pt").tensors
    assert tensors["tied"].view() == tensors["tied_too"].view()
    layout = torch_pt.layout(bundle(str(tmp_path / "out.pt"), {key: tensors[key] for key in ("tied", "tied_too")}))
    assert layout.notes == ("1 of 2 tensors share the storage of another, which has the same bytes",)
    execute(layout, FolderDisk())
    found = read(tmp_path / "out.pt").tensors
    assert found["tied"].view() == found["tied_too"].view()
    assert values(read(tmp_path / "out.pt"))["tied_too"] == EXPECTED["views.pt"]["tied_too"]


def test_values_that_are_no_tensors_become_metadata() -> None:
    indexed = read(DATA / "nested.pt")
    group = json.loads(indexed.metadata["optimizer.param_groups"])[0]
    assert (group["lr"], group["momentum"], group["params"]) == (0.1, 0.9, [0, 1, 2, 3])
    rest = {key: text for key, text in indexed.metadata.items() if key != "optimizer.param_groups"}
    assert rest == {"epoch": "3", "best": "Infinity", "name": '"größe"', "history": '[{"loss": 0.5}, {"loss": 0.25}]'}
    assert indexed.notes == (
        "objects of these classes are not read, but for tensors in them: argparse.Namespace",
        "tensors lie in model (7 tensors), optimizer (4 tensors); `PATH#model` reads one of them alone",
    )


@pytest.mark.parametrize(
    ("fragment", "keys"),
    [
        ("model", ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]),
        ("optimizer", [f"state.{n}.momentum_buffer" for n in range(4)]),
        ("optimizer.state.1", ["momentum_buffer"]),
        ("model.0.weight", ["weight"]),
        ("history.1", []),
    ],
)
def test_a_part_of_a_nested_checkpoint_is_named_behind_a_hash(fragment: str, keys: list[str]) -> None:
    assert list(read(f"{DATA}/nested.pt#{fragment}").tensors) == keys


def test_a_part_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(NotFoundError) as fault:
        read(f"{DATA}/nested.pt#state_dict")
    assert "there are model, optimizer, epoch, best, name and 2 more" in render(fault.value)


def test_a_hash_may_be_a_letter_of_a_name(tmp_path: Path) -> None:
    shutil.copy(DATA / "alone.pt", tmp_path / "a#b.pt")
    assert list(read(tmp_path / "a#b.pt").tensors) == ["a#b"]


def test_tensors_without_values_are_left_out_with_the_reason() -> None:
    indexed = read(DATA / "unreadable.pt")
    assert list(indexed.tensors) == ["fine"]
    for reason in (
        "`quantised` is quantised",
        "`sparse` is sparse",
        "`meta` is a meta tensor",
        "`conjugated` is stored conjugated",
        "not known here, torch.complex32",
    ):
        assert reason in indexed.notes[0]


def test_a_tensor_alone_has_the_files_name_as_key() -> None:
    assert values(read(DATA / "alone.pt")) == {"alone": ["int64", [3], "000000000000000001000000000000000200000000000000"]}


# Shards


@pytest.mark.parametrize("path", ["sharded", "sharded/pytorch_model.bin.index.json"])
def test_shards_are_read_through_their_index(path: str) -> None:
    assert values(read(DATA / path)) == EXPECTED["sharded"]


def test_an_absent_shard_is_named(tmp_path: Path) -> None:
    shutil.copytree(DATA / "sharded", tmp_path / "sharded")
    (tmp_path / "sharded" / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(SourceError) as fault:
        read(tmp_path / "sharded")
    assert fault.value.code == "missing-shard"


# Recognising


def test_a_file_of_any_name_is_recognised_by_content(tmp_path: Path) -> None:
    for name in ("views.pt", "views.pth"):
        shutil.copy(DATA / name, tmp_path / "weights")
        assert torch_pt.locate(str(tmp_path / "weights"), FolderDisk()) is not None


def test_a_bin_file_of_another_kind_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"GGML" + bytes(20))
    assert torch_pt.locate(str(tmp_path / "a.bin"), FolderDisk()) is None


# Writing


def test_the_archive_is_laid_out_as_torch_does(tmp_path: Path) -> None:
    execute(torch_pt.layout(bundle(str(tmp_path / "out.pt"), read(DATA / "views.pth#whole").tensors)), FolderDisk())
    raw = (tmp_path / "out.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "out.pt") as archive:
        assert archive.testzip() is None
        names = ["data.pkl", ".format_version", ".storage_alignment", "byteorder", "data/0", "version", ".data/serialization_id"]
        assert archive.namelist() == [f"archive/{name}" for name in names]
        assert archive.read("archive/version") == b"3\n"
        at = archive.getinfo("archive/data/0").header_offset
    name_nbytes, extra_nbytes = struct.unpack_from("<2H", raw, at + 26)
    assert (at + 30 + name_nbytes + extra_nbytes) % 64 == 0


@pytest.mark.parametrize(("start", "remainder"), [(4096 * 3 + 192, 192), (4096, 0)])
def test_large_copied_storages_keep_their_offset_within_a_page(start: int, remainder: int) -> None:
    source = SourceFile("in", Fingerprint(1 << 30, 0, 0, 0))
    spec = TensorSpec(DTYPES["uint8"], (1 << 20,))
    layout = torch_pt.layout(bundle("out.pt", {key: Stored(Extent(source, start, 1 << 20, spec)) for key in "a"}))
    assert layout.files[0].placements[0].start % 4096 == remainder


def test_metadata_is_left_out_with_a_note() -> None:
    assert torch_pt.layout(bundle("out.pt", {}, metadata={"a": "b"})).notes == ("metadata is left out: a state dict has no place for it",)


def test_a_key_that_is_not_utf8_is_refused() -> None:
    tensors: dict[str, Expr] = dict(read(DATA / "alone.pt").tensors)
    with pytest.raises(PlanError) as fault:
        torch_pt.layout(bundle("out.pt", {"\udcff": tensors["alone"]}))
    assert fault.value.code == "key-not-storable"


# Hostile files


def rebuilt(*, storage: object = None, offset: object = 0, shape: object = (6,), strides: object = (1,)) -> bytes:
    stored = torch_files.Stored("0", PAIR["w"]) if storage is None else storage
    call = Call(Named("torch._utils", "_rebuild_tensor_v2"), stored, offset, shape, strides, False, {})
    return zip_of({"data.pkl": pickled({"w": call}), "data/0": PAIR["w"].tobytes()})


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (rebuilt(offset=1), "its element 6 is beyond its storage, which has 6"),
        (rebuilt(shape=(1 << 62, 1 << 62), strides=(1, 1)), "is beyond its storage"),
        (rebuilt(shape=(1 << 62, 1 << 62), strides=(0, 0)), "repeated to"),
        (rebuilt(shape=(1 << 62, 0), strides=(0, 0)), "a shape of"),
        (rebuilt(shape=(1,) * 65, strides=(1,) * 65), "65 axes"),
        (rebuilt(shape=(-1,)), "offset, shape or strides are none"),
        (rebuilt(offset=1 << 63), "offset, shape or strides are none"),
        (rebuilt(shape=(True,)), "offset, shape or strides are none"),
        (rebuilt(shape=(2, 3)), "2 axes and 1 strides"),
        (rebuilt(storage=b"none"), "offset, shape or strides are none"),
        (rebuilt(storage=torch_files.Stored("../0", PAIR["w"])), "has no storage `../0`"),
        (zip_of({"data.pkl": b""}), "the pickle does not end"),
        (zip_of({"data.pkl": b"\x80\x09N."}), "protocol 9"),
        (zip_of({"data.pkl": b"N.", "byteorder": b"middle"}), "does not say its byte order"),
        (zip_of({"other": b""}), "without a data.pkl"),
        (zip_of({"data.pkl": b"N."}, zipfile.ZIP_BZIP2), "is compressed by method 12"),
        (b"PK\3\4", "has no zip directory"),
        (b"", "is no checkpoint of PyTorch"),
        (legacy_file(PAIR)[:-1], "ends within its storage `1`"),
        (legacy_file(PAIR) + b"\0", "goes on behind its last storage"),
        (legacy_file(PAIR)[:-16] + struct.pack("<q", -1) + bytes(8), "ends within its storage `1`"),
        (legacy_file(PAIR)[:-16] + struct.pack("<q", 1 << 62) + bytes(8), "ends within its storage `1`"),
        (legacy_file(PAIR)[:-20], "ends within"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path: Path, stored: bytes, says: str) -> None:
    assert says in render(fault_of(tmp_path / "a.pt", stored))


def test_a_changed_bit_in_a_key_is_noticed(tmp_path: Path) -> None:
    assert "CRC-32 stored" in render(fault_of(tmp_path / "a.pt", zip_file({"weight": PAIR["w"]}).replace(b"weight", b"weighs", 1)))


def test_an_archive_without_crc32s_is_read(tmp_path: Path) -> None:
    sound = zip_file(PAIR)
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        crc32s = [member.CRC.to_bytes(4, "little") for member in archive.infolist()]
    for crc32 in crc32s:
        sound = sound.replace(crc32, bytes(4))
    (tmp_path / "a.pt").write_bytes(sound)
    assert list(read(tmp_path / "a.pt").tensors) == list(PAIR)


@pytest.mark.parametrize("function", [Named("os", "system"), Named("builtins", "eval"), Named("torch", "load"), Named("torch.hub", "load")])
def test_calls_are_told_and_not_made(tmp_path: Path, function: Named) -> None:
    """Were one made, there would be a file, or an import of what is not installed."""
    marker = tmp_path / "marker"
    value = {"hurt": Call(function, f"touch {marker}"), "w": torch_files.state_dict(PAIR)["w"]}
    (tmp_path / "a.pt").write_bytes(zip_of({"data.pkl": pickled(value), "data/0": PAIR["w"].tobytes()}))
    indexed = read(tmp_path / "a.pt")
    assert not marker.exists()
    assert list(indexed.tensors) == ["w"]
    assert indexed.notes == (f"objects of these classes are not read, but for tensors in them: {function.module}.{function.name}",)


def doubled(times: int, leaf: object) -> object:
    value: object = leaf
    for _ in range(times):
        value = [value, value]
    return value


def circle() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


def deep(times: int) -> bytes:
    return b"\x80\x02" + b"]" * times + b"a" * (times - 1) + b"."


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (pickled(doubled(60, 1)), "more than 250,000 values"),
        (pickled(doubled(60, "x" * 1000)), "more than 250,000 values"),
        (pickled(["x" * 1_000_000] * 5000), "characters of names and text"),
        (pickled({"x" * 1_000_000: [Call(Named("torch._utils", "_rebuild_meta_tensor_no_storage"))] * 5000}), "characters of names and text"),
        (deep(100_000), "values nested deeper than 100"),
        (b"\x80\x02" + b"(" * 2_000_000 + b".", "more than 1,000,000 objects"),
        (b"\x80\x02]" + b"\x94" * 2_000_000 + b".", "more than 1,000,000 objects"),
        (b"\x80\x02N" + b"0N" * 3_000_000 + b".", "more than"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "a number of 2,147,483,647 bytes"),
        (b"\x80\x02\x8d" + b"\xff" * 8 + b".", "the pickle ends within a value"),
        (b"\x80\x02T\xff\xff\xff\xff.", "a length below zero"),
        (b"I" + b"9" * 5000 + b"\n.", "a number of 5,000 digits"),
        (b"c" + b"a" * 3_000_000, "a line that does not end"),
        (b"\x80\x02Nr\xff\xff\xff\x7fj\xfe\xff\xff\x7f.", "nothing is remembered under"),
        (b"\x80\x02\x82\x01.", "an extension code"),
        (b"\x80\x05\x97.", "a buffer that is not in the pickle"),
        (b"\x80\x02}]]s.", "a key that is a container"),
        (b"\x80\x02a.", "the stack has too few values"),
        (b"\x80\x02\xff.", "0xff is no opcode"),
        (b"\x80\x02K\x01Q.", "a persistent name that is no storage"),
    ],
)
def test_a_hostile_pickle_is_refused_soon_and_in_little_memory(tmp_path: Path, code: bytes, says: str) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(zip_of({"data.pkl": code}))
    start = time.process_time()
    assert says in render(fault_of(path, path.read_bytes()))
    assert time.process_time() - start < 5  # it is well under one on an idle machine


@pytest.mark.parametrize("code", [b"(" * 1_000_100, b"]" + b"\x94" * 1_000_100, b"}" * 1_000_100, b"U\2ab" * 1_000_100])
def test_a_pickle_that_would_fill_the_memory_is_stopped_before(tmp_path: Path, measurer: Measurer, code: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(zip_of({"data.pkl": code}))
    cost = measurer.open(tmp_path / "a.pt")
    assert "more than 1,000,000 objects" in cost.outcome
    assert cost.memory_bytes < 200 << 20


def test_a_list_that_holds_itself_ends() -> None:
    from surgery.formats.torch_tree import flatten

    assert flatten({"a": circle(), "b": 1}, "x").metadata == {"b": "1"}


def test_nested_tuples_as_keys_take_no_time(tmp_path: Path) -> None:
    key: object = ()
    for _ in range(100):
        key = (key, key)
    code = pickled(key)[:-1]
    (tmp_path / "a.pt").write_bytes(zip_of({"data.pkl": code[:2] + b"}" + code[2:] + b"Ns."}))
    assert read(tmp_path / "a.pt").tensors == {}


def test_little_is_read_of_a_large_file(tmp_path: Path) -> None:
    count = 10 << 28
    head = legacy_file({"w": np.zeros(0, "<f4")})[:-8]
    (tmp_path / "a.pth").write_bytes(head + struct.pack("<q", count))
    with (tmp_path / "a.pth").open("r+b") as file:
        file.truncate(len(head) + 8 + 4 * count)
    disk = FolderDisk()
    torch_pt.index(str(tmp_path / "a.pth"), disk)
    assert disk.bytes_read < 64 << 10


MUTABLE = {name: (DATA / name).read_bytes() for name in ("views.pt", "views.pth", "nested.pt", "scripted.pt")}


@settings(max_examples=150, deadline=1000)
@given(name=st.sampled_from(sorted(MUTABLE)), changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=9)), min_size=1, max_size=4))
def test_mutations_give_nothing_but_source_errors(tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[int, bytes]]) -> None:
    stored = bytearray(MUTABLE[name])
    for at, new in changes:
        stored[at % len(stored) : at % len(stored) + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "mutated.pt"
    path.write_bytes(stored)
    with suppress(SourceError):
        values(torch_pt.index(str(path), FolderDisk()))


@settings(max_examples=150, deadline=1000)
@given(code=st.binary(max_size=200))
def test_any_bytes_as_a_pickle_give_nothing_but_source_errors(tmp_path_factory: pytest.TempPathFactory, code: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pt"
    path.write_bytes(zip_of({"data.pkl": code}))
    with suppress(SourceError):
        torch_pt.index(str(path), FolderDisk())
