"""All of an HDF5 file as paths: datasets as expressions, attributes of groups. Serves the formats `hdf5` and `keras`.

Only hard links are followed, each group once: the file alone decides what is read. What is no tensor, or one that cannot be read here, is left
out, and a note says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from surgery.errors import UnsupportedFeature
from surgery.expr import Expr
from surgery.formats.hdf5_attributes import attributes
from surgery.formats.hdf5_content import Content, superblock
from surgery.formats.hdf5_datasets import read_dataset
from surgery.formats.hdf5_groups import is_group, links
from surgery.formats.hdf5_headers import Header, read_header

if TYPE_CHECKING:
    from surgery.formats.hdf5_attributes import Value

DEPTH_LIMIT = 100
_NOTES_SHOWN = 20


class Tree(NamedTuple):
    """Datasets by path in the order of the file, and attributes by path of their group ("" is the root).

    `others` are the datasets that are no tensors, with the reason; `refused` those that are, and cannot be read here.
    """

    tensors: dict[str, Expr]
    attributes: dict[str, dict[str, Value]]
    others: dict[str, str]
    refused: dict[str, UnsupportedFeature]
    notes: tuple[str, ...]


class _Walk:
    """What was found so far; an object that several links lead to is read once."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.headers: dict[int, Header] = {}
        self.groups: dict[int, str] = {}
        self.read: dict[int, Expr | str | UnsupportedFeature] = {}
        self.tensors: dict[str, Expr] = {}
        self.attributes: dict[str, dict[str, Value]] = {}
        self.others: dict[str, str] = {}
        self.refused: dict[str, UnsupportedFeature] = {}
        self.notes: list[str] = []

    def group(self, header: Header, path: str, depth: int) -> None:
        """Add a group's attributes and all that is below it."""
        if depth > DEPTH_LIMIT:
            raise self.content.fault(f"has groups nested deeper than {DEPTH_LIMIT}", header.address, 16)
        self.groups[header.address] = path
        self.attributes[path] = attributes(header)
        for link in links(header):
            key = f"{path}/{link.name}" if path else link.name
            if link.address is None:
                self.notes.append(f"`{key}` is left out: {link.leads_to} is not followed")
            elif link.address in self.groups:
                self.notes.append(f"`{key}` is left out: it is the group `{self.groups[link.address] or '/'}` once more")
            else:
                self.object(link.address, key, depth)

    def object(self, address: int, key: str, depth: int) -> None:
        """Add what a link leads to."""
        if address not in self.read:
            header = read_header(self.content, address)
            if is_group(header):
                self.group(header, key, depth + 1)
                return
            self.read[address] = _dataset(header, key)
        found = self.read[address]
        if isinstance(found, UnsupportedFeature):
            self.refused[key] = found
        elif isinstance(found, str):
            self.others[key] = found
            self.notes.append(f"`{key}` is left out: {found}, no tensor")
        else:
            self.tensors[key] = found


def _dataset(header: Header, key: str) -> Expr | str | UnsupportedFeature:
    """A tensor, why it is none, or why it cannot be read here. Raises CorruptFile."""
    try:
        return read_dataset(header, key, attributes(header))
    except UnsupportedFeature as fault:
        return fault


def read_root(content: Content) -> Header:
    """The root group. Raises SourceError."""
    return read_header(content, superblock(content))


def read_tree(content: Content) -> Tree:
    """Everything that is in a file, without reading any data.

    Raises:
        CorruptFile: structures that contradict the format, each other or the file's size.
        UnsupportedFeature: there are tensors, and none of them can be read here.
    """
    walk = _Walk(content)
    walk.group(read_root(content), "", 0)
    if walk.refused and not walk.tensors:
        raise next(iter(walk.refused.values()))
    notes = [*(f"left out: {fault.title}; {fault.help}" for fault in walk.refused.values()), *walk.notes]
    rest = len(notes) - _NOTES_SHOWN
    more = [f"{rest:,} more are left out"] if rest > 0 else []
    still_open = ["the program that wrote it did not close it; it may lack the last changes"] if content.is_open else []
    return Tree(walk.tensors, walk.attributes, walk.others, walk.refused, (*still_open, *notes[:_NOTES_SHOWN], *more))


def metadata_of(values: dict[str, Value]) -> dict[str, str]:
    """Attributes as metadata: texts as they are, all else as JSON."""
    import json

    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
