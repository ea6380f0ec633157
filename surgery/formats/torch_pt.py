"""PyTorch checkpoints: `.pt`, `.pth`, `.bin` and `.ckpt` files, also sharded with an index. Serves probe (index) and physical planning (layout).

Reads the zip container (1.6 and later), the older stream of pickles, and the parameters of TorchScript archives. Nothing in a
pickle is imported or run: what is neither tensor, container, number nor text is told in a note. Writes the zip container.
Source of format facts: torch 2.13, `torch/serialization.py`.
"""

from __future__ import annotations

import posixpath

from surgery.errors import CorruptFile
from surgery.formats import suffixes
from surgery.formats.base import Disk, Indexed
from surgery.formats.sharded import index_shards
from surgery.formats.torch_legacy import HEAD_BYTES, is_stream, read_stream
from surgery.formats.torch_pickle import Content
from surgery.formats.torch_plain import is_plain, read_plain
from surgery.formats.torch_tar import is_tar, read_tar
from surgery.formats.torch_write import INDEX_NAME, SINGLE_NAME
from surgery.formats.torch_write import layout as layout
from surgery.formats.torch_zip import is_archive, read_archive
from surgery.tensors import SourceFile

NAME = "torch"
SUMMARY = "PyTorch checkpoint (.pt, .pth, .bin), also nested (PATH#part) or sharded with an index"
OPTIONS = frozenset({"shard_size"})
_SUFFIXES = tuple(suffix for suffix in suffixes(NAME) if suffix != ".bin")
"""What a path may be recognised by, whatever it holds; many kinds of files are called `.bin`."""
_INDEX_SUFFIX = ".bin.index.json"
_ZIP = b"PK\3\4"


def locate(path: str, disk: Disk) -> str | None:
    """Recognise a file by content, or by `.pt` and `.pth`; an index by its name; a folder by what lies in it. `#` begins a part of a file."""
    if disk.is_folder(path):
        folder = path.rstrip("/") or "/"
        return folder if {INDEX_NAME, SINGLE_NAME} & set(disk.names(folder)) else None
    file, _ = _parted(path, disk)
    if not disk.is_file(file):
        return None
    return path if file.endswith((*_SUFFIXES, _INDEX_SUFFIX)) or _looks_right(file, disk) else None


def _parted(path: str, disk: Disk) -> tuple[str, str]:
    """A file's path and the part of it that is meant; a `#` may well be a letter of a name."""
    if disk.is_file(path):
        return path, ""
    file, _, fragment = path.rpartition("#")
    return (file, fragment) if file else (path, "")


def _looks_right(path: str, disk: Disk) -> bool:
    file, read = disk.open(path)
    head = read(0, min(file.nbytes, HEAD_BYTES))
    return is_stream(head) or (head.startswith(_ZIP) and is_archive(file, read)) or is_tar(file, read) or is_plain(file, read)


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the tensors in the order of the pickle; keys of nested values are joined with `.`; reads pickles and zip directories only.

    Values that are no tensors become metadata as JSON text (`Infinity` and `NaN` as Python spells them). The CRC-32 of a storage is
    kept for whoever reads its bytes.

    Raises:
        CorruptFile: a container, pickle or tensor that contradicts itself or the file's size.
        UnsupportedFeature: a pickle with too much in it, compressed members, views of storages as before 0.4.
        NotFoundError: no value has the name behind `#`.
        SourceError: a shard that is not there.
    """
    path = location
    if disk.is_folder(location):
        names = disk.names(location)
        path = posixpath.join(location, INDEX_NAME if INDEX_NAME in names else SINGLE_NAME)
    if path.endswith(_INDEX_SUFFIX):
        return index_shards(NAME, location, path, (), disk, _index_file)
    path, fragment = _parted(path, disk)
    file, content = _read(path, fragment, disk)
    return Indexed(NAME, location, content.tensors, content.metadata, (file,), notes=content.notes)


def _index_file(path: str, disk: Disk) -> Indexed:
    file, content = _read(path, "", disk)
    return Indexed(NAME, path, content.tensors, content.metadata, (file,), notes=content.notes)


def _read(path: str, fragment: str, disk: Disk) -> tuple[SourceFile, Content]:
    file, read = disk.open(path)
    head = read(0, min(file.nbytes, HEAD_BYTES))
    if head.startswith(_ZIP):
        return file._replace(checksum_kind="crc32"), read_archive(file, read, fragment)
    if is_stream(head):
        return file, read_stream(file, read, fragment)
    if is_tar(file, read):
        return file, read_tar(file, read, fragment)
    if is_plain(file, read):
        return file, read_plain(file, read, fragment)
    raise CorruptFile(
        f"{path} is no checkpoint of PyTorch",
        notes=[f"{path}, bytes 0 to {len(head)} of {file.nbytes:,}: neither a zip archive, nor a tar file, nor a pickle"],
        help="correct the path, or copy the file again",
    )
