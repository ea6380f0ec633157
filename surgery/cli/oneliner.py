"""`surgery rename`: the recipe that the one-liner stands for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from surgery import formats
from surgery.errors import RecipeError, SurgeryError
from surgery.library import Source

_HELP = {"output-exists": "run with --force", "not-in-place": "give a name for the output, and leave --in-place out"}


def rename_recipe(source: str, target: str | None, subs: list[tuple[str, str]], prefix: str | None, format: str | None, in_place: bool) -> Source:
    """The recipe as text: one `rename` with a rule for each `--sub` (each match is replaced) and one for the prefix."""
    if in_place and (target or format):
        raise RecipeError("`--in-place` goes without OUT and --format", code="bad-option", help="give only the checkpoint that is to be changed")
    if not in_place and not target:
        raise RecipeError("OUT is missing", code="bad-option", help="say where the renamed checkpoint goes, or change it itself with --in-place")
    rules: list[dict[str, Any]] = [{"match": pattern, "to": to, "all": True} for pattern, to in subs]
    if prefix:
        rules.append({"match": "^", "to": prefix.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}")})
    if not rules:
        raise RecipeError("nothing to rename", code="bad-option", help="add `--sub OLD NEW` or `--prefix P/`")
    save: dict[str, Any] = {"path": target} if target else {"path": source, "in_place": True}
    if target and (format or formats.by_suffix(target) is None):
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
            fault.help = _HELP.get(fault.code, fault.help)
        raise


def _format_of(source: str) -> str:
    from surgery.files import LocalDisk
    from surgery.probe import open_checkpoint

    return open_checkpoint(source, LocalDisk()).format
