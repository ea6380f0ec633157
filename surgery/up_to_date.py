"""Whether a recipe has to be run at all: asked before anything is probed, answered from manifests and a few stats."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from surgery import __version__, files
from surgery.commit import clean, recover
from surgery.errors import SurgeryError
from surgery.manifest import MOST_BYTES, Evidence, Manifest, Request, Stamp, Written, decode
from surgery.probe import folders_of, manifests_of
from surgery.recipe import Recipe
from surgery.steps.save import Save


def request(recipe: Recipe, *, strict: bool, digest: bool) -> Request:
    """What a run of this recipe is asked for."""
    from hashlib import sha256

    def told(name: str, value: Any) -> Any:
        """A value for the manifest, which others may read: of the environment, where secrets are, only the digest."""
        return sha256(f"{name}={value}".encode(errors="surrogateescape")).hexdigest() if name.startswith("env.") else value

    params = {name: told(name, value) for name, value in recipe.params.items()}
    for number, used in enumerate(recipe.used):
        params |= {f"use[{number}]": {name: told(name, value) for name, value in used.params.items()}}
    texts = "\0".join(document.source.text for document in (recipe.document, *(used.document for used in recipe.used)))  # no text holds a NUL
    return Request(__version__, sha256(texts.encode()).hexdigest(), params, strict, digest)


def identity(recipe: Recipe, evidence: Evidence, block_bytes: int) -> str:
    """What only a run of the same recipe over the same sources, cut into the same blocks, has too: it may go on where another stopped."""
    from hashlib import sha256

    manifest = Manifest(request(recipe, strict=False, digest=False), evidence.without_own(), ())
    return sha256(b"%d %s" % (block_bytes, manifest.encode())).hexdigest()


def up_to_date(recipe: Recipe, *, strict: bool = False, digest: bool = False) -> Sequence[Written]:
    """The outputs of a recipe, if each is as a run of the very same left it, and so are its sources; otherwise nothing.

    A commit that died half-way is finished first. What cannot be looked at counts as changed.
    """
    paths = [item.step.path for item in recipe.steps if isinstance(item.step, Save)]
    folders = {folder for path in paths for folder in folders_of(path)}
    wanted = request(recipe, strict=strict, digest=digest)
    with suppress(SurgeryError):
        for folder in folders:
            recover(folder)
        found = [output for path in paths for output in _found(path, wanted)]
        if len(found) == len(paths):
            for folder in folders:
                clean(folder)
            return found
    return ()


def _found(path: str, wanted: Request) -> Sequence[Written]:
    """The output under this path, as the manifest that lies beside it or in it tells, if that holds."""
    for place in manifests_of(path):
        manifest = decode(_read(place))
        if manifest is not None and manifest.request.covers(wanted) and _holds(manifest):
            return [output for output in manifest.outputs if output.path == path]
    return ()


def _read(path: str) -> bytes:
    with suppress(SurgeryError):
        return files.read_file(path, MOST_BYTES) or b""
    return b""


def _holds(manifest: Manifest) -> bool:
    disk = files.LocalDisk()
    return manifest.holds(stamps(manifest.paths), {folder: disk.names(folder) for folder in manifest.evidence.folders})


def stamps(paths: Collection[str]) -> Mapping[str, Stamp | None]:
    """The stamp of each file, None where there is none. Raises ApplyError where that cannot be told."""
    found = {path: files.fingerprint(path) for path in paths}
    return {path: fingerprint and Stamp.of(fingerprint) for path, fingerprint in found.items()}
