"""A GGUF model in several files: their names, and the key/values that tell how they belong together. Serves the gguf format.

The parts are NAME-00001-of-00003.gguf and so on. The first has all key/values, each has some of the tensors and counts itself from 0.
Source: llama.cpp, `gguf-split.cpp` and `llama_model_loader`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from surgery.errors import CorruptFile, SourceError, listed, plural
from surgery.expr import Expr
from surgery.formats.base import Disk, Indexed
from surgery.formats.gguf_cursor import COPY_AGAIN

_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"
_KEYS = (_NUMBER, _COUNT, _TENSORS)
_NAME = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL)


def first_in(folder: str, names: Iterable[str]) -> str | None:
    """The first part of the only split model among these names of a folder, which may itself be missing; None where there is not just one."""
    found = {f"{match[1]}-00001-of-{match[3]}.gguf" for match in map(_NAME.fullmatch, names) if match}
    return posixpath.join(folder, found.pop()) if len(found) == 1 else None


def joined(part: Indexed, disk: Disk, index_file: Callable[[str, Disk], Indexed]) -> Indexed:
    """All of a model whose first part this is, without the key/values that tell of parts; any other file as it is, with a note if it is a part.

    Raises:
        CorruptFile: parts that contradict each other.
        SourceError: a part that is not there, and what `index_file` raises.
    """
    count = _number(part, _COUNT, 0)
    if count < 2:
        return part
    if _number(part, _NUMBER, 0):
        note = f"it is one of {count:,} files of a model; the others are read with the first"
        return part._replace(notes=(*part.notes, note))
    names = _names(part.location, count)
    _refuse_absent(names, disk)
    parts = [part, *(index_file(name, disk) for name in names[1:])]
    for number, other in enumerate(parts):
        if (_number(other, _NUMBER, 0), _number(other, _COUNT, 0)) != (number, count):
            raise _contradiction(other, f"it does not say that it is file {number + 1:,} of {count:,}")
    tensors = _joined_tensors(parts)
    if _number(part, _TENSORS, len(tensors)) != len(tensors):
        raise _contradiction(part, f"all files together should have {_number(part, _TENSORS, 0):,} tensors, not {len(tensors):,}")
    return part._replace(
        tensors=tensors,
        metadata=_without_parts(part.metadata),
        files=tuple(file for other in parts for file in other.files),
        attachments=_without_parts(part.attachments),
        notes=tuple(dict.fromkeys(note for other in parts for note in other.notes)),
    )


def _number(part: Indexed, key: str, default: int) -> int:
    text = part.metadata.get(key, "")
    return int(text) if re.fullmatch("[0-9]{1,10}", text) else default


def _without_parts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _KEYS}


def _names(location: str, count: int) -> list[str]:
    """The paths of all parts. Raises SourceError where the name of the first does not tell them."""
    name = _NAME.fullmatch(location)
    if name is None or (int(name[2]), int(name[3])) != (1, count):
        ending = f"-00001-of-{count:05}.gguf"
        raise SourceError(
            f"{location} is the first of {count:,} files of a model, and its name does not tell the others",
            code="missing-shard",
            notes=[f"it should end with {ending}"],
            help="give all of them the names that llama.cpp gave them",
        )
    return [f"{name[1]}-{number:05}-of-{name[3]}.gguf" for number in range(1, count + 1)]


def _refuse_absent(names: list[str], disk: Disk) -> None:
    absent = [name for name in names if not disk.is_file(name)]
    if absent:
        raise SourceError(
            f"{plural(len(absent), 'file')} of the model {names[0]} not there: {listed(list(map(posixpath.basename, absent)))}",
            code="missing-shard",
            help="copy or download what is missing",
            data={"shards": absent},
        )


def _joined_tensors(parts: list[Indexed]) -> dict[str, Expr]:
    tensors: dict[str, Expr] = {}
    for part in parts:
        twice = next((key for key in part.tensors if key in tensors), None)
        if twice is not None:
            raise _contradiction(part, f"`{twice}` is in an earlier file, too")
        tensors |= part.tensors
    return tensors


def _contradiction(part: Indexed, fact: str) -> CorruptFile:
    file = part.files[0]
    where = f"{file.path}, bytes 0 to {file.nbytes:,}"
    return CorruptFile(f"{file.path} does not fit the other files of its model", notes=[fact, where], help=COPY_AGAIN)
