import random
import zlib

import google_crc32c
import ml_dtypes
import numpy as np
import pytest

from surgery.checksums import crc32, crc32_combine, crc32c, crc32c_combine


def test_crc32c_of_the_check_string():
    assert crc32c(b"123456789") == 0xE3069283


def test_crc32_of_the_check_string():
    assert crc32(b"123456789") == 0xCBF43926


def test_crc32c_of_32_zero_bytes_is_that_of_rfc_3720():
    assert crc32c(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize(
    "data",
    [
        bytearray(b"\x01\x00\x02\x00"),
        memoryview(b"\x01\x00\x02\x00"),
        memoryview(bytearray(b"\x01\x00\x02\x00")),
        np.array([1, 2], "<u2"),
        np.array([[1], [2]], "<u2"),
        np.array([1, 9, 2, 9], "<u2")[::2],
        np.array([1, 2], "<u2").view(ml_dtypes.bfloat16),
        np.array(0x00020001, "<u4"),
    ],
)
def test_every_kind_of_buffer_counts_as_its_bytes(data):
    assert (crc32(data), crc32c(data)) == (zlib.crc32(b"\x01\x00\x02\x00"), google_crc32c.value(b"\x01\x00\x02\x00"))


@pytest.mark.parametrize("data", [b"", memoryview(b""), np.zeros((3, 0))])
def test_nothing_leaves_a_checksum_as_it_is(data):
    assert (crc32(data, 7), crc32c(data, 7)) == (7, 7)


def test_checksums_go_on_from_what_came_before():
    assert (crc32(b"6789", crc32(b"12345")), crc32c(b"6789", crc32c(b"12345"))) == (0xCBF43926, 0xE3069283)


def test_checksums_of_parts_join():
    assert crc32_combine(zlib.crc32(b"1234"), zlib.crc32(b"56789"), 5) == 0xCBF43926
    assert crc32c_combine(google_crc32c.value(b"1234"), google_crc32c.value(b"56789"), 5) == 0xE3069283


@pytest.mark.parametrize("nbytes", [0, 1, 2, 255, 256, 257, 65_535, 65_536, 1_000_003])
def test_joining_works_for_every_length(nbytes):
    first, second = random.Random(1).randbytes(100), random.Random(2).randbytes(nbytes)
    assert crc32_combine(zlib.crc32(first), zlib.crc32(second), nbytes) == zlib.crc32(first + second)
    assert crc32c_combine(google_crc32c.value(first), google_crc32c.value(second), nbytes) == google_crc32c.value(first + second)


def test_joining_works_beyond_four_gibibytes():
    zeros = bytes(1 << 20)
    whole, part, nbytes = zlib.crc32(zeros), zlib.crc32(zeros), 1 << 20
    for _ in range(13):  # 1 MiB doubled to 8 GiB
        whole = crc32_combine(whole, whole, nbytes)
        nbytes *= 2
    piecewise = part
    for _ in range(8191):
        piecewise = crc32_combine(piecewise, part, 1 << 20)
    assert nbytes == 8 << 30
    assert whole == piecewise
    assert crc32_combine(123, whole, nbytes) == crc32_combine(crc32_combine(123, whole, nbytes - (1 << 20)), 0, 1 << 20) ^ whole ^ crc32_combine(
        whole, 0, 1 << 20
    )
