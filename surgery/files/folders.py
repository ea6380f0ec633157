"""The primitives of the commit: whole files, names in folders, and what makes them durable.

Each function is one change of storage, so that the protocol in `commit` reads as a list of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress

from surgery.errors import ApplyError
from surgery.files.faults import os_fault, storage
from surgery.files.ranges import write_at


def make_folder(path: str) -> list[str]:
    """Make a folder with all levels above it, or none of them; returns those that were not there, outermost first."""
    return _make_folder(path, tries=2)


def _make_folder(path: str, tries: int) -> list[str]:
    if os.path.isdir(path):
        return []
    parent = os.path.dirname(path.rstrip("/"))
    made = _make_folder(parent, tries) if parent else []
    try:
        os.mkdir(path)
    except OSError as error:
        if isinstance(error, FileExistsError) and os.path.isdir(path):
            return made
        again = isinstance(error, FileNotFoundError) and tries > 1 and parent and not os.path.isdir(parent)
        for above in reversed(made):
            remove_folder(above)
        if again:  # whoever made the parent has just removed it
            return _make_folder(path, tries - 1)
        raise os_fault(error, path, "make folder") from error
    return [*made, path]


def remove_folder(path: str) -> None:
    """Remove a folder if it is empty and may be removed."""
    with suppress(OSError):
        os.rmdir(path)


def remove_tree(path: str) -> None:
    """Remove a folder and all it holds, following no symbolic link; a missing one is fine."""
    import shutil

    with storage(path, "remove"), suppress(FileNotFoundError):
        shutil.rmtree(path)


def rename(source: str, target: str) -> None:
    """Give a file another name on the same file system, atomically, in place of a file of that name."""
    with storage(target, "write"):
        os.rename(source, target)


def unlink(path: str) -> None:
    """Remove a file; a missing one is fine."""
    with storage(path, "remove"), suppress(FileNotFoundError):
        os.unlink(path)


def create_file(path: str, nbytes: int = 0) -> None:
    """Make a new file of `nbytes` zeros that take no space yet; its mode is 0666 less the umask."""
    with storage(path, "create"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(descriptor, nbytes)
        finally:
            os.close(descriptor)


def open_for_writing(path: str) -> int:
    """A descriptor of an existing file, for positional reads and writes; the caller closes it."""
    with storage(path, "write"):
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_for_appending(path: str) -> int:
    """A descriptor of a file, made where it is missing, for `append`; the caller closes it."""
    with storage(path, "write"):
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def append(descriptor: int, data: bytes) -> None:
    """Write all of `data` at the end of a file. Raises ApplyError."""
    rest = memoryview(data)
    with storage(descriptor, "write"):
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def close(descriptor: int) -> None:
    """Close a descriptor that the caller was given to close."""
    with storage(descriptor, "close"):
        os.close(descriptor)


def size_of(path: str) -> int:
    """Bytes of a file itself, not of one that a symbolic link names."""
    with storage(path, "look at"):
        return os.lstat(path).st_size


def names_in(path: str) -> list[str]:
    """The names in a folder."""
    with storage(path, "list"):
        return sorted(os.listdir(path))


def write_file(path: str, data: bytes, *, durable: bool = False) -> None:
    """Make a new file with this content; `durable` flushes the content, not the name, to the device before it returns."""
    create_file(path)
    descriptor = open_for_writing(path)
    try:
        write_at(descriptor, 0, data)
        if durable:
            with storage(path, "flush"):
                os.fsync(descriptor)
    finally:
        close(descriptor)


def write_beginning(path: str, data: bytes, inode: int, nbytes: int, mtime_ns: int) -> None:
    """Write over the first bytes of a file and flush them; nothing where the file is not the one with this inode and size any more."""
    with storage(path, "write"):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            status = os.fstat(descriptor)
            if (status.st_ino, status.st_size) == (inode, nbytes) and len(data) <= nbytes:
                write_at(descriptor, 0, data)
                os.utime(descriptor, ns=(status.st_atime_ns, mtime_ns))
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_file(path: str, most_bytes: int = 1 << 26) -> bytes | None:
    """The whole of a small regular file, also through a symbolic link; None where there is none.

    Raises:
        ApplyError: it cannot be read, or is no regular file, or is larger than `most_bytes`.
    """
    with storage(path, "read"), suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
                raise ApplyError(f"{path} is not a small file", code="not-a-file", notes=[f"{status.st_size:,} bytes"], data={"path": path})
            return file.read(status.st_size)
    return None


def fsync_file(path: str) -> None:
    """Flush a file's content to the device."""
    with storage(path, "flush"):
        _fsync(path, os.O_RDONLY | os.O_NOFOLLOW)


def fsync_folder(path: str) -> None:
    """Flush a folder's names to the device, on file systems that know such a thing."""
    with storage(path, "flush"):
        try:
            _fsync(path or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise


def _fsync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_folder(path: str) -> int | None:
    """Hold a folder for this descriptor alone, until it is closed or the process ends.

    None where somebody else holds it, or where `path` has meanwhile become another folder, or none. Waits for nobody.

    Raises:
        ApplyError: `path` is no folder or a symbolic link, or cannot be opened or locked.
    """
    with storage(path, "lock"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None


def unlock(descriptor: int) -> None:
    """Give back what `lock_folder` gave."""
    os.close(descriptor)


def exists(path: str) -> bool:
    """True for anything of that name, be it a broken symbolic link. Raises ApplyError where that cannot be told."""
    return _mode(path) is not None


def is_folder(path: str) -> bool:
    """True for a folder itself, not for a symbolic link to one. Raises ApplyError where that cannot be told."""
    return stat.S_ISDIR(_mode(path) or 0)


def is_empty(path: str) -> bool:
    """True for a folder with nothing in it. Raises ApplyError where it cannot be listed."""
    with storage(path, "list"):
        return not os.listdir(path)


def is_regular(path: str) -> bool:
    """True for a regular file itself, not for a symbolic link to one. Raises ApplyError where that cannot be told."""
    return stat.S_ISREG(_mode(path) or 0)


def _mode(path: str) -> int | None:
    """Unlike `os.path.isfile`, this takes no failing device for a missing file: a commit would throw away what it did not find."""
    with storage(path, "look at"):
        try:
            return os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None


def identity(folder: str) -> list[int]:
    """What a folder keeps for as long as it lives, and a copy of it elsewhere does not have: its inode and its owner.

    No device number: after a restart, that of btrfs, NFS or LVM may be another.
    """
    with storage(folder, "look at"):
        status = os.lstat(folder)
    return [status.st_ino, status.st_uid]


def own_folders(folder: str, prefix: str, suffix: str) -> list[str]:
    """Paths of sub-folders by the form of their names, symbolic links left out; none where the folder cannot be listed.

    In a folder with the sticky bit (`/tmp`) only this user's count: there, what others leave must have no effect on our files.
    """
    found: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(suffix) and entry.is_dir(follow_symlinks=False):
                sticky = os.stat(folder).st_mode & stat.S_ISVTX
                if not sticky or entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    found.append(entry.path)
    return sorted(found)


def allocated_bytes(folder: str) -> int:
    """Bytes on the device that the files of a folder take, its sub-folders left out."""
    with storage(folder, "list"), os.scandir(folder) as entries:
        return sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in entries)
