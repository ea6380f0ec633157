"""Paths that a file gives for others: they may lead to its own folder and below, nowhere else."""

from __future__ import annotations

import posixpath


def is_inside(location: str) -> bool:
    """Whether a relative path stays in the folder it starts from, however it is read."""
    normal = posixpath.normpath(location)
    plain = location.isprintable() and "\\" not in location and ":" not in location
    return bool(location) and plain and not normal.startswith("/") and normal not in (".", "..") and not normal.startswith("../")
