"""A recipe as readable YAML: a step on a line, rules of a list on lines of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_PRINTABLE = re.compile(r"[ -~\u00a1-\ud7ff\ue000-\ufefe]*")
_RESERVED = frozenset({"null", "true", "false", "y", "n", "yes", "no", "on", "off"})
_WIDEST = 120


def recipe_text(head: Mapping[str, Any], steps: list[dict[str, Any]], comments: list[str]) -> str:
    """The text of a recipe; `comments` stand above it."""
    lines = [f"# {comment}" for comment in comments]
    for word, value in head.items():
        if isinstance(value, dict):
            lines += [f"{word}:", *(f"  {name}: {value_text(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"{word}: {value_text(value)}")
    return "\n".join([*lines, "steps:", *(line for step in steps for line in _step(step))]) + "\n"


def _step(step: Mapping[str, Any]) -> Iterator[str]:
    ((word, options),) = step.items()
    line = f"  - {word}: {value_text(options)}"
    if len(line) <= _WIDEST:
        yield line
        return
    yield f"  - {word}:"
    yield from _block(options, "      ")


def _block(value: Any, indent: str) -> Iterator[str]:
    """A mapping or a list on lines of their own; what fits on one is left on it."""
    for key, inner in value.items() if isinstance(value, dict) else ((None, item) for item in value):
        mark = "-" if key is None else f"{value_text(key)}:"
        flow = f"{indent}{mark} {value_text(inner)}"
        if len(flow) > _WIDEST and isinstance(inner, (dict, list)) and key is not None:
            yield f"{indent}{mark}"
            yield from _block(inner, indent + "  ")
        else:
            yield flow


def value_text(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{value_text(key)}: {value_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return "'" + value.replace("'", "''") + "'" if _PRINTABLE.fullmatch(value) else json.dumps(value)
