"""`surgery steps` and `surgery formats`: what the registries hold, as text."""

from __future__ import annotations

from typing import Any

from surgery import steps as registry
from surgery.dtypes import DTYPES
from surgery.errors import RecipeError, near
from surgery.formats.abilities import Ability, abilities, install, types_read, types_written


def step_list() -> str:
    """Each step with the first line of its help."""
    width = max(map(len, registry.WORDS))
    lines = [f"{word:<{width}}  {(registry.by_word(word).__doc__ or '').splitlines()[0]}" for word in registry.WORDS]
    return "\n".join([*lines, "", "`surgery steps STEP` lists the options of one."])


def step_options(word: str) -> str:
    """All options of a step."""
    try:
        model = registry.by_word(word)
    except KeyError:
        close = near(word, registry.WORDS)
        raise RecipeError(
            f"no step is called `{word}`", code="unknown-step", help=f"did you mean `{close[0]}`?" if close else "`surgery steps` lists them all"
        ) from None
    named = [(field.alias or name, field.description) for name, field in model.item().fields().items()]
    width = max(len(name) for name, _ in named)
    return "\n".join([f"{word}: {(model.__doc__ or '').strip()}", "", *(f"  {name:<{width}}  {text}" for name, text in named)])


def format_list() -> str:
    """Each format with its suffixes, what can be done with it here, and what it is; then what brings the packages that are missing."""
    found = list(abilities())
    rows = [(each.name, " ".join(each.suffixes) or "prefix", _ability(each), each.summary) for each in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join((*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3])) for row in rows]
    extras = dict.fromkeys(each.missing for each in found if each.missing is not None)
    missing = [f"{', '.join(each.name for each in found if each.missing == extra)}: {install(extra)}" for extra in extras]
    return "\n".join([*lines, *(["", *missing, f"everything: {install('all')}"] if missing else [])])


def format_facts() -> list[dict[str, Any]]:
    """What `format_list` tells, and the element types, as data. `install` is null where nothing is missing."""
    return [
        {
            "name": each.name,
            "summary": each.summary,
            "suffixes": list(each.suffixes),
            "options": list(each.options),
            "works": each.missing is None,
            "install": each.missing and install(each.missing),
            "reads": _in_order(types_read(each.name)),
            "writes": _in_order(types_written(each.name)),
        }
        for each in abilities()
    ]


def _ability(each: Ability) -> str:
    if each.missing is not None:
        return f"needs model-surgery[{each.missing}]"
    return "read, write" if each.writes else "read"


def _in_order(types: frozenset[str]) -> list[str]:
    return [name for name in DTYPES if name in types]
