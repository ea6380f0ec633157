"""The manifest of a finished run: what was asked for, what the plan was made from, what was written; and whether all that is still so.

Serves apply, which writes it beside each output, and the short cut before a plan. Pure: what is on the disk now is told to it.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from surgery.journal import is_plain
from surgery.tensors import Fingerprint

VERSION = 1
MOST_BYTES = 64 << 20
_NAME = "surgery.json"


class Stamp(NamedTuple):
    """What tells that a file is still the same one, times in nanoseconds.

    No device number: after a restart, that of btrfs, NFS or LVM may be another.
    """

    nbytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, fingerprint: Fingerprint) -> Stamp:
        """The stamp of a file that was looked at."""
        return cls(fingerprint.nbytes, fingerprint.mtime_ns, fingerprint.inode)


class Request(NamedTuple):
    """What decides the outputs besides the sources: the texts of the recipe and of those it uses, the value of every `${…}` in
    them, and the tool's version.

    `strict` and `digest` are demands of the command line that a run for another request need not have met.
    """

    version: str
    recipe_sha256: str
    parameters: Mapping[str, Any]
    strict: bool = False
    digest: bool = False

    def covers(self, other: Request) -> bool:
        """Whether a run for this request has done all that the `other` asks for."""
        same = (self.version, self.recipe_sha256, _text(self.parameters)) == (other.version, other.recipe_sha256, _text(other.parameters))
        return same and self.strict >= other.strict and self.digest >= other.digest


class Evidence(NamedTuple):
    """All that a plan learnt of storage: the files it read (None: it looked for one in vain) and the names in folders it listed."""

    files: Mapping[str, Stamp | None]
    folders: Mapping[str, Sequence[str]] = {}

    def without_own(self) -> Evidence:
        """The same, but for names that `surgery` gave to files and folders of its own."""
        return self._replace(folders={folder: _others(folder, names, {}) for folder, names in self.folders.items()})


class Written(NamedTuple):
    """An output by the final paths of its files. `shared` are those that later saves rewrite too, `removed` what an older save had left.

    `sha256` has the digest of each file as 64 hexadecimal digits, or is empty.
    """

    path: str
    files: Mapping[str, Stamp]
    shared: Mapping[str, Stamp]
    removed: Sequence[str]
    sha256: Mapping[str, str] = {}


class Manifest(NamedTuple):
    """A finished run; `outputs` in the order of their commits."""

    request: Request
    evidence: Evidence
    outputs: Sequence[Written]

    def encode(self) -> bytes:
        """Indented JSON with sorted keys, in ASCII; what is not UTF-8 as lone surrogates."""
        fields = {
            "surgery_manifest": VERSION,
            "request": self.request._asdict(),
            "sources": {
                "files": {path: stamp and stamp._asdict() for path, stamp in self.evidence.files.items()},
                "folders": {path: sorted(names) for path, names in self.evidence.folders.items()},
            },
            "outputs": [
                {**output._asdict(), "files": _stamps_json(output.files), "shared": _stamps_json(output.shared), "removed": list(output.removed)}
                for output in self.outputs
            ],
        }
        return (json.dumps(fields, indent=2, sort_keys=True) + "\n").encode("ascii")

    @property
    def paths(self) -> set[str]:
        """Every file that `holds` wants the stamp of."""
        return {*self.evidence.files, *(path for output in self.outputs for path in (*output.files, *output.shared))}

    def holds(self, stamps: Mapping[str, Stamp | None], folders: Mapping[str, Iterable[str]]) -> bool:
        """Whether sources and outputs are as this run found and left them, by their stamps now and the names in `folders` now.

        What the run itself wrote over a source is no change, nor are its outputs in a folder that it listed. Of a shared file
        only its being there counts.
        """
        left = self._left()
        return (
            all(stamps.get(path) == stamp for output in self.outputs for path, stamp in output.files.items())
            and all(stamps.get(path) is not None for output in self.outputs for path in output.shared)
            and all(stamps.get(path) in (stamp, left.get(posixpath.normpath(path), stamp)) for path, stamp in self.evidence.files.items())
            and all(_others(path, names, left) == _others(path, folders.get(path, ()), left) for path, names in self.evidence.folders.items())
        )

    def _left(self) -> dict[str, Stamp | None]:
        """What the run left under each path that it changed."""
        left: dict[str, Stamp | None] = {}
        for output in self.outputs:
            left |= {**output.files, **output.shared, **dict.fromkeys(output.removed)}
        return left


def decode(data: bytes) -> Manifest | None:
    """The manifest in a file, or None where it is none, of another version, or damaged."""
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        fields = json.loads(data)
        if fields["surgery_manifest"] != VERSION:
            return None
        sources = fields["sources"]
        evidence = Evidence(
            {_path(path): None if stamp is None else _stamp(stamp) for path, stamp in sources["files"].items()},
            {_path(path): [_path(name) for name in names] for path, names in sources["folders"].items()},
        )
        return Manifest(_request(fields["request"]), evidence, [_written(output) for output in fields["outputs"]])
    return None


def is_manifest(data: bytes) -> bool:
    """Whether this is a manifest, of whatever version, and not another file by its name."""
    with suppress(ValueError, RecursionError):
        fields = json.loads(data)
        return isinstance(fields, dict) and isinstance(fields.get("surgery_manifest"), int)
    return False


def file_name(output: str) -> str:
    """The name of the manifest of the output `output` in its folder; no name means that the output is the folder."""
    return f"{output}.{_NAME}" if output else _NAME


def is_manifest_name(name: str) -> bool:
    """Whether a file in a folder is called as a manifest is."""
    return name == _NAME or name.endswith(f".{_NAME}")


def _others(folder: str, names: Iterable[str], left: Mapping[str, Stamp | None]) -> list[str]:
    """The names in a folder that neither the run nor any other `surgery` put there for itself."""
    plain = (name for name in names if is_plain(name) and not is_manifest_name(name))
    return sorted(name for name in plain if posixpath.normpath(posixpath.join(folder, name)) not in left)


def _text(parameters: Mapping[str, Any]) -> str:
    """Values by how they are written: 1 is not 1.0, and not-a-number is itself."""
    return json.dumps(parameters, sort_keys=True)


def _stamps_json(stamps: Mapping[str, Stamp]) -> dict[str, dict[str, int]]:
    return {path: stamp._asdict() for path, stamp in stamps.items()}


def _request(fields: Mapping[str, Any]) -> Request:
    request = Request(**fields)
    if not (isinstance(request.parameters, dict) and type(request.strict) is type(request.digest) is bool and _text(request.parameters)):
        raise TypeError
    return request


def _written(fields: Mapping[str, Any]) -> Written:
    return Written(
        path=_path(fields["path"]),
        files={_path(path): _stamp(stamp) for path, stamp in fields["files"].items()},
        shared={_path(path): _stamp(stamp) for path, stamp in fields["shared"].items()},
        removed=[_path(path) for path in fields["removed"]],
        sha256={_path(path): _path(digest) for path, digest in fields["sha256"].items()},
    )


def _stamp(fields: Mapping[str, Any]) -> Stamp:
    stamp = Stamp(**fields)
    if not all(type(number) is int for number in stamp):
        raise TypeError
    return stamp


def _path(value: Any) -> str:
    if not isinstance(value, str) or b"\0" in value.encode("utf-8", "surrogateescape"):
        raise TypeError
    return value
