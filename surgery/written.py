"""What a run has staged, as its manifest tells it, and the manifest staged with it. Serves the end of apply."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from surgery import files
from surgery.commit import Staging
from surgery.errors import ApplyError
from surgery.manifest import MOST_BYTES, Stamp, Written, is_manifest
from surgery.tasks import OutputPlan

Tell = Callable[[Sequence[Written]], bytes]
"""The manifest of a run that has written these outputs."""


class Staged(NamedTuple):
    """An output whose files are complete, and staged but for those that lie in their place; of these, edited ones will be as of `now`."""

    output: OutputPlan
    staging: Staging
    now: int

    @property
    def updates(self) -> list[str]:
        """The names of files that other outputs may write too."""
        return [update.name for update in self.output.layout.updates]

    def written(self, sha256: dict[str, str]) -> Written:
        """What the commit will have written: a file keeps its stamp when it is given another name. `sha256` is by staged path."""
        output = self.output
        digests = {self.final(name): sha256[path] for name in self.names if (path := self.path(name)) in sha256}
        removed = [self.final(name) for name in output.stale]
        return Written(output.path, self._stamps(output.names), self._stamps(self.updates), removed, digests)

    @property
    def names(self) -> list[str]:
        """All of its files."""
        return [*self.output.names, *self.updates]

    def final(self, name: str) -> str:
        """Where a file will lie after the commit."""
        return posixpath.normpath(posixpath.join(self.output.layout.folder, name))

    def path(self, name: str) -> str:
        """Where a file lies now."""
        there = name in self.output.kept or name in self.beginnings
        return self.final(name) if there else self.staging.path(name)

    @property
    def beginnings(self) -> dict[str, bytes]:
        """What files that are edited will begin with."""
        return {edit.name: edit.beginning for edit in self.output.edits}

    def _stamps(self, names: Sequence[str]) -> dict[str, Stamp]:
        found = {name: files.fingerprint(self.path(name)) for name in names}
        stamps = {self.final(name): Stamp.of(fingerprint) for name, fingerprint in found.items() if fingerprint is not None}
        return stamps | {path: stamps[path]._replace(mtime_ns=self.now) for path in map(self.final, self.beginnings) if path in stamps}


def stage_manifests(staged: Sequence[Staged], tell: Tell, *, digest: bool, jobs: int) -> None:
    """Write the manifest beside each output that keeps one; `staged` in the order of the commits. With `digest` every file is read once more."""
    paths = {each.path(name): each.beginnings.get(name, b"") for each in staged for name in each.names} if digest else {}
    sha256 = _digests(paths, jobs) if paths else {}
    data = tell([each.written(sha256) for each in staged])
    for output, staging, _ in staged:
        if output.keeps_manifest:
            staging.create(output.manifest)
            staging.write(output.manifest, 0, data)


def _digests(paths: Mapping[str, bytes], jobs: int) -> dict[str, str]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        return dict(zip(paths, pool.map(files.sha256, paths, paths.values()), strict=True))


def manifest_concerned(output: OutputPlan) -> str:
    """The name of the manifest that the commit is about: one that is written, or an old one that is true no more; empty for none."""
    return output.manifest if output.keeps_manifest or _stands(output) else ""


def foreign_manifest(output: OutputPlan) -> list[str]:
    """The name of the manifest to be written, where a file that is none is called so."""
    path = posixpath.join(output.layout.folder, output.manifest)
    return [output.manifest] if output.keeps_manifest and files.exists(path) and not _stands(output) else []


def _stands(output: OutputPlan) -> bool:
    """Whether there is a manifest of an earlier run; what cannot be read is none."""
    with suppress(ApplyError):
        return is_manifest(files.read_file(posixpath.join(output.layout.folder, output.manifest), MOST_BYTES) or b"")
    return False
