"""`python -m fuzz [TARGET...] [--seconds S] [--seed N]`, `python -m fuzz --repeat PATH`: damage checkpoints, tell what readers do wrong."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fuzz import FINDINGS, OUTCOMES
from fuzz.targets import TARGETS

FOUND = Path(".fuzz")
_GRACE_SECONDS = 120


def main() -> int:
    """Hunt in one target after the other; the exit code is 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Damage checkpoints; findings are saved in .fuzz with what repeats them.")
    parser.add_argument("target", nargs="*", metavar="TARGET", help=f"which: {', '.join(TARGETS)}; default: all")
    parser.add_argument(
        "--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", 60)), help="for each target; default: FUZZ_SECONDS or 60"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the damage; default: the clock")
    parser.add_argument("--repeat", metavar="PATH", help="try this checkpoint once and show what it raises")
    options = parser.parse_args()
    unknown = set(options.target) - set(TARGETS)
    if unknown:
        parser.error(f"no target is called {', '.join(sorted(unknown))}")
    if options.repeat:
        with tempfile.TemporaryDirectory() as folder:
            return _child("-", 0, 0, options.repeat, folder).returncode
    print(f"seed {options.seed}, {options.seconds:g} s for each target", flush=True)
    return max([_hunt(target, options.seconds, options.seed) for target in options.target or TARGETS])


def _hunt(target: str, seconds: float, seed: int) -> int:
    """Hunt in a process of its own and tell the outcome; 1 if anything was found, even if it was the end of that process."""
    found = FOUND / target
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
        try:
            child = _child(target, seconds, seed, str(found), folder, capture_output=True, text=True, timeout=seconds + _GRACE_SECONDS)
            end = f"died with {child.returncode}\n{child.stderr[-3000:]}\n" if child.returncode else ""
        except subprocess.TimeoutExpired:
            end = "hangs\n"
        findings = _text(Path(folder) / FINDINGS)
        if end:
            shutil.copytree(folder, found / "died", dirs_exist_ok=True)
            end += f"its files as they were: {found / 'died'}\n"
        print(f"{target}: {_text(Path(folder) / OUTCOMES)}\n{end}{findings}", end="", flush=True)
    return int(bool(findings or end))


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _memory_folder() -> str | None:
    """A file system in memory, if there is one: trials write thousands of small files and flush them."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _child(target: str, seconds: float, seed: int, found: str, folder: str, **how: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzz.child", target, str(seconds), str(seed), found, folder]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}  # each arena and thread takes address space
    return subprocess.run(command, env=environment, **how)


if __name__ == "__main__":
    sys.exit(main())
