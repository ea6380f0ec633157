"""Whether a file is still the one it was: its fingerprint by path, and the digest of its bytes."""

from __future__ import annotations

import os
import stat

from surgery.files.faults import storage
from surgery.tensors import Fingerprint


def fingerprint(path: str) -> Fingerprint | None:
    """Of a regular file, also through a symbolic link; None where there is none. Raises ApplyError where that cannot be told."""
    with storage(path, "look at"):
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
    return fingerprint_of(status) if stat.S_ISREG(status.st_mode) else None


def fingerprint_of(status: os.stat_result) -> Fingerprint:
    """What `stat` told, as a fingerprint."""
    return Fingerprint(status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)


def sha256(path: str, beginning: bytes = b"") -> str:
    """The SHA-256 of a file's bytes, the first ones taken for `beginning`, as 64 hexadecimal digits. Raises ApplyError where it cannot be read."""
    import hashlib

    digest = hashlib.sha256(beginning)
    with storage(path, "read"), open(path, "rb") as file:
        file.seek(len(beginning))
        return hashlib.file_digest(file, lambda: digest).hexdigest()
