"""Where each byte of an ONNX file goes that is a copy of a model with other tensors. Pure.

Everything but the tensors is the model's own. Tensors that were external data lie together in `NAME.data`, NAME being the file's.
Source: onnx/docs/ExternalData.md.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import NamedTuple

from surgery.errors import PlanError, UnsupportedFeature, listed, plural
from surgery.expr import Expr
from surgery.formats.base import Bundle, FileLayout, Indexed, Layout, Patch, Placement, refuse_dtypes
from surgery.formats.onnx_copy import Copy, Data, Range, Rope
from surgery.formats.onnx_graph import TRAINING
from surgery.formats.onnx_names import Fate, names_of
from surgery.formats.onnx_skeleton import MOST_BYTES, Hole, Skeleton
from surgery.formats.onnx_tensors import PACKED, is_listed, is_raw, stored_nbytes

_MOST_MODEL_BYTES = (2 << 30) - 1
"""What a protocol buffer may have."""
_SMALL = 1024
"""Tensors below that stay in the model, as the onnx package does it: shapes are looked for there."""
_PAGE = 4096
_WORTH_ALIGNING = 64 << 10
"""Runtimes map external data into memory, which has to begin at a page."""
_ALIGNMENT = 64


def layout(bundle: Bundle) -> Layout:
    """Put the tensors into a copy of the model that they come from, or of the option `model`, an Indexed.

    Every tensor has to be one of the model's: by its origin, or by its name. Those that the output lacks are dropped from the copy, unless the
    model is the option. `external_data` (True or False) moves tensors out of the file or into it; without it they stay where the model has them,
    unless the file would have more than 2 GiB.

    Raises:
        PlanError: no model (`model-needed`), a tensor that is none of its (`unexpected-key`), a dropped one that it needs (`tensor-in-use`),
            a type that ONNX lacks, a name that cannot be.
        UnsupportedFeature: a model for training, or too large a graph.
    """
    folder, name = posixpath.split(bundle.path)
    if not name:
        raise PlanError(f"{bundle.path} names no file", code="bad-option", help="name a file in it")
    _refuse_types(bundle, {key: expr for key, expr in bundle.tensors.items() if not is_listed(expr)})
    model = _model_of(bundle)
    skeleton = _skeleton(model)
    fates = _fates(bundle, model)
    _refuse_types(bundle, {fate.key: fate.expr for fate in fates.values() if fate and fate.changed})
    wanted = bundle.options.get("external_data")
    copy = _copied(bundle, model, skeleton, fates, wanted)
    if wanted is None and copy.rope.nbytes > _MOST_MODEL_BYTES:
        copy = _copied(bundle, model, skeleton, fates, True)
    if copy.rope.nbytes > _MOST_MODEL_BYTES:
        raise PlanError(f"`{bundle.path}` would have more than 2 GiB", code="bad-option", at=("external_data",), help="leave `external_data` out")
    data = f"{name}.data"
    patches, placements = _placed(name, copy.rope, skeleton, model, fates)
    files = (FileLayout(name, copy.rope.nbytes, placements),)
    return Layout(
        format="onnx",
        folder=folder or ".",
        files=(FileLayout(data, copy.outside.nbytes, tuple(copy.outside.placements)), *files) if copy.outside.placements else files,
        patches=patches,
        stale=lambda found: found == data,
        codecs=frozenset({PACKED}),
        notes=_notes(bundle, model, fates),
    )


def _refuse_types(bundle: Bundle, tensors: Mapping[str, Expr]) -> None:
    """Refuse those of some tensors that cannot be raw data."""
    refuse_dtypes(bundle._replace(tensors={key: expr for key, expr in tensors.items() if not is_raw(expr)}), "onnx", lambda spec: False)


def _model_of(bundle: Bundle) -> Indexed:
    given = bundle.options.get("model")
    if isinstance(given, Indexed):
        return given
    loaded = {location: source for location, source in bundle.sources.items() if source.format == "onnx"}
    used = {origin.location for origin in bundle.origins.values()} if len(loaded) > 1 else set(loaded)
    found = [loaded[location] for location in loaded if location in used]
    if len(found) == 1:
        return found[0]
    raise PlanError(
        f"`{bundle.path}` has to be a copy of a model, and " + (f"{len(found)} are loaded" if found else "no ONNX model is loaded"),
        code="model-needed",
        at=("path",),
        notes=[f"tensors come from {listed([model.location for model in found])}"] if found else ["a file of tensors alone is no ONNX model"],
        help="add `model: PATH.onnx`, the model whose tensors are to be replaced",
    )


def _skeleton(model: Indexed) -> Skeleton:
    skeleton = model.attachments["skeleton"]
    if not isinstance(skeleton, Skeleton):
        title = f"{model.location} has more than {MOST_BYTES:,} bytes besides its tensors, which cannot be copied"
        raise UnsupportedFeature(title, help="save as another format")
    if any(field.number == TRAINING for field in skeleton.message().fields()):
        title = f"{model.location} has graphs for training, in which names would not follow"
        raise UnsupportedFeature(title, help="save it for inference, or as another format")
    return skeleton


def _fates(bundle: Bundle, model: Indexed) -> dict[str, Fate | None]:
    """What becomes of each tensor of the model, by the key that it has there: it is where a tensor came from, or else what that is called."""
    origins = {key: origin.key for key, origin in bundle.origins.items() if origin.location == model.location}
    owners: dict[str, str] = {}
    places: dict[str, str] = {}
    for rank in ({key: own for key, own in origins.items() if own == key}, origins, {key: key for key in bundle.tensors}):
        for key, own in rank.items():
            if key in bundle.tensors and key not in places and own in model.tensors and owners.setdefault(own, key) == key:
                places[key] = own
    strangers = [key for key in bundle.tensors if key not in places]
    if strangers:
        raise PlanError(
            f"{model.location} has no tensor for `{strangers[0]}`",
            code="unexpected-key",
            notes=[f"{plural(len(strangers), 'tensor')} would be used by nothing: {listed(strangers)}"],
            help="`rename` them to the names in the model (`surgery inspect` lists these), or `drop` them",
            data={"keys": strangers},
        )
    kept = "model" in bundle.options
    fates: dict[str, Fate | None] = {own: Fate(own, expr, False) if kept else None for own, expr in model.tensors.items()}
    for key, own in places.items():
        fates[own] = Fate(key, bundle.tensors[key], bundle.tensors[key] is not model.tensors[own])
    return fates


class _Outside:
    """The file of external data, one tensor after the other; those of Constant nodes too, where the model has them there."""

    def __init__(self, name: str, wanted: bool | None) -> None:
        self.name = name
        self.nbytes = 0
        self.placements: list[Placement] = []
        self._wanted = wanted

    def __call__(self, key: str, expr: Expr, was_outside: bool) -> dict[str, str] | None:
        nbytes = stored_nbytes(expr)
        is_outside = was_outside if self._wanted is None else self._wanted and nbytes >= _SMALL
        if not is_outside or not is_raw(expr):
            return None
        alignment = _PAGE if nbytes >= _WORTH_ALIGNING else _ALIGNMENT
        start = -(-self.nbytes // alignment) * alignment
        self.placements.append(Placement(key, expr, start))
        self.nbytes = start + nbytes
        return {"location": self.name, "offset": str(start), "length": str(nbytes)}


class _Copied(NamedTuple):
    rope: Rope
    outside: _Outside


def _copied(bundle: Bundle, model: Indexed, skeleton: Skeleton, fates: Mapping[str, Fate | None], wanted: bool | None) -> _Copied:
    gives = any(origin.location == model.location for origin in bundle.origins.values())  # then its properties are among the output's, edited
    metadata = bundle.metadata if gives else {**model.metadata, **bundle.metadata}
    outside = _Outside(f"{posixpath.basename(bundle.path)}.data", wanted)
    copy = Copy(skeleton.message(), fates, names_of(skeleton.message(), fates), metadata, outside)
    rope = copy.model()
    if copy.users:
        name, user = next(iter(copy.users.items()))
        raise PlanError(
            f"`{name}` is dropped, and {user} of {model.location} needs it",
            code="tensor-in-use",
            notes=[f"{plural(len(copy.users), 'dropped tensor')} still needed: {listed(list(copy.users))}"],
            help="keep them: the graph cannot be changed here",
            data={"keys": list(copy.users)},
        )
    return _Copied(rope, outside)


def _placed(
    name: str, rope: Rope, skeleton: Skeleton, model: Indexed, fates: Mapping[str, Fate | None]
) -> tuple[tuple[Patch, ...], tuple[Placement, ...]]:
    """The bytes and the tensors of the model's file."""
    patches: list[Patch] = []
    placements: list[Placement] = []
    pending: list[bytes] = []
    at = 0

    def flush() -> None:
        if pending:
            data = b"".join(pending)
            patches.append(Patch(name, at - len(data), data))
            pending.clear()

    for part in rope.parts:
        for piece in skeleton.pieces(*part) if isinstance(part, Range) else (part,):
            if isinstance(piece, bytes):
                pending.append(piece)
                at += len(piece)
                continue
            flush()
            key, expr = _tensor_at(piece, model, fates) if isinstance(piece, Hole) else piece
            placements.append(Placement(key, expr, at))
            at += stored_nbytes(expr)
    flush()
    return tuple(patches), tuple(placements)


def _tensor_at(hole: Hole, model: Indexed, fates: Mapping[str, Fate | None]) -> Data:
    fate = fates[hole.key]
    return Data(fate.key if fate else hole.key, model.tensors[hole.key])


def _notes(bundle: Bundle, model: Indexed, fates: Mapping[str, Fate | None]) -> tuple[str, ...]:
    notes = []
    other = [f"{fate.key} {model.tensors[key].spec} → {fate.expr.spec}" for key, fate in fates.items() if fate and _is_other(fate, model, key)]
    if other:
        notes.append(
            f"{plural(len(other), 'tensor')} of another type or shape than the graph was made for: {listed(other)}; try it with onnx.checker"
        )
    kept = [fate.key for fate in fates.values() if fate and fate.key not in bundle.tensors]
    if kept:
        notes.append(f"{plural(len(kept), 'tensor')} left as {model.location} has them: {listed(kept)}")
    return tuple(notes)


def _is_other(fate: Fate, model: Indexed, key: str) -> bool:
    return fate.changed and fate.expr.spec != model.tensors[key].spec
