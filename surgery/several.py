"""Paths that stand for more than one file, or for a part of one: `consolidated.*.pth`, and `root: [state_dict, model, '']`.

Serves the probe. Knows no steps; formats only by how they name their parts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence

from surgery import formats
from surgery.errors import NotFoundError, SourceError, listed, plural
from surgery.formats.base import Disk, Indexed
from surgery.steps.base import Found

_NATIVE = "."
"""Formats that join names with it have parts of their own, `file.pt#model`: their keys have dots of other meanings, too."""


def is_numbered(path: str) -> bool:
    """Whether a path has a `*`, for the numbers of several files or of the folders in which they lie."""
    return path.partition("#")[0].count("*") == 1


def numbered_files(path: str, disk: Disk) -> tuple[str, ...]:
    """The files that a path with a `*` stands for, in the order of their numbers; the path itself where there is such a file.

    What stands behind a `#` is a part of each. Folders and TensorFlow's prefixes are no files.

    Raises:
        NotFoundError: there are none.
        SourceError: a number is left out (`missing-shard`) or there twice (`ambiguous-source`); the first is 0 or 1.
    """
    if disk.is_file(path):
        return (path,)
    named, hash_, part = path.partition("#")
    before, _, after = named.partition("*")
    folder, before = posixpath.split(before)
    after, slash, below = after.partition("/")
    pattern = re.compile(f"{re.escape(before)}([0-9]{{1,18}}){re.escape(after)}")
    found: dict[int, str] = {}
    for there in disk.names(folder):
        match = pattern.fullmatch(there)
        file = posixpath.join(folder, there) + slash + below
        if match is None or not disk.is_file(file):
            continue
        number = int(match[1])
        if number in found:
            both = f"{found[number]} and {file}"
            raise SourceError(f"two files of {path} have the number {number}", code="ambiguous-source", notes=[both], help="move one of them away")
        found[number] = file
    if not found:
        raise NotFoundError(
            f"Unsuccessful TensorSliceReader constructor: Failed to find any matching files for {path}",
            code="no-such-checkpoint",
            sentence=True,
            notes=["`*` stands for the digits of a number in the names of files or of their folders"],
            help="correct the path; it is relative to the working directory",
        )
    first = min(found) if min(found) <= 1 else 0
    gaps = (number for number in range(first, max(found) + 1) if number not in found)
    gap = next(gaps, None)
    if gap is not None:
        raise SourceError(
            f"number {gap} of {path} is not there",
            code="missing-shard",
            notes=[f"{plural(len(found), 'file')}: {listed([found[number] for number in sorted(found)])}"],
            help="copy or download what is missing; numbers count from 0 or 1 without a gap",
        )
    return tuple(found[number] + hash_ + part for number in sorted(found))


def first_part(path: str, roots: Sequence[str], open_at: Callable[[str], Indexed]) -> tuple[Found, Indexed]:
    """The first part of a checkpoint that there is; "" is the whole. `open_at` opens what lies at a path.

    Raises:
        NotFoundError: it has none of the parts.
        SourceError: what `open_at` raises.
    """
    whole = open_at(path)
    separator = formats.separator(whole.format)
    for root in roots:
        if not root:
            return Found(path), whole
        if separator == _NATIVE:
            try:
                part = f"{path}#{root}"
                return Found(part), open_at(part)
            except NotFoundError:
                continue
        prefix = root.rstrip(separator) + separator
        if separator and any(key.startswith(prefix) for key in whole.tensors):
            return Found(path, prefix), whole
    heads = dict.fromkeys(key.partition(separator)[0] for key in whole.tensors) if separator else {}
    raise NotFoundError(
        f"{path} has none of the parts {listed([f'`{root}`' for root in roots])}",
        code="no-such-checkpoint",
        notes=[f"there are {listed(list(heads))}" if heads else f"{whole.format} keeps no parts"],
        help="correct `root`; '' at its end stands for the whole",
    )
