"""Sizes in bytes, as people write and read them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
SIZE = r"^\d+(\.\d+)?\s*([KMGTkmgt]?[iI]?[bB])?$"


def parse_size(text: str | int) -> int:
    """`5GB` is 5,000,000,000 bytes, `2GiB` is 2 x 1024^3, a plain number is bytes. Raises ValueError."""
    if isinstance(text, int):
        return text
    found = re.match(r"^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$", text.strip())
    if not found or found[2].upper() not in _UNITS:
        raise ValueError(f"`{text}` is no size; write 20MB, 5GB or 2GiB")
    return int(float(found[1]) * _UNITS[found[2].upper()]) if "." in found[1] else int(found[1]) * _UNITS[found[2].upper()]


def size_text(nbytes: int) -> str:
    """`3.2 GiB`, `512 B`."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{nbytes:,} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError
