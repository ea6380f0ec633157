"""What a group of HDF5 contains: its links, whether they lie in a symbol table, in the group's header or in a heap.

Source of format facts: HDF5 File Format Specification 3.0, sections III.A.1, III.B, III.C, IV.A.2.g.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from surgery.formats.hdf5_content import UNDEFINED, Content, Fields
from surgery.formats.hdf5_headers import LINK, LINK_INFO, SYMBOL_TABLE, Header
from surgery.formats.hdf5_heaps import fractal_heap, local_heap, records

_DEPTH_LIMIT = 32
_HARD, _SOFT, _EXTERNAL = 0, 1, 64


class Link(NamedTuple):
    """A name in a group. Hard links have the address of an object; others lead elsewhere, and `address` is None. `order` is that of creation."""

    name: str
    address: int | None
    leads_to: str = ""
    order: int = 0


def is_group(header: Header) -> bool:
    """Whether an object is a group."""
    return any(message.kind in (SYMBOL_TABLE, LINK, LINK_INFO) for message in header.messages)


def links(header: Header) -> list[Link]:
    """The links of a group in the order of creation where the file keeps that, else of their names. Raises CorruptFile."""
    table = header.find(SYMBOL_TABLE, "symbol table message")
    if table is not None:
        return list(_symbols(header.content, table.uint(8), table.uint(8)))
    found = [_link(header.fields(message, "link message")) for message in header.messages if message.kind == LINK]
    info = header.find(LINK_INFO, "link info message")
    if info is not None:
        found += _dense(header.content, info)
    return sorted(found, key=lambda link: (link.order, link.name))


def _dense(content: Content, info: Fields) -> Iterator[Link]:
    info.take(1)
    tracked = info.uint(1) & 1
    info.take(8 if tracked else 0)
    heap_address, tree = info.uint(8), info.uint(8)
    if heap_address == UNDEFINED or tree == UNDEFINED:
        return
    heap = fractal_heap(content, heap_address)
    for record in records(content, tree):
        yield _link(Fields(content, heap.object(record[4:]), heap_address, "link message"))


def _link(fields: Fields) -> Link:
    version, flags = fields.uint(1), fields.uint(1)
    if version != 1:
        raise fields.fault(f"it is of version {version}")
    kind = fields.uint(1) if flags & 8 else _HARD
    order = fields.uint(8) if flags & 4 else 0
    fields.take(1 if flags & 16 else 0)
    name = _named(fields.take(fields.uint(1 << (flags & 3))), fields)
    if kind == _HARD:
        return Link(name, fields.uint(8), order=order)
    leads_to = fields.take(fields.uint(2)).strip(b"\0").decode("utf-8", "backslashreplace") if kind in (_SOFT, _EXTERNAL) else ""
    return Link(name, None, ("a soft link to " if kind == _SOFT else "an external link to ") + " ".join(leads_to.split("\0")), order)


def _symbols(content: Content, tree: int, heap_address: int) -> Iterator[Link]:
    heap = local_heap(content, heap_address)
    for node in tree_leaves(content, tree):
        head = content.fields(node, 8, "symbol table node", b"SNOD")
        head.take(2)
        entries = content.fields(node, 8 + 40 * head.uint(2), "symbol table node", b"SNOD")
        entries.take(4)
        while entries.left:
            name_at, address, cached, _, scratch = entries.uint(8), entries.uint(8), entries.uint(4), entries.uint(4), entries.take(16)
            name = _named(_heap_text(heap, name_at), entries)
            if cached == 2:
                target = _heap_text(heap, int.from_bytes(scratch[:4], "little")).decode("utf-8", "backslashreplace")
                yield Link(name, None, f"a soft link to {target}")
            else:
                yield Link(name, address)


def _heap_text(heap: Fields, at: int) -> bytes:
    heap.at = min(at, len(heap.data))
    return heap.text()


def _named(raw: bytes, fields: Fields) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError as fault:
        raise fields.fault(f"the name {raw[:80]!r} is not UTF-8") from fault
    if name in ("", ".") or "/" in name or "\0" in name:
        raise fields.fault(f"{name[:80]!r} is no name")
    return name


def tree_leaves(content: Content, address: int, key_nbytes: int = 8, depth: int = 0) -> Iterator[int]:
    """The children of the leaves of a B-tree of version 1 with group nodes. Raises CorruptFile."""
    for _, child, level in tree_node(content, address, 0, key_nbytes):
        if depth > _DEPTH_LIMIT:
            raise content.fault("has a B-tree that is too deep", address, 24)
        if level:
            yield from tree_leaves(content, child, key_nbytes, depth + 1)
        else:
            yield child


def tree_node(content: Content, address: int, kind: int, key_nbytes: int) -> Iterator[tuple[bytes, int, int]]:
    """The entries of one node of a B-tree of version 1: key, address of the child, and the node's level (0: a leaf)."""
    head = content.fields(address, 24, "B-tree", b"TREE")
    found, level, count = head.uint(1), head.uint(1), head.uint(2)
    if found != kind:
        raise head.fault(f"it is of kind {found}, not {kind}")
    entries = content.fields(address + 24, count * (key_nbytes + 8), "B-tree")
    for _ in range(count):
        yield entries.take(key_nbytes), entries.uint(8), level
