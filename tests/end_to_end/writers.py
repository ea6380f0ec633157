"""Real `surgery` commands that fail where a test wants it: at the n-th call to storage they are killed, or refused, or served short.

Run as a program this file is a server: it has `surgery` imported and forks one child for each command, so that a thousand kills
take a minute. Storage is counted below the package, at the functions of `os` and `fcntl` it calls.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

CHANGES = ("open", "mkdir", "rmdir", "rename", "unlink", "ftruncate", "pwrite", "write", "utime", "fsync", "copy_file_range")
MOVES = ("pwrite", "write", "copy_file_range", "sendfile")
READS = ("pread", "preadv")
STEPS = 4096  # bytes that a source or target serves at most per call where it serves short


class Fault(NamedTuple):
    """What happens at the n-th counted call, counted from 1.

    `action`: `count` nothing; `before`, `after`, `torn` the process is gone before it, behind it, in the middle of its bytes; `refuse` the call
    raises `errno`, `refuse-on` so do all later ones; `short` every transfer is a short one; `interrupt` SIGINT arrives at the call. With `calls`
    only these functions count; `close` does for files that may have been written. The kernel `lacks` some.
    """

    action: str = "count"
    at: int = 0
    errno: int = 0
    calls: tuple[str, ...] = CHANGES
    real_flush: bool = False
    lacks: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """How a command ended (its exit code, -9 if it was killed), what it printed, and the storage functions it called, in order.

    `within` are the functions of `surgery.files` that these calls were made in, by their qualified names, with the number of the first call.
    """

    code: int
    text: str
    calls: tuple[str, ...]
    within: Mapping[str, int]


class Surgery:
    """The server's client: `run` runs one command in a fresh process."""

    def __init__(self) -> None:
        self._server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, folder: Path, *arguments: str, fault: Fault | None = None) -> Outcome:
        """A `surgery` command in a folder."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([str(folder), arguments, fault or Fault()]) + "\n")
        self._server.stdin.flush()
        code, text, calls = json.loads(self._server.stdout.readline())
        counted, _, within = calls.partition("|")
        return Outcome(code, text, tuple(counted.split()), json.loads(within or "{}"))

    def close(self) -> None:
        """End the server."""
        self._server.communicate()


def safetensors(tensors: Mapping[str, bytes], width: int = 0) -> bytes:
    """A safetensors file of float32 vectors, or of matrices of `width` columns, put together by hand."""
    header: dict[str, Any] = {}
    start = 0
    for key, data in tensors.items():
        shape = [len(data) // 4 // width, width] if width else [len(data) // 4]
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, start + len(data)]}
        start += len(data)
    text = json.dumps(header).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensors.values())


def snapshot(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, by relative path; a staging folder is one entry, and so is an empty one.

    A manifest stands for what it says: whether the outputs are those of its run, by their sizes, times and inodes.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = [part for part in path.relative_to(folder).parts[:-1] if part.endswith(".surgery")]
        if path.is_file() and not inside:
            found[str(path.relative_to(folder))] = told(path, folder) if path.name.endswith("surgery.json") else path.read_bytes()
        elif path.is_dir() and not inside and (path.name.endswith(".surgery") or not any(path.iterdir())):
            found[str(path.relative_to(folder))] = b"(folder)"
    return found


TRUE, STALE = b"(manifest of what is here)", b"(manifest of something else)"


def told(manifest: Path, folder: Path) -> bytes:
    """Whether all outputs in a manifest, whose paths are relative to `folder`, are there as it says."""
    outputs = json.loads(manifest.read_bytes())["outputs"]
    assert outputs
    stamps = {folder / path: tuple(stamp.values()) for output in outputs for path, stamp in output["files"].items()}
    found = {path: path.stat() for path in stamps if path.exists()}
    return TRUE if {path: (status.st_ino, status.st_mtime_ns, status.st_size) for path, status in found.items()} == stamps else STALE


def copy(folder: Path, name: str) -> Path:
    """A fresh copy of a prepared folder, under another name beside it."""
    target = folder.parent / name
    shutil.rmtree(target, ignore_errors=True)
    return shutil.copytree(folder, target, symlinks=True)


def values(path: Path) -> dict[str, bytes] | None:
    """The bytes of every tensor, read through `surgery.open` with all checksums verified; None where there is no checkpoint."""
    import surgery

    try:
        with surgery.open(path) as checkpoint:
            return {key: tensor.numpy().tobytes() for key, tensor in checkpoint.items()}
    except surgery.SurgeryError as error:
        if error.code == "no-such-checkpoint":
            return None
        raise


def arm(fault: Fault, log: list[str], within: dict[str, int]) -> None:
    """Put counting functions in place of those of `os`; only in a process that runs a single command."""
    number = itertools.count(1)
    lock = threading.Lock()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **options: Any) -> Any:
            if name == "close" and not _is_writable(*args):
                return call(*args)
            with lock:
                here = next(number)
                log.append(name)
                for function in _functions_of_files(sys._getframe(1)):
                    within.setdefault(function, here)
            if fault.action == "short":
                return call(*_shortened(name, args), **options)
            if here == fault.at:
                _strike(fault, name, call, args, options)
            if fault.action == "refuse-on" and here >= fault.at > 0:
                raise OSError(fault.errno, os.strerror(fault.errno))
            return call(*args, **options) if name != "fsync" or fault.real_flush else None

        return counting

    for name in fault.lacks:
        setattr(os, name, _lacking)
    for name in fault.calls:
        module = fcntl if name in ("flock", "ioctl") else os
        setattr(module, name, counted(name, getattr(module, name)))


def _lacking(*_: object) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def _is_writable(descriptor: int) -> bool:
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def _functions_of_files(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        if "/surgery/files/" in frame.f_code.co_filename:
            yield frame.f_code.co_qualname
        frame = frame.f_back


def _strike(fault: Fault, name: str, call: Callable[..., Any], args: Any, options: Any) -> None:
    if fault.action == "refuse":
        if name == "close":  # the descriptor is gone all the same
            call(*args)
        raise OSError(fault.errno, os.strerror(fault.errno))
    if fault.action == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    if fault.action in ("before", "after", "torn"):
        with suppress(OSError):  # what was to be removed may be missing
            if fault.action == "after":
                call(*args, **options)
            elif fault.action == "torn" and name in MOVES:
                call(*_shortened(name, args, half=True), **options)
        os.kill(os.getpid(), signal.SIGKILL)


def _shortened(name: str, args: Any, *, half: bool = False) -> Any:
    """The arguments of the same transfer over fewer bytes, at least one."""

    def cut(nbytes: int) -> int:
        return nbytes // 2 if half else min(nbytes, STEPS)

    if name == "pwrite":
        descriptor, data, offset = args
        return descriptor, memoryview(data)[: cut(len(data))], offset
    if name == "write":
        descriptor, data = args
        return descriptor, memoryview(data)[: cut(len(data))]
    if name == "pread":
        descriptor, nbytes, offset = args
        return descriptor, cut(nbytes), offset
    if name == "preadv":
        descriptor, (buffer,), offset = args
        return descriptor, [buffer[: cut(len(buffer))]], offset
    if name == "copy_file_range":
        source, target, nbytes, *offsets = args
        return source, target, cut(nbytes), *offsets
    if name == "sendfile":
        target, source, offset, nbytes = args
        return target, source, offset, cut(nbytes)
    return args


def _serve() -> None:
    """One JSON line for each command: folder, arguments, fault. One line back: exit code, text, calls."""
    from surgery.__main__ import main

    _warm_up(main)
    for line in sys.stdin:
        folder, arguments, fault = json.loads(line)
        text, calls = os.memfd_create("text"), os.memfd_create("calls")
        child = os.fork()
        if child == 0:
            _command(main, folder, arguments, Fault(*fault), text, calls)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([code, _content(text), _content(calls)]), flush=True)


def _command(main: Callable[[list[str]], int], folder: str, arguments: list[str], fault: Fault, text: int, calls: int) -> None:
    log: list[str] = []
    within: dict[str, int] = {}
    write = os.write
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(text, stream)
    arm(fault, log, within)
    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    write(calls, f"{' '.join(log)}|{json.dumps(within)}".encode())
    os._exit(code)


def _content(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="replace")


def _warm_up(main: Callable[[list[str]], int]) -> None:
    """Import all that a run imports, once for all children."""
    import tempfile

    stdout = os.dup(1)
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "in.safetensors").write_bytes(safetensors({"a": bytes(4)}))
        for number, name in enumerate(("a.safetensors", "a.npz", "a.ckpt")):
            form = "tf" if name == "a.ckpt" else name.split(".")[1]
            recipe = Path(folder, f"{number}.yaml")
            steps = [{"load": {"path": f"{folder}/in.safetensors"}}, {"save": {"path": f"{folder}/{name}", "format": form}}]
            recipe.write_text(json.dumps({"surgery": 1, "steps": steps}))
            with open(os.devnull, "w") as sink:
                sys.stdout, before = sink, sys.stdout
                for arguments in (["run", str(recipe)], ["inspect", f"{folder}/{name}"]):
                    assert main(arguments) == 0
                sys.stdout = before
    os.dup2(stdout, 1)


if __name__ == "__main__":
    _serve()
