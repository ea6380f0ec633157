"""From a pickle and the places of its storages to tensors; shared by the containers that PyTorch has had. Opens nothing."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from math import prod
from typing import NamedTuple

from surgery.errors import CorruptFile, NotFoundError, UnsupportedFeature, listed
from surgery.expr import Expr
from surgery.formats.numpy_pickle import PickledBytes
from surgery.formats.tape import PickleFault, Span, Tape
from surgery.formats.torch_objects import Storage, StorageInside, Tensor, TorchBuilder
from surgery.formats.torch_tree import flatten, select
from surgery.formats.torch_views import Place, view_of
from surgery.formats.unpickle import unpickle
from surgery.tensors import SourceFile


class Content(NamedTuple):
    """What a container holds."""

    tensors: dict[str, Expr]
    metadata: dict[str, str]
    notes: tuple[str, ...]


def content_of(value: object, file: SourceFile, fragment: str, place_of: Callable[[Storage], Place]) -> Content:
    """The tensors below `fragment` (all where it is empty) of an unpickled value, by key.

    Raises:
        NotFoundError: the value has no such part.
        CorruptFile: tensors that do not lie in their storages; and what `place_of` raises.
        UnsupportedFeature: values that are nested too deeply or too many, two tensors under one key.
    """
    path = file.path
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
    return Content(_expressions(flat.tensors, file, place_of), flat.metadata, flat.notes)


def _expressions(tensors: Mapping[str, Tensor], file: SourceFile, place_of: Callable[[Storage], Place]) -> dict[str, Expr]:
    known: dict[int, Expr] = {}
    found: dict[str, Expr] = {}
    for key, tensor in tensors.items():
        expr = known.get(id(tensor))
        if expr is None:
            place = place_of(tensor.storage) if tensor.storage.content is None else _place_in_pickle(file, tensor)
            try:
                expr = known[id(tensor)] = view_of(tensor, place)
            except ValueError as fault:
                where = f"{file.path}, bytes {place.start:,} to {place.stop:,}"
                raise CorruptFile(f"`{key}` in {file.path} cannot be: {fault}", notes=[where], help="the source is damaged; copy it again") from None
        found[key] = expr
    return found


def _place_in_pickle(file: SourceFile, tensor: Tensor) -> Place:
    """The place of a numpy array, whose bytes stand in the pickle. Text is decoded to the length that the array wants."""
    content, big_endian = tensor.storage.content, tensor.storage.big_endian
    nbytes = prod(tensor.shape) * tensor.dtype.itemsize
    if not isinstance(content, Span):
        return Place(file, 0, nbytes, codec=PickledBytes(content, big_endian), stored_nbytes=0)
    if content.is_text:
        return Place(file, content.start, nbytes, codec=PickledBytes(None, big_endian), stored_nbytes=content.nbytes)
    return Place(file, content.start, nbytes, big_endian=big_endian)


def unpickled(file: SourceFile, tape: Tape, builder: TorchBuilder) -> object:
    """The next pickle on a tape.

    Raises:
        CorruptFile: there is none; tells the place.
        UnsupportedFeature: it was made by `pickle.dump`, and its storages are inside of it.
    """
    try:
        return unpickle(tape, builder)
    except StorageInside:
        raise UnsupportedFeature(
            f"{file.path} has the storages of its tensors inside of its pickle, as `pickle.dump` leaves them",
            help="load it with pickle.load, and save what comes out with torch.save",
        ) from None
    except PickleFault as fault:
        raise _refused(file, fault) from None


def _refused(file: SourceFile, fault: PickleFault) -> CorruptFile:
    where = f"{file.path}, bytes {fault.start:,} to {fault.stop:,} of {file.nbytes:,}"
    return CorruptFile(
        f"the pickle in {file.path} cannot be read: {fault.reason}", notes=[where], help="the source is damaged, or no checkpoint of PyTorch"
    )
