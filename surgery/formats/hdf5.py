"""HDF5: groups are scopes, datasets are tensors. Serves probe (index) and physical planning (layout).

Read without the HDF5 library, from byte ranges: contiguous and compact datasets as they lie, chunks (plain, deflate, lzf, shuffle, fletcher32) one by
one, what was never written as its fill value. Both byte orders; integers, floats, bfloat16, h5py's bool and complex. Left out, with a note, are text,
records and references, soft and external links, datasets in other files, made of others or compressed by plug-ins. Keras's files
have a format of their own, `keras`. Source of format facts: HDF5 File Format Specification 3.0.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from surgery.errors import PlanError, plural
from surgery.expr import Expr
from surgery.formats import suffixes
from surgery.formats.base import Bundle, Disk, FileLayout, Indexed, Layout, Patch, Placement, refuse_dtypes, refuse_keys, text_fault
from surgery.formats.hdf5_content import Content, find
from surgery.formats.hdf5_tree import DEPTH_LIMIT, metadata_of, read_tree
from surgery.formats.hdf5_types import AXES_LIMIT
from surgery.formats.hdf5_writer import HELD, SUPERBLOCK_NBYTES, Attribute, Dataset, Group, structures

NAME = "hdf5"
SUMMARY = "HDF5 file; groups are scopes"
OPTIONS: frozenset[str] = frozenset()

_PAGE = 4096
_WORTH_A_GAP = 64 << 10
_NAME_LIMIT = 60_000


def locate(path: str, disk: Disk) -> str | None:
    """Recognise an HDF5 file by its signature, also behind a user block; one of Keras's is left to `keras`."""
    from surgery.formats import keras

    if not disk.is_file(path):
        return None
    file, read = disk.open(path)
    if find(file, read) is None:
        return path if path.endswith(suffixes(NAME)) else None
    return None if keras.locate(path, disk) else path


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the datasets in the order of creation where the file keeps it, else by name. Attributes of the root are metadata.

    Raises:
        CorruptFile: structures that contradict the format, each other or the file's size.
        UnsupportedFeature: no tensor can be read here: all are compressed by plug-ins, external or virtual.
    """
    file, read = disk.open(location)
    base = find(file, read)
    content = Content(file, read, base or 0, file.nbytes)
    if base is None:
        raise content.fault("is no HDF5 file", 0, min(file.nbytes, 8))
    tree = read_tree(content)
    others = sum(len(values) for path, values in tree.attributes.items() if path)
    notes = (f"{plural(others, 'attribute')} of groups left out; those of the file are kept",) if others else ()
    return Indexed(NAME, location, tree.tensors, metadata_of(tree.attributes[""]), (file,), notes=(*tree.notes, *notes))


def layout(bundle: Bundle) -> Layout:
    """Place the tensors in the order given, then the structures. Metadata becomes attributes of the root, as text.

    Raises:
        PlanError: a dtype, shape or key that HDF5 cannot hold, a path that names no file.
    """
    refuse_dtypes(bundle, NAME, lambda spec: spec.dtype.name in HELD)
    files, patches = written(bundle, grouped(bundle.tensors, starts_of(bundle.tensors), root=dict(bundle.metadata)))
    return Layout(NAME, posixpath.dirname(bundle.path) or ".", files, patches, notes=_notes(bundle))


def _notes(bundle: Bundle) -> tuple[str, ...]:
    from_keras = any(source.format == "keras" for source in bundle.sources.values())
    return ("written as plain HDF5; for a file that Keras loads, say `format: keras`",) if from_keras else ()


def starts_of(tensors: Mapping[str, Expr]) -> dict[str, int]:
    """Where each tensor's bytes begin: at multiples of 8, large copied ones where source and target agree modulo a page."""
    starts, at = {}, SUPERBLOCK_NBYTES
    for key, expr in tensors.items():
        copied = expr.view()
        at += -at % 8
        if copied and expr.spec.nbytes >= _WORTH_A_GAP and copied[0].codec is None:
            at += (copied[0].start - at) % _PAGE
        starts[key] = at
        at += expr.spec.nbytes
    return starts


def grouped(tensors: Mapping[str, Expr], starts: Mapping[str, int], *, root: dict[str, Attribute], opaque_bfloat16: bool = False) -> Group:
    """The groups that the keys spell. Raises PlanError for keys and shapes that HDF5 cannot hold."""
    top = Group({}, root)
    faults: dict[str, str] = {}
    for key, expr in tensors.items():
        if len(expr.spec.shape) > AXES_LIMIT:
            raise PlanError(f"`{key}` has {len(expr.spec.shape)} axes; HDF5 has at most {AXES_LIMIT}", code="shape-not-storable", help="`reshape` it")
        opaque = opaque_bfloat16 and expr.spec.dtype.name == "bfloat16"
        dataset = Dataset(expr.spec, starts[key], {"dtype": "bfloat16"} if opaque else {}, opaque)
        if fault := _key_fault(key) or _insert(top, key, dataset):
            faults[key] = fault
    refuse_keys("HDF5", faults)
    return top


def _insert(group: Group, key: str, dataset: Dataset) -> str:
    """Put a dataset at its place below a group; tells why it cannot be there, or ""."""
    *scopes, name = key.split("/")
    for scope in scopes:
        member = group.members.setdefault(scope, Group({}, {}))
        if isinstance(member, Dataset):
            return f"`{scope}` would be a tensor and a scope"
        group = member
    if name in group.members:
        return "it would be a tensor and a scope"
    group.members[name] = dataset
    return ""


def _key_fault(key: str) -> str:
    parts = key.split("/")
    if any(part in ("", ".") for part in parts) or "\0" in key:
        return "an empty name, `.` and NUL are no names"
    if len(parts) > DEPTH_LIMIT or len(key) > _NAME_LIMIT:
        return f"it is longer than {_NAME_LIMIT:,} characters or {DEPTH_LIMIT} scopes"
    return text_fault(key)


def written(bundle: Bundle, root: Group) -> tuple[tuple[FileLayout, ...], tuple[Patch, ...]]:
    """The file with its placements, and its structures. Raises PlanError for a path that names no file."""
    name = posixpath.basename(bundle.path)
    if not name:
        raise PlanError(f"{bundle.path} names no file", code="bad-option", help="name a file in it")
    starts = starts_of(bundle.tensors)
    placements = tuple(Placement(key, expr, starts[key]) for key, expr in bundle.tensors.items())
    stop = max((placement.start + placement.expr.spec.nbytes for placement in placements), default=SUPERBLOCK_NBYTES)
    stop += -stop % 8
    head, tail = structures(root, stop)
    return (FileLayout(name, stop + len(tail), placements),), (Patch(name, 0, head), Patch(name, stop, tail))
