"""Moving byte ranges between open files: shared by the file system, copied by the kernel, or copied by hand.

Offsets go with each call, so threads can share descriptors and no file position is used or changed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, cast

from surgery.files.faults import ends_early, name_of, os_fault, storage

if TYPE_CHECKING:
    from surgery.checksums import Data

BLOCK = 4096
"""File systems share blocks only from offsets that are multiples of this."""

_WORTH_SHARING = 1 << 16
_KERNEL_STEP = 1 << 23  # bytes per system call: the device can begin with them, and an interrupt is noticed between two
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
    done = start
    while done < stop:
        try:
            count = os.copy_file_range(source_fd, target_fd, min(stop - done, _KERNEL_STEP), done, target_start + done - start)
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise os_fault(error, name_of(target_fd), "write") from error
            break
        if not count:  # the end of the source, or a file system that only claims to know the call: reading tells
            break
        _start_writing_back(target_fd, target_start + done - start, count)
        done += count
    for offset, chunk in _chunks(source_fd, done, stop):
        write_at(target_fd, target_start + offset - start, chunk)
    return CopyResult(0, done - start, stop - done)


def copy_if_shared(source_fd: int, start: int, stop: int, target_fd: int, target_start: int) -> CopyResult | None:
    """Move bytes only if the file system shares most of them; None, and nothing written, where it cannot."""
    head = min(-start % BLOCK, stop - start)
    middle, tail = start + head, stop - (stop - start - head) % BLOCK
    to_target = target_start - start
    if to_target % BLOCK or tail - middle < _WORTH_SHARING or not share_range(source_fd, middle, tail, target_fd, middle + to_target):
        return None
    before = _copy_in_kernel(source_fd, start, middle, target_fd, target_start)
    after = _copy_in_kernel(source_fd, tail, stop, target_fd, tail + to_target)
    return CopyResult(tail - middle, before.kernel_bytes + after.kernel_bytes, before.process_bytes + after.process_bytes)


def copy_and_checksum(source_fd: int, start: int, stop: int, target_fd: int, target_start: int, kinds: Sequence[str]) -> tuple[int, ...]:
    """Copy through the process and return checksums of the bytes, one for each of `kinds` (`crc32c`, plain, or `crc32`).

    Raises as `copy_range` does.
    """
    extend = [_checksum(kind) for kind in kinds]
    values = [0] * len(extend)
    for offset, chunk in _chunks(source_fd, start, stop):
        values = [function(chunk, value) for function, value in zip(extend, values, strict=True)]
        write_at(target_fd, target_start + offset - start, chunk)
    return tuple(values)


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
            raise ends_early(name_of(descriptor), start, stop, os.fstat(descriptor).st_size)
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
