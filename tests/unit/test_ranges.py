"""Moving ranges, further: holes that stay holes, the second way of the kernel, and looking at bytes without moving them."""

from __future__ import annotations

import errno
import os
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery import files
from surgery.errors import ApplyError, CorruptFile

KIB, MIB = 1 << 10, 1 << 20
NOISE = random.Random(1).randbytes(2 * MIB)


class Pair(NamedTuple):
    """Two open files: 8 MiB with 1 MiB of noise at its beginning, at 4 MiB and at its end, and as much of a hole."""

    source: int
    target: int

    @property
    def taken(self) -> int:
        """Bytes that the target takes on the device."""
        os.fsync(self.target)
        return os.fstat(self.target).st_blocks * 512

    def written(self, nbytes: int, start: int = 0) -> bytes:
        return os.pread(self.target, nbytes, start)


SPARSE = b"".join([NOISE[:MIB], bytes(3 * MIB), NOISE[:MIB], bytes(2 * MIB), NOISE[MIB:]])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with open(tmp_path / "source", "w+b") as source, open(tmp_path / "target", "w+b") as target:
        for at, data in ((0, NOISE[:MIB]), (4 * MIB, NOISE[:MIB]), (7 * MIB, NOISE[MIB:])):
            os.pwrite(source.fileno(), data, at)
        os.fsync(source.fileno())
        if os.fstat(source.fileno()).st_blocks * 512 > 4 * MIB:
            pytest.skip("needs a file system with holes")
        os.ftruncate(target.fileno(), 8 * MIB)
        yield Pair(source.fileno(), target.fileno())


def refuse(*_: object) -> int:
    raise OSError(errno.EXDEV, "another device")


WAYS = {"copy_file_range": (), "sendfile": ("copy_file_range",), "pread and pwrite": ("copy_file_range", "sendfile")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("start", "stop", "target_start"), [(0, 8 * MIB, 0), (5, 8 * MIB - 3, 0), (100, 7 * MIB, 64 * KIB), (2 * MIB, 3 * MIB, 0)])
def test_holes_stay_holes(pair: Pair, monkeypatch: pytest.MonkeyPatch, way: str, start: int, stop: int, target_start: int) -> None:
    for call in WAYS[way]:
        monkeypatch.setattr(os, call, refuse)
    moved = files.copy_range(pair.source, start, stop, pair.target, target_start)
    assert pair.written(stop - start, target_start) == SPARSE[start:stop]
    assert pair.taken <= 3 * MIB + 64 * KIB
    assert sum(moved) <= 3 * MIB
    assert (moved.process_bytes == 0) == (way != "pread and pwrite" or start == 2 * MIB)


def test_a_range_within_a_hole_moves_nothing(pair: Pair) -> None:
    assert files.copy_range(pair.source, 2 * MIB, 3 * MIB, pair.target, 0) == (0, 0, 0)
    assert pair.taken == 0


def test_a_hole_at_the_end_of_a_file_is_one_too(pair: Pair) -> None:
    os.ftruncate(pair.source, 20 * MIB)
    files.copy_range(pair.source, 7 * MIB, 20 * MIB, pair.target, 0)
    assert pair.written(13 * MIB) == NOISE[MIB:].ljust(8 * MIB, b"\0")[: 13 * MIB]


def test_a_hole_beyond_the_end_is_no_hole(pair: Pair) -> None:
    os.ftruncate(pair.source, 9 * MIB)
    with pytest.raises(CorruptFile, match="Read less bytes than requested"):
        files.copy_range(pair.source, 8 * MIB, 10 * MIB, pair.target, 0)


def test_sendfile_leaves_the_position_of_a_shared_descriptor_alone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "copy_file_range", refuse)
    os.lseek(pair.target, 123, os.SEEK_SET)
    files.copy_range(pair.source, 0, MIB, pair.target, 77)
    assert os.lseek(pair.target, 0, os.SEEK_CUR) == 123
    assert pair.written(MIB, 77) == NOISE[:MIB]


def test_what_is_copied_with_a_checksum_keeps_its_holes(pair: Pair) -> None:
    assert files.copy_and_checksum(pair.source, 0, 8 * MIB, pair.target, 0, ["crc32"]) == (zlib.crc32(SPARSE),)
    assert pair.written(8 * MIB) == SPARSE
    assert pair.taken <= 3 * MIB + 64 * KIB


@pytest.mark.parametrize(
    ("data", "takes_space"),
    [
        (bytes(MIB), False),
        (bytes(KIB), True),  # not worth looking at
        (b"\1" + bytes(MIB), True),
        (bytes(MIB) + b"\1", True),
        (b"", False),
    ],
)
def test_zeros_are_written_only_where_they_are_few(pair: Pair, data: bytes, takes_space: bool) -> None:
    files.write_sparsely(pair.target, 4096, memoryview(data))
    assert pair.written(len(data), 4096) == data
    assert (pair.taken > 0) == takes_space


@pytest.mark.parametrize(("kind", "check"), [("crc32c", 0xE3069283), ("crc32", 0xCBF43926)])
def test_the_checksum_of_a_range_is_the_published_check_value(tmp_path: Path, kind: str, check: int) -> None:
    (tmp_path / "a").write_bytes(b"..123456789..")
    with open(tmp_path / "a", "rb") as file:
        assert files.checksum_range(file.fileno(), 2, 11, kind) == check
        so_far = files.checksum_range(file.fileno(), 2, 6, kind)
        assert files.checksum_range(file.fileno(), 6, 11, kind, so_far) == check
        with pytest.raises(CorruptFile, match="Read less bytes than requested"):
            files.checksum_range(file.fileno(), 2, 14, kind)


@pytest.mark.parametrize(
    ("start", "stop", "other", "same"),
    [
        (0, MIB, 4 * MIB, True),
        (0, MIB, 4 * MIB - 1, False),
        (MIB, 2 * MIB, 2 * MIB, True),
        (5, 5, 0, True),
        (MIB - 1, MIB, 7 * MIB, False),
        (0, 2 * MIB, 7 * MIB, False),  # the other ends first
        (7 * MIB, 9 * MIB, 0, False),  # this one does
    ],
)
def test_two_ranges_are_compared_byte_by_byte(pair: Pair, start: int, stop: int, other: int, same: bool) -> None:
    assert files.same_bytes(pair.source, start, stop, pair.source, other) is same


def test_the_last_byte_of_a_long_range_counts(pair: Pair) -> None:
    files.copy_range(pair.source, 0, 8 * MIB, pair.target, 0)
    assert files.same_bytes(pair.source, 0, 8 * MIB, pair.target, 0)
    os.pwrite(pair.target, bytes([SPARSE[-1] ^ 1]), 8 * MIB - 1)
    assert not files.same_bytes(pair.source, 0, 8 * MIB, pair.target, 0)


@given(start=st.integers(0, MIB), nbytes=st.integers(0, MIB), target_start=st.integers(0, MIB))
def test_what_can_be_shared_are_whole_blocks_at_the_same_place_in_their_block(start: int, nbytes: int, target_start: int) -> None:
    low, high = files.shareable(start, start + nbytes, target_start)
    assert start <= low <= high <= start + nbytes
    if low < high:
        assert low % 4096 == high % 4096 == (low + target_start - start) % 4096 == 0
        assert high - low > nbytes - 2 * 4096


def test_few_blocks_are_not_worth_sharing() -> None:
    assert files.shareable(0, 60 * KIB, 0) == (0, 0)
    assert files.shareable(100, 100 + 68 * KIB, 4196) == (4096, 68 * KIB)
    assert files.shareable(0, MIB, 8) == (0, 0)


class TestWriteBeginning:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "a").write_bytes(b"0123456789")
        return tmp_path / "a"

    def test_the_rest_and_the_inode_stay(self, file: Path) -> None:
        inode = file.stat().st_ino
        files.write_beginning(str(file), b"abc", inode, 10, 1_000_000_000)
        assert file.read_bytes() == b"abc3456789"
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == (inode, 1_000_000_000)

    @pytest.mark.parametrize(("inode", "nbytes", "data"), [(1, 0, b"abc"), (0, 1, b"abc"), (0, 0, b"longer than the file")])
    def test_another_file_or_one_of_another_size_is_left_alone(self, file: Path, inode: int, nbytes: int, data: bytes) -> None:
        before = file.stat().st_mtime_ns
        files.write_beginning(str(file), data, file.stat().st_ino + inode, 10 + nbytes, 5)
        assert (file.read_bytes(), file.stat().st_mtime_ns) == (b"0123456789", before)

    def test_a_file_that_is_gone_is_passed_over_and_a_link_refused(self, file: Path, tmp_path: Path) -> None:
        files.write_beginning(str(tmp_path / "none"), b"abc", 1, 1, 5)
        (tmp_path / "link").symlink_to("a")
        with pytest.raises(ApplyError):
            files.write_beginning(str(tmp_path / "link"), b"abc", file.stat().st_ino, 10, 5)
        assert file.read_bytes() == b"0123456789"


def test_the_holes_of_a_file_are_counted(pair: Pair, tmp_path: Path) -> None:
    assert 5 * MIB - 64 * KIB <= files.hole_bytes(str(tmp_path / "source")) <= 5 * MIB
    (tmp_path / "full").write_bytes(NOISE)
    assert files.hole_bytes(str(tmp_path / "full")) == 0


def test_links_of_either_kind_are_told(tmp_path: Path) -> None:
    for name in ("alone", "first", "pointed-at"):
        (tmp_path / name).write_bytes(b"")
    os.link(tmp_path / "first", tmp_path / "second")
    (tmp_path / "link").symlink_to("pointed-at")
    assert files.linked_in(str(tmp_path)) == {"first", "second", "link"}
    assert files.linked_in(str(tmp_path / "nowhere")) == frozenset()
