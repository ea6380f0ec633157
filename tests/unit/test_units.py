import pytest

from surgery.units import parse_size, size_text


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        (7, 7),
        ("0", 0),
        ("512", 512),
        ("1B", 1),
        ("20MB", 20_000_000),
        ("5GB", 5_000_000_000),
        ("2GiB", 2_147_483_648),
        ("1.5 KiB", 1536),
        ("1.5kb", 1500),
        (" 3 TiB ", 3 * 1_099_511_627_776),
        ("9007199254740993", 9_007_199_254_740_993),
    ],
)
def test_a_size_is_read(text: str | int, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "GB", "-1", "5 XB", "1e3", "1,000", "5GBs", "0x10"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size; write 20MB, 5GB or 2GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (3_435_973_837, "3.2 GiB"),
        (1_099_511_627_776, "1.0 TiB"),
        (5_000_000_000_000_000, "4547.5 TiB"),
    ],
)
def test_a_size_is_written(nbytes: int, text: str) -> None:
    assert size_text(nbytes) == text
