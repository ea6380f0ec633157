"""Paths that cannot be meant: the same words in every step that names one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from surgery.errors import RecipeError
from surgery.where import Path


def impossible_path(path: str, at: Path = ("path",)) -> Iterator[RecipeError]:
    """The error for a path that no file can have, or that a shell or another program would understand."""
    if not path or "\0" in path:
        yield RecipeError("no file can have this path", code="bad-path", at=at, help="name a file, a prefix or a folder")
    if path.startswith("~/"):
        yield RecipeError("`~` is not expanded", code="bad-path", at=at, help="use `${env.HOME}` with `env: [HOME]`")
    if re.match(r"\w+://", path):
        yield RecipeError("remote storage is not supported", code="bad-path", at=at, help="copy it to this machine, or mount it")
