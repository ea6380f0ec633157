"""Moving byte ranges between open files: shared by the file system, copied by the kernel, or copied by hand.

Offsets go with each call, so threads can share descriptors and no file position is used or changed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, cast

from surgery.errors import CorruptFile
from surgery.files.faults import ends_early, name_of, os_fault, storage

if TYPE_CHECKING:
    from surgery.checksums import Data

BLOCK = 4096
"""File systems share blocks only from offsets that are multiples of this."""

_WORTH_SHARING = 1 << 16
_KERNEL_STEP = 1 << 23  # bytes per system call: the device can begin with them, and an interrupt is noticed between two
_WORTH_A_HOLE = 1 << 16
_WORTH_WRITING_BACK = 1 << 20
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
_HAND_STEP = 1 << 20
_FICLONERANGE = 0x4020940D  # linux/fs.h
_CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)


class CopyResult(NamedTuple):
    """How bytes were moved: blocks shared by the file system, copied inside the kernel, copied through the process."""

    shared_bytes: int = 0
    kernel_bytes: int = 0
    process_bytes: int = 0


def copy_range(source_fd: int, start: int, stop: int, target_fd: int, target_start: int) -> CopyResult:
    """Move bytes by the cheapest way the file systems allow; the source's file position and the target's stay as they are.

    Blocks are shared where both starts agree modulo BLOCK; what is left over at both ends is copied.

    Raises:
        CorruptFile: the source ends before `stop`.
        ApplyError: disk full and other faults, naming the target.
    """
    return copy_if_shared(source_fd, start, stop, target_fd, target_start) or _copy_in_kernel(source_fd, start, stop, target_fd, target_start)


def share_range(source_fd: int, start: int, stop: int, target_fd: int, target_start: int) -> bool:
    """Let both files have the same blocks, all or none; False where the file system cannot, or a bound is not a multiple of its block size."""
    if start == stop:
        return True
    try:
        fcntl.ioctl(target_fd, _FICLONERANGE, struct.pack("qQQQ", source_fd, start, stop - start, target_start))
    except OSError:
        return False  # whatever the reason: a copy of the same range works, or tells it better
    return True


def _copy_in_kernel(source_fd: int, start: int, stop: int, target_fd: int, target_start: int) -> CopyResult:
    """Copy what is not a hole of the source; the target, which is new, has a hole there already."""
    kernel = process = 0
    shift = target_start - start
    for low, high in _data_segments(source_fd, start, stop):
        done = _by_copy_file_range(source_fd, low, high, target_fd, shift)
        done = _by_sendfile(source_fd, done, high, target_fd, shift) if done < high else done
        kernel += done - low
        process += high - done
        for offset, chunk in _chunks(source_fd, done, high):
            write_at(target_fd, offset + shift, chunk)
    return CopyResult(0, kernel, process)


def _data_segments(descriptor: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that are not holes; the range itself where the file has none, or where nobody can tell."""
    status = _status(descriptor)
    if status.st_blocks * 512 >= status.st_size:
        yield start, stop
        return
    while start < stop:
        try:
            low = os.lseek(descriptor, start, os.SEEK_DATA)
            high = os.lseek(descriptor, low, os.SEEK_HOLE) if low < stop else stop
        except OSError as error:
            if error.errno == errno.ENXIO and stop <= status.st_size:  # nothing but a hole up to the end of the file
                return
            low, high = start, stop
        if low < stop:
            yield low, min(high, stop)
        start = max(high, start + 1)


def _status(descriptor: int) -> os.stat_result:
    with storage(descriptor, "look at"):
        return os.fstat(descriptor)


def _by_copy_file_range(source_fd: int, start: int, stop: int, target_fd: int, shift: int) -> int:
    """Returns the offset in the source up to which the kernel copied."""
    done = start
    with _kernel_may_refuse(target_fd):
        while done < stop:
            count = os.copy_file_range(source_fd, target_fd, min(stop - done, _KERNEL_STEP), done, done + shift)
            if not count:  # the end of the source, or a file system that only claims to know the call: reading tells
                break
            _start_writing_back(target_fd, done + shift, count)
            done += count
    return done


def _by_sendfile(source_fd: int, start: int, stop: int, target_fd: int, shift: int) -> int:
    """As `_by_copy_file_range`, also between file systems of different kinds."""
    done = start
    with _kernel_may_refuse(target_fd), _own_position(target_fd, start + shift) as target:
        while done < stop:
            count = os.sendfile(target, source_fd, done, min(stop - done, _KERNEL_STEP))
            if not count:
                break
            _start_writing_back(target_fd, done + shift, count)
            done += count
    return done


@contextmanager
def _kernel_may_refuse(target_fd: int) -> Iterator[None]:
    """Go on after a refusal that another way of copying does not meet; a fault of the target is told."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_COPY:
            raise os_fault(error, name_of(target_fd), "write") from error


@contextmanager
def _own_position(descriptor: int, offset: int) -> Iterator[int]:
    """The same file opened once more, since `sendfile` writes where the position is, and threads share that of a descriptor."""
    own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.lseek(own, offset, os.SEEK_SET)
        yield own
    finally:
        os.close(own)


def copy_if_shared(source_fd: int, start: int, stop: int, target_fd: int, target_start: int) -> CopyResult | None:
    """Move bytes only if the file system shares most of them; None, and nothing written, where it cannot."""
    shift = target_start - start
    low, high = shareable(start, stop, target_start)
    if low == high or not share_range(source_fd, low, high, target_fd, low + shift):
        return None
    before = _copy_in_kernel(source_fd, start, low, target_fd, target_start)
    after = _copy_in_kernel(source_fd, high, stop, target_fd, high + shift)
    return CopyResult(high - low, before.kernel_bytes + after.kernel_bytes, before.process_bytes + after.process_bytes)


def shareable(start: int, stop: int, target_start: int) -> tuple[int, int]:
    """The part of a range that a file system may share with a place in another file: whole blocks, or nothing where it is not worth it."""
    low = start + -start % BLOCK
    high = stop - stop % BLOCK
    return (low, high) if (target_start - start) % BLOCK == 0 and high - low >= _WORTH_SHARING else (start, start)


def copy_and_checksum(source_fd: int, start: int, stop: int, target_fd: int, target_start: int, kinds: Sequence[str]) -> tuple[int, ...]:
    """Copy through the process and return checksums of the bytes, one for each of `kinds` (`crc32c`, plain, or `crc32`).

    Raises as `copy_range` does.
    """
    extend = [_checksum(kind) for kind in kinds]
    values = [0] * len(extend)
    for offset, chunk in _chunks(source_fd, start, stop):
        values = [function(chunk, value) for function, value in zip(extend, values, strict=True)]
        write_sparsely(target_fd, target_start + offset - start, chunk)
    return tuple(values)


def checksum_range(descriptor: int, start: int, stop: int, kind: str, value: int = 0) -> int:
    """The checksum of bytes of an open file, given the `value` of what came before. Raises CorruptFile where it ends before `stop`."""
    extend = _checksum(kind)
    for _, chunk in _chunks(descriptor, start, stop):
        value = extend(chunk, value)
    return value


def same_bytes(first_fd: int, start: int, stop: int, second_fd: int, second_start: int) -> bool:
    """Whether a range of one file is in another; a file that ends too early differs."""
    with suppress(CorruptFile):
        for offset, chunk in _chunks(first_fd, start, stop):
            at = second_start + offset - start
            if b"".join(bytes(part) for _, part in _chunks(second_fd, at, at + len(chunk))) != bytes(chunk):
                return False
        return True
    return False


def _checksum(kind: str) -> Callable[[Data, int], int]:
    from surgery.checksums import EXTEND

    return EXTEND[kind]


def _chunks(descriptor: int, start: int, stop: int) -> Iterator[tuple[int, memoryview]]:
    """Offset and bytes of each step; the buffer is used again for the next one."""
    buffer = memoryview(bytearray(min(stop - start, _HAND_STEP)))
    offset = start
    while offset < stop:
        try:
            count = os.preadv(descriptor, [buffer[: stop - offset]], offset)
        except OSError as error:
            raise os_fault(error, name_of(descriptor), "read") from error
        if not count:
            raise ends_early(name_of(descriptor), start, stop, _status(descriptor).st_size)
        yield offset, buffer[:count]
        offset += count


def write_at(descriptor: int, start: int, data: bytes | memoryview) -> None:
    """Write all of `data` from absolute offset `start`. Raises ApplyError."""
    rest = memoryview(data).cast("B")
    with storage(descriptor, "write"):
        while rest:
            count = os.pwrite(descriptor, rest, start)
            _start_writing_back(descriptor, start, count)
            start, rest = start + count, rest[count:]


def write_sparsely(descriptor: int, start: int, data: memoryview) -> None:
    """Write to a range that has not been written yet: zeros are left as the hole that is there. Raises ApplyError."""
    if len(data) < _WORTH_A_HOLE or any(data[:64]) or data.tobytes() != bytes(len(data)):
        write_at(descriptor, start, data)


def clear_range(descriptor: int, start: int, stop: int) -> None:
    """Write zeros where a range is no hole. Raises ApplyError."""
    for low, high in _data_segments(descriptor, start, stop):
        for at in range(low, high, _HAND_STEP):
            write_at(descriptor, at, bytes(min(high - at, _HAND_STEP)))


def _start_writing_back(descriptor: int, start: int, nbytes: int) -> None:
    """Let the device begin with bytes that the commit will wait for; a hint, so a refusal does not matter."""
    if nbytes >= _WORTH_WRITING_BACK:
        _sync_file_range()(descriptor, start, nbytes, _SYNC_FILE_RANGE_WRITE)


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int]:
    """The C library's sync_file_range(2), which the os module lacks; a function that does nothing where there is none."""
    import ctypes

    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is None:
        return lambda descriptor, start, nbytes, flags: 0
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return cast("Callable[[int, int, int, int], int]", function)
