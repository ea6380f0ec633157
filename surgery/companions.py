"""What goes with the tensors of an output: metadata of its sources, and the files that `carry` names. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from fnmatch import fnmatchcase

from surgery.errors import PlanError
from surgery.formats.base import Indexed, Layout
from surgery.steps.base import Output
from surgery.tasks import Companion


def merged_metadata(output: Output, sources: list[Indexed]) -> tuple[dict[str, str], list[str]]:
    """Source metadata, kept unless replaced; where sources disagree the first wins, with a note."""
    merged: dict[str, str] = {}
    notes: list[str] = []
    for source in sources:
        for key, value in source.metadata.items():
            if merged.setdefault(key, value) != value:
                notes.append(f"{output.path}: metadata `{key}` of {source.location} differs from an earlier source's, which was kept")
    for key, new in output.metadata.items():
        if new is None:
            merged.pop(key, None)
        else:
            merged[key] = new
    return merged, notes


def companions_of(output: Output, sources: list[Indexed], layout: Layout) -> Iterator[Companion]:
    """The files that `carry` names, each once; a TensorFlow `.meta` follows the prefix."""
    found: dict[str, Companion] = {}
    for pattern in output.carry:
        hits = 0
        for source in sources:
            for path in source.companions:
                name = posixpath.basename(path)
                if not (fnmatchcase(name, pattern) or (pattern in ("meta", ".meta") and name.endswith(".meta"))):
                    continue
                hits += 1
                prefix = posixpath.basename(source.location)
                target = posixpath.basename(output.path) + name[len(prefix) :] if output.format == "tf" and name.startswith(prefix + ".") else name
                found.setdefault(target, Companion(path, target, output.edit.get(name, {})))
        if not hits:
            have = [posixpath.basename(path) for source in sources for path in source.companions]
            raise PlanError(
                f"no companion file fits `{pattern}`",
                code="nothing-matched",
                at=("carry", output.carry.index(pattern)),
                notes=[f"companions are {', '.join(have)}" if have else "the sources have no companion files"],
                help="correct the name, or leave it out",
            )
    names = {file.name for file in layout.files}
    clash = [name for name in found if name in names]
    if clash:
        raise PlanError(f"the companion `{clash[0]}` has the name of an output file", code="path-conflict", at=("carry",))
    unused = [name for name in output.edit if not any(posixpath.basename(companion.path) == name for companion in found.values())]
    if unused:
        raise PlanError(f"`edit` names `{unused[0]}`, which is not carried", code="bad-option", at=("edit", unused[0]), help="add it to `carry`")
    yield from found.values()
