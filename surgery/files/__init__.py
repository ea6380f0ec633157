"""The only part of the package that touches storage: reading sources, moving byte ranges, and the primitives of the commit.

Serves probe (`LocalDisk`), apply (`Sources`, the copy functions) and `commit`. Knows neither formats nor plans; every
`OSError` leaves it as a `SurgeryError` that names the file. Linux only.
"""

from surgery.files.descriptors import Descriptors
from surgery.files.faults import os_fault
from surgery.files.folders import (
    allocated_bytes,
    create_file,
    exists,
    fsync_file,
    fsync_folder,
    identity,
    is_empty,
    is_folder,
    is_regular,
    lock_folder,
    make_folder,
    open_for_writing,
    own_folders,
    read_file,
    remove_folder,
    remove_tree,
    rename,
    unlink,
    unlock,
    write_file,
)
from surgery.files.memory import peak_rss_bytes
from surgery.files.places import Place, device_of, folders_in, free_bytes, obstacle, shares_blocks
from surgery.files.ranges import BLOCK, CopyResult, copy_and_checksum, copy_if_shared, copy_range, share_range, write_at
from surgery.files.sources import LocalDisk, Sources

__all__ = [
    "BLOCK",
    "CopyResult",
    "Descriptors",
    "LocalDisk",
    "Place",
    "Sources",
    "allocated_bytes",
    "copy_and_checksum",
    "copy_if_shared",
    "copy_range",
    "create_file",
    "device_of",
    "exists",
    "folders_in",
    "free_bytes",
    "fsync_file",
    "fsync_folder",
    "identity",
    "is_empty",
    "is_folder",
    "is_regular",
    "lock_folder",
    "make_folder",
    "obstacle",
    "open_for_writing",
    "os_fault",
    "own_folders",
    "peak_rss_bytes",
    "read_file",
    "remove_folder",
    "remove_tree",
    "rename",
    "share_range",
    "shares_blocks",
    "unlink",
    "unlock",
    "write_at",
    "write_file",
]
