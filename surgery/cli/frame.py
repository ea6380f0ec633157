"""What surrounds every command: faults become one message and an exit code, signals end a run cleanly."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Any, NoReturn

from surgery.errors import SurgeryError, as_json

INTERRUPTED = 130
BUG = 3


def guarded(arguments: list[str]) -> int:
    """Run the command line; never lets a traceback out for a user's mistake."""
    for stream in (sys.stdout, sys.stderr):  # keys need not be UTF-8: what no terminal can show is escaped
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _interrupt)
    gc.disable()  # a command is short and makes no cycles of any size; collecting doubles the time of a plan of a million keys
    try:
        from surgery.cli.app import run_app

        return run_app(arguments)
    except SurgeryError as error:
        complain(error, as_json_text="--json" in arguments)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; outputs are as they were before, or complete", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit does not complain again
        return 0
    except Exception:
        import traceback

        traceback.print_exc()
        print("\nThis is a bug in surgery, not in your recipe. Please report it with the lines above.", file=sys.stderr)
        return BUG
    finally:
        gc.freeze()  # the process ends here: to search all that is left for cycles takes a tenth of a small plan


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def complain(error: SurgeryError, *, as_json_text: bool = False) -> None:
    """Print all faults of a phase to stderr; with `--json` as JSON to stdout too."""
    if as_json_text:
        import json

        print(json.dumps({"error": as_json(error)}, indent=2))
    text = str(error)
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        first, *rest = text.split("\n")
        text = "\n".join([f"\x1b[1;31m{first}\x1b[0m", *rest])
    print(text, file=sys.stderr)
