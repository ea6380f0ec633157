"""What is known of a tensor without its values: spec, and where stored bytes lie.

Serves every stage from probe to apply. Knows no format and opens no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from surgery.dtypes import DType

if TYPE_CHECKING:
    import numpy as np


class TensorSpec(NamedTuple):
    """Element type and shape."""

    dtype: DType
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype.short}[{','.join(map(str, self.shape))}]"

    @property
    def size(self) -> int:
        """Number of elements; 1 for a scalar."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements in C order, bit-packed types rounded up to whole bytes; 0 for strings and variants, whose shape does not tell."""
        return (prod(self.shape) * self.dtype.bits + 7) // 8


class Fingerprint(NamedTuple):
    """What tells that a file is still the one that was planned with. Times in nanoseconds."""

    nbytes: int
    mtime_ns: int
    device: int
    inode: int


class SourceFile(NamedTuple):
    """A file that holds tensor bytes.

    `checksum_fault` is the sentence for a checksum that does not fit, with the fields `{nbytes}` (of the tensor), `{stored}`
    and `{computed}`; where the format has none of its own it is empty. `checksum_kind` is that of its tensors: "crc32c" (as TensorFlow) or
    "crc32" (as zip files).
    """

    path: str
    fingerprint: Fingerprint
    checksum_fault: str = ""
    checksum_kind: str = "crc32c"

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return self.fingerprint.nbytes


class Codec(Protocol):
    """How a tensor is stored that is not plain little-endian C order (string tensors, variants)."""

    name: str

    def decode(self, stored: bytes, spec: TensorSpec) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        """The array behind the stored bytes. Raises CorruptFile, or UnsupportedFeature where there is no array form."""
        ...

    def checksum(self, stored: bytes, spec: TensorSpec) -> int:
        """The checksum that the format keeps for these bytes (plain, unmasked)."""
        ...


@runtime_checkable
class StreamCodec(Codec, Protocol):
    """A codec that yields the elements from the first to the last in little memory, as no random access is possible."""

    def chunks(self, stored: Iterable[bytes | memoryview], spec: TensorSpec) -> Iterator[bytes | memoryview]:
        """The decoded tensor, little-endian in C order, in chunks of at most some MiB; `stored` are its stored bytes in order.

        Raises CorruptFile, perhaps only after the last chunk: nothing may be made of the chunks before the end is reached.
        """
        ...


class Extent(NamedTuple):
    """Where a stored tensor's bytes lie: `nbytes` bytes from absolute offset `start` of one file.

    `checksum` is what the source keeps for them (of its file's `checksum_kind`, plain: not masked), or None. Without a codec the bytes are the
    elements in C order, little-endian unless `big_endian`. `part_of` is the stored tensor with a checksum that these bytes are a part of:
    they have none of their own, and only all of that tensor can be verified.
    """

    file: SourceFile
    start: int
    nbytes: int
    spec: TensorSpec
    checksum: int | None = None
    codec: Codec | None = None
    big_endian: bool = False
    part_of: Extent | None = None

    @property
    def stop(self) -> int:
        """Absolute offset of the first byte behind."""
        return self.start + self.nbytes
