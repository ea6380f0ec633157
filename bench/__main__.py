"""`python -m bench [start-up|planning|copying]... [--runs N] [--folder DIR]`: run the benchmarks and print their tables."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

from bench import cases

BENCHES = {"start-up": (cases.start_up, 15), "planning": (cases.planning, 5), "copying": (cases.copying, 7)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Each command beside what a user would do instead, in one run.")
    parser.add_argument("bench", nargs="*", metavar="BENCH", help=f"which: {', '.join(BENCHES)}; default: all")
    parser.add_argument("--runs", type=int, help="counted runs of each command")
    parser.add_argument("--folder", help="where to make the files (the copying bench is about this file system); default: a temporary folder here")
    options = parser.parse_args()
    unknown = set(options.bench) - set(BENCHES)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    print(f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory(dir=options.folder or ".", prefix=".bench-") as folder:
        for name in options.bench or BENCHES:
            bench, runs = BENCHES[name]
            print("\n".join(bench(Path(folder), options.runs or runs)), flush=True)


if __name__ == "__main__":
    main()
