"""`surgery rename`: the recipe that the one-liner stands for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from surgery import formats
from surgery.api import Source
from surgery.errors import RecipeError, SurgeryError


def rename_recipe(source: str, target: str, subs: list[str], prefix: str | None, format: str | None) -> Source:
    """The recipe as text: one `rename` with a rule for each `--sub` (each match is replaced) and one for the prefix."""
    rules: list[dict[str, Any]] = []
    for pair in subs:
        try:
            pattern, to = json.loads(pair)
        except ValueError:
            raise RecipeError("`--sub` takes two values", code="bad-option", help="write `--sub OLD NEW`") from None
        rules.append({"match": pattern, "to": to, "all": True})
    if prefix:
        rules.append({"match": "^", "to": prefix.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}")})
    if not rules:
        raise RecipeError("nothing to rename", code="bad-option", help="add `--sub OLD NEW` or `--prefix P/`")
    save: dict[str, Any] = {"path": target}
    if format or formats.by_suffix(target) is None:
        save["format"] = format or _format_of(source)
    steps = [{"load": {"path": source}}, {"rename": rules}, {"save": save}]
    lines = ["surgery: 1", "steps:", *(f"  - {json.dumps(step, ensure_ascii=False).replace('${', '$${')}" for step in steps)]
    return Source("\n".join(lines) + "\n", "(surgery rename)")


@contextmanager
def as_command_line() -> Iterator[None]:
    """Faults without places in the recipe, which nobody wrote, and with help that fits a command line."""
    try:
        yield
    except SurgeryError as error:
        for fault in (error, *error.others):
            fault.where, fault.step = None, ""
            fault.help = "run with --force" if fault.code == "output-exists" else fault.help
        raise


def _format_of(source: str) -> str:
    from surgery.files import LocalDisk
    from surgery.probe import open_checkpoint

    return open_checkpoint(source, LocalDisk()).format
