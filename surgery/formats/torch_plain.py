"""Pickles that no container holds: `.pkl` files of numpy arrays, as detectron2 and many converters keep weights. Serves the `torch` format.

Arrays are byte ranges of the pickle, or text in it where the protocol is 2. Knows one file at a time.
"""

from __future__ import annotations

from surgery.errors import CorruptFile
from surgery.formats.base import ReadAt
from surgery.formats.tape import Tape
from surgery.formats.torch_objects import Storage, TorchBuilder
from surgery.formats.torch_pickle import Content, content_of, unpickled
from surgery.formats.torch_views import Place
from surgery.tensors import SourceFile

_SUFFIXES = (".pkl", ".pickle")
_PROTOCOL = 0x80
_FIRST_OPCODES = b"}](c)\x95\x8cX"
"""Begin containers, calls and frames: what a pickle of protocol 2 and later starts with."""
_OLD_FIRST_OPCODES = b"(}]c"


def is_plain(file: SourceFile, read: ReadAt) -> bool:
    """Whether a file is a pickle by its first and last bytes; protocols 0 and 1, which begin with no more than a letter, by name, too."""
    if file.nbytes < 4 or read(file.nbytes - 1, file.nbytes) != b".":
        return False
    protocol, number, first = read(0, 3)
    if protocol == _PROTOCOL:
        return 2 <= number <= 5 and first in _FIRST_OPCODES
    return file.path.endswith(_SUFFIXES) and protocol in _OLD_FIRST_OPCODES


def read_plain(file: SourceFile, read: ReadAt, fragment: str) -> Content:
    """The arrays of a pickle.

    Raises:
        CorruptFile: a pickle that cannot be read, or does not end where the file does; tensors with storages, which it has no place for.
        NotFoundError: there is nothing under `fragment`.
    """
    tape = Tape(read, 0, file.nbytes)
    value = unpickled(file, tape, TorchBuilder())
    if tape.at != file.nbytes:
        raise _corrupt(file, "goes on behind its pickle", tape.at)

    def place_of(storage: Storage) -> Place:
        raise _corrupt(file, f"has no storage `{storage.key[:80]}`: it is the pickle of a checkpoint without its container", 0)

    return content_of(value, file, fragment, place_of)


def _corrupt(file: SourceFile, what: str, start: int) -> CorruptFile:
    where = f"{file.path}, bytes {start:,} to {file.nbytes:,}"
    return CorruptFile(f"{file.path} {what}", notes=[where], help="the source is damaged or of another kind; copy it again")
