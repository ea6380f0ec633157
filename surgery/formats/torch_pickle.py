"""From a pickle and the places of its storages to tensors; shared by the containers that PyTorch has had. Opens nothing."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import NamedTuple

from surgery.errors import CorruptFile, NotFoundError, SourceError, UnsupportedFeature, listed
from surgery.expr import Expr
from surgery.formats.torch_objects import Storage, Tensor
from surgery.formats.torch_tree import flatten, select
from surgery.formats.torch_views import Place, view_of
from surgery.formats.unpickle import PickleFault
from surgery.tensors import SourceFile

PICKLE_LIMIT = 64 << 20
"""A tensor takes about 150 bytes of a pickle."""


class Content(NamedTuple):
    """What a container holds."""

    tensors: dict[str, Expr]
    metadata: dict[str, str]
    notes: tuple[str, ...]


def content_of(value: object, path: str, fragment: str, place_of: Callable[[Storage], Place]) -> Content:
    """The tensors below `fragment` (all where it is empty) of an unpickled value, by key.

    Raises:
        NotFoundError: the value has no such part.
        CorruptFile: tensors that do not lie in their storages; and what `place_of` raises.
        UnsupportedFeature: values that are nested too deeply or too many, two tensors under one key.
    """
    try:
        part = select(value, fragment)
    except KeyError as missing:
        names: list[str] = missing.args[0]
        raise NotFoundError(
            f"{path} has no `{fragment}`",
            code="no-such-checkpoint",
            notes=[f"there are {listed(names)}" if names else ""],
            help="correct what stands behind #",
        ) from None
    stem = fragment.rpartition(".")[2] or posixpath.basename(path).rpartition(".")[0] or posixpath.basename(path)
    try:
        flat = flatten(part, stem)
    except ValueError as fault:
        raise UnsupportedFeature(f"{path} holds {fault}", help=f"name a part of it: {path}#NAME") from None
    return Content(_expressions(flat.tensors, path, place_of), flat.metadata, flat.notes)


def _expressions(tensors: Mapping[str, Tensor], path: str, place_of: Callable[[Storage], Place]) -> dict[str, Expr]:
    known: dict[int, Expr] = {}
    found: dict[str, Expr] = {}
    for key, tensor in tensors.items():
        expr = known.get(id(tensor))
        if expr is None:
            place = place_of(tensor.storage)
            try:
                expr = known[id(tensor)] = view_of(tensor, place)
            except ValueError as fault:
                where = f"{path}, bytes {place.start:,} to {place.start + place.nbytes:,}"
                raise CorruptFile(f"`{key}` in {path} cannot be: {fault}", notes=[where], help="the source is damaged; copy it again") from None
        found[key] = expr
    return found


def pickle_fault(file: SourceFile, fault: PickleFault, start: int) -> SourceError:
    """The error for a pickle that begins at byte `start` of a file."""
    where = f"{file.path}, bytes {start + fault.start:,} to {start + fault.stop:,} of {file.nbytes:,}"
    return CorruptFile(
        f"the pickle in {file.path} cannot be read: {fault.reason}", notes=[where], help="the source is damaged, or no checkpoint of PyTorch"
    )
