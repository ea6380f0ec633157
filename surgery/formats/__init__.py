"""The formats, by name. Each is a module of its own, imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple, cast

from surgery.formats.base import Format


class _Row(NamedTuple):
    """`needs` is the optional package that a format cannot do without, and the extra of this project that brings it.

    `separator` joins the names of a tree to keys; flat formats have none.
    """

    module: str
    suffixes: tuple[str, ...]
    needs: tuple[str, str] | None = None
    separator: str = ""


_ROWS = {
    "tf": _Row("tf_bundle", ()),
    "safetensors": _Row("safetensors", (".safetensors",)),
    "npz": _Row("npz", (".npz", ".npy")),
    "gguf": _Row("gguf", (".gguf",), separator="."),
    "flax": _Row("flax_msgpack", (".msgpack",), separator="/"),
    "torch": _Row("torch_pt", (".pt", ".pth", ".bin"), separator="."),
    "torch-dcp": _Row("torch_dcp", (), separator="."),
    "onnx": _Row("onnx", (".onnx",)),
    "tfjs": _Row("tfjs", ("model.json",)),
    "tf-v1": _Row("tf_v1", ()),
    "keras": _Row("keras", (".weights.h5", ".keras"), separator="/"),
    "hdf5": _Row("hdf5", (".h5", ".hdf5"), separator="/"),
    "orbax": _Row("orbax", (), separator="/"),
    "zarr": _Row("zarr", (".zarr",), separator="/"),
}
"""The suffixes stand here so that a path can choose a format without importing any."""

NAMES = tuple(_ROWS)

FOLDER_HEADS = (
    "saved_model.pb",
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    ".metadata",
    "model.json",
    "_METADATA",
)
"""Names in a folder that make it a checkpoint, the one that is read first where there are several."""


def by_name(name: str) -> Format:
    """The module of a format. Raises KeyError for a name that is not in NAMES."""
    return cast(Format, import_module(f"surgery.formats.{_ROWS[name].module}"))


def suffixes(name: str) -> tuple[str, ...]:
    """The suffixes that stand for a format; none where a name tells nothing."""
    return _ROWS[name].suffixes


def separator(name: str) -> str:
    """What joins the names of a tree to keys; "" for a format that keeps keys as they are."""
    return _ROWS[name].separator if name in _ROWS else ""


def missing_extra(name: str) -> str | None:
    """The extra to install before this format can be used; None where nothing is missing."""
    needs = _ROWS[name].needs
    return needs[1] if needs and find_spec(needs[0]) is None else None


def by_suffix(path: str) -> str | None:
    """The name of the format that a path's suffix stands for."""
    return next((name for name, row in _ROWS.items() if path.endswith(row.suffixes)), None)


def misleading_suffix(path: str, name: str) -> tuple[str, str] | None:
    """The suffix of a path and the other format that it stands for, which readers may try in vain; None where there is none.

    Keras's files and those of HDF5 are told apart by their content, whatever `.h5` stands for.
    """
    other = by_suffix(path)
    if other in (None, name) or ({other, name} == {"keras", "hdf5"} and path.endswith((".h5", ".hdf5"))):
        return None
    return next(filter(path.endswith, suffixes(other))), other


def likely_first(path: str) -> list[str]:
    """All names, the one that the suffix speaks for first: the order in which to ask whose content it is."""
    first = by_suffix(path)
    return sorted(NAMES, key=lambda name: name != first)
