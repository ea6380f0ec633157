"""Folders that will be written to, as they are before a run: what is in them, what they lie on, and what stands in their way."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from surgery.files.faults import storage

_SHARING = (0x9123683E, 0x58465342)  # linux/magic.h: BTRFS_SUPER_MAGIC, XFS_SUPER_MAGIC
_MOST_STATFS_BYTES = 256  # more than the structure has on any machine


class Place(NamedTuple):
    """A folder, which need not be there yet.

    `folders` are those of its `names` that are folders themselves, `manifests` those that are of earlier runs, `linked` those
    that are symbolic links or have several names (looked at only where files are edited); `texts` are small files in it that a save goes on from.
    `free` bytes (None: not told) and `device` are those of the file system that it is or will be on, which `shares` blocks
    between files or does not. `leftover` bytes are freed when the next writer comes, or the next one that stages in the folder of that
    name in it. `obstacle` tells why it cannot be made.
    """

    names: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()
    manifests: frozenset[str] = frozenset()
    linked: frozenset[str] = frozenset()
    texts: dict[str, bytes] = {}
    device: int = 0
    free: int | None = None
    leftover: dict[str, int] = {}
    shares: bool = False
    obstacle: str = ""


def folders_in(folder: str) -> frozenset[str]:
    """The names in a folder that are folders, symbolic links left out; none where it cannot be listed."""
    try:
        with os.scandir(folder or ".") as entries:
            return frozenset(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except (OSError, ValueError):
        return frozenset()


def linked_in(folder: str) -> frozenset[str]:
    """The names in a folder that are symbolic links, or not the only name of their file; none where it cannot be listed."""
    try:
        with os.scandir(folder or ".") as entries:
            return frozenset(entry.name for entry in entries if entry.is_symlink() or entry.stat(follow_symlinks=False).st_nlink > 1)
    except (OSError, ValueError):
        return frozenset()


def obstacle(folder: str) -> str:
    """What keeps a folder from being there or from being made, as a sentence that names it; empty where nothing is seen, or not to be seen."""
    path = folder or "."
    while path:
        try:
            return "" if stat.S_ISDIR(os.stat(path).st_mode) else f"{path} is a file"
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(path):
                return f"{path} is a link to {os.readlink(path)}, which is not there"
            path = os.path.dirname(path.rstrip("/"))
        except OSError as error:
            return f"{path}: {os.strerror(error.errno).lower()}" if error.errno in (errno.ELOOP, errno.ENAMETOOLONG) else ""
    return ""


def free_bytes(path: str) -> int | None:
    """Bytes this user may still write to the file system that `path` is or will be on; None where it does not tell."""
    place = _nearest(path)
    with storage(place, "look at"):
        status = os.statvfs(place)
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def hole_bytes(path: str) -> int:
    """Bytes of a file that take no space on its device. Raises ApplyError where that cannot be told."""
    with storage(path, "look at"):
        status = os.stat(path)
    return max(0, status.st_size - status.st_blocks * 512)


def device_of(path: str) -> int:
    """The number of the file system that `path` is or will be on, as fingerprints have it."""
    place = _nearest(path)
    with storage(place, "look at"):
        return os.stat(place).st_dev


def shares_blocks(path: str) -> bool:
    """Whether the file system that `path` is or will be on is of a kind that shares blocks between files. No promise: some are made without."""
    return _magic(_nearest(path)) in _SHARING


def _nearest(path: str) -> str:
    place = os.path.abspath(path)
    while not os.path.isdir(place) and place != "/":
        place = os.path.dirname(place)
    return place


def _magic(path: str) -> int:
    """What statfs(2) calls the type of a file system: its first field, a C long. The os module has no such call."""
    import ctypes

    status = ctypes.create_string_buffer(_MOST_STATFS_BYTES)
    failed = ctypes.CDLL(None).statfs(os.fsencode(path), status)
    return 0 if failed else ctypes.c_ulong.from_buffer(status).value
