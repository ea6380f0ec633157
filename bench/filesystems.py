"""File systems in a file, mounted for a while: for root on Linux."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAKE = {"xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"]}
_PATIENCE = 30.0  # seconds


class CannotMount(Exception):
    """The reason why a file system cannot be had here."""


@contextmanager
def mounted(kind: str, folder: Path, nbytes: int) -> Iterator[Path]:
    """A new file system of this kind (xfs or btrfs) in an image below `folder`; unmounted and removed in the end, whatever happens.

    Raises CannotMount.
    """
    if os.geteuid() != 0:
        raise CannotMount("needs root")
    if shutil.which(_MAKE[kind][0]) is None:
        raise CannotMount(f"no {_MAKE[kind][0]} here")
    if shutil.disk_usage(folder).free < nbytes:
        raise CannotMount(f"{folder} has less than {nbytes / 1e9:.0f} GB free")
    image, point = folder / f"{kind}.img", folder / kind
    try:
        with open(image, "wb") as file:
            file.truncate(nbytes)
        point.mkdir()
        _run([*_MAKE[kind], str(image)])
        _run(["mount", "-o", "loop", str(image), str(point)])
        try:
            yield point
        finally:
            _unmount(point)
    finally:
        image.unlink(missing_ok=True)
        if point.exists():
            point.rmdir()


def used_bytes(folder: Path) -> int:
    """The bytes of all blocks in use on a file system, once everything is written back."""
    os.sync()
    facts = os.statvfs(folder)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def _unmount(point: Path) -> None:
    """Patiently: a command that was killed may still be about to leave."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return _run(["umount", str(point)])
        except CannotMount:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMount(f"{command[0]}: {done.stderr.strip()}")
