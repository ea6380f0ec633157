"""`python -m bench [BENCH...] [--runs N] [--size S] [--folder DIR]`: run the benchmarks, print their tables and judge the goals."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.inspecting import inspecting
from bench.measure import Setting
from bench.memory import memory
from bench.operations import operations
from bench.planning import planning, start_up
from bench.scale import scale
from bench.sharing import sharing
from bench.tables import Findings, Goal, goal_table
from bench.values import values

BENCHES: dict[str, tuple[Callable[[Setting], Findings], int]] = {
    "start-up": (start_up, 15),
    "planning": (planning, 5),
    "operations": (operations, 5),
    "values": (values, 5),
    "sharing": (sharing, 5),
    "memory": (memory, 1),
    "inspect": (inspecting, 5),
    "scale": (lambda setting: Findings(scale(setting.folder, setting.runs)), 5),
}
"""What to run, and how many runs of each command count unless told otherwise."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Each command beside what a user would do instead, in one run.")
    parser.add_argument("bench", nargs="*", metavar="BENCH", help=f"which: {', '.join(BENCHES)}; default: all")
    parser.add_argument("--runs", type=int, help="counted runs of each command")
    parser.add_argument("--size", type=float, default=1, help="scale of the models, for a quick look; goals are about 1")
    parser.add_argument("--folder", default=".", help="where to make the files: the numbers are about this file system; default: here")
    parser.add_argument("--only", action="append", default=[], metavar="OPERATION", help="one of the operations, such as cast; may be repeated")
    options = parser.parse_args()
    unknown = set(options.bench) - set(BENCHES)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    print(f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}, models × {options.size:g}\n")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that file systems are unmounted
    goals: list[Goal] = []
    for name in options.bench or BENCHES:
        bench, runs = BENCHES[name]
        with tempfile.TemporaryDirectory(dir=options.folder, prefix=".bench-") as folder:
            found = bench(Setting(Path(folder).resolve(), options.runs or runs, options.size, options.only))
        print("\n".join(found.lines), flush=True)
        goals += found.goals
    print("\n".join(goal_table(goals)))


if __name__ == "__main__":
    main()
