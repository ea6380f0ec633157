"""What the operating system refuses, as errors of this project that name the file.

Serves the other modules of this package; those outside use `os_fault` alone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from surgery.errors import ApplyError, CorruptFile, SourceError

_FAULTS = {
    errno.ENOSPC: ("disk-full", "free space on that file system, or save elsewhere"),
    errno.EDQUOT: ("disk-full", "free some of your quota, or save elsewhere"),
    errno.EIO: ("io-error", "the device or network failed; look at the system log"),
    errno.EROFS: ("read-only", "save to a file system that can be written"),
    errno.EACCES: ("permission-denied", "check owner and mode of the folder, or save elsewhere"),
    errno.EPERM: ("permission-denied", "check owner and mode of the folder, or save elsewhere"),
    errno.EFBIG: ("file-too-large", "save with `shard_size`, or raise the limit (`ulimit -f`)"),
    errno.ENAMETOOLONG: ("name-too-long", "save under a shorter name"),
}


def os_fault(error: OSError, path: str, doing: str) -> ApplyError:
    """The one translation of an operating system's refusal; `doing` is a verb (`write`). Unknown causes have code `storage`."""
    code, help = _FAULTS.get(error.errno or 0, ("storage", ""))
    return ApplyError(f"cannot {doing} {path}: {_reason(error)}", code=code, help=help, data={"path": path})


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


@contextmanager
def storage(path: str | int, doing: str) -> Iterator[None]:
    """Turn an OSError inside the `with` into `os_fault`; a descriptor in place of a path is named by the file behind it."""
    try:
        yield
    except OSError as error:
        raise os_fault(error, path if isinstance(path, str) else name_of(path), doing) from error


def name_of(descriptor: int) -> str:
    """The path behind a descriptor, for messages."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return f"file descriptor {descriptor}"


def source_fault(error: OSError, path: str) -> SourceError:
    """Why a source cannot be read; a file that is not there has TensorFlow's sentence."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return SourceError(f"{path}; No such file or directory", code="no-such-file", sentence=True, data={"path": path})
    code = "permission-denied" if error.errno in (errno.EACCES, errno.EPERM) else "unreadable"
    return SourceError(f"cannot read {path}: {_reason(error)}", code=code, data={"path": path})


def ends_early(path: str, start: int, stop: int, nbytes: int) -> CorruptFile:
    """The fault of a range that the file, now `nbytes` long, does not have; the first line is TensorFlow's."""
    return CorruptFile(
        "Read less bytes than requested",
        sentence=True,
        notes=[f"{path}, bytes {start:,} to {stop:,}; the file has {nbytes:,}"],
        help="the source is cut off or still being written; copy it again",
        data={"path": path, "start": start, "stop": stop, "nbytes": nbytes},
    )
