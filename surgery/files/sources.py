"""Reading sources: headers in the probe (`LocalDisk`), byte ranges in the run (`Sources`), both refusing a file that changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Self

from surgery.errors import SourceError, StaleSource, gather
from surgery.files.descriptors import Descriptors
from surgery.files.faults import ends_early, source_fault
from surgery.files.stamps import fingerprint_of
from surgery.tensors import Fingerprint, SourceFile


class LocalDisk:
    """Storage as formats see it while headers are read (`formats.base.Disk`); keeps no file open between two reads."""

    def is_file(self, path: str) -> bool:
        """True for a regular file, also through a symbolic link."""
        return os.path.isfile(path)

    def is_folder(self, path: str) -> bool:
        """True for a folder, also through a symbolic link."""
        return os.path.isdir(path)

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; empty where there is no such folder. The empty path is the working directory.

        Raises:
            SourceError: the folder may not be listed.
        """
        try:
            return sorted(os.listdir(folder or "."))
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
            return []
        except OSError as error:
            raise source_fault(error, folder) from error

    def open(self, path: str, checksum_fault: str = "") -> tuple[SourceFile, Callable[[int, int], bytes]]:
        """A regular file's identity and a reader of it.

        The reader raises CorruptFile for a range beyond the file, before anything is allocated, and StaleSource if the file
        has changed since.

        Raises:
            SourceError: with code `no-such-file`, `not-a-file`, `permission-denied` or `unreadable`.
        """
        descriptor, fingerprint = _open_regular(path)
        os.close(descriptor)
        file = SourceFile(path, fingerprint, checksum_fault)

        def read(start: int, stop: int) -> bytes:
            _check_range(file, start, stop)
            descriptor = _open_unchanged(file)
            try:
                return bytes(_read(descriptor, file, start, stop))
            finally:
                os.close(descriptor)

        return file, read


class Sources:
    """The files a run reads from, for any number of threads. Each is checked against its fingerprint when it is opened.

    `planned` are files that count as read from the beginning: the headers and indexes that a plan was made from.
    """

    def __init__(self, planned: Iterable[SourceFile] = ()) -> None:
        self._used = set(planned)
        self._descriptors = Descriptors(self._open)

    def _open(self, file: SourceFile) -> int:
        descriptor = _open_unchanged(file)
        self._used.add(file)
        return descriptor

    @contextmanager
    def opened(self, file: SourceFile) -> Iterator[int]:
        """A descriptor for `copy_range` and its kin, valid inside the `with`. Raises SourceError, StaleSource."""
        with self._descriptors.lend(file) as descriptor:
            yield descriptor

    def read(self, file: SourceFile, start: int, stop: int) -> memoryview:
        """Bytes `start` to `stop` in a fresh, writable buffer.

        Raises:
            CorruptFile: the range is not inside the file.
            StaleSource: the file is not the one that was planned with, or was cut while being read.
            SourceError: it cannot be opened or read.
        """
        _check_range(file, start, stop)
        with self.opened(file) as descriptor:
            return _read(descriptor, file, start, stop)

    def reads(self, path: str) -> bool:
        """Whether what lies at this path is a file that was read from."""
        try:
            status = os.stat(path)
        except OSError:
            return False
        return any((status.st_dev, status.st_ino) == file.fingerprint[2:] for file in self._used)

    def verify_unchanged(self) -> None:
        """Look again, by path, at every file that was used; call this before the commit. Raises StaleSource for all that changed."""
        faults: list[SourceError] = []
        for file in sorted(self._used):
            try:
                _compare(file, fingerprint_of(os.stat(file.path)))
            except OSError as error:
                faults.append(source_fault(error, file.path))
            except SourceError as fault:
                faults.append(fault)
        if faults:
            raise gather(faults)

    def close(self) -> None:
        """Close all files that are not in use."""
        self._descriptors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _open_regular(path: str) -> tuple[int, Fingerprint]:
    try:
        # Looked at before it is opened, and opened without waiting: opening a FIFO hangs, opening some devices does something.
        _refuse_irregular(path, os.stat(path).st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise source_fault(error, path) from error
    try:
        return descriptor, fingerprint_of(os.fstat(descriptor))
    except OSError as error:
        os.close(descriptor)
        raise source_fault(error, path) from error


def _refuse_irregular(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise SourceError(f"{path} is {kind}, not a file", code="not-a-file", data={"path": path})


def _open_unchanged(file: SourceFile) -> int:
    descriptor, fingerprint = _open_regular(file.path)
    try:
        _compare(file, fingerprint)
    except StaleSource:
        os.close(descriptor)
        raise
    return descriptor


def _compare(file: SourceFile, now: Fingerprint) -> None:
    if now == file.fingerprint:
        return
    same_size = f"still {now.nbytes:,} bytes, but written again or replaced"
    raise StaleSource(
        f"{file.path} changed after the plan was made",
        notes=[same_size if now.nbytes == file.nbytes else f"plan saw {file.nbytes:,} bytes, now {now.nbytes:,}"],
        help="run `surgery plan` again; the old plan was not applied",
        data={"path": file.path},
    )


def _check_range(file: SourceFile, start: int, stop: int) -> None:
    if not 0 <= start <= stop <= file.nbytes:
        raise ends_early(file.path, start, stop, file.nbytes)


def _read(descriptor: int, file: SourceFile, start: int, stop: int) -> memoryview:
    buffer = memoryview(bytearray(stop - start))
    done = 0
    while done < len(buffer):
        try:
            count = os.preadv(descriptor, [buffer[done:]], start + done)
        except OSError as error:
            raise source_fault(error, file.path) from error
        if not count:
            now = fingerprint_of(os.fstat(descriptor))
            _compare(file, now)
            raise ends_early(file.path, start, stop, now.nbytes)
        done += count
    return buffer
