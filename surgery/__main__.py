"""The `surgery` command: the frame around the command line that turns faults into one message and an exit code.

0 done · 1 the surgery can't be done · 2 wrong use or an invalid recipe · 3 a bug · 130 interrupted.
"""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code. `--version` answers before anything else is imported."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments in (["--version"], ["-V"]):
        from surgery import __version__

        print(f"surgery {__version__}")
        return 0
    from surgery.cli.frame import guarded

    return guarded(arguments)


if __name__ == "__main__":
    sys.exit(main())
