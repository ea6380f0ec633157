"""The LevelDB-style table that TensorFlow keeps checkpoint indexes in: sorted byte keys with byte values.

Knows blocks, handles and checksums, and nothing of what the entries mean. Reading trusts no size: each is compared with
what the file has before anything is allocated. All integers are little-endian.

Source: LevelDB, doc/table_format.md; TensorFlow, core/lib/io/{table_builder,block_builder,format}.cc.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from surgery.errors import CorruptFile
from surgery.formats.base import ReadAt
from surgery.formats.tf_snappy import MOST_OUTPUT_BYTES, BadSnappy, decompress
from surgery.formats.tf_varint import read_varint, varint

Entry = tuple[bytes, bytes]
Handle = tuple[int, int]
"""A block's offset and its size without the trailer."""

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_BYTES = 48
TRAILER_BYTES = 5
"""What follows the contents of each block: a type byte and the masked checksum."""

_RAW, _SNAPPY = 0, 1
_BLOCK_BYTES = 262144
_LARGE_ENTRY_BYTES = 2 * _BLOCK_BYTES
_RESTART_INTERVAL = 16
_MASK_DELTA = 0xA282EAD8
_KEY_BYTES_PER_BYTE = 64
"""How far shared prefixes may expand a table's keys beyond the file's size: more than real names need, less than a forged file asks for."""

UNREADABLE = (
    "Unable to read file ({path}). Perhaps the file is corrupt or was produced by a newer version of TensorFlow "
    "with format changes ({stage}): {fault}"
)
"""TensorFlow's sentence for a table whose first block or first entry cannot be used."""

COPY_AGAIN = "the file is damaged or still being written; copy it again"


def mask(crc: int) -> int:
    """A CRC as tables store it: rotated right by 15 bits, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def unmask(masked: int) -> int:
    """The inverse of `mask`."""
    rotated = (masked - _MASK_DELTA) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


def has_magic(read: ReadAt, nbytes: int) -> bool:
    """Whether a file of `nbytes` bytes ends as a table does. Raises what `read` raises."""
    return nbytes >= FOOTER_BYTES and read(nbytes - len(MAGIC), nbytes) == MAGIC


def read_table(read: ReadAt, nbytes: int, path: str) -> list[Entry]:
    """List all entries of a table file of `nbytes` bytes, in key order.

    Checks more than TensorFlow does: the checksum of every data block, the strict order of all keys, and that no block lies outside
    the file. The metaindex block, which nobody reads, is not looked at.

    Raises:
        CorruptFile: something of that does not hold; the first line is TensorFlow's sentence, the notes name the byte range.
    """
    limit = nbytes - FOOTER_BYTES
    entries: list[Entry] = []
    lower = b""
    key_budget = _KEY_BYTES_PER_BYTE * nbytes
    block_budget = nbytes + MOST_OUTPUT_BYTES
    for number, (upper, handle) in enumerate(read_index(read, nbytes, path)):
        first = len(entries)
        try:
            block = _block(read, handle, limit, path)
            block_budget -= len(block)
            if block_budget < 0:
                _fail("bad block contents", path, handle, f"the blocks expand to {MOST_OUTPUT_BYTES:,} bytes more than the file has")
            key_budget = _append_entries(entries, block, handle, path, key_budget)
        except CorruptFile as error:
            raise (_of_first_block(error, path) if number == 0 else error) from None
        if len(entries) > first and (entries[-1][0] > upper or (number and entries[first][0] <= lower)):
            _fail("bad block contents", path, handle, "its keys lie outside the range that the index block gives")
        lower = upper
    return entries


def read_block_entries(read: ReadAt, handle: Handle, nbytes: int, path: str) -> list[Entry]:
    """The entries of one data block of a table file of `nbytes` bytes. Raises CorruptFile as `read_table` does."""
    entries: list[Entry] = []
    _append_entries(entries, _block(read, handle, nbytes - FOOTER_BYTES, path), handle, path, _KEY_BYTES_PER_BYTE * nbytes)
    return entries


def read_index(read: ReadAt, nbytes: int, path: str) -> list[tuple[bytes, Handle]]:
    """The index block: for each data block a key that is not below its last one, and where it lies. Raises CorruptFile."""
    if nbytes < FOOTER_BYTES:
        _fail("file is too short to be an sstable", path, (0, nbytes))
    limit = nbytes - FOOTER_BYTES
    footer = read(limit, nbytes)
    if footer[-len(MAGIC) :] != MAGIC:
        _fail("not an sstable (bad magic number)", path, (nbytes - len(MAGIC), len(MAGIC)))
    where = (limit, FOOTER_BYTES)
    try:
        where, _ = _handle(footer, _handle(footer, 0)[1])
        entries: list[Entry] = []
        _append_entries(entries, _block(read, where, limit, path), where, path, _KEY_BYTES_PER_BYTE * nbytes)
        handles = [_handle(value, 0)[0] for _, value in entries]
    except ValueError:
        _fail("bad block handle", path, where)
    if sum(size for _, size in handles) > limit:
        _fail("bad block handle", path, where, "the data blocks together are larger than the file")
    return [(key, handle) for (key, _), handle in zip(entries, handles, strict=True)]


def _handle(data: bytes, at: int) -> tuple[Handle, int]:
    """A handle and the offset behind it. Raises ValueError."""
    offset, at = read_varint(data, at, len(data))
    size, at = read_varint(data, at, len(data))
    return (offset, size), at


def _block(read: ReadAt, handle: Handle, limit: int, path: str) -> bytes:
    """The contents of a block that has to end, with its trailer, before `limit`."""
    import google_crc32c

    start, size = handle
    stop = start + size
    if stop + TRAILER_BYTES > limit:
        _fail("truncated block read", path, handle, f"the blocks of this file end at byte {limit:,}")
    stored = read(start, stop + TRAILER_BYTES)
    if mask(google_crc32c.value(stored[:-4])) != int.from_bytes(stored[-4:], "little"):
        _fail("block checksum mismatch", path, handle)
    contents, kind = stored[:size], stored[size]
    if kind == _RAW:
        return contents
    if kind != _SNAPPY:
        _fail("bad block type", path, handle, f"type {kind}")
    try:
        return decompress(contents)
    except BadSnappy as error:
        _fail("corrupted compressed block contents", path, handle, str(error))


def _append_entries(entries: list[Entry], block: bytes, handle: Handle, path: str, key_budget: int) -> int:
    """Append what a block holds; returns what is left of the bytes that expanded keys may take.

    One loop without calls on the usual path: a table of a million entries has to be read in a second.
    """
    stop = len(block) - 4 * (1 + int.from_bytes(block[-4:], "little")) if len(block) >= 4 else -1
    if stop < 0:
        _fail("bad block contents", path, handle)
    append = entries.append
    key = b""
    previous = entries[-1][0] if entries else None
    at = 0
    try:
        while at < stop:
            shared, unshared, size = block[at : at + 3]
            at += 3
            if (shared | unshared | size) >= 0x80:
                shared, at = read_varint(block, at - 3, stop, 5)
                unshared, at = read_varint(block, at, stop, 5)
                size, at = read_varint(block, at, stop, 5)
                key_budget -= shared
            value_at = at + unshared
            at = value_at + size
            if at > stop or shared > len(key) or key_budget < 0:
                raise ValueError
            key = key[:shared] + block[value_at - unshared : value_at]
            if previous is not None and key <= previous:
                _fail("bad entry in block", path, handle, f"key {shown(key)} does not come after {shown(previous)}")
            append((key, block[value_at:at]))
            previous = key
    except ValueError:
        _fail("bad entry in block", path, handle)
    return key_budget


def shown(key: bytes) -> str:
    """A key for messages: UTF-8 where it is that, escapes where it is not, and cut where it is very long."""
    text = key.decode("utf-8", "backslashreplace")
    return text if len(text) <= 200 else f"{text[:200]}…"


def _of_first_block(error: CorruptFile, path: str) -> CorruptFile:
    """The same fault in the frame that TensorFlow puts around it, because the header is the first block's first entry."""
    title = UNREADABLE.format(path=path, stage="failed to seek to header entry", fault=error.title)
    return CorruptFile(title, notes=error.notes, help=error.help, sentence=True)


def _fail(title: str, path: str, handle: Handle, fact: str = "") -> NoReturn:
    start, size = handle
    raise CorruptFile(title, notes=[f"{path}, bytes {start:,} to {start + size:,}", fact], help=COPY_AGAIN, sentence=True)


def write_table(entries: Iterable[Entry]) -> bytes:
    """A table file, byte for byte as TensorFlow writes it: uncompressed, blocks of 256 KiB, a restart every 16 entries.

    Raises:
        ValueError: the keys are not strictly rising in byte order.
    """
    out = bytearray()
    index, block = _BlockBuilder(1), _BlockBuilder(_RESTART_INTERVAL)
    handle = b""
    previous: bytes | None = None
    for key, value in entries:
        if previous is not None and key <= previous:
            raise ValueError(f"key {shown(key)} does not come after {shown(previous)}")
        if block.count and len(key) + len(value) >= _LARGE_ENTRY_BYTES:
            handle, block = _append_block(out, block), _BlockBuilder(_RESTART_INTERVAL)
        if handle and previous is not None:
            index.add(_separator(previous, key), handle)
            handle = b""
        block.add(key, value)
        previous = key
        if block.nbytes >= _BLOCK_BYTES:
            handle, block = _append_block(out, block), _BlockBuilder(_RESTART_INTERVAL)
    if block.count:
        handle = _append_block(out, block)
    if previous is not None:
        index.add(_successor(previous), handle)
    handles = _append_block(out, _BlockBuilder(1)) + _append_block(out, index)
    return bytes(out + handles.ljust(FOOTER_BYTES - len(MAGIC), b"\0") + MAGIC)


class _BlockBuilder:
    """A block under construction; each key keeps only what differs from the one before it."""

    def __init__(self, restart_interval: int) -> None:
        self._data = bytearray()
        self._restarts = [0]
        self._interval = restart_interval
        self._previous = b""
        self.count = 0

    def add(self, key: bytes, value: bytes) -> None:
        """Append an entry; its key has to come after the one before it."""
        shared = 0
        if self.count % self._interval:
            shared = _shared_bytes(self._previous, key)
        elif self.count:
            self._restarts.append(len(self._data))
        self._data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        self._previous = key
        self.count += 1

    @property
    def nbytes(self) -> int:
        """Size of the finished block."""
        return len(self._data) + 4 * len(self._restarts) + 4

    def finish(self) -> bytes:
        """The contents: entries, restart offsets, their count."""
        numbers = (*self._restarts, len(self._restarts))
        return bytes(self._data) + b"".join(number.to_bytes(4, "little") for number in numbers)


def _append_block(out: bytearray, block: _BlockBuilder) -> bytes:
    """Append the block with its trailer; returns its handle as stored."""
    import google_crc32c

    contents = block.finish()
    handle = varint(len(out)) + varint(len(contents))
    stored = contents + bytes([_RAW])
    out += stored + mask(google_crc32c.value(stored)).to_bytes(4, "little")
    return handle


def _shared_bytes(left: bytes, right: bytes) -> int:
    """Length of the common prefix: the highest bit in which two big-endian numbers differ tells the first byte that does."""
    size = min(len(left), len(right))
    difference = int.from_bytes(left[:size], "big") ^ int.from_bytes(right[:size], "big")
    return size - (difference.bit_length() + 7) // 8


def _separator(left: bytes, right: bytes) -> bytes:
    """A short key that is not below `left` and below `right`; `left` itself where the rule of LevelDB finds no shorter one."""
    at = _shared_bytes(left, right)
    if at < min(len(left), len(right)) and left[at] < 0xFF and left[at] + 1 < right[at]:
        return left[:at] + bytes([left[at] + 1])
    return left


def _successor(key: bytes) -> bytes:
    """A short key that is not below `key`: up to the first byte that is not 0xFF, plus one."""
    for at, byte in enumerate(key):
        if byte != 0xFF:
            return key[:at] + bytes([byte + 1])
    return key
