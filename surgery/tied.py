"""Tied tensors, which are the same stored bytes under several keys of a source: whether an output keeps that. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from surgery.errors import listed, plural
from surgery.expr import Stored
from surgery.formats.base import Layout, Origin, Placement
from surgery.units import size_text


def untied_note(layout: Layout, origins: Mapping[str, Origin]) -> str:
    """Tells of tensors that were tied where they come from, and that this layout stores each for itself; empty where there are none.

    What a recipe copies is not meant: such tensors have one origin.
    """
    stored = [(placement, placement.expr.extent) for file in layout.files for placement in file.placements if isinstance(placement.expr, Stored)]
    if len({extent.start for _, extent in stored}) == len(stored):  # as in most models, of which some have 100,000 tensors
        return ""
    owners: dict[tuple[str, int], str] = {}
    untied: list[Placement] = []
    for placement, extent in stored:
        owner = owners.setdefault((extent.file.path, extent.start), placement.key) if extent.nbytes else placement.key
        if owner != placement.key and origins.get(owner) != origins.get(placement.key):
            untied.append(placement)
    if not untied:
        return ""
    more = size_text(sum(placement.expr.spec.nbytes for placement in untied))
    return f"{plural(len(untied), 'tensor')} tied to others in the source, stored once more each ({more}): {listed([each.key for each in untied])}"
