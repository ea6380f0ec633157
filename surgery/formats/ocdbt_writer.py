"""Writing an OCDBT database: the values lie where the caller puts them, and this makes the tree and the manifest that find them. Pure.

Nodes are not compressed, so that their size is known from the keys alone. Source: as of `ocdbt`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from surgery.checksums import crc32c
from surgery.formats.ocdbt import MANIFEST_MAGIC, NO_ROOT, NODE_MAGIC
from surgery.formats.tf_varint import varint

_IN_A_NODE = 4096
_MOST_INLINE_BYTES = 1 << 16
_MOST_NODE_BYTES = 100_000_000
_ARITY_LOG2 = 4


class Entry(NamedTuple):
    """A key with its value: the bytes themselves, or where they lie in the data file."""

    key: bytes
    inline: bytes = b""
    start: int = 0
    nbytes: int = 0

    @property
    def is_inline(self) -> bool:
        """Whether the value stands in the node."""
        return self.nbytes == 0


class _Subtree(NamedTuple):
    """A node that was written: its first key, its place, and sums over all below it."""

    first: bytes
    start: int
    nbytes: int
    keys: int
    tree_bytes: int
    value_bytes: int


_EMPTY = _Subtree(b"", NO_ROOT, NO_ROOT, 0, 0, 0)


def written(entries: Sequence[Entry], file: str, start: int, uuid: bytes, time_ns: int) -> tuple[bytes, bytes]:
    """The tree of a database, to stand at `start` of its only data file, and its manifest. Entries are sorted by their keys."""
    tree = bytearray()
    level = []
    for low in range(0, len(entries), _IN_A_NODE):
        part = entries[low : low + _IN_A_NODE]
        node = _node(0, file, _leaf(part))
        values = sum(entry.nbytes for entry in part)
        level.append(_Subtree(part[0].key, start + len(tree), len(node), len(part), len(node), values))
        tree += node
    height = 0
    while len(level) > 1:
        height += 1
        above = []
        for low in range(0, len(level), _IN_A_NODE):
            below = level[low : low + _IN_A_NODE]
            node = _node(height, file, _interior(below))
            sums = [sum(column) for column in zip(*(each[3:] for each in below), strict=True)]
            above.append(_Subtree(below[0].first, start + len(tree), len(node), sums[0], sums[1] + len(node), sums[2]))
            tree += node
        level = above
    return bytes(tree), _manifest(level, height, file, uuid, time_ns)


def _varints(numbers: Iterable[int]) -> bytes:
    return b"".join(map(varint, numbers))


def _framed(magic: int, body: bytes) -> bytes:
    """A node or manifest: magic, length, version 0, no compression, body, checksum."""
    head = magic.to_bytes(4, "big") + (18 + len(body)).to_bytes(8, "little") + b"\0\0"
    return head + body + crc32c(head + body).to_bytes(4, "little")


def _table(file: str) -> bytes:
    """The table of data files, with the one there is."""
    path = file.encode()
    return b"\1" + varint(len(path)) + b"\0" + path


def _node(height: int, file: str, entries: bytes) -> bytes:
    return _framed(NODE_MAGIC, bytes((height,)) + _table(file) + entries)


def _keys(keys: Sequence[bytes], *, interior: bool) -> bytes:
    """The columns of keys: each begins as the one before does. What is common to a subtree is not left out of its keys."""
    same = [_common(before, key) for before, key in pairwise(keys)]
    suffixes = [key[begin:] for key, begin in zip(keys, [0, *same], strict=True)]
    shared = bytes(len(keys)) if interior else b""
    return varint(len(keys)) + _varints(same) + _varints(map(len, suffixes)) + shared + b"".join(suffixes)


def _common(before: bytes, key: bytes) -> int:
    """How many bytes both begin with."""
    return next((at for at, (one, other) in enumerate(zip(before, key, strict=False)) if one != other), min(len(before), len(key)))


def _leaf(entries: Sequence[Entry]) -> bytes:
    outside = [entry for entry in entries if not entry.is_inline]
    sizes = _varints(len(entry.inline) if entry.is_inline else entry.nbytes for entry in entries)
    kinds = bytes(0 if entry.is_inline else 1 for entry in entries)
    places = bytes(len(outside)) + _varints(entry.start for entry in outside)
    return _keys([entry.key for entry in entries], interior=False) + sizes + kinds + places + b"".join(entry.inline for entry in entries)


def _references(nodes: Sequence[_Subtree]) -> bytes:
    columns = [_varints(column) for column in zip(*(node[1:] for node in nodes), strict=True)]
    return bytes(len(nodes)) + b"".join(columns)


def _interior(nodes: Sequence[_Subtree]) -> bytes:
    return _keys([node.first for node in nodes], interior=True) + _references(nodes)


def _manifest(root: Sequence[_Subtree], height: int, file: str, uuid: bytes, time_ns: int) -> bytes:
    config = uuid + b"\0" + varint(_MOST_INLINE_BYTES) + varint(_MOST_NODE_BYTES) + bytes((_ARITY_LOG2, 0))
    version = b"\1\1" + bytes((height,)) + _references(root or [_EMPTY]) + time_ns.to_bytes(8, "little")
    return _framed(MANIFEST_MAGIC, config + _table(file if root else "") + version + b"\0")
