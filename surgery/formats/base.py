"""What a format is: four functions, told to it and by it in plain values.

`locate` recognises a path, `index` turns headers into expressions, `layout` decides (purely) where each byte of an output
goes, and the layout's `seal` makes headers and indexes out of checksums that only the run can know. A format opens
nothing by itself; it is handed a `Disk`. A new format is one file beside this one plus its row in `formats/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from surgery.errors import PlanError, UnsupportedFeature, listed, plural
from surgery.expr import Expr
from surgery.tensors import SourceFile, TensorSpec

_KEY_SHOWN = 200
"""Characters of a key that a message spells out."""
ReadAt = Callable[[int, int], bytes]
"""Bytes `start` to `stop` of one file. Raises CorruptFile where the file ends before `stop`."""


class Disk(Protocol):
    """What formats may ask of storage while headers are read. Paths are as the user wrote them, joined with `/`."""

    def is_file(self, path: str) -> bool: ...

    def is_folder(self, path: str) -> bool: ...

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; empty where there is no such folder."""
        ...

    def open(self, path: str, checksum_fault: str = "") -> tuple[SourceFile, ReadAt]:
        """A file's identity and a reader of it. Raises SourceError where it cannot be opened."""
        ...


class Indexed(NamedTuple):
    """A checkpoint as its headers tell it: key → expression, in the order of the data.

    `metadata` is what the format keeps beside tensors (text to text for safetensors). `companions` are files that belong
    to the checkpoint and hold no tensors (`.meta`, `config.json`), as paths. `attachments` is for the format's own use.
    """

    format: str
    location: str
    tensors: Mapping[str, Expr]
    metadata: Mapping[str, str]
    files: tuple[SourceFile, ...]
    companions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    attachments: Mapping[str, Any] = {}


class Origin(NamedTuple):
    """Which tensor of which loaded checkpoint a key of the output came from."""

    location: str
    key: str


class Bundle(NamedTuple):
    """An output as the plan wants it: `path` as written, tensors in output order."""

    path: str
    tensors: Mapping[str, Expr]
    metadata: Mapping[str, str]
    options: Mapping[str, Any]
    origins: Mapping[str, Origin]
    sources: Mapping[str, Indexed]


class Patch(NamedTuple):
    """Bytes for a place in an output file, known without any tensor data or after all of it."""

    file: str
    start: int
    data: bytes


class Placement(NamedTuple):
    """A tensor's place: absolute offset in the output file."""

    key: str
    expr: Expr
    start: int


class FileLayout(NamedTuple):
    """One output file, named relative to the layout's folder. `size` is None where only `seal` knows it.

    `same_as` is the file of the source, of this very name, that it is but for its patches: all placements are where they were.
    """

    name: str
    size: int | None
    placements: tuple[Placement, ...] = ()
    same_as: SourceFile | None = None


class Update(NamedTuple):
    """A small text file that is rewritten with knowledge of what it said before (None: there was none).

    `knows` tells whether a file of that name is of this kind, and not something else that a rewriting would destroy.
    """

    name: str
    rewrite: Callable[[bytes | None], bytes]
    knows: Callable[[bytes], bool]


Seal = Callable[[Mapping[str, int]], Sequence[Patch]]


class Layout(NamedTuple):
    """Where each byte of an output goes. Files are committed in this order, so the index stands last.

    `checksum` names the checksum of each tensor's bytes that `seal` wants: "crc32c", "crc32" or "". `patches` are known now,
    `seal` gives the rest. `stale` recognises names in the folder that an older save under the same path left and
    that must go. `codecs` names the encodings (besides plain bytes) that it stores as they are.
    """

    format: str
    folder: str
    files: tuple[FileLayout, ...]
    patches: tuple[Patch, ...] = ()
    checksum: str = ""
    seal: Seal | None = None
    updates: tuple[Update, ...] = ()
    stale: Callable[[str], bool] = lambda name: False
    notes: tuple[str, ...] = ()
    codecs: frozenset[str] = frozenset()


class Format(Protocol):
    """The names a format module has to define."""

    NAME: str
    SUMMARY: str
    OPTIONS: frozenset[str]

    def locate(self, path: str, disk: Disk) -> str | None:
        """The canonical location if this format recognises what lies at `path`, from content; None otherwise."""
        ...

    def index(self, location: str, disk: Disk, *, strict: bool = True) -> Indexed:
        """List the tensors; reads headers only. Without `strict` data files may be missing, which `notes` then tells. Raises SourceError."""
        ...

    def layout(self, bundle: Bundle) -> Layout:
        """Place every tensor. Raises PlanError for what the format cannot hold."""
        ...


class Relabel(Protocol):
    """What a format module has as `relabel` if its keys can be changed where the checkpoint lies."""

    def __call__(self, bundle: Bundle, source: Indexed, *, grows: bool) -> Layout:
        """The source's own layout with other keys and metadata; with `grows` its files may become longer at the front.

        Raises PlanError with code `not-in-place` where that cannot be.
        """
        ...


def read_only(bundle: Bundle) -> Layout:
    """The `layout` of a format that is only read. Raises PlanError, always."""
    raise PlanError(f"`{bundle.path}` cannot be written: its format is only read here", code="read-only-format", at=("format",), help=WRITABLE)


WRITABLE = "save as another format; `surgery formats` tells which can be written"


def required(package: str, extra: str) -> ModuleType:
    """An optional package, imported when it is first needed.

    Raises:
        UnsupportedFeature: with code `missing-package` where it is not installed; `extra` is the one of this project that brings it.
    """
    try:
        return import_module(package)
    except ImportError:
        top = package.partition(".")[0]
        raise UnsupportedFeature(
            f"this format needs the package {top}, which is not installed",
            code="missing-package",
            help=f"pip install 'model-surgery[{extra}]'",
        ) from None


def refuse_keys(format_name: str, faults: Mapping[str, str], help: str = "`rename` or `drop` {}") -> None:
    """Refuse an output with keys that the format cannot hold, given what is wrong with each; `{}` in `help` becomes "it" or "them".

    Raises:
        PlanError: with code `key-not-storable`, if there are any.
    """
    if not faults:
        return
    key, fault = next(iter(faults.items()))
    told = listed([f"{name[:_KEY_SHOWN]!r} ({what})" for name, what in faults.items()])
    raise PlanError(
        f"{format_name} cannot hold the key {key[:_KEY_SHOWN]!r}: {fault}",
        code="key-not-storable",
        notes=[f"{len(faults):,} keys are affected: {told}"] if len(faults) > 1 else (),
        help=help.format("it" if len(faults) == 1 else "them"),
        data={"keys": list(faults)},
    )


def text_fault(text: str) -> str:
    """What is wrong with a key where it has to be UTF-8: nothing (""), or surrogates, which stand for bytes that are not."""
    return "it is not UTF-8" if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text) else ""


def refuse_dtypes(bundle: Bundle, format_name: str, holds: Callable[[TensorSpec], bool]) -> None:
    """Refuse an output with tensors that the format has no type for; names the keys and a way out.

    Raises:
        PlanError: with code `dtype-not-storable`.
    """
    refused = {spec for spec in {expr.spec for expr in bundle.tensors.values()} if not holds(spec)}
    if not refused:
        return
    bad = [(key, expr.spec) for key, expr in bundle.tensors.items() if expr.spec in refused]
    key, spec = bad[0]
    way_out = "`drop` them" if spec.dtype.kind in ("string", "opaque") and spec.dtype.block == 1 else "`cast` them to a type it has, or `drop` them"
    raise PlanError(
        f"{format_name} cannot hold {spec.dtype.name} (`{key}`)",
        code="dtype-not-storable",
        notes=[f"{plural(len(bad), 'tensor')} affected: {listed([f'{name} ({what})' for name, what in bad])}"],
        help=f"{way_out}, or save as another format (`surgery formats` lists what each holds)",
        data={"keys": [name for name, _ in bad]},
    )
