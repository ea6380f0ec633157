"""A reader that looks at stored checksums in passing: what it verifies at once, what it notes down, and what it lets pass."""

from __future__ import annotations

import random

import google_crc32c
import pytest

from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile
from surgery.expr import Assemble, Expr, Slice, Stored
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec
from surgery.verify import CheckedReader, ReadPart

DATA = random.Random(3).randbytes(400)
SENTENCE = "{nbytes} bytes: stored {stored} vs. calculated {computed}"
FILE = SourceFile("a.data", Fingerprint(400, 0, 0, 0), SENTENCE)
OTHER = SourceFile("b.data", Fingerprint(400, 0, 0, 0))


def stored(start: int, size: int = 25, file: SourceFile = FILE, *, wrong: int = 0, checksum: bool = True) -> Stored:
    value = google_crc32c.value(DATA[start : start + 4 * size]) ^ wrong
    return Stored(Extent(file, start, 4 * size, TensorSpec(DTYPES["float32"], (size,)), value if checksum else None))


def joined(*parts: Stored) -> Assemble:
    origins = [sum(part.spec.size for part in parts[:number]) for number in range(len(parts))]
    spec = TensorSpec(DTYPES["float32"], (sum(part.spec.size for part in parts),))
    return Assemble(spec, tuple(((origin,), part) for origin, part in zip(origins, parts, strict=True)))


def reader(expr: Expr, data: bytes = DATA) -> CheckedReader:
    return CheckedReader("w", expr, lambda file, start, stop: data[start:stop])


def part(tensor: Stored, rel_start: int, nbytes: int) -> ReadPart:
    start = tensor.extent.start + rel_start
    return ReadPart(tensor.extent, rel_start, nbytes, google_crc32c.value(DATA[start : start + nbytes]))


def test_bytes_pass_through_as_they_are() -> None:
    assert reader(stored(100)).read(FILE, 120, 180) == DATA[120:180]


def test_a_tensor_that_is_read_at_once_is_verified_at_once() -> None:
    tensor = stored(100)
    checked = reader(tensor)
    checked.read(FILE, 100, 200)
    assert checked.parts == [part(tensor, 0, 100)]


def test_a_damaged_tensor_is_told_in_the_words_of_its_format() -> None:
    tensor = stored(100, wrong=1)
    with pytest.raises(CorruptFile) as caught:
        reader(tensor).read(FILE, 100, 200)
    right = google_crc32c.value(DATA[100:200])
    assert caught.value.title == f"100 bytes: stored {right ^ 1} vs. calculated {right}"
    assert caught.value.notes == ("key w, a.data, bytes 100 to 200",)
    assert caught.value.data == {"key": "w", "file": "a.data", "start": 100, "stop": 200}


def test_neighbouring_reads_are_one_part() -> None:
    tensor = stored(100)
    checked = reader(tensor)
    for start in range(100, 200, 20):
        checked.read(FILE, start, start + 20)
    assert checked.parts == [part(tensor, 0, 100)]


def test_reads_with_a_hole_between_them_are_parts_of_their_own() -> None:
    tensor = stored(100)
    checked = reader(tensor)
    for start, stop in ((100, 140), (160, 180), (140, 150), (180, 200)):
        checked.read(FILE, start, stop)
    assert checked.parts == [part(tensor, 0, 50), part(tensor, 60, 40)]


def test_each_tensor_of_an_expression_has_its_own_parts() -> None:
    first, second, elsewhere = stored(0), stored(100), stored(0, file=OTHER)
    checked = reader(joined(first, second, elsewhere))
    for file, start, stop in ((FILE, 0, 50), (OTHER, 0, 100), (FILE, 100, 150), (FILE, 50, 100), (FILE, 150, 200)):
        checked.read(file, start, stop)
    assert sorted(checked.parts, key=str) == sorted([part(first, 0, 100), part(second, 0, 100), part(elsewhere, 0, 100)], key=str)


def test_what_has_no_checksum_or_lies_across_two_tensors_is_let_pass() -> None:
    checked = reader(joined(stored(0), stored(100), stored(200, checksum=False)))
    for start, stop in ((50, 150), (200, 300), (300, 400), (90, 101)):
        assert checked.read(FILE, start, stop) == DATA[start:stop]
    assert checked.parts == []


def test_of_a_tensor_of_which_a_part_is_wanted_nothing_is_noted() -> None:
    checked = reader(Slice(stored(0, wrong=1), (5,), (10,)))
    checked.read(FILE, 20, 60)
    assert checked.parts == []


def test_a_tensor_that_is_used_twice_is_judged_each_time() -> None:
    tensor = stored(0)
    checked = reader(joined(tensor, tensor))
    checked.read(FILE, 0, 100)
    checked.read(FILE, 0, 100)
    assert checked.parts == [part(tensor, 0, 100)] * 2
