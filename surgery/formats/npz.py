"""Numpy's files: `.npz` archives of arrays, and a single array as `.npy`. Serves probe (index) and physical planning (layout).

Reads stored members as byte ranges and deflated ones through a codec; writes what `numpy.savez` writes, byte for byte.
Holds what numpy itself holds: bool, integers, float16 to float64, complex. Left out of archives with a note: object arrays (pickles),
text, dates, structured types. Refused by name: ml_dtypes arrays, which numpy saves without the name of their type. Zip members carry a
CRC-32 over every byte: it is checked where a member has to be inflated, and made while writing. Source of format facts: numpy.lib.format.
"""

from __future__ import annotations

import posixpath
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from surgery.checksums import crc32_combine
from surgery.errors import KeyCollisionError, PlanError, SourceError, UnsupportedFeature, listed, plural
from surgery.expr import Expr
from surgery.formats import npy, suffixes, zips
from surgery.formats.base import Bundle, Disk, FileLayout, Indexed, Layout, Patch, Placement, ReadAt, refuse_dtypes, refuse_keys, text_fault
from surgery.formats.deflate import MOST_INFLATION, Deflated, damaged
from surgery.tensors import Extent, SourceFile

NAME = "npz"
SUMMARY = "numpy archive of arrays (.npz), or one array (.npy)"
_SUFFIXES = suffixes(NAME)
OPTIONS: frozenset[str] = frozenset()

_CHUNK = 4096


def locate(path: str, disk: Disk) -> str | None:
    """Recognise an npy file by its magic, and a zip archive in which every name ends in `.npy`; others by suffix alone.

    An empty archive, which any zip program may have made, needs the suffix `.npz`.
    """
    if not disk.is_file(path):
        return None
    return path if path.endswith(_SUFFIXES) or _looks_right(path, disk) else None


def _looks_right(path: str, disk: Disk) -> bool:
    file, read = disk.open(path)
    head = read(0, min(file.nbytes, len(npy.MAGIC)))
    if not head.startswith(b"PK\3\4"):
        return head == npy.MAGIC
    try:
        return all(member.name.endswith(".npy") for member in zips.members(file, read))
    except SourceError:
        return False


def index(location: str, disk: Disk, *, strict: bool = True) -> Indexed:
    """List the arrays in the order of the archive's directory; the key of a single `.npy` is the file's name without suffix.

    Reads the directory and the head of each member. Arrays in Fortran order come as a transposition of what is stored. The
    CRC-32 of a stored member is kept for whoever reads its bytes. Arrays that are no tensors are left out, and `notes` name them.

    Raises:
        CorruptFile: an archive or npy header that contradicts itself or the file's size.
        UnsupportedFeature: numbers of a type that is not known, members that are no arrays, encryption, other compression; arrays, and no tensor.
    """
    file, read = disk.open(location)
    file = file._replace(checksum_kind="crc32")
    if read(0, min(file.nbytes, len(npy.MAGIC))) == npy.MAGIC or location.endswith(".npy"):
        stem = posixpath.basename(location).removesuffix(".npy")
        return Indexed(NAME, location, {stem: _index_npy(file, read)}, {}, (file,))
    found = zips.members(file, read)
    others = [member.name for member in found if not member.name.endswith(".npy")]
    if others:
        raise UnsupportedFeature(
            f"{location} holds {plural(len(others), 'file')} that are no arrays",
            notes=[listed(others)],
            help="take them out of the archive; members of an npz end in .npy",
        )
    tensors, refused = _index_members(file, read, found)
    if refused and not tensors:
        raise next(iter(refused.values()))
    return Indexed(NAME, location, tensors, {}, (file,), notes=tuple(_left_out(refused)))


def _index_members(file: SourceFile, read: ReadAt, members: Sequence[zips.Member]) -> tuple[dict[str, Expr], dict[str, npy.NoTensor]]:
    """The tensors of an archive, and why the rest of its arrays are none."""
    tensors: dict[str, Expr] = {}
    refused: dict[str, npy.NoTensor] = {}
    for member in members:
        key = member.name.removesuffix(".npy")
        try:
            tensors[key] = _index_member(file, read, member)
        except npy.NoTensor as fault:
            refused[key] = fault
    return tensors, refused


def _left_out(refused: Mapping[str, npy.NoTensor]) -> Iterator[str]:
    """One note for each reason."""
    keys: dict[str, list[str]] = {}
    for key, fault in refused.items():
        keys.setdefault(fault.notes[0], []).append(f"`{key}`")
    for reason, names in keys.items():
        yield f"{listed(names)} left out: {reason}"


def _index_npy(file: SourceFile, read: ReadAt) -> Expr:
    array = npy.read_header(lambda nbytes: read(0, min(nbytes, file.nbytes)), file.path)
    return _stored(array, file, 0, file.nbytes, file.path, None)


def _index_member(file: SourceFile, read: ReadAt, member: zips.Member) -> Expr:
    label = f"`{member.name}` in {file.path}"
    start = zips.content_start(file, read, member)
    stop = start + member.stored_nbytes
    if member.method == zips.STORED:
        array = npy.read_header(lambda nbytes: read(start, min(start + nbytes, stop)), label)
        # The archive's CRC-32 is over header and data; taking the header's part away leaves the one of the tensor's bytes.
        header_crc32 = zlib.crc32(read(start, min(start + array.header_nbytes, stop)))
        checksum = crc32_combine(header_crc32, member.crc32, max(member.stored_nbytes - array.header_nbytes, 0))
        return _stored(array, file, start, stop, label, checksum)
    if member.method != zips.DEFLATED:
        raise UnsupportedFeature(f"{label} is compressed by method {member.method}", help="save it with numpy.savez")
    array = npy.read_header(lambda nbytes: _inflated_head(read, start, stop, nbytes, label), label)
    if member.nbytes != array.nbytes or member.nbytes > member.stored_nbytes * MOST_INFLATION:
        raise npy.corrupt(f"{label} cannot inflate to its array", f"{array} in {member.nbytes:,} bytes, deflated {member.stored_nbytes:,}")
    codec = Deflated(label, array.header_nbytes, member.nbytes, member.crc32, array.big_endian)
    return array.expr(Extent(file, start, member.stored_nbytes, array.stored_spec, codec=codec))


def _stored(array: npy.Array, file: SourceFile, start: int, stop: int, label: str, checksum: int | None) -> Expr:
    if stop - start != array.nbytes:
        raise npy.corrupt(f"{label} is not as long as its array", f"{array} in {stop - start:,} bytes", f"{file.path}, bytes {start:,} to {stop:,}")
    data_start = start + array.header_nbytes
    if checksum and data_start == stop:  # no bytes will ever be read that could tell
        raise damaged(label, "the CRC-32 of its header is not the stored one")
    return array.expr(Extent(file, data_start, stop - data_start, array.stored_spec, checksum, big_endian=array.big_endian))


def _inflated_head(read: ReadAt, start: int, stop: int, nbytes: int, label: str) -> bytes:
    """The first `nbytes` of a deflated member, or all of it where it is shorter."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = b""
    try:
        while len(content) < nbytes and start < stop and not inflater.eof:
            content += inflater.decompress(read(start, min(start + _CHUNK, stop)), nbytes - len(content))
            start += _CHUNK
    except zlib.error as fault:
        raise damaged(label, str(fault)) from fault
    return content


def layout(bundle: Bundle) -> Layout:
    """Place the arrays as `numpy.savez` does: stored, in the order given; or a single one as `numpy.save` does.

    The path decides: `.npy` is a single array, anything else an archive. Sizes are fixed here; the CRC-32 of each member
    joins those of its npy header and its bytes when the run has them. Metadata has no place in these files: a note says so.

    Raises:
        PlanError: a dtype, shape or key that numpy's files cannot hold, several tensors for `.npy`, a path that names no file.
        KeyCollisionError: `a` beside `a.npy`, which numpy would take for one.
    """
    refuse_dtypes(bundle, NAME, lambda spec: spec.dtype in npy.CODE_OF)
    for key, expr in bundle.tensors.items():
        if len(expr.spec.shape) > npy.AXES_LIMIT:
            raise PlanError(
                f"`{key}` has {len(expr.spec.shape)} axes; numpy has at most {npy.AXES_LIMIT}", code="shape-not-storable", help="`reshape` it"
            )
    notes = ("metadata is left out: numpy's files have no place for it",) if bundle.metadata else ()
    folder, name = posixpath.split(bundle.path)
    if not name:
        raise PlanError(f"{bundle.path} names no file", code="bad-option", help="name a file in it")
    if name.endswith(".npy"):
        return _layout_npy(bundle, folder or ".", name, notes)
    _refuse_keys(bundle.tensors)
    return _layout_archive(bundle, folder or ".", name, notes)


def _layout_npy(bundle: Bundle, folder: str, name: str, notes: tuple[str, ...]) -> Layout:
    if len(bundle.tensors) != 1:
        raise PlanError(f"an npy file holds one tensor, not {len(bundle.tensors):,}", code="too-many-tensors", help="`keep` one, or save as .npz")
    ((key, expr),) = bundle.tensors.items()
    if key != name.removesuffix(".npy"):
        notes = (*notes, f"the key `{key}` is left out: an npy file has no key but its own name")
    header = npy.write_header(expr.spec)
    file = FileLayout(name, len(header) + expr.spec.nbytes, (Placement(key, expr, len(header)),))
    return Layout(NAME, folder, (file,), (Patch(name, 0, header),), notes=notes)


def _refuse_keys(tensors: Mapping[str, Expr]) -> None:
    refuse_keys(NAME, {key: fault for key in tensors if (fault := _key_fault(key))})
    for key in tensors:
        if f"{key}.npy" in tensors:
            collisions = {key: [key, f"{key}.npy"]}
            raise KeyCollisionError(f"numpy would take `{key}` and `{key}.npy` for one", help="`rename` one", data={"collisions": collisions})


def _key_fault(key: str) -> str:
    if "\0" in key:
        return "it contains a NUL"
    return text_fault(key) or ("it is longer than 65,531 bytes" if len(key.encode()) > 0xFFFF - len(".npy") else "")


class _Slot(NamedTuple):
    """A member of an archive to be written; its local header is followed by its npy header and its data."""

    key: str
    record: zips.Record
    npy_header: bytes
    data_nbytes: int


def _layout_archive(bundle: Bundle, folder: str, name: str, notes: tuple[str, ...]) -> Layout:
    slots: list[_Slot] = []
    placements: list[Placement] = []
    start = 0
    for key, expr in bundle.tensors.items():
        npy_header = npy.write_header(expr.spec)
        record = zips.Record(f"{key}.npy", len(npy_header) + expr.spec.nbytes, start)
        slots.append(_Slot(key, record, npy_header, expr.spec.nbytes))
        data_start = start + len(zips.local_header(record)) + len(npy_header)
        placements.append(Placement(key, expr, data_start))
        start = data_start + expr.spec.nbytes
    size = start + len(zips.directory([slot.record for slot in slots], [0] * len(slots), start))
    seal = partial(_seal, name, tuple(slots), start)
    return Layout(NAME, folder, (FileLayout(name, size, tuple(placements)),), checksum="crc32", seal=seal, notes=notes)


def _seal(name: str, slots: tuple[_Slot, ...], directory_start: int, checksums: Mapping[str, int]) -> list[Patch]:
    """All headers of an archive, from the CRC-32 of each tensor's bytes."""
    crc32s = [crc32_combine(zlib.crc32(slot.npy_header), checksums[slot.key], slot.data_nbytes) for slot in slots]
    heads = [
        Patch(name, slot.record.start, zips.local_header(slot.record, crc32) + slot.npy_header) for slot, crc32 in zip(slots, crc32s, strict=True)
    ]
    return [*heads, Patch(name, directory_start, zips.directory([slot.record for slot in slots], crc32s, directory_start))]
