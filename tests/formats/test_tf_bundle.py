from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from contract import Arrays, FormatContract, bundle
from disk import FolderDisk
from executor import RawFile, content, execute

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, KeyCollisionError, PlanError, SourceError, UnsupportedFeature
from surgery.expr import Assemble, Expr, Stored, evaluate
from surgery.formats import tf_bundle
from surgery.formats.base import Bundle, Indexed, Layout, Origin
from surgery.formats.tf_bundle import TF_STRING, TF_VARIANT
from surgery.formats.tf_codecs import encode_strings
from surgery.formats.tf_entries import NUMBERS
from surgery.formats.tf_messages_pb2 import BundleEntry, BundleHeader
from surgery.formats.tf_slices import Slice, check_tiling, slice_key
from surgery.formats.tf_table import mask, read_table, write_table
from surgery.regions import whole
from surgery.tensors import Extent, SourceFile, TensorSpec

DATA = Path(__file__).parents[1] / "data" / "tf"
BUNDLES: dict[str, Any] = {
    prefix: facts for prefix, facts in json.loads((DATA / "expected.json").read_text())["bundles"].items() if facts["format"] == "v2"
}
F32 = DTYPES["float32"]
STRING = DTYPES["string"]
PARTITIONED = {"max_shard/ckpt", "partitioned/model", "partitioned/raw", "sharded/model-12"}


def open_bundle(prefix: Path | str, **options: bool) -> Indexed:
    return tf_bundle.index(str(prefix), FolderDisk(), **options)


def read(file: SourceFile, start: int, stop: int) -> bytes:
    return FolderDisk().open(file.path)[1](start, stop)


def extent_of(expr: Expr) -> Extent:
    assert isinstance(expr, Stored)
    return expr.extent


def name_of(tensor: dict[str, Any]) -> str:
    return bytes.fromhex(tensor["name_hex"]).decode("utf-8", "surrogateescape") if "name_hex" in tensor else str(tensor["name"])


class TestTensorFlow(FormatContract):
    format = tf_bundle
    filename = "model.ckpt-30"
    holds = frozenset(set(NUMBERS) - {"string", "variant"})
    detects_flips = True

    def make(self, folder: Path, arrays: Arrays) -> str:
        """A bundle out of protos and a table whose blocks share no prefixes."""
        data = b""
        entries = [(b"", BundleHeader(num_shards=1).SerializeToString())]
        for key, array in arrays.items():
            stored = array.tobytes()
            entry = entry_of(NUMBERS[array.dtype.name], array.shape, len(stored), google_crc32c.value(stored), offset=len(data))
            entries.append((key.encode(), entry.SerializeToString()))
            data += stored
        (folder / "m.index").write_bytes(write_table(sorted(entries)))
        (folder / "m.data-00000-of-00001").write_bytes(data)
        return str(folder / "m")


def entry_of(dtype: int, shape: tuple[int, ...], size: int, crc: int = 0, **fields: Any) -> Any:
    entry = BundleEntry(dtype=dtype, size=size, crc32c=mask(crc), **fields)
    entry.shape.SetInParent()
    for each in shape:
        entry.shape.dim.add(size=each)
    return entry


# reading what TensorFlow wrote


@pytest.mark.parametrize("prefix", BUNDLES)
def test_finds_the_tensors_that_tensorflow_wrote(prefix: str) -> None:
    found = open_bundle(DATA / prefix).tensors
    assert {key: (expr.spec.dtype.name, list(expr.spec.shape)) for key, expr in found.items()} == {
        name_of(tensor): (tensor["dtype"], tensor["shape"]) for tensor in BUNDLES[prefix]["tensors"]
    }


@pytest.mark.parametrize("prefix", [prefix for prefix in BUNDLES if prefix != "many/vars"])
def test_reads_the_values_that_tensorflow_wrote(prefix: str) -> None:
    found = open_bundle(DATA / prefix).tensors
    for tensor in BUNDLES[prefix]["tensors"]:
        expr = found[name_of(tensor)]
        stored = content(expr, FolderDisk())
        if "strings_hex" in tensor:
            strings = evaluate(expr, whole(expr.spec.shape), read)
            assert [string.hex() for string in strings.reshape(-1)] == tensor["strings_hex"]
        elif "raw_sha256" in tensor:
            assert hashlib.sha256(stored).hexdigest() == tensor["raw_sha256"]
        else:
            values = evaluate(expr, whole(expr.spec.shape), read)
            assert hashlib.sha256(values.tobytes()).hexdigest() == tensor["sha256"]


@pytest.mark.parametrize("prefix", [prefix for prefix in BUNDLES if BUNDLES[prefix]["num_shards"] == 1 and prefix not in PARTITIONED])
def test_rewrites_a_bundle_byte_for_byte(tmp_path: Path, prefix: str) -> None:
    source = open_bundle(DATA / prefix)
    origins = {key: Origin(source.location, key) for key in source.tensors}
    folder, name = tmp_path / "out", Path(prefix).name
    wanted = bundle(str(folder / name), source.tensors, latest=False)._replace(origins=origins, sources={source.location: source})
    execute(tf_bundle.layout(wanted), FolderDisk())
    assert {path.name for path in folder.iterdir()} == {f"{name}.index", f"{name}.data-00000-of-00001"}
    for path in folder.iterdir():
        assert path.read_bytes() == (DATA / prefix).with_name(path.name).read_bytes()


@pytest.mark.parametrize("prefix", sorted(PARTITIONED | {"merged/all"}))
def test_rewrites_the_values_of_several_shards_and_slices(tmp_path: Path, prefix: str) -> None:
    source = open_bundle(DATA / prefix)
    tensors = {key: expr for key, expr in source.tensors.items() if key != "_CHECKPOINTABLE_OBJECT_GRAPH"}
    execute(tf_bundle.layout(bundle(f"{tmp_path}/m", tensors, shard_size=100)), FolderDisk())
    found = open_bundle(tmp_path / "m").tensors
    assert {key: content(expr, FolderDisk()) for key, expr in found.items()} == {key: content(expr, FolderDisk()) for key, expr in tensors.items()}


def test_tensors_come_in_the_order_of_their_bytes() -> None:
    extents = [extent_of(expr) for expr in open_bundle(DATA / "merged" / "all").tensors.values()]
    places = [(extent.file.path, extent.start) for extent in extents]
    assert places == sorted(places)
    assert len({path for path, _ in places}) == 3


def test_a_graph_is_a_companion() -> None:
    prefix = DATA / "scoped_adam" / "model.ckpt-3"
    assert open_bundle(prefix).companions == (f"{prefix}.meta",)


def test_partitioned_tensors_hide_their_slices() -> None:
    found = open_bundle(DATA / "partitioned" / "raw")
    assert isinstance(found.tensors["grid"], Assemble)
    assert not any(key.startswith("\0") for key in found.tensors)
    assert found.notes == ("1 partitioned tensor joined from slices",)


def test_the_object_graph_is_attached() -> None:
    graph = open_bundle(DATA / "object" / "plain-1").attachments["object_graph"]
    assert b"save_counter/.ATTRIBUTES/VARIABLE_VALUE" in graph


def test_the_sentence_for_damaged_bytes_is_tensorflows(tmp_path: Path) -> None:
    shutil.copytree(DATA / "article", tmp_path / "a{0}")
    prefix = tmp_path / "a{0}" / "two_scalars"
    extent = extent_of(open_bundle(prefix).tensors["a"])
    assert extent.file.checksum_fault.format(nbytes=4, stored=1234567, computed=89) == (
        f"TensorBundle at {prefix} shard 0 (4 bytes): Checksum does not match: stored 01234567 vs. calculated on the restored bytes 89"
    )


# finding


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("article/two_scalars", "article/two_scalars"),
        ("article/two_scalars.index", "article/two_scalars"),
        ("article", "article/only_first"),
        ("article/", "article/only_first"),
        ("history", "history/model.ckpt-30"),
        ("object_keras", "object_keras/ckpt-2"),
        ("saved_model", "saved_model/variables/variables"),
        ("merged", "merged/all"),
    ],
)
def test_locates(path: str, prefix: str) -> None:
    assert tf_bundle.locate(f"{DATA}/{path}", FolderDisk()) == f"{DATA}/{prefix}"


@pytest.mark.parametrize("path", ["nowhere", "odd_names", "expected.json", "saved_model/saved_model.pb"])
def test_does_not_locate(path: str) -> None:
    assert tf_bundle.locate(f"{DATA}/{path}", FolderDisk()) is None


def test_a_prefix_is_no_pattern(tmp_path: Path) -> None:
    for path in (DATA / "article").glob("two_scalars.*"):
        shutil.copy(path, tmp_path / path.name.replace("two_scalars", "m[1]"))
    shutil.copy(tmp_path / "m[1].index", tmp_path / "m1.index")
    assert tf_bundle.locate(f"{tmp_path}/m[1]", FolderDisk()) == f"{tmp_path}/m[1]"
    assert tf_bundle.locate(f"{tmp_path}/m?", FolderDisk()) is None
    assert set(open_bundle(tmp_path / "m[1]").tensors) == {"a", "b"}


def test_a_data_file_is_not_the_checkpoint() -> None:
    with pytest.raises(SourceError) as fault:
        tf_bundle.locate(f"{DATA}/article/two_scalars.data-00000-of-00001", FolderDisk())
    assert fault.value.help == f"give the prefix: {DATA}/article/two_scalars"


@pytest.mark.parametrize("path", ["v1_format/old.ckpt", "v1_format"])
def test_the_old_format_is_left_to_its_own_reader(path: str) -> None:
    assert tf_bundle.locate(f"{DATA}/{path}", FolderDisk()) is None


def test_a_state_file_that_names_a_missing_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "gone"')
    with pytest.raises(SourceError) as fault:
        tf_bundle.locate(str(tmp_path), FolderDisk())
    assert fault.value.title == f"Couldn't match files for checkpoint {tmp_path}/gone"
    assert fault.value.code == "no-such-file"


def test_a_state_file_without_a_path(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text("")
    with pytest.raises(CorruptFile, match="Invalid checkpoint state loaded from"):
        tf_bundle.locate(str(tmp_path), FolderDisk())


def test_another_programs_checkpoint_file_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"\x83\xa6params")
    assert tf_bundle.locate(str(tmp_path), FolderDisk()) is None


# damage


Entries = dict[bytes, Any]


@pytest.fixture
def forge(tmp_path: Path) -> Callable[..., str]:
    def forge(entries: Entries, data: bytes = bytes(64), header: Any = None) -> str:
        table = [(b"", (header or BundleHeader(num_shards=1)).SerializeToString())]
        table += [(key, entry if isinstance(entry, bytes) else entry.SerializeToString()) for key, entry in entries.items()]
        (tmp_path / "m.index").write_bytes(write_table(sorted(table)))
        (tmp_path / "m.data-00000-of-00001").write_bytes(data)
        return str(tmp_path / "m")

    return forge


def fault_of(prefix: str) -> SourceError:
    with pytest.raises(SourceError) as fault:
        open_bundle(prefix)
    assert fault.value.help
    return fault.value


@pytest.mark.parametrize(
    ("entry", "title"),
    [
        (b"\xff", "Entry for key alpha not parseable."),
        (entry_of(1, (3,), 8), "Invalid size in bundle entry: key alpha; stored size 8; expected size 12"),
        (entry_of(7, (3,), 2), "Invalid size in bundle entry: key alpha; stored size 2; expected size is at least 3"),
        (entry_of(7, (), -1), "Invalid size in bundle entry: key alpha; stored size -1; expected size is at least 1"),
        (entry_of(1, (), 4, offset=-4), "Seeking to a negative position: -4"),
        (entry_of(1, (), 4, offset=61), "Read less bytes than requested"),
        (entry_of(1, (1 << 40,), 4 << 40), "Read less bytes than requested"),
        (entry_of(1, (-1,), 0), "Invalid tensor shape: alpha"),
        (entry_of(1, (0, 1 << 62, 1 << 62), 0), "Invalid tensor shape: alpha"),
        (entry_of(1, (1,) * 255, 4), "Invalid tensor shape: alpha"),
        (b"\x08\x01\x12\x02\x18\x01", "Invalid tensor shape: alpha"),
        (entry_of(1, (), 4, shard_id=1), "key alpha lies in shard 1 of 1"),
        (entry_of(1, (), 4, shard_id=-1), "key alpha lies in shard -1 of 1"),
        (entry_of(99, (), 4), "99 does not correspond to a valid tensorflow::DataType"),
        (entry_of(0, (), 4), "0 does not correspond to a valid tensorflow::DataType"),
        (entry_of(20, (), 4), "20 does not correspond to a valid tensorflow::DataType"),
        (entry_of(101, (), 4), "101 does not correspond to a valid tensorflow::DataType"),
    ],
)
def test_entries_that_cannot_be(forge: Callable[..., str], entry: Any, title: str) -> None:
    assert fault_of(forge({b"alpha": entry})).title == title


@pytest.mark.parametrize(
    ("header", "title"),
    [
        (
            {"version": {"producer": -3}},
            "Checkpoint producer version -3 below min producer 0 supported by TensorFlow 2.21.0.  Please regenerate your checkpoint.",
        ),
        (
            {"version": {"min_consumer": 9}},
            "Checkpoint min consumer version 9 above current version 1 for TensorFlow 2.21.0.  Please upgrade TensorFlow.",
        ),
        (
            {"version": {"bad_consumers": [1]}},
            "Checkpoint disallows consumer version 1.  Please upgrade TensorFlow: this version is likely buggy.",
        ),
    ],
)
def test_versions_that_are_refused(forge: Callable[..., str], header: dict[str, Any], title: str) -> None:
    assert fault_of(forge({}, header=BundleHeader(num_shards=1, **header))).title == title


def test_a_newer_producer_alone_is_fine(forge: Callable[..., str]) -> None:
    assert open_bundle(forge({}, header=BundleHeader(num_shards=1, version={"producer": 7}))).tensors == {}


def test_an_index_without_header(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(write_table([(b"a", b"")]))
    assert fault_of(str(tmp_path / "m")).title == (
        f"Unable to read file ({tmp_path}/m.index). Perhaps the file is corrupt or was produced by a newer version of TensorFlow with "
        "format changes (failed to seek to header entry)"
    )


def test_a_header_that_cannot_be_parsed(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(write_table([(b"", b"\xff")]))
    assert fault_of(str(tmp_path / "m")).title.endswith("(unable to parse header): Entry for key  not parseable.")


def test_big_endian_bundles_are_marked(forge: Callable[..., str]) -> None:
    stored = bytes.fromhex("3f800000")
    prefix = forge({b"a": entry_of(1, (), 4, google_crc32c.value(stored))}, stored, BundleHeader(num_shards=1, endianness=1))
    expr = open_bundle(prefix).tensors["a"]
    assert evaluate(expr, (), read) == 1.0


def test_a_missing_data_file(forge: Callable[..., str]) -> None:
    prefix = forge({b"a": entry_of(1, (), 4), b"e": entry_of(1, (0,), 0)})
    Path(f"{prefix}.data-00000-of-00001").unlink()
    fault = fault_of(prefix)
    assert (fault.title, fault.code, fault.sentence) == (f"{prefix}.data-00000-of-00001; No such file or directory", "no-such-file", True)
    found = open_bundle(prefix, strict=False)
    assert found.notes == (f"{prefix}.data-00000-of-00001; No such file or directory",)
    assert [extent_of(expr).file.nbytes for expr in found.tensors.values()] == [-1, -1]


def test_a_missing_data_file_without_bytes_is_no_fault(forge: Callable[..., str]) -> None:
    prefix = forge({b"e": entry_of(1, (0,), 0)})
    Path(f"{prefix}.data-00000-of-00001").unlink()
    assert list(open_bundle(prefix).tensors) == ["e"]


def test_a_short_data_file_can_still_be_listed(forge: Callable[..., str]) -> None:
    prefix = forge({b"a": entry_of(1, (), 4)}, data=b"abc")
    assert fault_of(prefix).notes == (f"key a, {prefix}.data-00000-of-00001, bytes 0 to 4", "the file has 3 bytes")
    assert list(open_bundle(prefix, strict=False).tensors) == ["a"]


def test_a_small_index_survives_every_flipped_bit(tmp_path: Path) -> None:
    shutil.copytree(DATA / "article", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "two_scalars.index"
    stored = path.read_bytes()
    for bit in range(8 * len(stored)):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        path.chmod(0o644)
        path.write_bytes(damaged)
        try:
            found = open_bundle(tmp_path / "two_scalars")
        except SourceError:
            continue
        assert set(found.tensors) == {"a", "b"}


def test_damaged_values_with_right_checksums_give_source_errors_only(forge: Callable[..., str]) -> None:
    chance = random.Random(0)
    path = DATA / "partitioned" / "model.index"
    entries = read_table(lambda start, stop: path.read_bytes()[start:stop], path.stat().st_size, str(path))
    for _ in range(500):
        damaged = dict(entries)
        key = chance.choice(entries)[0]
        value = bytearray(damaged[key] or b"\0")
        value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
        damaged[key] = bytes(value)
        header = BundleHeader(num_shards=1)
        with suppress(SourceError):
            open_bundle(forge({key: value for key, value in damaged.items() if key}, header=header))


# slices


@pytest.mark.parametrize(
    ("extents", "key"),
    [
        (((4, 3), (0, 4)), "00656d622f770001 0102 84838084"),
        (((0, None),), "00656d622f770001 0101 807f"),
        (((64, 127), (128, 8192)), "00656d622f770001 0102 c040c07f c080e02000"),
        (((1 << 20, 1 << 62),), "00656d622f770001 0101 f0100000 ffc04000000000000000"),
    ],
)
def test_slice_keys(extents: tuple[tuple[int, int | None], ...], key: str) -> None:
    assert slice_key(b"emb/w", Slice(extents)) == bytes.fromhex(key)


def test_slice_keys_escape_the_bytes_that_end_names() -> None:
    assert slice_key(b"\x00\xff\x00\x01\xff\x01", Slice(())) == bytes.fromhex("00 00ff ff00 00ff 01 ff00 01 0001 00")


@pytest.mark.parametrize(
    ("slices", "title"),
    [
        (["0,6:-", "5,5:-"], "Overlapping slices: existing slice = 0,6:-, new slice = 5,5:-"),
        (["0,5:-"], "Does not have sufficient slices for partitioned tensor w to restore in slice_spec: -:-"),
        (["0,10:0,2", "0,5:2,2"], "Does not have sufficient slices for partitioned tensor w to restore in slice_spec: -:-"),
        (["8,5:-"], "Extent in dimension 0 out of bounds: shape = [10,4], slice = 8,5:-"),
        (["-1,5:-"], "Extent in dimension 0 out of bounds: shape = [10,4], slice = -1,5:-"),
        (["2,5"], "Mismatching ranks: shape = [10,4], slice = 2,5"),
    ],
)
def test_slices_that_do_not_fill_their_tensor(slices: list[str], title: str) -> None:
    with pytest.raises(CorruptFile) as fault:
        check_tiling("w", (10, 4), [slice_of(text) for text in slices])
    assert fault.value.title == title


def slice_of(text: str) -> Slice:
    pairs = [None if part == "-" else [int(number) for number in part.split(",")] for part in text.split(":")]
    return Slice(tuple((0, None) if pair is None else (pair[0], pair[1]) for pair in pairs))


def test_slices_of_many_forms_fill_a_tensor() -> None:
    check_tiling("w", (4, 6), [slice_of(text) for text in ("0,2:0,3", "0,2:3,3", "2,2:-")])
    check_tiling("w", (0, 6), [slice_of("-:-")])
    check_tiling("w", (100_000,), [slice_of(f"{start},1") for start in range(100_000)])


def whole_of(dtype: int, shape: tuple[int, ...], *slices: Slice) -> Any:
    entry = entry_of(dtype, shape, 0)
    for piece in slices:
        message = entry.slices.add()
        for start, length in piece.extents:
            message.extent.add(start=start, length=length)
    return entry


def test_a_missing_slice(forge: Callable[..., str]) -> None:
    title = fault_of(forge({b"w": whole_of(1, (4,), slice_of("0,4"))})).title
    assert title == "slice 0,4 of partitioned tensor `w` is not in the index"


def test_a_slice_of_another_dtype(forge: Callable[..., str]) -> None:
    piece = slice_of("0,4")
    title = fault_of(forge({b"w": whole_of(1, (4,), piece), slice_key(b"w", piece): entry_of(3, (4,), 16)})).title
    assert title == "slice 0,4 of partitioned tensor `w` is i32[4], not f32[4]"


def test_partitioned_strings_are_refused(forge: Callable[..., str]) -> None:
    piece = slice_of("0,4")
    fault = fault_of(forge({b"w": whole_of(7, (4,), piece), slice_key(b"w", piece): entry_of(7, (4,), 16)}))
    assert isinstance(fault, UnsupportedFeature)


# strings and variants


@pytest.mark.parametrize(
    ("strings", "shape", "stored", "entry_crc"),
    [
        ([], (0,), "d8ea82a2", "f6c10c64"),
        ([b""], (), "00 a67b113a", "bd6707be"),
        ([b"a", b"bcd", b""], (3,), "010300 836d8c6e 61626364", "40a8f4fa"),
    ],
)
def test_string_tensors(strings: list[bytes], shape: tuple[int, ...], stored: str, entry_crc: str) -> None:
    spec, data = TensorSpec(STRING, shape), bytes.fromhex(stored)
    assert encode_strings(strings) == data
    assert TF_STRING.decode(data, spec).reshape(-1).tolist() == strings
    assert mask(TF_STRING.checksum(data, spec)).to_bytes(4, "little") == bytes.fromhex(entry_crc)


@pytest.mark.parametrize(
    ("stored", "title"),
    [
        ("010300 836d8c6f 61626364", "The length checksum does not match: expected"),
        ("010200 836d8c6e 61626364", "The length checksum does not match: expected"),
        ("ffffffffffffffffff01 836d8c6e", "Read less bytes than requested"),
        ("808080808080808080808080", "Read less bytes than requested"),
        ("010300 836d8c6e 616263", "Read less bytes than requested"),
        ("0103", "Read less bytes than requested"),
    ],
)
def test_damaged_strings(stored: str, title: str) -> None:
    with pytest.raises(CorruptFile, match=title):
        TF_STRING.decode(bytes.fromhex(stored), TensorSpec(STRING, (3,)))


def test_a_shape_larger_than_its_bytes_allocates_nothing() -> None:
    with pytest.raises(CorruptFile):
        TF_STRING.decode(bytes(8), TensorSpec(STRING, (1 << 60,)))


def test_variants_keep_their_checksum_and_have_no_array_form() -> None:
    extent = extent_of(open_bundle(DATA / "variant" / "list").tensors["list"])
    stored = read(extent.file, extent.start, extent.stop)
    assert TF_VARIANT.checksum(stored, extent.spec) == extent.checksum
    with pytest.raises(UnsupportedFeature, match="Tensorflow type 21 not convertible to numpy dtype"):
        TF_VARIANT.decode(stored, extent.spec)
    with pytest.raises(CorruptFile, match="The checksum after Variant 0 does not match"):
        TF_VARIANT.checksum(stored[:-1] + bytes([stored[-1] ^ 1]), extent.spec)


# writing


def two(tmp_path: Path) -> dict[str, Any]:
    raw = RawFile(tmp_path / "raw.bin")
    return {"b": raw.tensor(TensorSpec(F32, (2,)), b"bbbbBBBB"), "a": raw.tensor(TensorSpec(F32, ()), b"aaaa")}


def plan(tmp_path: Path, name: str = "m", **options: Any) -> Layout:
    return tf_bundle.layout(bundle(f"{tmp_path}/{name}", two(tmp_path), **options))


def test_data_is_packed_in_output_order_and_the_index_comes_last(tmp_path: Path) -> None:
    layout = plan(tmp_path)
    assert [(file.name, file.size) for file in layout.files] == [("m.data-00000-of-00001", 12), ("m.index", None)]
    assert [(place.key, place.start) for place in layout.files[0].placements] == [("b", 0), ("a", 8)]
    assert (layout.folder, layout.checksum) == (str(tmp_path), "crc32c")


def test_the_index_has_the_bytes_of_the_facts(tmp_path: Path) -> None:
    layout = plan(tmp_path)
    assert layout.seal is not None
    (patch,) = layout.seal({"a": 0, "b": 0})
    header, a, b = read_table(lambda start, stop: patch.data[start:stop], len(patch.data), "m.index")
    assert (patch.file, patch.start) == ("m.index", 0)
    assert header == (b"", bytes.fromhex("08011a020801"))
    assert a == (b"a", bytes.fromhex("0801 1200 2008 2804 35d8ea82a2"))
    assert b == (b"b", bytes.fromhex("0801 1204 12020802 2808 35d8ea82a2"))


@pytest.mark.parametrize(("shape", "stored"), [((0,), "1202 1200"), ((3, 0, 2), "120a 12020803 1200 12020802")])
def test_empty_dimensions_are_empty_messages(tmp_path: Path, shape: tuple[int, ...], stored: str) -> None:
    layout = tf_bundle.layout(bundle(f"{tmp_path}/m", {"e": RawFile(tmp_path / "raw").tensor(TensorSpec(F32, shape), b"")}))
    assert layout.seal is not None
    assert bytes.fromhex(f"0801 {stored} 35d8ea82a2") in layout.seal({"e": 0})[0].data


def test_shards_end_before_the_tensor_that_would_exceed_them(tmp_path: Path) -> None:
    layout = plan(tmp_path, shard_size=8)
    assert [(file.name, file.size) for file in layout.files] == [("m.data-00000-of-00002", 8), ("m.data-00001-of-00002", 4), ("m.index", None)]
    execute(layout, FolderDisk())
    assert content(open_bundle(tmp_path / "m").tensors["a"], FolderDisk()) == b"aaaa"


def test_an_empty_output_has_one_empty_data_file(tmp_path: Path) -> None:
    assert [(file.name, file.size) for file in tf_bundle.layout(bundle(f"{tmp_path}/m", {})).files] == [
        ("m.data-00000-of-00001", 0),
        ("m.index", None),
    ]


def test_a_prefix_without_folder(tmp_path: Path) -> None:
    assert tf_bundle.layout(bundle("m", two(tmp_path))).folder == "."


def test_the_state_file_is_updated_unless_told_otherwise(tmp_path: Path) -> None:
    (update,) = plan(tmp_path).updates
    assert update.name == "checkpoint"
    assert update.rewrite(None) == b'model_checkpoint_path: "m"\nall_model_checkpoint_paths: "m"\n'
    assert plan(tmp_path, latest=False).updates == ()


def test_the_state_file_itself_stands_for_its_newest() -> None:
    assert tf_bundle.locate(f"{DATA}/history/checkpoint", FolderDisk()) == f"{DATA}/history/model.ckpt-30"


def test_the_graph_of_a_checkpoint_is_not_the_checkpoint() -> None:
    with pytest.raises(SourceError, match="is the graph of a TensorFlow checkpoint") as caught:
        tf_bundle.locate(f"{DATA}/article/two_scalars.meta", FolderDisk())
    assert caught.value.help == f"give the prefix: {DATA}/article/two_scalars"


def test_stale_files_are_older_shards_and_the_graph(tmp_path: Path) -> None:
    stale = plan(tmp_path, "m.1").stale
    assert stale("m.1.data-00001-of-00002")
    assert stale("m.1.meta")
    for name in ("m.1.data-00000-of-00001", "m.1.index", "m21.meta", "m.1.data-00001-of-00002.bak", "m.1.data-1-of-2", "checkpoint", "m.10.meta"):
        assert not stale(name)


def test_the_name_of_the_state_file_is_taken(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="'latest_filename' collides with 'save_path': 'checkpoint' and 'checkpoint'"):
        tf_bundle.layout(bundle("checkpoint", two(tmp_path)))


@pytest.mark.parametrize("path", ["out/", "", "out/\udcff"])
def test_paths_that_are_no_prefix(tmp_path: Path, path: str) -> None:
    with pytest.raises(PlanError) as fault:
        tf_bundle.layout(bundle(path, two(tmp_path)))
    assert fault.value.code == "bad-prefix"


@pytest.mark.parametrize("key", ["", "\ud800"])
def test_keys_that_have_no_place(tmp_path: Path, key: str) -> None:
    with pytest.raises(PlanError) as fault:
        tf_bundle.layout(bundle(f"{tmp_path}/m", {key: two(tmp_path)["a"]}))
    assert fault.value.code == "bad-key"


def test_two_spellings_of_one_key_collide(tmp_path: Path) -> None:
    tensors = two(tmp_path)
    with pytest.raises(KeyCollisionError):
        tf_bundle.layout(bundle(f"{tmp_path}/m", {"é": tensors["a"], "\udcc3\udca9": tensors["b"]}))


class TestAligned:
    """`align: true`: copied tensors keep their offset modulo the blocks that file systems share."""

    def test_large_tensors_that_are_copied_keep_their_offset_modulo_a_page(self, tmp_path: Path) -> None:
        nbytes = 100_000
        (tmp_path / "in").write_bytes(bytes(3 * nbytes))
        file, _ = FolderDisk().open(str(tmp_path / "in"))
        spec = TensorSpec(DTYPES["uint8"], (nbytes,))
        tensors = {key: Stored(Extent(file, start, nbytes, spec)) for key, start in (("a", 8), ("b", 8 + nbytes), ("c", 4096))}
        tensors["small"] = Stored(Extent(file, 0, 10, TensorSpec(DTYPES["uint8"], (10,))))
        placements = tf_bundle.layout(Bundle("m", tensors, {}, {"align": True}, {}, {})).files[0].placements
        assert [placement.start for placement in placements] == [8, 8 + nbytes, 49 * 4096, 49 * 4096 + nbytes]

    def test_without_it_nothing_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "in").write_bytes(bytes(100_008))
        file, _ = FolderDisk().open(str(tmp_path / "in"))
        tensors = {"a": Stored(Extent(file, 8, 100_000, TensorSpec(DTYPES["uint8"], (100_000,))))}
        assert tf_bundle.layout(Bundle("m", tensors, {}, {}, {}, {})).files[0].placements[0].start == 0
