"""What every format has to keep to. A format's tests inherit `FormatContract`, or `ReadContract` where it is only read, and say how the
reference makes a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disk import FolderDisk
from executor import RawFile, content, execute

from surgery.dtypes import DTYPES
from surgery.errors import PlanError, SourceError
from surgery.expr import Expr
from surgery.formats.base import Bundle, Format, Indexed
from surgery.tensors import TensorSpec

Arrays = Mapping[str, np.ndarray[Any, np.dtype[Any]]]
Content = dict[str, tuple[TensorSpec, bytes]]

SHAPES = ((), (1,), (0,), (3, 0, 2), (0, 0), (4,), (2, 3), (2, 1, 4), (1,) * 7)
KEYS = (
    "w",
    "layer/0/kernel",
    "layer.0.weight",
    "with space",
    " ",
    "schlüssel",
    "模型/权重",
    "😀",
    "../outside",
    "/absolute",
    "C:\\dir\\w",
    'quo"te',
    "tab\tand\nline",
    "trailing/",
    "k" * 300,
)


def bundle(path: str, tensors: Mapping[str, Expr], *, metadata: Mapping[str, str] | None = None, **options: object) -> Bundle:
    """An output without origins."""
    return Bundle(path, tensors, metadata or {}, options, {}, {})


def odd_arrays() -> Arrays:
    """Arrays of types that every format has, in legal and odd shapes."""
    return {
        "scalar": np.array(1.5, "<f4"),
        "empty/0": np.zeros((0, 3), "<f4"),
        "one.element": np.array([-7], "<i8"),
        "flags": np.array([True, False, True]),
        "matrix with space": np.arange(6, dtype="<f8").reshape(2, 3),
        "größe": np.arange(5, dtype="<i4"),
        "bytes": np.arange(7, dtype="u1"),
    }


class ReadContract:
    """The laws of reading. Subclasses set the attributes and `make`.

    `detects_flips`: every flipped bit is noticed, in the index or when the tensor is read.
    """

    format: Format
    holds: frozenset[str]
    detects_flips = False

    def make(self, folder: Path, arrays: Arrays) -> str:
        """Write `arrays` with the reference implementation, or independently of ours, into `folder`; returns the path to load."""
        raise NotImplementedError

    # helpers

    def arrays(self) -> Arrays:
        """The odd arrays, without those of types that the format lacks."""
        return {key: array for key, array in odd_arrays().items() if array.dtype.name in self.holds}

    def index(self, path: str, disk: FolderDisk | None = None) -> Indexed:
        disk = disk or FolderDisk()
        location = self.format.locate(path, disk)
        if location is None:
            raise SourceError(f"{path} is not recognised", help="check the path")
        return self.format.index(location, disk)

    def load(self, path: str) -> Content:
        return {key: (expr.spec, content(expr, FolderDisk())) for key, expr in self.index(path).tensors.items()}

    # laws

    def test_reads_what_the_reference_writes(self, tmp_path: Path) -> None:
        arrays = self.arrays()
        found = self.load(self.make(tmp_path, arrays))
        assert found == {key: (_spec_of(array), array.tobytes()) for key, array in arrays.items()}

    def test_index_reads_headers_only(self, tmp_path: Path) -> None:
        path = self.make(tmp_path, {"big": np.zeros((1024, 1024), "<f4"), "small": np.zeros(2, "<f4")})
        disk = FolderDisk()
        self.index(path, disk)
        assert disk.bytes_read < 128 << 10

    def test_truncation_gives_an_error_or_the_same_values(self, tmp_path: Path) -> None:
        path = self.make(tmp_path, self.arrays())
        sound = self.load(path)
        for name, stored in _files(tmp_path).items():
            for size in range(0, len(stored), max(1, len(stored) // 300)):
                self._expect_harmless(tmp_path / name, stored[:size], path, sound)
            (tmp_path / name).write_bytes(stored)

    @pytest.mark.parametrize("seed", range(4))
    def test_flipped_bits_give_nothing_but_source_errors(self, tmp_path: Path, seed: int) -> None:
        path = self.make(tmp_path, self.arrays())
        sound = self.load(path)
        chance = random.Random(seed)
        files = _files(tmp_path)
        for name, stored in files.items():
            for _ in range(min(150, max(10, 450 // len(files)))):
                damaged = bytearray(stored)
                for _ in range(chance.choice((1, 1, 1, 2, 8))):
                    damaged[chance.randrange(len(stored))] ^= 1 << chance.randrange(8)
                self._expect_harmless(tmp_path / name, bytes(damaged), path, sound if self.detects_flips else None)
            (tmp_path / name).write_bytes(stored)

    def _expect_harmless(self, file: Path, damaged: bytes, path: str, sound: Content | None) -> None:
        """Read a damaged file: a SourceError with its facts is fine, so are the sound values; no `sound`: so are others."""
        file.write_bytes(damaged)
        try:
            found = self.load(path)
        except SourceError as fault:
            _expect_well_said(fault)
        else:
            assert sound is None or found == sound


class FormatContract(ReadContract):
    """The laws of a format that is written, too. Subclasses set `filename`; they may narrow `keys` to what the format can hold."""

    filename: str
    keys: tuple[str, ...] = KEYS

    def fits(self, spec: TensorSpec) -> bool:
        """Whether the format has room for a shape of a dtype that it holds."""
        return True

    def save(self, folder: Path, tensors: Mapping[str, Expr]) -> str:
        path = str(folder / self.filename)
        execute(self.format.layout(bundle(path, tensors)), FolderDisk())
        return path

    def raw(self, tmp_path: Path, wanted: Content) -> dict[str, Expr]:
        source = RawFile(tmp_path / "raw.bin")
        return {key: source.tensor(spec, data) for key, (spec, data) in wanted.items()}

    def test_rewrites_what_the_reference_writes(self, tmp_path: Path) -> None:
        path = self.make(_folder(tmp_path, "in"), self.arrays())
        again = self.save(_folder(tmp_path, "out"), self.index(path).tensors)
        assert self.load(again) == self.load(path)

    def test_round_trip_of_every_dtype_and_odd_shape(self, tmp_path: Path) -> None:
        wanted = {f"{spec.dtype}/{number}": (spec, _pattern(spec)) for number, spec in enumerate(filter(self.fits, _specs(self.holds)))}
        assert self.load(self.save(_folder(tmp_path, "out"), self.raw(tmp_path, wanted))) == wanted

    def test_round_trip_of_odd_keys(self, tmp_path: Path) -> None:
        spec = TensorSpec(DTYPES["int32"], (1,))
        wanted = {key: (spec, number.to_bytes(4, "little")) for number, key in enumerate(self.keys)}
        assert self.load(self.save(_folder(tmp_path, "out"), self.raw(tmp_path, wanted))) == wanted

    def test_round_trip_of_a_thousand_keys(self, tmp_path: Path) -> None:
        spec = TensorSpec(DTYPES["int16"], ())
        wanted = {f"layer_{number}/w": (spec, number.to_bytes(2, "little")) for number in range(1000)}
        assert self.load(self.save(_folder(tmp_path, "out"), self.raw(tmp_path, wanted))) == wanted

    def test_an_empty_table_is_a_valid_checkpoint(self, tmp_path: Path) -> None:
        assert self.load(self.save(tmp_path, {})) == {}

    @pytest.mark.parametrize("name", sorted(DTYPES))
    def test_refuses_the_dtypes_it_cannot_hold(self, tmp_path: Path, name: str) -> None:
        spec = TensorSpec(DTYPES[name], (8,))
        wanted = bundle(str(tmp_path / self.filename), self.raw(tmp_path, {"fine": (_FLOATS, bytes(8)), "odd": (spec, bytes(spec.nbytes))}))
        if name in self.holds:
            assert self.format.layout(wanted).files
            return
        with pytest.raises(PlanError) as fault:
            self.format.layout(wanted)
        assert fault.value.code == "dtype-not-storable"
        assert fault.value.data["keys"] == ["odd"]
        assert fault.value.help

    def test_output_is_deterministic(self, tmp_path: Path) -> None:
        tensors = self.index(self.make(_folder(tmp_path, "in"), self.arrays())).tensors
        for name in ("one", "two"):
            self.save(_folder(tmp_path, name), tensors)
        assert _files(tmp_path / "one") == _files(tmp_path / "two")


_FLOATS = TensorSpec(DTYPES["float32"], (2,))


def _specs(holds: frozenset[str]) -> Iterator[TensorSpec]:
    for name in sorted(holds):
        for shape in SHAPES:
            spec = TensorSpec(DTYPES[name], shape)
            if spec.dtype.bits and spec.size * spec.dtype.bits % 8 == 0:  # strings have codecs of their own, tested by their format
                yield spec


def _pattern(spec: TensorSpec) -> bytes:
    """Bytes that differ within a tensor; for bool only 0 and 1, for one-byte sub-byte types only what they can hold."""
    narrow = {"bool": 2, "int2": 4, "uint2": 4, "int4": 16, "uint4": 16, "float4_e2m1fn": 16}.get(spec.dtype.name, 256)
    return bytes((7 * number + 1) % narrow for number in range(spec.nbytes))


def _expect_well_said(fault: SourceError) -> None:
    assert "\n" not in fault.title
    assert fault.help


def _spec_of(array: np.ndarray[Any, np.dtype[Any]]) -> TensorSpec:
    return TensorSpec(DTYPES[array.dtype.name], array.shape)


def _folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
