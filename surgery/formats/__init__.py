"""The formats, by name. Each is a module of its own, imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from surgery.formats.base import Format

NAMES = ("tf", "safetensors", "npz")
"""In the order in which they are asked whether they recognise a path."""

_MODULES = {"tf": "tf_bundle", "safetensors": "safetensors", "npz": "npz"}


def by_name(name: str) -> Format:
    """The module of a format. Raises KeyError for a name that is not in NAMES."""
    return cast(Format, import_module(f"surgery.formats.{_MODULES[name]}"))
