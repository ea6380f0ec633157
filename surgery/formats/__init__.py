"""The formats, by name. Each is a module of its own, imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple, cast

from surgery.formats.base import Format


class _Row(NamedTuple):
    module: str
    suffixes: tuple[str, ...]


_ROWS = {
    "tf": _Row("tf_bundle", ()),
    "safetensors": _Row("safetensors", (".safetensors",)),
    "npz": _Row("npz", (".npz", ".npy")),
}
"""The suffixes stand here so that a path can choose a format without importing any."""

NAMES = tuple(_ROWS)


def by_name(name: str) -> Format:
    """The module of a format. Raises KeyError for a name that is not in NAMES."""
    return cast(Format, import_module(f"surgery.formats.{_ROWS[name].module}"))


def suffixes(name: str) -> tuple[str, ...]:
    """The suffixes that stand for a format; none where a name tells nothing."""
    return _ROWS[name].suffixes


def by_suffix(path: str) -> str | None:
    """The name of the format that a path's suffix stands for."""
    return next((name for name, row in _ROWS.items() if path.endswith(row.suffixes)), None)


def likely_first(path: str) -> list[str]:
    """All names, the one that the suffix speaks for first: the order in which to ask whose content it is."""
    first = by_suffix(path)
    return sorted(NAMES, key=lambda name: name != first)
