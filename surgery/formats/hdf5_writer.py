"""HDF5 structures for writing: groups with symbol tables, contiguous datasets, attributes. Everything is known before any data is.

The oldest layout (superblock version 0, as h5py writes by default), which every HDF5 library reads. Data stands first and structures last,
each behind the ones it refers to. Source of format facts: HDF5 File Format Specification 3.0, sections II to IV.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from surgery.dtypes import DTYPES, DType
from surgery.formats.hdf5_content import SIGNATURE, UNDEFINED
from surgery.tensors import TensorSpec

SUPERBLOCK_NBYTES = 96
MESSAGE_LIMIT = 64_512
"""The most bytes of a list of names in one attribute: Keras's own limit, a little below the format's 64 KiB."""

_LEAF_K, _NODE_K = 4, 16
_SYMBOLS, _CHILDREN = 2 * _LEAF_K, 2 * _NODE_K
_NO_FREE_SPACE = 1
_HEAP_AT_LEAST = 4096

Attribute = str | list[str]


class Dataset(NamedTuple):
    """A dataset whose bytes stand at `start`."""

    spec: TensorSpec
    start: int
    attributes: Mapping[str, Attribute] = {}
    opaque: bool = False


class Group(NamedTuple):
    """A group with its members by name."""

    members: dict[str, Group | Dataset]
    attributes: dict[str, Attribute]


def structures(root: Group, start: int) -> tuple[bytes, bytes]:
    """The superblock, and all that stands behind the data, from the absolute offset `start` (a multiple of 8) to the end of the file."""
    image = _Image(start)
    address, tree, heap = image.group(root)
    head = SIGNATURE + struct.pack("<8B2HI", 0, 0, 0, 0, 0, 8, 8, 0, _LEAF_K, _NODE_K, 0)
    head += struct.pack("<4Q", 0, UNDEFINED, start + len(image.data), UNDEFINED)
    return head + struct.pack("<2Q2I2Q", 0, address, 1, 0, tree, heap), bytes(image.data)


class _Image:
    """Structures one after the other."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.data = bytearray()

    def put(self, data: bytes) -> int:
        """Append a structure; returns its address."""
        address = self.start + len(self.data)
        self.data += data + bytes(-len(data) % 8)
        return address

    def group(self, group: Group) -> tuple[int, int, int]:
        """Append a group behind its members; returns the addresses of header, B-tree and heap."""
        members = sorted((name.encode(), member) for name, member in group.members.items())
        entries = [(name, self.group(member)[0] if isinstance(member, Group) else self.dataset(member)) for name, member in members]
        names, places = bytearray(8), []
        for name, _ in entries:
            places.append(len(names))
            names += name + bytes(8 - len(name) % 8)
        segment = self.put(bytes(names))
        heap = self.put(struct.pack("<4s4x3Q", b"HEAP", len(names), _NO_FREE_SPACE, segment))
        tree = self.tree([(place, address) for place, (_, address) in zip(places, entries, strict=True)])
        messages = [_message(17, struct.pack("<2Q", tree, heap)), *self.attributes(group.attributes)]
        return self.put(_header(messages)), tree, heap

    def tree(self, symbols: Sequence[tuple[int, int]]) -> int:
        """Append a B-tree over the symbols (place of the name in the heap, address of the object), which are in order."""
        level = 0
        children = [(batch[-1][0], self.put(_symbol_node(batch))) for batch in _batches(symbols, _SYMBOLS)]
        while level == 0 or len(children) > 1:
            nodes = list(_batches(children, _CHILDREN)) or [()]
            first = self.start + len(self.data)
            low, above = 0, []
            for number, node in enumerate(nodes):
                left = first + (number - 1) * _NODE_NBYTES if number else UNDEFINED
                right = first + (number + 1) * _NODE_NBYTES if number + 1 < len(nodes) else UNDEFINED
                address = self.put(_tree_node(level, left, right, low, node))
                low = node[-1][0] if node else 0
                above.append((low, address))
            children, level = above, level + 1
        return children[0][1]

    def dataset(self, dataset: Dataset) -> int:
        """Append a dataset's header."""
        nbytes = dataset.spec.nbytes
        kind = _type(21, 0, 2, b"") if dataset.opaque else type_of(dataset.spec.dtype)
        messages = [
            _message(1, _space(dataset.spec.shape)),
            _message(3, kind),
            _message(5, struct.pack("<4BI", 2, 2, 2, 1, 0)),
            _message(8, struct.pack("<2B2Q", 3, 1, dataset.start if nbytes else UNDEFINED, nbytes)),
            *self.attributes(dataset.attributes),
        ]
        return self.put(_header(messages))

    def attributes(self, attributes: Mapping[str, Attribute]) -> list[bytes]:
        """The messages of attributes; single texts go to a heap of their own, since they may be long."""
        messages = []
        for name, value in attributes.items():
            if isinstance(value, str):
                text = value.encode()
                place = struct.pack("<IQI", len(text), self.put(_global_heap(text)), 1)
                messages.append(_attribute(name, _type(0x19, 0x101, 16, type_of_byte()), _space(()), place))
            else:
                texts = [text.encode() for text in value]
                width = max(1, *map(len, texts)) if texts else 1
                data = b"".join(text.ljust(width, b"\0") for text in texts)
                messages.append(_attribute(name, _type(0x13, 0x11, width, b""), _space((len(texts),)), data))
        return messages


def _batches(items: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


_NODE_NBYTES = 24 + 8 * (2 * _CHILDREN + 1)


def _tree_node(level: int, left: int, right: int, low: int, children: Sequence[tuple[int, int]]) -> bytes:
    """A node; the key before each child is the last name of the child before it."""
    entries = struct.pack("<Q", low) + b"".join(struct.pack("<2Q", address, key) for key, address in children)
    return (struct.pack("<4s2BH2Q", b"TREE", 0, level, len(children), left, right) + entries).ljust(_NODE_NBYTES, b"\0")


def _symbol_node(symbols: Sequence[tuple[int, int]]) -> bytes:
    entries = b"".join(struct.pack("<2Q24x", place, address) for place, address in symbols)
    return (struct.pack("<4s2BH", b"SNOD", 1, 0, len(symbols)) + entries).ljust(8 + 40 * _SYMBOLS, b"\0")


def _global_heap(text: bytes) -> bytes:
    """A collection with one object, and the free space behind it up to the least size."""
    body = struct.pack("<2H4xQ", 1, 1, len(text)) + text + bytes(-len(text) % 8)
    size = max(_HEAP_AT_LEAST, 16 + len(body) + 16)
    free = size - 16 - len(body)
    return struct.pack("<4s4BQ", b"GCOL", 1, 0, 0, 0, size) + body + struct.pack("<2H4xQ", 0, 0, free) + bytes(free - 16)


def _header(messages: Sequence[bytes]) -> bytes:
    body = b"".join(messages)
    return struct.pack("<2BH2I4x", 1, 0, len(messages), 1, len(body)) + body


def _message(kind: int, data: bytes) -> bytes:
    data += bytes(-len(data) % 8)
    return struct.pack("<2HB3x", kind, len(data), 0) + data


def _attribute(name: str, kind: bytes, space: bytes, data: bytes) -> bytes:
    raw = name.encode() + b"\0"
    return _message(12, struct.pack("<2B3HB", 3, 0, len(raw), len(kind), len(space), 1) + raw + kind + space + data)


def _space(shape: Sequence[int]) -> bytes:
    return struct.pack(f"<3B5x{len(shape)}Q", 1, len(shape), 0, *shape)


def _type(kind: int, bits: int, nbytes: int, properties: bytes) -> bytes:
    """A datatype message; `kind` has the version in its high half."""
    return bytes((kind,)) + bits.to_bytes(3, "little") + struct.pack("<I", nbytes) + properties


_EXPONENTS = {"bfloat16": (8, 7), "float16": (5, 10), "float32": (8, 23), "float64": (11, 52)}
HELD = frozenset([*(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), *_EXPONENTS, "bool", "complex64", "complex128"])
"""Names of the element types that HDF5 files hold here."""


def type_of_byte() -> bytes:
    """The type of the characters of a text."""
    return _type(0x10, 0, 1, struct.pack("<2H", 0, 8))


def type_of(dtype: DType) -> bytes:
    """The datatype message of a type in HELD, little-endian, bool and complex as h5py writes them."""
    nbytes = dtype.itemsize
    if dtype.kind in ("int", "uint"):
        return _type(0x10, 8 if dtype.kind == "int" else 0, nbytes, struct.pack("<2H", 0, 8 * nbytes))
    if dtype.kind == "float":
        exponent, mantissa = _EXPONENTS[dtype.name]
        properties = struct.pack("<2H4BI", 0, 8 * nbytes, mantissa, exponent, 0, mantissa, (1 << exponent - 1) - 1)
        return _type(0x11, 0x20 | (8 * nbytes - 1) << 8, nbytes, properties)
    if dtype.kind == "bool":
        signed = _type(0x10, 8, 1, struct.pack("<2H", 0, 8))
        return _type(0x18, 2, 1, signed + b"FALSE".ljust(8, b"\0") + b"TRUE".ljust(8, b"\0") + b"\0\1")
    return _type(0x16, 2, nbytes, _member(b"r", 0, nbytes // 2) + _member(b"i", nbytes // 2, nbytes // 2))


def _member(name: bytes, offset: int, nbytes: int) -> bytes:
    return name.ljust(8, b"\0") + struct.pack("<I28x", offset) + type_of(DTYPES[f"float{8 * nbytes}"])
