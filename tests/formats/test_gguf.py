from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
from contract import Arrays, FormatContract, bundle
from disk import FolderDisk
from executor import RawFile, content, execute
from hypothesis import given, settings
from hypothesis import strategies as st

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, PlanError, SourceError, UnsupportedFeature, render
from surgery.expr import Stored
from surgery.formats import gguf
from surgery.formats.base import Indexed
from surgery.tensors import TensorSpec

DATA = Path(__file__).parents[1] / "data" / "gguf"
PLAIN = {"float32": 0, "float16": 1, "int8": 24, "int16": 25, "int32": 26, "int64": 27, "float64": 28, "bfloat16": 30}
QUANTISED = json.loads((DATA / "quantised.json").read_text())
U8, U32, F32, BOOL, STRING, ARRAY = 0, 4, 6, 7, 8, 9


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(name: str | bytes, shape: tuple[int, ...], code: int, offset: int) -> bytes:
    """A tensor as docs/gguf.md describes it; `shape` begins with the fastest axis."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, code, offset)


def value(key: str, code: int, data: bytes) -> bytes:
    return text(key) + struct.pack("<I", code) + data


def front(values: list[bytes], entries: list[bytes], version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, len(entries), len(values)) + b"".join(values) + b"".join(entries)


def file_of(values: list[bytes], entries: list[bytes], data: bytes = b"", version: int = 3) -> bytes:
    """A GGUF file, right or wrong, with the usual alignment."""
    head = front(values, entries, version)
    return head + bytes(-len(head) % 32) + data


def index(path: Path) -> Indexed:
    return gguf.index(str(path), FolderDisk())


def fault_of(path: Path, stored: bytes) -> SourceError:
    path.write_bytes(stored)
    with pytest.raises(SourceError) as fault:
        index(path)
    assert fault.value.help
    assert f"{path}" in render(fault.value)
    return fault.value


def expect_well_said(fault: SourceError) -> None:
    assert fault.help
    assert "\n" not in fault.title


class TestGguf(FormatContract):
    format = gguf
    filename = "out.gguf"
    holds = frozenset([*PLAIN, *(f"gguf_{name}" for name in QUANTISED)])

    def fits(self, spec: TensorSpec) -> bool:
        return bool(spec.shape) or spec.dtype.kind != "opaque"

    def make(self, folder: Path, arrays: Arrays) -> str:
        entries, data = [], b""
        for key, array in arrays.items():
            entries.append(entry(key, array.shape[::-1], PLAIN[array.dtype.name], len(data)))
            data += array.tobytes()
            data += bytes(-len(data) % 32)
        (folder / "in.gguf").write_bytes(file_of([value("general.architecture", STRING, text("odd"))], entries, data))
        return str(folder / "in.gguf")


# Reading


@pytest.mark.parametrize("name", ["plain", "aligned", "big"])
def test_reads_tensors_of_the_reference_in_both_byte_orders(name: str) -> None:
    found = index(DATA / f"{name}.gguf").tensors
    assert [str(found[key].spec) for key in ("token_embd.weight", "f16", "f64", "i32")] == ["f32[2,3]", "f16[4]", "f64[2,1]", "i32[]"]
    assert content(found["token_embd.weight"], FolderDisk()) == struct.pack("<6f", 0, 1, 2, 3, 4, 5)
    assert content(found["f64"], FolderDisk()) == struct.pack("<2d", 0.5, -0.5)
    assert content(found["i16"], FolderDisk()) == struct.pack("<2h", 300, -300)
    assert content(found["i64"], FolderDisk()) == struct.pack("<q", 1 << 40)


@pytest.mark.parametrize("name", ["plain", "big"])
def test_values_of_every_type_become_json(name: str) -> None:
    assert index(DATA / f"{name}.gguf").metadata == {
        "general.architecture": '"tiny"',
        "general.name": '"Größe"',
        "a.uint8": "255",
        "a.int8": "-128",
        "a.uint16": "65535",
        "a.int16": "-32768",
        "a.uint32": "4294967295",
        "a.int32": "-2147483648",
        "a.uint64": "18446744073709551615",
        "a.int64": "-9223372036854775808",
        "a.float32": "1e-05",
        "a.float64": "0.1",
        "a.bool": "true",
        "tokenizer.ggml.tokens": '["<s>", "ä", "quo\\"te"]',
        "tokenizer.ggml.scores": "[0.0, -1.5, 0.1]",
        "tokenizer.ggml.token_type": "[1, 2, 3]",
    }


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_tensors_are_the_blocks_that_the_reference_finds(name: str) -> None:
    _, (rows, columns), nbytes, digest = QUANTISED[name]
    expr = index(DATA / "quantised.gguf").tensors[name]
    assert expr.spec.dtype.name == f"gguf_{name}"
    assert expr.spec.shape[0] == rows
    assert columns % expr.spec.shape[1] == 0
    assert expr.spec.nbytes == nbytes
    assert sha256(content(expr, FolderDisk())).hexdigest() == digest


def test_a_version_2_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(file_of([], [entry("w", (2,), 24, 0)], b"ab", version=2))
    assert content(index(tmp_path / "a.gguf").tensors["w"], FolderDisk()) == b"ab"


# A model in several files


def test_the_first_file_stands_for_all() -> None:
    found = index(DATA / "split-00001-of-00003.gguf")
    assert {key: content(expr, FolderDisk()) for key, expr in found.tensors.items()} == {
        f"blk.{number}.w": struct.pack("<6f", *[number] * 6) for number in range(5)
    }
    assert found.metadata == {"general.architecture": '"tiny"', "general.name": '"Größe"'}
    assert [Path(file.path).name for file in found.files] == [f"split-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


def test_what_is_saved_is_one_file(tmp_path: Path) -> None:
    saved_as_it_is(DATA / "split-00001-of-00003.gguf", tmp_path)
    found = index(tmp_path / "out.gguf")
    assert [key for key in found.metadata if key.startswith("split.")] == []
    assert len(found.tensors) == 5


def test_another_file_is_read_by_itself_and_says_so() -> None:
    found = index(DATA / "split-00002-of-00003.gguf")
    assert list(found.tensors) == ["blk.2.w", "blk.3.w"]
    assert found.notes == ("it is one of 3 files of a model; the others are read with the first",)


def part(number: int, count: int, tensors: int, *entries: bytes) -> bytes:
    values = [value("split.no", 2, struct.pack("<H", number)), value("split.count", 2, struct.pack("<H", count))]
    return file_of([*values, value("split.tensors.count", 5, struct.pack("<i", tensors))], list(entries), bytes(64))


def write_parts(folder: Path, *parts: bytes, count: int = 2) -> Path:
    for number, stored in enumerate(parts, 1):
        (folder / f"m-0000{number}-of-0000{count}.gguf").write_bytes(stored)
    return folder / f"m-00001-of-0000{count}.gguf"


def test_a_folder_of_one_model_is_its_first_file(tmp_path: Path) -> None:
    first = write_parts(tmp_path, part(0, 2, 0), part(1, 2, 0))
    assert gguf.locate(str(tmp_path), FolderDisk()) == str(first)
    first.unlink()
    assert gguf.locate(str(tmp_path), FolderDisk()) == str(first), "which is then missed by name"
    (tmp_path / "other-00002-of-00003.gguf").write_bytes(b"")
    assert gguf.locate(str(tmp_path), FolderDisk()) is None


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = write_parts(tmp_path, part(0, 4, 2), part(1, 4, 2), count=4)
    with pytest.raises(SourceError, match=r"2 files of the model .* not there: m-00003-of-00004\.gguf, m-00004-of-00004\.gguf") as fault:
        index(path)
    assert fault.value.code == "missing-shard"


def test_a_first_file_under_another_name_cannot_tell_the_others(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(part(0, 2, 0))
    with pytest.raises(SourceError, match="its name does not tell the others") as fault:
        index(tmp_path / "model.gguf")
    assert fault.value.code == "missing-shard"


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((part(0, 2, 0), part(0, 2, 0)), "it does not say that it is file 2 of 2"),
        ((part(0, 2, 0), part(1, 3, 0)), "it does not say that it is file 2 of 2"),
        ((part(0, 2, 3, entry("a", (1,), 24, 0)), part(1, 2, 3)), "all files together should have 3 tensors, not 1"),
        ((part(0, 2, 2, entry("a", (1,), 24, 0)), part(1, 2, 2, entry("a", (1,), 24, 0))), "`a` is in an earlier file, too"),
    ],
)
def test_files_that_contradict_each_other_are_refused(tmp_path: Path, parts: tuple[bytes, bytes], says: str) -> None:
    with pytest.raises(CorruptFile) as fault:
        index(write_parts(tmp_path, *parts))
    assert says in render(fault.value)


def test_a_model_in_one_file_of_one_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(part(0, 1, 1, entry("a", (1,), 24, 0)))
    assert list(index(tmp_path / "m.gguf").tensors) == ["a"]


# Key/values


def test_arrays_of_arrays_are_kept(tmp_path: Path) -> None:
    rows = struct.pack("<IQ", ARRAY, 2) + struct.pack("<IQ2B", U8, 2, 7, 8) + struct.pack("<IQ", STRING, 1) + text("ä")
    (tmp_path / "in.gguf").write_bytes(file_of([value("k", ARRAY, rows)], []))
    assert index(tmp_path / "in.gguf").metadata == {"k": '[[7, 8], ["ä"]]'}
    assert saved_as_it_is(tmp_path / "in.gguf", tmp_path) == (tmp_path / "in.gguf").read_bytes()
    with pytest.raises(PlanError, match="array of arrays, which can only be kept"):
        saved(index(tmp_path / "in.gguf"), tmp_path, {"k": "[[1]]"})


def test_a_vocabulary_is_read_quickly_and_comes_out_as_it_was(tmp_path: Path) -> None:
    tokens = [f"▁token{number}" for number in range(260_000)]
    stored = struct.pack("<IQ", STRING, len(tokens)) + b"".join(map(text, tokens))
    scores = struct.pack("<IQ", F32, len(tokens)) + struct.pack(f"<{len(tokens)}f", *range(len(tokens)))
    (tmp_path / "in.gguf").write_bytes(file_of([value("tokens", ARRAY, stored), value("scores", ARRAY, scores)], []))
    began = time.process_time()
    found = index(tmp_path / "in.gguf")
    assert time.process_time() - began < 1
    assert json.loads(found.metadata["tokens"]) == tokens
    assert json.loads(found.metadata["scores"]) == list(range(len(tokens)))
    assert saved(found, tmp_path, dict(found.metadata)) == (tmp_path / "in.gguf").read_bytes()


def test_long_arrays_come_out_alike_in_both_byte_orders(tmp_path: Path) -> None:
    numbers = range(-20_000, 20_000)
    for order, version in (("<", 3), (">", 3)):
        name = struct.pack(f"{order}Q", 1) + b"k"
        stored = name + struct.pack(f"{order}IIQ{len(numbers)}h", ARRAY, 3, len(numbers), *numbers)
        (tmp_path / "in.gguf").write_bytes(b"GGUF" + struct.pack(f"{order}IQQ", version, 0, 1) + stored)
        found = index(tmp_path / "in.gguf")
        assert json.loads(found.metadata["k"]) == list(numbers)
        assert struct.pack(f"<{len(numbers)}h", *numbers) in saved(found, tmp_path, dict(found.metadata))


def test_tokens_that_are_not_utf8_survive(tmp_path: Path) -> None:
    tokens = struct.pack("<IQ", STRING, 2) + text(b"\xff") + text("ä")
    (tmp_path / "in.gguf").write_bytes(file_of([value("tokens", ARRAY, tokens)], []))
    assert index(tmp_path / "in.gguf").metadata == {"tokens": '["\\udcff", "\\u00e4"]'}
    assert saved_as_it_is(tmp_path / "in.gguf", tmp_path) == (tmp_path / "in.gguf").read_bytes()


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (b"", "ends too early"),
        (b"GGUX" + bytes(20), "does not begin with GGUF"),
        (b"GGUF\3\0\0\0", "ends too early"),
        (front([], [])[:8] + b"\xff" * 16, "claims 18,446,744,073,709,551,615 key/values"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "claims 1,152,921,504,606,846,976 tensors"),
        (file_of([text("k" * 99)[:50]], []), "ends too early"),
        (file_of([text(b"\xff") + bytes(5)], []), "a name is not UTF-8"),
        (file_of([value("k", 13, bytes(8))], []), "there is no type 13 of values"),
        (file_of([value("k", BOOL, b"\2")], []), "a bool is neither 0 nor 1"),
        (file_of([value("k", U8, b"\0")] * 2, []), "the key `k` occurs twice"),
        (file_of([value("k", ARRAY, struct.pack("<IQ", U8, 1 << 62))], []), "claims 4,611,686,018,427,387,904 array items"),
        (file_of([value("k", ARRAY, struct.pack("<IQ", STRING, 2)) + text("a") + b"\xff" * 8], []), "ends too early"),
        (file_of([value("k", ARRAY, struct.pack("<IQ", 99, 1))], [], bytes(8)), "there is no type 99 of values"),
        (file_of([value("general.alignment", U32, struct.pack("<I", 0))], []), "its alignment is 0, not a power of two"),
        (file_of([value("general.alignment", U32, struct.pack("<I", 48))], []), "its alignment is 48, not a power of two"),
        (file_of([value("general.alignment", STRING, text("32"))], []), "not a power of two"),
        (file_of([], [text("w") + struct.pack("<I", 1 << 31)], bytes(99)), "`w` has 2,147,483,648 axes"),
        (file_of([], [entry("w", (1 << 62, 4, 0), 0, 0)]), "`w` has an impossible shape"),
        (file_of([], [entry("w", (33,), 2, 0)], bytes(64)), "the rows of `w` are no whole blocks of 32"),
        (file_of([], [entry("w", (), 2, 0)], bytes(64)), "the rows of `w` are no whole blocks of 32"),
        (file_of([], [entry("w", (9,), 24, 0)], bytes(8)), "`w` would end behind the end of the file"),
        (file_of([], [entry("w", (1,), 24, 1 << 63)], bytes(8)), "`w` would end behind the end of the file"),
        (file_of([], [entry("w", (1,), 24, 8)], bytes(64)), "`w` does not begin at a multiple of 32"),
        (file_of([], [entry("a", (33,), 24, 0), entry("b", (1,), 24, 32)], bytes(64)), "`b` overlaps the tensor before it"),
        (file_of([], [entry("w", (1,), 24, 0), entry("w", (1,), 24, 32)], bytes(64)), "`w` occurs twice"),
    ],
)
def test_damage_is_named_with_file_and_bytes(tmp_path: Path, stored: bytes, says: str) -> None:
    fault = fault_of(tmp_path / "a.gguf", stored)
    assert isinstance(fault, CorruptFile)
    assert says in render(fault)
    assert f"{tmp_path}/a.gguf, bytes " in render(fault)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (file_of([], [], version=1), "version 1 of GGUF"),
        (file_of([], [entry("w", (32,), 4, 0)], bytes(64)), "`w` in"),
        (file_of([value("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 9)], [], bytes(16)), "arrays more than 8 deep"),
        (b"GGUF" + struct.pack(">IQQQ", 3, 1, 0, 1) + b"w" + struct.pack(">IQIQ", 1, 32, 2, 0) + bytes(64), "big-endian quantised blocks in `w`"),
    ],
)
def test_what_this_version_does_not_read_is_told_apart_from_damage(tmp_path: Path, stored: bytes, says: str) -> None:
    fault = fault_of(tmp_path / "a.gguf", stored)
    assert isinstance(fault, UnsupportedFeature)
    assert says in render(fault)


@pytest.mark.parametrize(
    ("count", "says"), [((0, 1 << 17), "131,072 key/values, in all more than are read"), ((1 << 19, 0), "524,288 tensors, in all more than are read")]
)
def test_counts_beyond_all_measure_are_not_tried(tmp_path: Path, count: tuple[int, int], says: str) -> None:
    with (tmp_path / "a.gguf").open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, *count))
        file.truncate(1 << 30)
    with pytest.raises(UnsupportedFeature, match=says):
        index(tmp_path / "a.gguf")


def test_long_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    odd = [value(f"k{number}", STRING, text(b"\xff" * (400 << 10))) for number in range(3)]
    (tmp_path / "a.gguf").write_bytes(file_of(odd, []))
    with pytest.raises(UnsupportedFeature, match="more than 1,048,576 bytes of text that is not UTF-8"):
        index(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (value("k", ARRAY, struct.pack("<IQ", U8, 1_600_001)), "1,600,001 array items, in all more than are read here"),
        (value("k", ARRAY, struct.pack("<IQ", F32, 800_001)), "800,001 array items, in all more than are read here"),
        (value("k", ARRAY, struct.pack("<IQ", ARRAY, 80_001)), "80,001 array items, in all more than are read here"),
        (value("k", STRING, struct.pack("<Q", 65 << 20)), "a text of 68,157,440 bytes"),
    ],
)
def test_a_front_beyond_all_measure_is_not_read(tmp_path: Path, last: bytes, says: str) -> None:
    with (tmp_path / "a.gguf").open("wb") as file:
        file.write(front([last], []))
        file.truncate(1 << 30)
    disk = FolderDisk()
    with pytest.raises(UnsupportedFeature, match=says):
        gguf.index(str(tmp_path / "a.gguf"), disk)
    assert disk.bytes_read < 128 << 10


@pytest.mark.parametrize(
    ("values", "entries", "says"),
    [
        ([value(f"k{number}", STRING, text("\1" * (1 << 20))) for number in range(4)], [], "key/values of more than 20,971,520 bytes as text"),
        ([], [entry("a" * (1 << 20), (), 24, 0)] * 20, "more than 20,971,520 bytes before its data"),
    ],
)
def test_a_front_of_many_long_texts_is_refused(tmp_path: Path, values: list[bytes], entries: list[bytes], says: str) -> None:
    (tmp_path / "a.gguf").write_bytes(file_of(values, entries))
    with pytest.raises(UnsupportedFeature, match=says):
        index(tmp_path / "a.gguf")


# Fronts that cost the most of what is let through: control characters are six bytes of JSON, one emoji makes all text four times as wide
COSTLY = {
    "empty strings": (1_580_000, STRING, text("")),
    "emojis": (1_500_000, STRING, text("😀")[:12]),
    "control characters": (1_200_000, STRING, text("\1\1\1\1\1\1\1\1")),
    "long texts": (19, STRING, text("😀" + "a" * 1_000_000)),
    "odd numbers": (790_000, F32, b"\x39\x30\x9e\x3f"),
    "large numbers": (1_500_000, 10, b"\xff" * 8),
    "arrays": (79_000, ARRAY, struct.pack("<IQB", U8, 1, 0)),
}


@pytest.mark.parametrize("name", COSTLY)
def test_the_costliest_fronts_are_read_or_refused_in_time_and_memory(tmp_path: Path, name: str) -> None:
    count, kind, item = COSTLY[name]
    stored = file_of([value("k", ARRAY, struct.pack("<IQ", kind, count) + item * count)], [])
    expect_cheap(tmp_path / "a.gguf", stored)


def test_as_many_tensors_and_values_as_are_let_through_are_read_in_time_and_memory(tmp_path: Path) -> None:
    values = [value(f"{number}", U8, b"\0") for number in range(39_000)]
    entries = [entry(f"{number}", (1, 1, 1, 1), 24, number * 32) for number in range(40_000)]
    expect_cheap(tmp_path / "a.gguf", file_of(values, entries, bytes(32 * len(entries))))


def expect_cheap(path: Path, stored: bytes) -> None:
    """In a process of its own, whose memory is its own (`getrusage` would tell the parent's, which the child begins with)."""
    path.write_bytes(stored)
    run = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    seconds, kibibytes = map(float, run.stdout.split())
    assert seconds < 1
    assert kibibytes < 200 << 10


MEASURE = """
import re, sys, time
from disk import FolderDisk
from surgery.errors import SourceError
from surgery.formats import gguf
began = time.process_time()
try:
    gguf.index(sys.argv[1], FolderDisk())
except SourceError:
    pass
seconds = time.process_time() - began
print(seconds, re.search("VmHWM: +([0-9]+) kB", open("/proc/self/status").read().replace(chr(9), " "))[1])
"""


@settings(deadline=2000, max_examples=400)
@given(st.data())
def test_any_mutation_is_read_or_refused_in_time(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    stored = bytearray((DATA / "plain.gguf").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stored) - 8))
        stored[at : at + 8] = data.draw(st.one_of(st.binary(max_size=9), st.sampled_from([b"\xff" * 8, bytes(7) + b"\x7f", bytes(8)])))
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(stored)
    began = time.process_time()
    try:
        for expr in index(path).tensors.values():
            content(expr, FolderDisk())
    except SourceError as fault:
        expect_well_said(fault)
    assert time.process_time() - began < 1


def test_a_file_is_recognised_by_content_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(file_of([], []))
    (tmp_path / "other.bin").write_bytes(b"GGML" + bytes(40))
    assert gguf.locate(str(tmp_path / "model.bin"), FolderDisk()) == str(tmp_path / "model.bin")
    assert gguf.locate(str(tmp_path / "other.bin"), FolderDisk()) is None
    assert gguf.locate(str(tmp_path / "absent.gguf"), FolderDisk()) is None


# Writing


def saved(source: Indexed, tmp_path: Path, metadata: dict[str, str]) -> bytes:
    wanted = bundle(str(tmp_path / "out.gguf"), source.tensors, metadata=metadata)
    execute(gguf.layout(wanted._replace(sources={source.location: source})), FolderDisk())
    return (tmp_path / "out.gguf").read_bytes()


def saved_as_it_is(path: Path, tmp_path: Path) -> bytes:
    source = index(path)
    return saved(source, tmp_path, dict(source.metadata))


@pytest.mark.parametrize("name", ["plain", "aligned", "quantised"])
def test_a_file_of_the_reference_comes_out_byte_for_byte(tmp_path: Path, name: str) -> None:
    assert saved_as_it_is(DATA / f"{name}.gguf", tmp_path) == (DATA / f"{name}.gguf").read_bytes()


def test_a_big_endian_file_comes_out_as_the_little_endian_one(tmp_path: Path) -> None:
    plain = index(DATA / "plain.gguf")
    without = plain._replace(tensors={key: expr for key, expr in plain.tensors.items() if key != "bf16"})
    (tmp_path / "little").mkdir()
    assert saved_as_it_is(DATA / "big.gguf", tmp_path) == saved(without, tmp_path / "little", dict(plain.metadata))


@pytest.mark.parametrize(
    ("key", "new", "kind", "data"),
    [
        ("a.uint8", "7", 0, b"\7"),
        ("a.int64", "-1", 11, b"\xff" * 8),
        ("a.float32", "2", 6, struct.pack("<f", 2)),
        ("a.float64", "0.25", 12, struct.pack("<d", 0.25)),
        ("a.bool", "false", 7, b"\0"),
        ("general.name", '"New"', 8, text("New")),
        ("general.name", "New name", 8, text("New name")),
        ("general.name", "1.0", 8, text("1.0")),
        ("tokenizer.ggml.scores", "[1, 0.5]", 9, struct.pack("<IQ2f", 6, 2, 1, 0.5)),
        ("tokenizer.ggml.tokens", "[]", 9, struct.pack("<IQ", 8, 0)),
        ("new", "4096", 4, struct.pack("<I", 4096)),
        ("new", "-1", 5, struct.pack("<i", -1)),
        ("new", "4294967296", 10, struct.pack("<Q", 1 << 32)),
        ("new", "-4294967296", 11, struct.pack("<q", -(1 << 32))),
        ("new", "0.5", 6, struct.pack("<f", 0.5)),
        ("new", "1e300", 12, struct.pack("<d", 1e300)),
        ("new", "true", 7, b"\1"),
        ("new", "pt", 8, text("pt")),
        ("new", '"pt"', 8, text("pt")),
        ("new", "null", 8, text("null")),
        ("new", "9" * 5000, 8, text("9" * 5000)),
        ("new", "[" * 100_000, 8, text("[" * 100_000)),
        ("new", '["a", "b"]', 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
        ("new", "[1, -1]", 9, struct.pack("<IQ2i", 5, 2, 1, -1)),
        ("new", '[1, "a"]', 8, text('[1, "a"]')),
        ("new", "[[1]]", 8, text("[[1]]")),
        ("new", "[]", 8, text("[]")),
    ],
)
def test_edited_values_keep_their_type_and_new_ones_get_one(tmp_path: Path, key: str, new: str, kind: int, data: bytes) -> None:
    source = index(DATA / "plain.gguf")
    assert value(key, kind, data) in saved(source, tmp_path, {**source.metadata, key: new})


@pytest.mark.parametrize(
    ("key", "new", "says"),
    [
        ("a.uint8", "256", "a number is out of the range of uint8"),
        ("a.uint8", "true", "it was of type uint8"),
        ("a.uint8", "1.0", "it was of type uint8"),
        ("a.uint8", "many", "it was of type uint8"),
        ("a.bool", "1", "it was of type bool"),
        ("a.float32", "1e300", "out of the range of float32"),
        ("tokenizer.ggml.tokens", '"a"', "it was an array"),
        ("tokenizer.ggml.tokens", "[1]", "it was of type string"),
        ("general.alignment", "48", "cannot be 48"),
        ("general.alignment", "wide", "cannot be wide"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(tmp_path: Path, key: str, new: str, says: str) -> None:
    source = index(DATA / "plain.gguf")
    with pytest.raises(PlanError) as fault:
        saved(source, tmp_path, {**source.metadata, key: new})
    assert (fault.value.code, fault.value.at) == ("bad-option", ("metadata", key))
    assert says in render(fault.value)


def test_a_new_alignment_is_kept_to(tmp_path: Path) -> None:
    source = index(DATA / "plain.gguf")
    saved(source, tmp_path, {"general.alignment": "256"})
    found = index(tmp_path / "out.gguf").tensors
    assert {expr.extent.start % 256 for expr in found.values() if isinstance(expr, Stored)} == {0}
    assert {key: content(expr, FolderDisk()) for key, expr in found.items()} == {
        key: content(expr, FolderDisk()) for key, expr in source.tensors.items()
    }


def test_what_ggml_does_not_load_is_told(tmp_path: Path) -> None:
    spec = TensorSpec(DTYPES["int8"], (1,))
    tensors = RawFile(tmp_path / "raw")
    wanted = {"k" * 63: tensors.tensor(spec, b"a"), "k" * 64: tensors.tensor(spec, b"b")}
    (note,) = gguf.layout(bundle(str(tmp_path / "out.gguf"), wanted)).notes
    assert note.startswith("llama.cpp will not load 1 tensor with ")
    assert note.endswith(f"`{'k' * 64}`")


@pytest.mark.parametrize(
    ("key", "name", "shape", "code"),
    [("w", "gguf_q8_0", (), "shape-not-storable"), ("\udcff", "int8", (1,), "key-not-storable"), ("w", "uint8", (1,), "dtype-not-storable")],
)
def test_what_gguf_cannot_hold_is_refused(tmp_path: Path, key: str, name: str, shape: tuple[int, ...], code: str) -> None:
    spec = TensorSpec(DTYPES[name], shape)
    with pytest.raises(PlanError) as fault:
        gguf.layout(bundle(str(tmp_path / "out.gguf"), {key: RawFile(tmp_path / "raw").tensor(spec, bytes(spec.nbytes))}))
    assert fault.value.code == code
    assert fault.value.help


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="names no file"):
        gguf.layout(bundle(f"{tmp_path}/", {}))


def test_more_tensors_than_can_be_read_again_are_not_written(tmp_path: Path) -> None:
    one = RawFile(tmp_path / "raw").tensor(TensorSpec(DTYPES["int8"], (1,)), b"a")
    with pytest.raises(PlanError, match="holds 65,536 tensors here, not 65,537") as fault:
        gguf.layout(bundle(str(tmp_path / "out.gguf"), {str(number): one for number in range(65_537)}))
    assert fault.value.code == "too-many-tensors"
