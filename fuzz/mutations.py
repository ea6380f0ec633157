"""Damage to bytes, for where no coverage guides it: what breaks parsers most often, weighted by hand."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

_NUMBERS = (
    0,
    1,
    7,
    8,
    63,
    64,
    127,
    128,
    255,
    256,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
_WORDS = (b"\xff" * 10, b"\x80" * 10 + b"\x01", b"[" * 2000, b'{"a":' * 500, b"../../etc/passwd", b"\0", b"null", b"-1", b"1e999", b"NaN", b"9" * 400)
_LARGEST = 1 << 16


def mutated(sound: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """`sound` with one to eight faults; `others` are sound files of the kind, to take pieces from. At most 64 KiB longer."""
    data = bytearray(sound)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 8))):
        chance.choice(_WAYS)(data, chance, others)
    return bytes(data[: len(sound) + _LARGEST])


def _flip(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))


def _number(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    kind = chance.choice("BHIQ")
    width = struct.calcsize(kind)
    at = chance.randrange(len(data) + 1)
    value = (chance.choice(_NUMBERS) + chance.choice((-1, 0, 0, 1))) % (1 << 8 * width)
    data[at : at + width] = struct.pack(chance.choice("<>") + kind, value)


def _little_more_or_less(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    if data:
        at = chance.randrange(len(data))
        data[at] = (data[at] + chance.choice((-8, -1, 1, 8))) % 256


def _digit(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    places = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if places:
        at = chance.choice(places)
        data[at : at + 1] = chance.choice((b"0", b"9", b"-1", b"99999999999", b"1.5", b'"1"', b"[]", b"1e9", b"true"))


def _cut(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    del data[at : at + chance.choice((1, 2, 4, 8, 64, len(data)))]


def _repeat(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    piece = data[at : at + chance.choice((1, 4, 8, 32, 256))]
    data[at:at] = piece * chance.choice((1, 1, 2, 16))


def _overwrite(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    other = chance.choice(others)
    width = chance.choice((2, 4, 8, 16, 64, 512))
    start, at = chance.randrange(len(other) + 1), chance.randrange(len(data) + 1)
    piece = other[start : start + width]
    data[at : at + len(piece)] = piece


def _insert(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(_WORDS)


_WAYS: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    *(_flip, _flip, _flip, _set, _set, _number, _number, _number, _little_more_or_less, _little_more_or_less),
    *(_digit, _cut, _repeat, _overwrite, _overwrite, _insert),
)
