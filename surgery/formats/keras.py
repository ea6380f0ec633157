"""Keras's files: weights of Keras 3 (`.weights.h5`), whole models and weights of Keras 1 and 2 (`.h5`), and archives (`.keras`).

All are HDF5; keys are the paths of the datasets in it, as h5py shows them, and nothing is renamed: `layers/dense/vars/0`, or
`model_weights/dense/dense/kernel:0`. The order is that of Keras: its lists of layers and weights where there are any, else by number. An archive
is read where its weights lie in it, a map of shards (`.weights.json`) with all of them. Code, such as lambdas in a model's configuration, is
text here. Source of format facts: `saving_lib.py` and `legacy_h5_format.py` of Keras 3.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from itertools import count, takewhile
from typing import TYPE_CHECKING

from surgery.errors import PlanError, SourceError, UnsupportedFeature
from surgery.formats import keras_shards, zips
from surgery.formats.base import Bundle, Disk, Indexed, Layout, ReadAt, refuse_dtypes, refuse_keys
from surgery.formats.hdf5 import grouped, starts_of, written
from surgery.formats.hdf5_attributes import attributes
from surgery.formats.hdf5_content import Content, find
from surgery.formats.hdf5_groups import is_group, links
from surgery.formats.hdf5_headers import Header, read_header
from surgery.formats.hdf5_tree import Tree, metadata_of, read_root, read_tree
from surgery.formats.hdf5_writer import HELD, MESSAGE_LIMIT, Group
from surgery.tensors import SourceFile

if TYPE_CHECKING:
    from surgery.formats.hdf5_attributes import Value

NAME = "keras"
SUMMARY = "Keras weights (.weights.h5), model or weights of Keras 2 (.h5), archive (.keras)"
OPTIONS: frozenset[str] = frozenset()

_WEIGHTS = "model.weights.h5"
_ARCHIVE, _CONFIG, _METADATA = ".keras", "config.json", "metadata.json"
_TEXT_LIMIT = 64 << 20
_MODEL = "model_weights"
_TOP_LEVEL, _OPTIMIZER = "top_level_model_weights", "optimizer_weights"
_OLD_MARKS = ("layer_names", "layer_names0", "keras_version", "model_config")
_LISTS = re.compile(r"(layer|weight)_names\d*")
_GROUPS_SEARCHED = 64


def locate(path: str, disk: Disk) -> str | None:
    """Recognise Keras's HDF5 files by its attributes or its groups `vars`, archives by the weights in them, shards by their map (`.weights.json`)."""
    if not disk.is_file(path):
        return None
    file, read = disk.open(path)
    if path.endswith(".json"):
        return path if keras_shards.is_map(file, read) else None
    try:
        if read(0, min(file.nbytes, 4)) == b"PK\3\4":
            return path if any(member.name == _WEIGHTS for member in zips.members(file, read)) else None
        base = find(file, read)
        return path if base is not None and _is_keras(read_root(Content(file, read, base, file.nbytes))) else None
    except SourceError:
        return None


def _is_keras(root: Header) -> bool:
    return any(mark in attributes(root) for mark in _OLD_MARKS) or _has_vars(root)


def _has_vars(root: Header) -> bool:
    """Whether one of the first groups is called `vars` and holds nothing but numbers."""
    waiting, seen = [root], 0
    while waiting and seen < _GROUPS_SEARCHED:
        header, seen = waiting.pop(), seen + 1
        for link in links(header)[:_GROUPS_SEARCHED]:
            below = read_header(header.content, link.address) if link.address is not None else None
            if below is None or not is_group(below):
                continue
            if link.name == "vars" and all(member.name.isdigit() for member in links(below)):
                return True
            waiting.append(below)
    return False


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the weights in Keras's order. Configurations of model and training, and the version of Keras, are metadata.

    Raises:
        CorruptFile: an archive or HDF5 file that contradicts itself; a list of weights that are not there.
        UnsupportedFeature: compressed weights in an archive; a tensor that cannot be read here.
    """
    if location.endswith(".json"):
        found = keras_shards.index_shards(NAME, location, disk, index)
        return found._replace(tensors={key: found.tensors[key] for key in sorted(found.tensors, key=_by_number)})
    file, read = disk.open(location)
    content, metadata = _archived(file, read) if read(0, min(file.nbytes, 4)) == b"PK\3\4" else (_plain(file, read), {})
    tree = read_tree(content)
    if tree.refused:  # a model that lacks weights is none
        raise next(iter(tree.refused.values()))
    keys = _ordered(tree, content)
    for path in ("", _MODEL):
        values = {name: value for name, value in tree.attributes.get(path, {}).items() if not _LISTS.fullmatch(name)}
        metadata = metadata_of(values) | metadata
    return Indexed(NAME, location, {key: tree.tensors[key] for key in keys}, metadata, (file,), notes=tree.notes)


def _plain(file: SourceFile, read: ReadAt) -> Content:
    base = find(file, read)
    content = Content(file, read, base or 0, file.nbytes)
    if base is None:
        raise content.fault("is no HDF5 file", 0, min(file.nbytes, 8))
    return content


def _archived(file: SourceFile, read: ReadAt) -> tuple[Content, dict[str, str]]:
    """The weights inside an archive, where they lie, and the texts beside them."""
    members = {member.name: member for member in zips.members(file, read)}
    weights = members.get(_WEIGHTS)
    if weights is None:
        raise zips.corrupt(file, f"holds no `{_WEIGHTS}`", 0, file.nbytes)
    start = zips.content_start(file, read, weights)
    if weights.method != zips.STORED:
        raise UnsupportedFeature(f"`{_WEIGHTS}` in {file.path} is compressed", help="unpack the archive and load the weights from there")
    stop = start + weights.stored_nbytes
    base = find(file, read, start, stop)
    if base is None:
        raise zips.corrupt(file, f"holds `{_WEIGHTS}`, which is no HDF5 file", start, stop)
    texts = {name: _member_text(file, read, members.get(name)) for name in (_CONFIG, _METADATA)}
    metadata = {"model_config": texts[_CONFIG]} if texts[_CONFIG] else {}
    return Content(file, read, base, stop), metadata | _described(texts[_METADATA])


def _member_text(file: SourceFile, read: ReadAt, member: zips.Member | None) -> str:
    """A stored text of an archive; empty where it is not there, compressed or too large to be metadata."""
    if member is None or member.method != zips.STORED or member.nbytes > _TEXT_LIMIT:
        return ""
    start = zips.content_start(file, read, member)
    return read(start, start + member.stored_nbytes).decode("utf-8", "backslashreplace")


def _described(text: str) -> dict[str, str]:
    """The texts of `metadata.json`: Keras's version and the date."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def _ordered(tree: Tree, content: Content) -> list[str]:
    """The keys in Keras's order: as its lists tell, then the rest by name, numbers as numbers."""
    listed = list(dict.fromkeys(_listed(tree)))
    absent = [key for key in listed if key not in tree.tensors]
    opaque = [key for key in absent if key in tree.others]
    if opaque:
        raise UnsupportedFeature(
            f"{content.file.path} lists a weight that is no tensor, `{opaque[0]}`",
            notes=[f"it is {tree.others[opaque[0]]}; Keras leaves out of an .h5 file of this layout which type bfloat16 weights have"],
            help="save the model as .keras or .weights.h5",
        )
    if absent:
        raise content.fault("lists weights that are not there", 0, content.nbytes, f"`{absent[0]}`" + (" and others" if absent[1:] else ""))
    known = set(listed)
    return listed + sorted((key for key in tree.tensors if key not in known), key=_by_number)


def _by_number(key: str) -> list[tuple[str, int]]:
    """`dense_2` before `dense_10`, and `dense` before both."""
    stems = [part.rstrip("0123456789") for part in key.split("/")]
    return [(stem, int(part[len(stem) :][:18] or -1)) for stem, part in zip(stems, key.split("/"), strict=True)]


def _listed(tree: Tree) -> Iterator[str]:
    scope = f"{_MODEL}/" if _MODEL in tree.attributes else ""
    layers = _names(tree.attributes.get(scope.rstrip("/"), {}), "layer_names")
    groups = [scope + layer for layer in (*layers, _TOP_LEVEL)]
    for group in (*groups, _OPTIMIZER):
        for name in _names(tree.attributes.get(group, {}), "weight_names"):
            yield f"{group}/{name}"


def _names(values: Mapping[str, Value], list_name: str) -> list[str]:
    """A list of names, which Keras cuts into `NAME0`, `NAME1`, … where it is long."""
    cut = (f"{list_name}{number}" for number in count())
    parts = [values[list_name]] if list_name in values else [values[name] for name in takewhile(values.__contains__, cut)]
    return [name for part in parts if isinstance(part, list) for name in part if isinstance(name, str)]


def layout(bundle: Bundle) -> Layout:
    """Place the weights in the order given: as Keras 3 does under a path that ends in `.weights.h5`, else as Keras 2 with its lists.

    In the layout of Keras 2 a key is `LAYER/NAME`, with `model_weights/` in front for a whole model, whose configuration is metadata.

    Raises:
        PlanError: a dtype, shape or key that the layout cannot hold, an archive.
    """
    if bundle.path.endswith(_ARCHIVE):
        help = "save as .weights.h5 and load that into the model"
        raise PlanError(f"`{bundle.path}` would need a model, not only weights", code="bad-option", help=help)
    refuse_dtypes(bundle, NAME, lambda spec: spec.dtype.name in HELD)
    starts = starts_of(bundle.tensors)
    if bundle.path.endswith(".weights.h5"):
        root = grouped(bundle.tensors, starts, root={}, opaque_bfloat16=True)
        notes = ("metadata is left out: Keras keeps none beside weights",) if bundle.metadata else ()
    else:
        root, notes = _with_lists(bundle, starts), ()
    files, patches = written(bundle, root)
    return Layout(NAME, posixpath.dirname(bundle.path) or ".", files, patches, notes=notes)


def _with_lists(bundle: Bundle, starts: Mapping[str, int]) -> Group:
    """The layout of Keras 2: lists of layers and of the weights of each, in the order given."""
    whole = any(key.startswith(f"{_MODEL}/") for key in bundle.tensors)
    root = grouped(bundle.tensors, starts, root=dict(bundle.metadata))
    weights: dict[str, list[str]] = {}
    faults: dict[str, str] = {}
    for key in bundle.tensors:
        prefix, layer, name = _cut(key, whole)
        if not layer:
            faults[key] = "it has no layer"
        elif max(len(layer.encode()), len(name.encode())) > MESSAGE_LIMIT:
            faults[key] = "a name in it is longer than Keras can list"
        weights.setdefault(prefix + layer, []).append(name)
    refuse_keys("Keras", faults, f"`rename` {{}} to {_MODEL + '/' if whole else ''}LAYER/NAME, or save as hdf5")
    scope = _group(root, _MODEL) if whole else root
    layers = [group.rpartition("/")[2] for group in weights if group not in (_OPTIMIZER, _TOP_LEVEL, f"{_MODEL}/{_TOP_LEVEL}")]
    scope.attributes.update(_pieces("layer_names", layers))
    for name in ("backend", "keras_version"):
        if name in bundle.metadata:
            scope.attributes[name] = bundle.metadata[name]
    for group, names in weights.items():
        _group(root, group).attributes.update(_pieces("weight_names", names))
    return root


def _cut(key: str, whole: bool) -> tuple[str, str, str]:
    """A key as the scope of layers, the layer that lists it ("" where it has none), and its name in there."""
    scope = f"{_MODEL}/" if whole and not key.startswith(f"{_OPTIMIZER}/") else ""
    layer, cut, name = key.removeprefix(scope).partition("/")
    return (scope, layer, name) if cut and key.startswith(scope) else (scope, "", key)


def _group(root: Group, path: str) -> Group:
    for name in path.split("/"):
        member = root.members[name]
        assert isinstance(member, Group)
        root = member
    return root


def _pieces(list_name: str, names: list[str]) -> dict[str, list[str] | str]:
    """A list of names, cut into as few equal pieces as fit into attributes, none of which is longer than one may be."""
    width = max((len(name.encode()) for name in names), default=1)
    size = max(1, MESSAGE_LIMIT // width)
    if len(names) <= size:
        return {list_name: names}
    return {f"{list_name}{number}": names[start : start + size] for number, start in enumerate(range(0, len(names), size))}
