"""Distributed checkpoints of PyTorch, as `torch.distributed.checkpoint.save` writes them."""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from contract import bundle
from disk import FolderDisk
from executor import content
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_files import Call, Named, pickled

from surgery.errors import PlanError, SourceError, render
from surgery.expr import Assemble, Stored
from surgery.formats import torch_dcp
from surgery.formats.base import Indexed

DATA = Path(__file__).parents[1] / "data" / "torch_dcp"
EXPECTED: dict[str, dict[str, list[Any]]] = json.loads((DATA / "expected.json").read_text())


def read(path: Path) -> Indexed:
    location = torch_dcp.locate(str(path), FolderDisk())
    assert location is not None
    return torch_dcp.index(location, FolderDisk())


def values(indexed: Indexed) -> dict[str, list[Any]]:
    return {key: [expr.spec.dtype.name, list(expr.spec.shape), content(expr, FolderDisk()).hex()] for key, expr in indexed.tensors.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / "sharded", tmp_path / "saved"))


def refusal(folder: Path) -> str:
    with pytest.raises(SourceError) as fault:
        read(folder)
    assert fault.value.help
    return render(fault.value)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_reads_what_torch_saved(name: str) -> None:
    assert values(read(DATA / name)) == EXPECTED[name]


def test_a_tensor_of_several_processes_is_put_together_and_a_whole_one_is_a_byte_range() -> None:
    tensors = read(DATA / "sharded").tensors
    assert isinstance(tensors["rows"], Assemble)
    assert isinstance(tensors["whole"], Stored)


def test_objects_that_are_no_tensors_are_metadata() -> None:
    assert read(DATA / "nested").metadata == {"optim.lr": "0.5", "step": "7", "name": '"größe"'}


def test_the_checksums_of_the_archives_are_kept() -> None:
    tensors = read(DATA / "nested").tensors
    assert isinstance(tensors["model.w"], Stored)
    assert tensors["model.w"].extent.checksum is not None


def test_all_files_that_hold_something_belong_to_the_checkpoint() -> None:
    names = [Path(file.path).name for file in read(DATA / "sharded").files]
    assert names == [".metadata", "__0_0.distcp", "__1_0.distcp", "__2_0.distcp", "__3_0.distcp"]


def test_the_metadata_file_stands_for_its_folder() -> None:
    assert torch_dcp.locate(str(DATA / "nested" / ".metadata"), FolderDisk()) == str(DATA / "nested")


def test_a_folder_with_another_hidden_file_of_that_name_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(pickle.dumps({"a": 1}))
    assert torch_dcp.locate(str(tmp_path), FolderDisk()) is None


def test_little_is_read() -> None:
    disk = FolderDisk()
    torch_dcp.index(str(DATA / "sharded"), disk)
    assert disk.bytes_read < 60_000


def test_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as fault:
        torch_dcp.layout(bundle(str(tmp_path / "out"), {}))
    assert fault.value.code == "read-only-format"


def test_an_absent_file_is_named(folder: Path) -> None:
    (folder / "__2_0.distcp").unlink()
    said = refusal(folder)
    assert "missing-shard" in said
    assert "__2_0.distcp should hold `" in said


def test_a_file_that_was_cut_off_is_named(folder: Path) -> None:
    file = folder / "__3_0.distcp"
    file.write_bytes(file.read_bytes()[:-1])
    assert "behind the end of a file" in refusal(folder)


# Hand-made `.metadata`, around a real chunk


METADATA = "torch.distributed.checkpoint.metadata"


class Made:
    """An object of a class, written by its name, with its state."""

    def __init__(self, name: str, state: object) -> None:
        self.made = Named(*name.rsplit(".", 1)), (), state

    def __reduce__(self) -> Any:
        return self.made


def chunk(origin: tuple[int, ...], shape: tuple[int, ...]) -> Made:
    return Made(f"{METADATA}.ChunkStorageMetadata", {"offsets": origin, "sizes": shape})


def doubled(times: int) -> object:
    """A tuple that takes time exponential in its depth to hash or to spell."""
    value: object = ()
    for _ in range(times):
        value = (value, value)
    return value


def metadata_file(*, size: tuple[int, ...] = (1,), chunks: object = None, dtype: str = "float32", at: object = (0,), **stored: object) -> bytes:
    """`.metadata` of one tensor `w` of `one.distcp`; `stored` replaces where it lies."""
    properties = Made(f"{METADATA}.TensorProperties", (Named("torch", dtype), None, False, 0, False))
    tensor = Made(f"{METADATA}.TensorStorageMetadata", {"properties": properties, "size": size, "chunks": chunks or [chunk((0,), (1,))]})
    where = Made(f"{METADATA}.MetadataIndex", {"fqn": "w", "offset": at, "index": 0})
    info = Made("torch.distributed.checkpoint.filesystem._StorageInfo", {"relative_path": "one.distcp", "offset": 0, "length": 9, **stored})
    return pickled(Made(f"{METADATA}.Metadata", {"state_dict_metadata": {"w": tensor}, "storage_data": {where: info}}))


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        (metadata_file(), "has no zip directory"),
        (metadata_file(relative_path="../one.distcp"), "does not tell where `w` lies in its folder"),
        (metadata_file(relative_path="/etc/passwd"), "does not tell where `w` lies in its folder"),
        (metadata_file(offset=-1), "does not tell where `w` lies in its folder"),
        (metadata_file(length=1 << 62), "behind the end of a file"),
        (metadata_file(at=()), "does not tell where `w` lies"),
        (metadata_file(at=[0]), "tells where something without a name lies"),
        (metadata_file(at=doubled(100)), "tells where something without a name lies"),
        (metadata_file(at=(1 << 62,) * 1000), "tells where something without a name lies"),
        (metadata_file(transform_descriptors=[doubled(100)]), "was written through extensions"),
        (metadata_file(size=(1 << 62,) * 65), "does not tell shape and type of `w`"),
        (metadata_file(transform_descriptors=["zstd"]), "was written through extensions: zstd"),
        (metadata_file(dtype="complex32"), "not known here, torch.complex32"),
        (metadata_file(size=(2,)), "do not make up [2]"),
        (metadata_file(size=(1, 1)), "do not make up [1, 1]"),
        (metadata_file(size=(2,), chunks=[chunk((0,), (1,)), chunk((0,), (1,))]), "do not make up [2]"),
        (metadata_file(size=(4,), chunks=[chunk((0,), (3,)), chunk((2,), (1,))]), "do not make up [4]"),
        (metadata_file(size=(1 << 40,), chunks=[chunk((0,), (1 << 41,))]), "do not make up"),
        (metadata_file(chunks=[chunk((0,), (-1,))]), "does not tell the chunks of `w`"),
        (metadata_file(chunks="none"), "does not tell the chunks of `w`"),
        (metadata_file(chunks=[chunk((1,), (0,)), chunk((0,), (1,))]), "does not tell where `w` lies"),
        (pickled(Made(f"{METADATA}.Metadata", {})), "has no mapping `state_dict_metadata`"),
        (pickled([Call(Named(METADATA, "system"), "touch x")]), "has no mapping `state_dict_metadata`"),
    ],
)
def test_metadata_that_contradicts_itself_is_refused(tmp_path: Path, metadata: bytes, says: str) -> None:
    (tmp_path / ".metadata").write_bytes(metadata)
    (tmp_path / "one.distcp").write_bytes(bytes(9))
    assert says in refusal(tmp_path)


MUTABLE = {name: (DATA / "sharded" / name).read_bytes() for name in (".metadata", "__0_0.distcp")}


@settings(max_examples=60, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(MUTABLE)), changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=9)), min_size=1, max_size=4))
def test_mutations_give_nothing_but_source_errors(folder: Path, name: str, changes: list[tuple[int, bytes]]) -> None:
    stored = bytearray(MUTABLE[name])
    for at, new in changes:
        stored[at % len(stored) : at % len(stored) + len(new)] = new
    (folder / name).write_bytes(stored)
    with suppress(SourceError):
        values(torch_dcp.index(str(folder), FolderDisk()))
    (folder / name).write_bytes(MUTABLE[name])
