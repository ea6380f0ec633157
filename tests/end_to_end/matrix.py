"""What the tests of conversions from any format to any other share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import surgery
from surgery import formats
from surgery.api import LazyTensor, Source
from surgery.dtypes import DTYPES
from surgery.formats.abilities import OWN_ONLY, needs_model, types_written

DATA = Path(__file__).parents[1] / "data"
WRITABLE = [name for name in formats.NAMES if types_written(name) and not needs_model(name)]
NO_EMPTY = {"orbax"}
"""Formats whose own libraries save no arrays without elements: refused as `shape-not-storable`."""
PATHS = {"tf": "m.ckpt", "keras": "m.weights.h5", "flax": "m.msgpack", "hdf5": "m.h5", "torch": "m.pt"}
Content = dict[str, tuple[str, tuple[int, ...], object]]


def path_of(name: str) -> str:
    return PATHS.get(name, f"m.{name}")


def planned(sources: Iterable[str], target: str, form: str, *steps: object, **options: object) -> surgery.Plan:
    everything = [*({"load": {"path": source}} for source in sources), *steps, {"save": {"path": target, "format": form, **options}}]
    return surgery.plan(Source(json.dumps({"surgery": 1, "steps": everything}), "matrix.yaml"))


def run(sources: Iterable[str], target: str, form: str, *steps: object) -> None:
    planned(sources, target, form, *steps).run()


def content(path: str) -> Content:
    """What a checkpoint holds, under keys with `/`, as some formats write them."""
    with surgery.open(path) as checkpoint:
        return {key.replace(".", "/"): (tensor.dtype, tensor.shape, values(tensor)) for key, tensor in checkpoint.items()}


def values(tensor: LazyTensor) -> object:
    """Its bytes: in C order and little-endian, or as they lie in the file where the type has no array form."""
    if not DTYPES[tensor.dtype].numpy:
        extents = tensor.expr.view()
        return b"".join(Path(extent.file.path).read_bytes()[extent.start : extent.stop] for extent in extents)
    array = tensor.numpy()
    return array.tolist() if tensor.dtype == "string" else array.tobytes()


def lost_types(found: Content, source: str, target: str) -> set[str]:
    """The types of what a format cannot hold."""
    held = types_written(target) if source == target else types_written(target) - OWN_ONLY
    return {dtype for dtype, _, _ in found.values()} - held


def lost(found: Content, source: str, target: str) -> set[str]:
    """The keys of what a format cannot hold."""
    types = lost_types(found, source, target)
    return {key for key, (dtype, shape, _) in found.items() if dtype in types or (target in NO_EMPTY and 0 in shape)}


def without(types: Iterable[str], target: str) -> list[object]:
    """Steps that leave out tensors of these types, and empty ones where the target has none."""
    by_type = [{"drop": {"where": {"dtype": sorted(types)}, "optional": True}}] if types else []
    return [*by_type, *([{"drop": {"where": {"max_bytes": 0}, "optional": True}}] if target in NO_EMPTY else [])]
