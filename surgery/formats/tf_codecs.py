"""How TensorFlow stores tensors whose elements vary in length: strings and variants.

Both keep a checksum inside the bytes beside the one in the index, and the index's is not simply that of the bytes.

Source: TensorFlow, core/util/tensor_bundle/tensor_bundle.cc (WriteStringTensor, WriteVariantTensor).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from surgery.errors import CorruptFile, UnsupportedFeature
from surgery.formats.tf_table import mask, unmask
from surgery.formats.tf_varint import read_varint, varint
from surgery.tensors import Codec, TensorSpec

if TYPE_CHECKING:
    import numpy as np

_CHECKSUM_BYTES = 4


class _StringCodec:
    """n varint lengths, the masked checksum of the lengths, the strings one after the other."""

    name = "tf-string"

    def decode(self, stored: bytes, spec: TensorSpec) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
        """An object array of `bytes`, of the tensor's shape.

        Raises:
            CorruptFile: lengths that do not end or run past the bytes, or whose checksum does not match.
        """
        import numpy as np

        lengths, at = _checked_lengths(stored, spec)
        at += _CHECKSUM_BYTES
        if at + sum(lengths) > len(stored):
            raise _corrupt("Read less bytes than requested", f"{len(stored):,} stored bytes cannot hold strings of {sum(lengths):,}")
        strings = np.empty(len(lengths), object)
        for number, length in enumerate(lengths):
            strings[number] = stored[at : at + length]
            at += length
        return strings.reshape(spec.shape)

    def checksum(self, stored: bytes, spec: TensorSpec) -> int:
        """The checksum over the lengths as fixed-width integers, then everything behind them. Raises CorruptFile."""
        import google_crc32c

        lengths, at = _checked_lengths(stored, spec)
        stop = at + _CHECKSUM_BYTES + sum(lengths)
        return int(google_crc32c.extend(google_crc32c.value(_fixed_width(lengths)), stored[at:stop]))


class _VariantCodec:
    """n times: varint length, a serialized proto, the masked checksum of all so far."""

    name = "tf-variant"

    def decode(self, stored: bytes, spec: TensorSpec) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
        """Variants hold C++ objects and have no array form: raises UnsupportedFeature."""
        raise UnsupportedFeature(
            "Tensorflow type 21 not convertible to numpy dtype.",
            help="variants can be renamed, dropped and saved to a TensorFlow checkpoint, nothing else",
            sentence=True,
        )

    def checksum(self, stored: bytes, spec: TensorSpec) -> int:
        """The running checksum over fixed-width lengths, protos and the checksums between them. Raises CorruptFile."""
        import google_crc32c

        crc = at = 0
        for number in range(spec.size):
            length, at = _length(stored, at)
            crc = google_crc32c.extend(google_crc32c.extend(crc, length.to_bytes(8, "little")), stored[at : at + length])
            at += length
            kept = stored[at : at + _CHECKSUM_BYTES]
            if int.from_bytes(kept, "little") != mask(crc) or len(kept) < _CHECKSUM_BYTES:
                expected = unmask(int.from_bytes(kept, "little"))
                raise _corrupt(f"The checksum after Variant {number} does not match. Expected: {expected} Actual: {crc}")
            crc = google_crc32c.extend(crc, kept)
            at += _CHECKSUM_BYTES
        return int(crc)


TF_STRING = _StringCodec()
TF_VARIANT = _VariantCodec()
CODECS: dict[str, Codec] = {"string": TF_STRING, "variant": TF_VARIANT}
"""By the name of the dtype; all other dtypes are stored plainly."""


def encode_strings(strings: Iterable[bytes]) -> bytes:
    """A string tensor's elements as `TF_STRING` reads them."""
    items = list(strings)
    lengths = [len(item) for item in items]
    return b"".join([*map(varint, lengths), _lengths_checksum(lengths).to_bytes(_CHECKSUM_BYTES, "little"), *items])


def _lengths(stored: bytes, spec: TensorSpec) -> tuple[list[int], int]:
    if spec.size + _CHECKSUM_BYTES > len(stored):
        raise _corrupt("Read less bytes than requested", f"{len(stored):,} stored bytes cannot hold {spec.size:,} strings")
    lengths, at = [], 0
    for _ in range(spec.size):
        length, at = _length(stored, at)
        lengths.append(length)
    return lengths, at


def _checked_lengths(stored: bytes, spec: TensorSpec) -> tuple[list[int], int]:
    """The lengths and the offset of their checksum, which is looked at first, as TensorFlow does."""
    lengths, at = _lengths(stored, spec)
    expected, actual = int.from_bytes(stored[at : at + _CHECKSUM_BYTES], "little"), _lengths_checksum(lengths)
    if expected != actual:
        raise _corrupt(f"The length checksum does not match: expected {unmask(expected)} but actual is {unmask(actual)}")
    return lengths, at


def _length(stored: bytes, at: int) -> tuple[int, int]:
    """A length that the bytes behind it can fill, and the offset behind it."""
    try:
        length, after = read_varint(stored, at, len(stored))
    except ValueError:
        raise _corrupt("Read less bytes than requested", f"a length at byte {at:,} of the tensor does not end") from None
    if length > len(stored) - after:
        raise _corrupt("Read less bytes than requested", f"at byte {at:,} of the tensor: length {length:,} of {len(stored):,} bytes in all")
    return length, after


def _fixed_width(lengths: list[int]) -> bytes:
    """Each length as uint32, or uint64 where it needs that: what the checksums are taken over."""
    return b"".join(length.to_bytes(4 if length < 1 << 32 else 8, "little") for length in lengths)


def _lengths_checksum(lengths: list[int]) -> int:
    import google_crc32c

    return mask(google_crc32c.value(_fixed_width(lengths)))


def _corrupt(title: str, *notes: str) -> CorruptFile:
    return CorruptFile(title, notes=notes, help="the file is damaged or still being written; copy it again", sentence=True)
