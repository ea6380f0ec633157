"""Storage primitives: what they read, move and refuse, and that each refusal names the file."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from surgery import files
from surgery.errors import ApplyError, CorruptFile, SourceError, StaleSource
from surgery.files import LocalDisk, Sources, places
from surgery.tensors import SourceFile

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def pattern(nbytes: int) -> bytes:
    return bytes(range(251)) * (nbytes // 251) + bytes(range(nbytes % 251))


def source(path: Path, data: bytes) -> SourceFile:
    path.write_bytes(data)
    return LocalDisk().open(str(path))[0]


def failing(code: int) -> Callable[..., int]:
    def fail(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


class TestLocalDisk:
    def test_reads_a_range(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"0123456789")
        file, read = LocalDisk().open(str(tmp_path / "a"), "fault {nbytes}")
        assert (file.nbytes, file.checksum_fault, read(3, 6), read(10, 10)) == (10, "fault {nbytes}", b"345", b"")

    @pytest.mark.parametrize(("start", "stop"), [(5, 11), (-1, 3), (4, 3), (0, 1 << 60)])
    def test_refuses_a_range_outside_the_file(self, tmp_path: Path, start: int, stop: int) -> None:
        (tmp_path / "a").write_bytes(b"0123456789")
        _, read = LocalDisk().open(str(tmp_path / "a"))
        with pytest.raises(CorruptFile, match=r"^Read less bytes than requested"):
            read(start, stop)

    def test_says_no_such_file_as_tensorflow_does(self) -> None:
        with pytest.raises(SourceError) as caught:
            LocalDisk().open("/nowhere/bert.ckpt.index")
        assert str(caught.value) == "/nowhere/bert.ckpt.index; No such file or directory"
        assert caught.value.code == "no-such-file"

    def test_refuses_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"is a folder, not a file$"):
            LocalDisk().open(str(tmp_path))

    def test_refuses_a_fifo_instead_of_waiting_for_its_writer(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(SourceError, match=r"pipe is a device, pipe or socket, not a file$"):
            LocalDisk().open(str(tmp_path / "pipe"))

    def test_says_permission_denied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a").write_bytes(b"")
        monkeypatch.setattr(os, "open", failing(errno.EACCES))
        with pytest.raises(SourceError, match=r"cannot read .*/a: permission denied$") as caught:
            LocalDisk().open(str(tmp_path / "a"))
        assert caught.value.code == "permission-denied"

    def test_notices_a_file_that_changed_between_two_reads(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"0123456789")
        _, read = LocalDisk().open(str(tmp_path / "a"))
        read(0, 4)
        (tmp_path / "a").write_bytes(b"0123456789abc")
        with pytest.raises(StaleSource, match=r"plan saw 10 bytes, now 13"):
            read(0, 4)

    def test_lists_names_sorted_and_nothing_for_what_is_no_folder(self, tmp_path: Path) -> None:
        for name in ("b", "a", "ä\n"):
            (tmp_path / name).write_bytes(b"")
        disk = LocalDisk()
        assert disk.names(str(tmp_path)) == ["a", "b", "ä\n"]
        assert disk.names(str(tmp_path / "a")) == disk.names(str(tmp_path / "none")) == disk.names("nul\0") == []

    def test_follows_symbolic_links(self, tmp_path: Path) -> None:
        (tmp_path / "blob").write_bytes(b"abc")
        (tmp_path / "link").symlink_to("blob")
        disk = LocalDisk()
        assert disk.is_file(str(tmp_path / "link"))
        assert not disk.is_folder(str(tmp_path / "link"))
        assert disk.open(str(tmp_path / "link"))[1](0, 3) == b"abc"


class TestSources:
    def test_reads_into_a_writable_buffer(self, tmp_path: Path) -> None:
        file = source(tmp_path / "a", b"0123456789")
        with Sources() as sources:
            buffer = sources.read(file, 2, 5)
        buffer[0:1] = b"x"
        assert bytes(buffer) == b"x34"

    def test_goes_on_after_a_short_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = source(tmp_path / "a", b"0123456789")
        whole = os.preadv
        monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: whole(fd, [buffers[0][:3]], offset))
        with Sources() as sources:
            assert bytes(sources.read(file, 1, 10)) == b"123456789"

    def test_refuses_a_range_outside_the_file_before_allocating(self, tmp_path: Path) -> None:
        file = source(tmp_path / "a", b"0123456789")
        with Sources() as sources, pytest.raises(CorruptFile) as caught:
            sources.read(file, 4, 1 << 62)
        assert caught.value.notes == (f"{tmp_path}/a, bytes 4 to 4,611,686,018,427,387,904; the file has 10",)

    def test_refuses_a_file_of_another_size(self, tmp_path: Path) -> None:
        file = source(tmp_path / "a", bytes(16_893))
        (tmp_path / "a").write_bytes(bytes(17_204))
        with Sources() as sources, pytest.raises(StaleSource) as caught:
            sources.read(file, 0, 1)
        assert str(caught.value) == (
            f"error[stale-source]: {tmp_path}/a changed after the plan was made\n"
            "  note: plan saw 16,893 bytes, now 17,204\n"
            "  help: run `surgery plan` again; the old plan was not applied"
        )

    def test_refuses_a_file_that_was_replaced_by_one_of_the_same_size(self, tmp_path: Path) -> None:
        file = source(tmp_path / "a", b"old")
        (tmp_path / "b").write_bytes(b"new")
        (tmp_path / "b").rename(tmp_path / "a")
        with Sources() as sources, pytest.raises(StaleSource, match=r"still 3 bytes, but written again or replaced"):
            sources.read(file, 0, 1)

    def test_notices_a_file_that_is_cut_while_it_is_open(self, tmp_path: Path) -> None:
        file = source(tmp_path / "a", b"0123456789")
        with Sources() as sources:
            sources.read(file, 0, 1)
            os.truncate(tmp_path / "a", 4)
            with pytest.raises(StaleSource, match=r"plan saw 10 bytes, now 4"):
                sources.read(file, 2, 8)

    def test_verify_unchanged_reports_all_files_that_changed(self, tmp_path: Path) -> None:
        used = [source(tmp_path / name, b"abc") for name in ("a", "b", "c", "d")]
        with Sources() as sources:
            for file in used[:3]:
                sources.read(file, 0, 1)
            sources.verify_unchanged()
            (tmp_path / "a").write_bytes(b"longer")
            (tmp_path / "c").unlink()
            (tmp_path / "d").unlink()
            with pytest.raises(StaleSource) as caught:
                sources.verify_unchanged()
        assert caught.value.title == f"{tmp_path}/a changed after the plan was made"
        assert [other.title for other in caught.value.others] == [f"{tmp_path}/c; No such file or directory"]

    def test_keeps_at_most_64_idle_files_open(self, tmp_path: Path) -> None:
        used = [source(tmp_path / str(n), b"%d" % n) for n in range(200)]
        before = len(os.listdir("/proc/self/fd"))
        with Sources() as sources:
            assert [bytes(sources.read(file, 0, file.nbytes)) for file in used] == [b"%d" % n for n in range(200)]
            assert len(os.listdir("/proc/self/fd")) - before == 64
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_descriptor_in_use_is_never_closed_for_another_file(self, tmp_path: Path) -> None:
        used = [source(tmp_path / str(n), b"%03d" % n) for n in range(200)]
        with Sources() as sources, sources.opened(used[7]) as descriptor:
            for file in used:
                sources.read(file, 0, 3)
            assert os.pread(descriptor, 3, 0) == b"007"

    def test_threads_read_their_own_ranges(self, tmp_path: Path) -> None:
        used = [source(tmp_path / str(n), pattern(5000 + n)) for n in range(100)]
        wrong: list[str] = []

        def work(seed: int) -> None:
            for step in range(400):
                file = used[(seed * 31 + step * 17) % 100]
                start = step * 7 % 4000
                if bytes(sources.read(file, start, start + 900)) != pattern(6000)[start : start + 900]:
                    wrong.append(file.path)

        with Sources() as sources:
            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []


class TestMovingRanges:
    @pytest.fixture
    def pair(self, tmp_path: Path) -> Iterator[tuple[int, int]]:
        (tmp_path / "source").write_bytes(pattern(3 * MIB))
        (tmp_path / "target").write_bytes(b"\xff" * (3 * MIB))
        descriptors = os.open(tmp_path / "source", os.O_RDONLY), os.open(tmp_path / "target", os.O_RDWR)
        yield descriptors
        for descriptor in descriptors:
            os.close(descriptor)

    RANGES = [(0, 3 * MIB, 0), (0, 0, 5), (17, 17, 0), (1, 2, 0), (100, 2 * MIB + 1, 4196), (5, 2 * MIB, 6), (4096, MIB, 8192), (4095, 4097, 8191)]

    @pytest.mark.parametrize(("start", "stop", "target_start"), RANGES)
    @pytest.mark.parametrize("refusal", [None, errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM])
    def test_copy_range_moves_these_bytes_and_no_others(
        self, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch, start: int, stop: int, target_start: int, refusal: int | None
    ) -> None:
        if refusal is not None:
            monkeypatch.setattr(os, "copy_file_range", failing(refusal))
        result = files.copy_range(pair[0], start, stop, pair[1], target_start)
        size = stop - start
        written = os.pread(pair[1], 3 * MIB, 0)
        assert written[target_start : target_start + size] == pattern(3 * MIB)[start:stop]
        assert written[:target_start].strip(b"\xff") == written[target_start + size :].strip(b"\xff") == b""
        assert sum(result) == size

    def test_copy_range_goes_on_after_short_counts(self, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        whole = os.copy_file_range
        monkeypatch.setattr(os, "copy_file_range", lambda a, b, count, i, j: whole(a, b, min(count, 70_000), i, j))
        files.copy_range(pair[0], 3, MIB, pair[1], 0)
        assert os.pread(pair[1], MIB - 3, 0) == pattern(MIB)[3:]

    def test_a_copy_call_that_claims_the_end_too_early_is_not_believed(self, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
        monkeypatch.setattr(os, "sendfile", lambda *_: 0)
        assert files.copy_range(pair[0], 0, 1000, pair[1], 0) == (0, 0, 1000)
        assert os.pread(pair[1], 1000, 0) == pattern(1000)

    def test_whole_blocks_are_shared_and_both_ends_copied(self, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[int, ...]] = []

        def share(source_fd: int, start: int, stop: int, target_fd: int, target_start: int) -> bool:
            asked.append((start, stop, target_start))
            os.pwrite(target_fd, os.pread(source_fd, stop - start, start), target_start)
            return True

        monkeypatch.setattr("surgery.files.ranges.share_range", share)
        result = files.copy_range(pair[0], 100, MIB + 50, pair[1], 4196)
        assert asked == [(4096, MIB, 8192)]
        assert (result.shared_bytes, result.kernel_bytes + result.process_bytes) == (1_044_480, 4046)
        assert os.pread(pair[1], MIB - 50, 4196) == pattern(3 * MIB)[100 : MIB + 50]

    def test_share_range_gives_the_same_bytes_or_says_that_it_cannot(self, pair: tuple[int, int]) -> None:
        shared = files.share_range(pair[0], 4096, MIB, pair[1], 8192)
        assert os.pread(pair[1], MIB - 4096, 8192) == (pattern(MIB)[4096:] if shared else b"\xff" * (MIB - 4096))

    def test_share_range_of_nothing_needs_no_file_system(self, pair: tuple[int, int]) -> None:
        assert files.share_range(pair[0], 5, 5, pair[1], 7)

    @pytest.mark.parametrize("move", [files.copy_range, lambda *ranges: files.copy_and_checksum(*ranges, ["crc32c"])])
    def test_a_source_that_ends_early_is_told_with_its_range(self, pair: tuple[int, int], tmp_path: Path, move: Callable[..., object]) -> None:
        with pytest.raises(CorruptFile) as caught:
            move(pair[0], 3 * MIB - 8, 3 * MIB + 8, pair[1], 0)
        assert caught.value.title == "Read less bytes than requested"
        assert caught.value.data["path"] == f"{tmp_path}/source"
        assert "the file has 3,145,728" in caught.value.notes[0]

    @pytest.mark.parametrize(("kind", "check"), [("crc32c", 0xE3069283), ("crc32", 0xCBF43926)])
    def test_copy_and_checksum_agrees_with_the_published_check_value(self, tmp_path: Path, kind: str, check: int) -> None:
        (tmp_path / "a").write_bytes(b"..123456789..")
        with open(tmp_path / "a", "rb") as a, open(tmp_path / "b", "w+b") as b:
            assert files.copy_and_checksum(a.fileno(), 2, 11, b.fileno(), 1, [kind]) == (check,)
            assert files.copy_and_checksum(a.fileno(), 2, 2, b.fileno(), 1, [kind]) == (0,)
        assert (tmp_path / "b").read_bytes() == b"\x00123456789"

    def test_copy_and_checksum_copies_more_than_one_buffer(self, pair: tuple[int, int]) -> None:
        import zlib

        data = pattern(3 * MIB)[9 : 2 * MIB + 77]
        assert files.copy_and_checksum(pair[0], 9, 2 * MIB + 77, pair[1], 123, ["crc32"]) == (zlib.crc32(data),)
        assert os.pread(pair[1], len(data), 123) == data

    def test_write_at_goes_on_after_a_short_write(self, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        whole = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole(fd, data[:3], offset))
        files.write_at(pair[1], 5, b"0123456789")
        assert os.pread(pair[1], 12, 4) == b"\xff0123456789\xff"


class TestFaults:
    @pytest.mark.parametrize(
        ("code", "name"),
        [
            (errno.ENOSPC, "disk-full"),
            (errno.EDQUOT, "disk-full"),
            (errno.EIO, "io-error"),
            (errno.EROFS, "read-only"),
            (errno.EACCES, "permission-denied"),
            (errno.EPERM, "permission-denied"),
            (errno.EFBIG, "file-too-large"),
            (errno.ENAMETOOLONG, "name-too-long"),
            (errno.EMFILE, "storage"),
        ],
    )
    def test_each_refusal_has_its_code(self, code: int, name: str) -> None:
        assert files.os_fault(OSError(code, os.strerror(code)), "out.npz", "write").code == name

    def test_the_text_names_the_file_and_a_way_out(self) -> None:
        assert str(files.os_fault(OSError(errno.ENOSPC, "No space left on device"), "out/model.safetensors", "write")) == (
            "error[disk-full]: cannot write out/model.safetensors: no space left on device\n  help: free space on that file system, or save elsewhere"
        )

    @pytest.mark.parametrize("call", ["copy_file_range", "sendfile", "pwrite"])
    def test_a_full_disk_while_copying_names_the_target(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        (tmp_path / "a").write_bytes(b"abc")
        monkeypatch.setattr(os, "copy_file_range", failing(errno.EXDEV))
        if call == "pwrite":
            monkeypatch.setattr(os, "sendfile", failing(errno.EINVAL))
        monkeypatch.setattr(os, call, failing(errno.ENOSPC))
        with open(tmp_path / "a", "rb") as a, open(tmp_path / "b", "w+b") as b, pytest.raises(ApplyError) as caught:
            files.copy_range(a.fileno(), 0, 3, b.fileno(), 0)
        assert caught.value.title == f"cannot write {tmp_path}/b: no space left on device"

    def test_a_disk_that_is_really_full_is_told_by_every_way_of_copying(self, tmp_path: Path, small_disk: Path) -> None:
        (tmp_path / "a").write_bytes(pattern(2 * MIB))
        for move in (files.copy_range, lambda *ranges: files.copy_and_checksum(*ranges, ["crc32"])):
            with open(tmp_path / "a", "rb") as a, open(small_disk / "b", "w+b") as b, pytest.raises(ApplyError) as caught:
                move(a.fileno(), 0, 2 * MIB, b.fileno(), 0)
            assert caught.value.code == "disk-full"

    def test_free_bytes_is_what_the_file_system_has_left(self, small_disk: Path) -> None:
        assert files.free_bytes(str(small_disk)) == MIB
        (small_disk / "a").write_bytes(bytes(MIB // 2))
        assert files.free_bytes(str(small_disk)) == MIB // 2


class TestPrimitives:
    @pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
    def test_new_files_have_the_mode_the_umask_wants(self, tmp_path: Path, umask: int, mode: int) -> None:
        before = os.umask(umask)
        try:
            files.create_file(str(tmp_path / "a"), 5)
            files.write_file(str(tmp_path / "b"), b"x")
        finally:
            os.umask(before)
        assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [mode, mode]

    def test_a_created_file_has_its_size_and_takes_no_space(self, tmp_path: Path) -> None:
        files.create_file(str(tmp_path / "a"), 1 << 30)
        status = (tmp_path / "a").stat()
        assert (status.st_size, status.st_blocks) == (1 << 30, 0)

    def test_a_file_is_never_created_over_another_or_through_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("elsewhere")
        with pytest.raises(ApplyError, match=r"cannot create .*/link: file exists$"):
            files.create_file(str(tmp_path / "link"))
        assert not (tmp_path / "elsewhere").exists()

    def test_read_file_gives_none_for_a_missing_file_and_refuses_a_large_one(self, tmp_path: Path) -> None:
        files.write_file(str(tmp_path / "a"), b"12345", durable=True)
        assert files.read_file(str(tmp_path / "a")) == b"12345"
        assert files.read_file(str(tmp_path / "none")) is None
        with pytest.raises(ApplyError, match=r"is not a small file"):
            files.read_file(str(tmp_path / "a"), most_bytes=4)

    def test_make_folder_tells_which_levels_were_not_there(self, tmp_path: Path) -> None:
        assert files.make_folder(f"{tmp_path}/a/b/") == [f"{tmp_path}/a", f"{tmp_path}/a/b/"]
        assert files.make_folder(f"{tmp_path}/a/b") == []

    def test_make_folder_refuses_a_file_in_its_way(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"")
        with pytest.raises(ApplyError, match=r"cannot make folder .*/a: file exists$"):
            files.make_folder(str(tmp_path / "a" / "b"))

    @pytest.mark.parametrize("times", [1, 2])
    def test_make_folder_makes_a_parent_that_went_meanwhile_once_more(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        mkdir = os.mkdir
        left = [times]

        def mkdir_after_a_rival(path: str) -> None:
            if path.endswith("/b") and left[0]:
                left[0] -= 1
                os.rmdir(tmp_path / "a")
            mkdir(path)

        monkeypatch.setattr(os, "mkdir", mkdir_after_a_rival)
        if times == 1:
            assert files.make_folder(f"{tmp_path}/a/b") == [f"{tmp_path}/a", f"{tmp_path}/a/b"]
        else:
            with pytest.raises(ApplyError, match=r"cannot make folder .*/a/b: no such file or directory$"):
                files.make_folder(f"{tmp_path}/a/b")
            assert os.listdir(tmp_path) == []

    def test_make_folder_refuses_where_nothing_can_be_made(self) -> None:
        with pytest.raises(ApplyError, match=r"cannot make folder /proc/\.x\.npz\.surgery: no such file or directory$"):
            files.make_folder("/proc/.x.npz.surgery")

    def test_remove_folder_leaves_one_that_is_not_empty(self, tmp_path: Path) -> None:
        files.make_folder(str(tmp_path / "a" / "b"))
        files.remove_folder(str(tmp_path / "a"))
        assert (tmp_path / "a" / "b").is_dir()
        files.remove_folder(str(tmp_path / "a" / "b"))
        assert not (tmp_path / "a" / "b").exists()

    def test_remove_tree_does_not_follow_links(self, tmp_path: Path) -> None:
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "file").write_bytes(b"")
        (tmp_path / "tree" / "deep").mkdir(parents=True)
        (tmp_path / "tree" / "link").symlink_to(tmp_path / "kept")
        files.remove_tree(str(tmp_path / "tree"))
        files.remove_tree(str(tmp_path / "tree"))
        assert os.listdir(tmp_path) == ["kept"]
        assert os.listdir(tmp_path / "kept") == ["file"]

    def test_unlink_and_rename(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"a")
        (tmp_path / "b").write_bytes(b"b")
        files.rename(str(tmp_path / "a"), str(tmp_path / "b"))
        assert (tmp_path / "b").read_bytes() == b"a"
        files.unlink(str(tmp_path / "b"))
        files.unlink(str(tmp_path / "b"))
        assert os.listdir(tmp_path) == []
        with pytest.raises(ApplyError, match=r"cannot write .*/b: no such file or directory$"):
            files.rename(str(tmp_path / "a"), str(tmp_path / "b"))

    def test_a_lock_is_exclusive_and_ends_when_it_is_given_back(self, tmp_path: Path) -> None:
        first = files.lock_folder(str(tmp_path))
        assert first is not None
        assert files.lock_folder(str(tmp_path)) is None
        files.unlock(first)
        second = files.lock_folder(str(tmp_path))
        assert second is not None
        files.unlock(second)

    def test_a_lock_on_a_folder_that_is_gone_or_linked_is_not_given(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path)
        assert files.lock_folder(str(tmp_path / "none")) is None
        with pytest.raises(ApplyError, match=r"cannot lock .*/link: "):
            files.lock_folder(str(tmp_path / "link"))

    def test_a_lock_on_a_folder_that_was_exchanged_meanwhile_is_not_given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a").mkdir()
        opened = os.open

        def open_then_exchange(path: str, flags: int) -> int:
            descriptor = opened(path, flags)
            (tmp_path / "a").rename(tmp_path / "b")
            (tmp_path / "a").mkdir()
            return descriptor

        monkeypatch.setattr(os, "open", open_then_exchange)
        assert files.lock_folder(str(tmp_path / "a")) is None

    def test_own_folders_leaves_out_files_links_and_other_names(self, tmp_path: Path) -> None:
        for name in (".a.surgery", ".ü\n.surgery", "a.surgery", ".a"):
            (tmp_path / name).mkdir()
        (tmp_path / ".file.surgery").write_bytes(b"")
        (tmp_path / ".link.surgery").symlink_to(".a")
        assert files.own_folders(str(tmp_path), ".", ".surgery") == [f"{tmp_path}/.a.surgery", f"{tmp_path}/.ü\n.surgery"]
        assert files.own_folders(str(tmp_path / "none"), ".", ".surgery") == []

    def test_in_a_sticky_folder_only_own_folders_count(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / ".a.surgery").mkdir()
        monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
        assert files.own_folders(str(tmp_path), ".", ".surgery") == [f"{tmp_path}/.a.surgery"]
        tmp_path.chmod(0o1777)
        assert files.own_folders(str(tmp_path), ".", ".surgery") == []

    def test_fsync_folder_passes_over_file_systems_that_cannot(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
        files.fsync_folder(str(tmp_path))
        monkeypatch.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(ApplyError, match=r"cannot flush .*: input/output error"):
            files.fsync_folder(str(tmp_path))

    def test_the_identity_of_a_folder_survives_its_renaming_and_no_copying(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        first = files.identity(str(tmp_path / "a"))
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").mkdir()
        assert first == files.identity(str(tmp_path / "b")) != files.identity(str(tmp_path / "a"))


class TestPlaces:
    def test_nothing_stands_in_the_way_of_folders_that_are_there_or_can_be_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a").mkdir()
        (tmp_path / "link").symlink_to("a")
        assert [files.obstacle(folder) for folder in ("", ".", "a", "a/", "a/b/c", "none/b", "link/b", "..", "/", "/none/b")] == [""] * 10

    def test_an_obstacle_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "file").write_bytes(b"")
        (tmp_path / "dangling").symlink_to("none")
        (tmp_path / "loop").symlink_to("loop")
        long = "x" * 256
        assert {folder: files.obstacle(folder) for folder in ("file", "file/b/c", "dangling", "dangling/b", "loop/b", long)} == {
            "file": "file is a file",
            "file/b/c": "file is a file",
            "dangling": "dangling is a link to none, which is not there",
            "dangling/b": "dangling is a link to none, which is not there",
            "loop/b": "loop/b: too many levels of symbolic links",
            long: f"{long}: file name too long",
        }

    def test_folders_in_a_folder_are_told_without_links(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").write_bytes(b"")
        (tmp_path / "c").symlink_to("a")
        assert files.folders_in(str(tmp_path)) == {"a"}
        assert files.folders_in(str(tmp_path / "none")) == frozenset()

    def test_a_folder_that_is_not_there_will_be_on_the_device_of_the_nearest_one(self, tmp_path: Path, small_disk: Path) -> None:
        assert files.device_of(str(small_disk / "a" / "b")) == small_disk.stat().st_dev
        assert files.device_of(str(tmp_path / "a" / "b")) == tmp_path.stat().st_dev != small_disk.stat().st_dev

    def test_memory_file_systems_share_no_blocks(self, small_disk: Path) -> None:
        assert not files.shares_blocks(str(small_disk / "a"))

    @pytest.mark.parametrize(("magic", "shares"), [(0x58465342, True), (0x9123683E, True), (0x1021994, False), (0xEF53, False), (0, False)])
    def test_xfs_and_btrfs_share_blocks(self, monkeypatch: pytest.MonkeyPatch, magic: int, shares: bool) -> None:
        monkeypatch.setattr("surgery.files.places._magic", lambda path: magic)
        assert files.shares_blocks("/") is shares

    def test_the_kernel_tells_the_type_of_a_file_system(self) -> None:
        assert places._magic("/proc") == 0x9FA0  # linux/magic.h: PROC_SUPER_MAGIC
        assert places._magic("/none") == 0
