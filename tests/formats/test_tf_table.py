from __future__ import annotations

import time
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.errors import CorruptFile
from surgery.formats.tf_snappy import BadSnappy, decompress
from surgery.formats.tf_table import Entry, mask, read_table, unmask, write_table
from surgery.formats.tf_varint import read_varint, varint

DATA = Path(__file__).parents[1] / "data" / "tf"

TWO_SCALARS = bytes.fromhex(
    "000006 08011a020801"
    "00010b61 080112002804 3581a5da2b"
    "00010d62 0801120020042804 3510fd784f"
    "00000000 01000000  00 deb738a1"
    "00000000 01000000  00 c0f2a1b0"
    "0001026300310000000001000000  00 54f2762d"
    "3608 430e" + "00" * 36 + "57fb808b247547db"
)
ENTRIES = [
    (b"", bytes.fromhex("08011a020801")),
    (b"a", bytes.fromhex("0801120028043581a5da2b")),
    (b"b", bytes.fromhex("08011200200428043510fd784f")),
]
FOOTER_MAGIC = TWO_SCALARS[-8:]


def parse(stored: bytes) -> list[Entry]:
    return read_table(lambda start, stop: stored[start:stop], len(stored), "x.index")


def fault_of(stored: bytes) -> CorruptFile:
    with pytest.raises(CorruptFile) as fault:
        parse(stored)
    assert fault.value.sentence
    assert fault.value.help
    assert any("x.index, bytes " in note for note in fault.value.notes)
    return fault.value


def block(contents: bytes, kind: int = 0) -> bytes:
    stored = contents + bytes([kind])
    return stored + mask(google_crc32c.value(stored)).to_bytes(4, "little")


def table(*blocks: tuple[bytes, bytes, int]) -> bytes:
    """A table from the separator, contents and type of each data block."""
    out = index = b""
    for separator, contents, kind in blocks:
        value = varint(len(out)) + varint(len(contents))
        index += bytes([0, len(separator), len(value)]) + separator + value
        out += block(contents, kind)
    return closed(out, index + bytes.fromhex("0000000001000000"))


def closed(out: bytes, index: bytes) -> bytes:
    return out + block(index) + (b"\0\0" + varint(len(out)) + varint(len(index))).ljust(40, b"\0") + FOOTER_MAGIC


def entry(shared: int, tail: bytes, value: bytes = b"") -> bytes:
    return varint(shared) + varint(len(tail)) + varint(len(value)) + tail + value


RESTARTS = bytes.fromhex("0000000001000000")


def test_reads_the_smallest_example_of_tensorflow() -> None:
    assert parse(TWO_SCALARS) == ENTRIES


def test_writes_the_smallest_example_of_tensorflow() -> None:
    assert write_table(ENTRIES) == TWO_SCALARS


@pytest.mark.parametrize("path", sorted(DATA.glob("**/*.index")), ids=lambda path: str(path.relative_to(DATA)))
def test_writes_each_index_of_tensorflow_byte_for_byte(path: Path) -> None:
    stored = path.read_bytes()
    assert write_table(parse(stored)) == stored


def test_an_empty_table_has_no_entries() -> None:
    stored = write_table([])
    assert stored[:26] == bytes.fromhex("0000000001000000 00 c0f2a1b0") * 2
    assert parse(stored) == []


@pytest.mark.parametrize(("crc", "masked"), [(0, 0xA282EAD8), (0xE3069283, 0xC78AB0E5), (google_crc32c.value(bytes.fromhex("0000803f")), 0x2BDAA581)])
def test_masks_checksums(crc: int, masked: int) -> None:
    assert mask(crc) == masked
    assert unmask(masked) == crc


@given(st.integers(0, 2**64 - 1))
def test_varint_round_trip(number: int) -> None:
    assert read_varint(varint(number), 0, 10) == (number, len(varint(number)))


def test_overlong_varints_are_accepted() -> None:
    assert read_varint(bytes.fromhex("838000"), 0, 3) == (3, 3)


@given(st.dictionaries(st.binary(max_size=40), st.binary(max_size=300), max_size=80))
def test_round_trip(content: dict[bytes, bytes]) -> None:
    entries = sorted(content.items())
    assert parse(write_table(entries)) == entries


@pytest.mark.parametrize("size", [262_130, 262_144, 524_287, 524_288, 600_000])
def test_round_trip_of_large_entries(size: int) -> None:
    entries = [(b"", b"header"), (b"a", b"1"), (b"b", bytes(size)), (b"c" * 200_000, b"2"), (b"d", b"3")]
    assert parse(write_table(entries)) == entries


def test_an_entry_of_512_kib_starts_a_block_of_its_own() -> None:
    stored = write_table([(b"", b""), (b"b", bytes(524_287))])
    assert stored[:8] == bytes.fromhex("000000") + bytes.fromhex("0000000001")


@pytest.mark.parametrize(
    ("left", "right", "separator"),
    [(b"abc", b"abf", b"abd"), (b"abc", b"abd", b"abc"), (b"ab", b"abd", b"ab"), (b"a\xff", b"b", b"a\xff"), (b"ab\xff", b"az", b"ac")],
)
def test_separators_are_as_short_as_tensorflow_makes_them(left: bytes, right: bytes, separator: bytes) -> None:
    stored = write_table([(left, bytes(300_000)), (right, b"")])
    assert bytes([0, len(separator)]) in stored[300_000:]
    assert separator in stored[300_000 + len(left) :]


@pytest.mark.parametrize(("last", "successor"), [(b"omega", b"p"), (b"\xff\xfe\x61\x00", b"\xff\xff"), (b"\xff\xff", b"\xff\xff")])
def test_the_last_separator_is_a_short_successor(last: bytes, successor: bytes) -> None:
    assert bytes([0, len(successor), 2]) + successor in write_table([(b"", b""), (last, b"")])


@pytest.mark.parametrize("keys", [[b"b", b"a"], [b"a", b"a"], [b"", b""]])
def test_the_writer_refuses_keys_that_do_not_rise(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="does not come after"):
        write_table([(key, b"") for key in keys])


# damage


def test_every_truncation_is_refused() -> None:
    for size in range(len(TWO_SCALARS)):
        title = fault_of(TWO_SCALARS[:size]).title
        assert title == ("file is too short to be an sstable" if size < 48 else "not an sstable (bad magic number)")


def test_every_flipped_bit_is_noticed_or_without_effect() -> None:
    for bit in range(8 * len(TWO_SCALARS)):
        damaged = bytearray(TWO_SCALARS)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = parse(bytes(damaged))
        except CorruptFile:
            continue
        assert found == ENTRIES


def test_a_damaged_first_block_gets_tensorflows_sentence() -> None:
    damaged = b"\x01" + TWO_SCALARS[1:]
    assert fault_of(damaged).title == (
        "Unable to read file (x.index). Perhaps the file is corrupt or was produced by a newer version of TensorFlow with format changes "
        "(failed to seek to header entry): block checksum mismatch"
    )


def test_a_damaged_later_block_is_not_skipped() -> None:
    stored = bytearray((DATA / "many" / "vars.index").read_bytes())
    stored[270_000] ^= 1
    assert fault_of(bytes(stored)).title == "block checksum mismatch"


def test_a_damaged_index_block_is_named() -> None:
    fault = fault_of(TWO_SCALARS[:0x44] + b"\xff" + TWO_SCALARS[0x45:])
    assert fault.title == "block checksum mismatch"
    assert fault.notes == ("x.index, bytes 67 to 81",)


@pytest.mark.parametrize(
    ("contents", "kind", "fault"),
    [
        (b"", 0, "bad block contents"),
        (bytes.fromhex("000000000000ffff"), 0, "bad block contents"),
        (entry(1, b"a") + RESTARTS, 0, "bad entry in block"),
        (b"\x00\xff\xff\xff\xff\x7f\x00a" + RESTARTS, 0, "bad entry in block"),
        (b"\x00\x01\xff\xff\xff\xff\x7fa" + RESTARTS, 0, "bad entry in block"),
        (b"\xff\xff\xff\xff\xff\xff" + RESTARTS, 0, "bad entry in block"),
        (entry(0, b"b") + entry(0, b"a") + RESTARTS, 0, "bad entry in block"),
        (entry(0, b"a") + entry(0, b"a") + RESTARTS, 0, "bad entry in block"),
        (entry(0, b"z") + RESTARTS, 0, "bad block contents"),
        (entry(0, b"a") + RESTARTS, 7, "bad block type"),
        (b"\xff\xff\xff\xff\x0f", 1, "corrupted compressed block contents"),
    ],
)
def test_hostile_blocks(contents: bytes, kind: int, fault: str) -> None:
    assert fault_of(table((b"m", contents, kind))).title.endswith(fault)


@pytest.mark.parametrize("handle", ["ffffffffffffffffff01 05", "00 ffffffffffffffffff01", "00 8080808010", "7f 05"])
def test_wild_handles_of_data_blocks(handle: str) -> None:
    value = bytes.fromhex(handle)
    title = fault_of(closed(b"", entry(0, b"m", value) + RESTARTS)).title
    assert title.endswith(("truncated block read", "bad block handle"))


@pytest.mark.parametrize("handles", ["ff" * 40, "00 00 ffffffffffffffffff01 05", "00 00 00 ffffffffffffffffff01", "80" * 40])
def test_wild_handles_in_the_footer(handles: str) -> None:
    stored = TWO_SCALARS[:-48] + bytes.fromhex(handles).ljust(40, b"\0") + FOOTER_MAGIC
    assert fault_of(stored).title in ("truncated block read", "bad block handle")


def test_one_block_cannot_be_listed_many_times() -> None:
    index = b"".join(entry(0, number.to_bytes(2, "big"), b"\x00\x08") for number in range(1000))
    assert fault_of(closed(block(RESTARTS), index + RESTARTS)).title == "bad block handle"


def test_shared_prefixes_cannot_expand_without_bound() -> None:
    contents = entry(0, b"k" * 100_000) + b"".join(entry(100_000 + number, b"k") for number in range(20_000)) + RESTARTS
    begin = time.perf_counter()
    assert fault_of(table((b"z", contents, 0))).title.endswith("bad entry in block")
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize("interval", [1, 1000])
def test_any_restart_interval_is_read(interval: int) -> None:
    keys = [b"k%03d" % number for number in range(50)]
    entries = b"".join(
        entry(0, key) if interval == 1 else entry(3 if number % 10 else 0, key[3:] if number % 10 else key) for number, key in enumerate(keys)
    )
    assert [key for key, _ in parse(table((b"l", entries + RESTARTS, 0)))] == keys


# snappy


def test_reads_snappy_blocks() -> None:
    contents = entry(0, b"a", b"xyxyxyxyxyxy") + RESTARTS
    compressed = varint(len(contents)) + bytes([(6 - 1) << 2]) + contents[:6] + bytes([(10 - 4) << 2 | 1, 2]) + bytes([7 << 2]) + RESTARTS
    assert parse(table((b"b", compressed, 1))) == [(b"a", b"xyxyxyxyxyxy")]


@pytest.mark.parametrize(
    ("stored", "plain"),
    [
        ("00", b""),
        ("03 08 616263", b"abc"),
        ("40 f0 3f" + "61" * 64, b"a" * 64),
        ("41 f4 4000" + "61" * 65, b"a" * 65),
        ("07 08 616263 01 03", b"abcabca"),
        ("06 08 616263 0a 0300", b"abcabc"),
        ("06 08 616263 0b 03000000", b"abcabc"),
        ("08 00 61 0d 01", b"a" * 8),
    ],
)
def test_snappy_elements(stored: str, plain: bytes) -> None:
    assert decompress(bytes.fromhex(stored)) == plain


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "80",
        "ffffffff0f",
        "03 08 6162",
        "04 08 616263",
        "02 08 616263",
        "04 00 61 01 00",
        "04 00 61 01 02",
        "04 00 61 01",
        "04 f0",
        "04 fc ffffffff 61",
    ],
)
def test_malformed_snappy(stored: str) -> None:
    with pytest.raises(BadSnappy):
        decompress(bytes.fromhex(stored))


@given(st.binary(max_size=60))
def test_snappy_raises_nothing_else(stored: bytes) -> None:
    try:
        plain = decompress(stored)
    except BadSnappy:
        return
    assert len(plain) <= 22 * len(stored)


def test_a_snappy_bomb_is_refused_before_it_expands() -> None:
    begin = time.perf_counter()
    with pytest.raises(BadSnappy):
        decompress(varint(1 << 31) + bytes([0, 0x61]) + bytes.fromhex("fe0100") * 1000)
    assert time.perf_counter() - begin < 5
