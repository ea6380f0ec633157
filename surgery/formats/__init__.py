"""The formats, by name. Each is a module of its own, imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple, cast

from surgery.formats.base import Format


class _Row(NamedTuple):
    """`needs` is the optional package that a format cannot do without, and the extra of this project that brings it."""

    module: str
    suffixes: tuple[str, ...]
    needs: tuple[str, str] | None = None


_ROWS = {
    "tf": _Row("tf_bundle", ()),
    "safetensors": _Row("safetensors", (".safetensors",)),
    "npz": _Row("npz", (".npz", ".npy")),
    "gguf": _Row("gguf", (".gguf",)),
    "flax": _Row("flax_msgpack", (".msgpack",)),
    "torch": _Row("torch_pt", (".pt", ".pth", ".bin")),
    "torch-dcp": _Row("torch_dcp", ()),
    "onnx": _Row("onnx", (".onnx",)),
    "tfjs": _Row("tfjs", ("model.json",)),
    "tf-v1": _Row("tf_v1", ()),
    "keras": _Row("keras", (".weights.h5", ".keras")),
    "hdf5": _Row("hdf5", (".h5", ".hdf5")),
    "orbax": _Row("orbax", ()),
    "zarr": _Row("zarr", (".zarr",)),
}
"""The suffixes stand here so that a path can choose a format without importing any."""

NAMES = tuple(_ROWS)


def by_name(name: str) -> Format:
    """The module of a format. Raises KeyError for a name that is not in NAMES."""
    return cast(Format, import_module(f"surgery.formats.{_ROWS[name].module}"))


def suffixes(name: str) -> tuple[str, ...]:
    """The suffixes that stand for a format; none where a name tells nothing."""
    return _ROWS[name].suffixes


def missing_extra(name: str) -> str | None:
    """The extra to install before this format can be used; None where nothing is missing."""
    needs = _ROWS[name].needs
    return needs[1] if needs and find_spec(needs[0]) is None else None


def by_suffix(path: str) -> str | None:
    """The name of the format that a path's suffix stands for."""
    return next((name for name, row in _ROWS.items() if path.endswith(row.suffixes)), None)


def likely_first(path: str) -> list[str]:
    """All names, the one that the suffix speaks for first: the order in which to ask whose content it is."""
    first = by_suffix(path)
    return sorted(NAMES, key=lambda name: name != first)
