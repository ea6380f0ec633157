"""`surgery steps` and `surgery formats`: what the registries hold, as text."""

from __future__ import annotations

from surgery import formats
from surgery import steps as registry
from surgery.errors import RecipeError, near
from surgery.formats.base import read_only


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
    """Each format with its suffixes, what can be done with it here, and what it is."""
    rows = [(name, " ".join(formats.suffixes(name)) or "prefix", _ability(name), formats.by_name(name).SUMMARY) for name in formats.NAMES]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join((*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3])) for row in rows)


def _ability(name: str) -> str:
    extra = formats.missing_extra(name)
    if extra is not None:
        return f"needs model-surgery[{extra}]"
    return "read" if formats.by_name(name).layout is read_only else "read, write"
