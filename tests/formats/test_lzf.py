from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.formats.lzf import decompressed


@pytest.mark.parametrize(
    ("stream", "made"),
    [
        (b"", b""),
        (b"\x02abc", b"abc"),
        (b"\x02abc\x20\x02", b"abcabc"),  # length 3, from 3 before the end
        (b"\x00a\xe0\x01\x00", b"a" * 11),  # length 7 + 1 + 2, of what it makes itself
        (b"\x01ab\x40\x01\x00c", b"abababc"),
    ],
)
def test_literals_and_copies(stream: bytes, made: bytes) -> None:
    assert decompressed(stream, 20) == made


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (b"\x05abc", "ends within a literal"),
        (b"\x00a\x20", "ends within a copy"),
        (b"\x00a\xe0", "ends within a copy"),
        (b"\x00a\x20\x01", "before its beginning"),
        (b"\x00a" + b"\xe0\xff\x00" * 1000, "more than 20 bytes"),
    ],
)
def test_damage_is_told(stream: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decompressed(stream, 20)


@given(st.binary(max_size=60))
def test_any_bytes_end_in_as_many_as_are_wanted_or_a_value_error(stream: bytes) -> None:
    with suppress(ValueError):
        assert len(decompressed(stream, 300)) <= 300
