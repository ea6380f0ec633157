from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import KEYS, Arrays, FormatContract, bundle
from disk import FolderDisk
from executor import RawFile, content, execute
from hypothesis import given, settings
from hypothesis import strategies as st
from test_zarr import TYPES, written

from surgery.checksums import crc32c
from surgery.dtypes import DTYPES
from surgery.errors import CorruptFile, PlanError, SourceError, UnsupportedFeature, render
from surgery.expr import Expr
from surgery.formats import ocdbt, ocdbt_writer, orbax
from surgery.tensors import TensorSpec

DATA = Path(__file__).parents[1] / "data" / "orbax"
KINDS = ("ocdbt", "ocdbt3", "zarr2", "zarr3")
SMALL_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e4m3b11fnuz")
UNSPEAKABLE = {"/absolute", "trailing/", "layer.0.weight", "../outside"}
"""Keys with an empty name in them, one that Orbax takes for another of the list, and one that the folder of `make` cannot hold."""
COMPRESSED = "numcodecs is not installed"


def array_of(path: str | Path, key: str) -> Any:
    return as_array(orbax.index(str(orbax.locate(str(path), FolderDisk())), FolderDisk()).tensors[key])


def as_array(expr: Expr) -> Any:
    from surgery.dtypes import numpy_dtype

    return np.frombuffer(content(expr, FolderDisk()), numpy_dtype(expr.spec.dtype)).reshape(expr.spec.shape)


class TestOrbax(FormatContract):
    format = orbax
    filename = "out"
    holds = frozenset([*TYPES, *SMALL_FLOATS])
    keys = tuple(key for key in KEYS if key not in UNSPEAKABLE)

    def arrays(self) -> Arrays:
        return {key: array for key, array in super().arrays().items() if array.size}

    def fits(self, spec: TensorSpec) -> bool:
        return spec.size > 0

    def make(self, folder: Path, arrays: Arrays) -> str:
        """A tree of plain zarr arrays, from what Orbax's own metadata look like."""
        (folder / "in").mkdir()
        tree = {}
        for key, array in arrays.items():
            names = [{"key": name, "key_type": 2} for name in key.split("/")]
            tree[str(tuple(key.split("/")))] = {"key_metadata": names, "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False}}
            written(folder / "in", key.replace("/", "."), array)
        (folder / "in" / "_METADATA").write_text(json.dumps({"tree_metadata": tree, "use_zarr3": False}))
        return str(folder / "in")


# Reading


@pytest.mark.parametrize("kind", KINDS)
def test_reads_every_kind_that_orbax_writes(kind: str) -> None:
    pytest.importorskip("numcodecs", reason=COMPRESSED)
    found = orbax.index(str(DATA / kind), FolderDisk())
    six = np.arange(6).reshape(2, 3)
    arrays = {key: as_array(expr).astype("complex128").tolist() for key, expr in found.tensors.items()}
    assert arrays.pop("sharded") == np.arange(64).reshape(16, 4).tolist()
    for name in (*TYPES, "bfloat16", "float8_e4m3fn", "float8_e5m2"):
        assert found.tensors[f"types/{name}"].spec == (DTYPES[name], (2, 3))
        assert arrays.pop(f"types/{name}") == (six.astype(bool) if name == "bool" else six).tolist()
    assert arrays == {
        "params/dense/kernel": np.arange(12).reshape(3, 4).tolist(),
        "params/dense/bias": [0, 0, 0, 0],
        "array": list(range(10)),
        "scalar": 3.5,
        "number": 7,
        "list/0": [1, 1],
        "list/1/x": [0, 0, 0],
        "tuple/0": [1],
        "tuple/1": [2, 2],
        "größe/a.b": [5, 5],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_metadata_and_what_is_empty_is_noted(kind: str) -> None:
    pytest.importorskip("numcodecs", reason=COMPRESSED)
    found = orbax.index(str(DATA / kind), FolderDisk())
    assert found.metadata == {"text": "hello"}
    assert found.notes == ("3 leaves of the tree without an array: none, nothing, text",)


def test_a_root_is_its_newest_step_by_number() -> None:
    assert orbax.locate(str(DATA / "steps"), FolderDisk()) == str(DATA / "steps" / "20" / "default")
    assert orbax.locate(str(DATA / "steps" / "3"), FolderDisk()) == str(DATA / "steps" / "3" / "default")


def test_a_step_with_several_items_asks_which() -> None:
    with pytest.raises(SourceError) as fault:
        orbax.locate(str(DATA / "items"), FolderDisk())
    assert fault.value.code == "ambiguous-source"
    assert fault.value.notes == ("other, state",)
    assert orbax.locate(str(DATA / "items" / "1" / "state"), FolderDisk()) == str(DATA / "items" / "1" / "state")


def test_other_folders_are_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "20").mkdir()
    (tmp_path / "20" / "model.safetensors").write_bytes(b"")
    assert orbax.locate(str(tmp_path), FolderDisk()) is None


def test_without_the_tree_names_are_taken_apart_at_dots(tmp_path: Path) -> None:
    (tmp_path / "_CHECKPOINT_METADATA").write_text("{}")
    written(tmp_path, "params.kernel", np.arange(3, dtype="<i4"))
    found = orbax.index(str(orbax.locate(str(tmp_path), FolderDisk())), FolderDisk())
    assert list(found.tensors) == ["params/kernel"]
    assert found.notes == ("there is no _METADATA: dots in the names of arrays were taken for the tree's",)


def test_a_tree_whose_array_is_not_there_is_told(tmp_path: Path) -> None:
    path = TestOrbax().make(tmp_path, {"w": np.zeros(2, "<f4")})
    shutil.rmtree(tmp_path / "in" / "w")
    with pytest.raises(CorruptFile, match=r"`w` of .* has no array"):
        orbax.index(path, FolderDisk())


# Writing


def saved(tmp_path: Path, keys: list[str], **metadata: str) -> str:
    raw = RawFile(tmp_path / "raw.bin")
    tensors = {key: raw.tensor(TensorSpec(DTYPES["int8"], ()), bytes((number % 256,))) for number, key in enumerate(keys)}
    execute(orbax.layout(bundle(str(tmp_path / "out"), tensors, metadata=metadata)), FolderDisk())
    return str(tmp_path / "out")


def test_metadata_is_kept(tmp_path: Path) -> None:
    metadata = {"größe": "", "config": "ü" * 100_000}
    assert orbax.index(saved(tmp_path, ["w"], **metadata), FolderDisk()).metadata == metadata


def test_more_keys_than_a_node_holds(tmp_path: Path) -> None:
    keys = [f"layer_{number}/w" for number in range(5000)]
    found = orbax.index(saved(tmp_path, keys), FolderDisk()).tensors
    assert list(found) == keys
    assert as_array(found["layer_4999/w"]) == 4999 % 256 - 256 * (4999 % 256 > 127)


@pytest.mark.parametrize("keys", [["/a"], ["a/"], ["a//b"], [""], ["a\0"], ["\ud800"], ["k" * 4097]])
def test_keys_that_are_no_paths_are_refused(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(PlanError) as fault:
        saved(tmp_path, keys)
    assert fault.value.code == "key-not-storable"


def test_all_keys_that_are_no_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as fault:
        saved(tmp_path, ["/a", "ok", "a\0"])
    assert fault.value.data == {"keys": ["/a", "a\0"]}


@pytest.mark.parametrize("keys", [["a", "a/b"], ["a/b", "a"], ["a.b", "a/b"]])
def test_keys_that_orbax_would_mix_up_are_refused(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(PlanError) as fault:
        saved(tmp_path, keys)
    assert fault.value.code == "key-collision"


@pytest.mark.parametrize("shape", [(0,), (1,) * 65])
def test_shapes_that_orbax_does_not_save_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensor = RawFile(tmp_path / "raw.bin").tensor(TensorSpec(DTYPES["int8"], shape), bytes(1)[: 0 not in shape])
    with pytest.raises(PlanError) as fault:
        orbax.layout(bundle(str(tmp_path / "out"), {"w": tensor}))
    assert fault.value.code == "shape-not-storable"


def test_large_copies_keep_their_place_in_the_page(tmp_path: Path) -> None:
    raw, spec = RawFile(tmp_path / "raw.bin"), TensorSpec(DTYPES["uint8"], (70_000,))
    tensors = {"a": raw.tensor(spec, bytes(70_000), offset=1234), "b": raw.tensor(spec, bytes(70_000), offset=100_001)}
    placements = orbax.layout(bundle("out", tensors)).files[0].placements
    assert [placement.start % 4096 for placement in placements] == [1234, 100_001 % 4096]


# Hostile databases


def test_a_node_larger_than_its_file_is_not_read(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, ["w"]))
    (path / "tensors.ocdbt").write_bytes((path / "tensors.ocdbt").read_bytes()[:-1])
    with pytest.raises(CorruptFile, match="has a damaged index") as fault:
        orbax.index(str(path), FolderDisk())
    assert "it lies outside of the file" in render(fault.value)


@pytest.mark.parametrize("name", ["tensors.ocdbt", "manifest.ocdbt"])
def test_a_flipped_bit_in_a_node_is_told_with_its_bytes(tmp_path: Path, name: str) -> None:
    path = Path(saved(tmp_path, ["w"]))
    stored = bytearray((path / name).read_bytes())
    stored[-6] ^= 1
    (path / name).write_bytes(stored)
    with pytest.raises(CorruptFile) as fault:
        orbax.index(str(path), FolderDisk())
    assert f"note: {path}/{name}, bytes " in render(fault.value)


def forged(path: Path, change: Callable[[bytearray], None]) -> Path:
    """A manifest that is changed and has the right checksum all the same."""
    stored = bytearray((path / "manifest.ocdbt").read_bytes())
    change(stored)
    stored[-4:] = crc32c(bytes(stored[:-4])).to_bytes(4, "little")
    (path / "manifest.ocdbt").write_bytes(stored)
    return path


def test_a_data_file_outside_of_the_database_is_never_opened(tmp_path: Path) -> None:
    def change(stored: bytearray) -> None:
        at = stored.index(b"tensors.ocdbt")
        stored[at : at + 13] = b"../raw.bin///"

    with pytest.raises(CorruptFile) as fault:
        orbax.index(str(forged(Path(saved(tmp_path, ["w"])), change)), FolderDisk())
    assert "is not one of this database" in render(fault.value)


def test_a_later_version_is_told_apart_from_damage(tmp_path: Path) -> None:
    def change(stored: bytearray) -> None:
        stored[12] = 1

    with pytest.raises(UnsupportedFeature, match="is of version 1 of OCDBT"):
        orbax.index(str(forged(Path(saved(tmp_path, ["w"])), change)), FolderDisk())


def test_a_tree_that_contains_itself_ends(tmp_path: Path) -> None:
    node = ocdbt_writer._node(1, "d", ocdbt_writer._interior([ocdbt_writer._Subtree(b"a", 0, 1, 1, 1, 1)]))
    itself = ocdbt_writer._Subtree(b"a", 0, len(node), 1, 1, 1)
    (tmp_path / "d").write_bytes(ocdbt_writer._node(1, "d", ocdbt_writer._interior([itself])))
    (tmp_path / "manifest.ocdbt").write_bytes(ocdbt_writer._manifest([itself], 1, "d", bytes(16), 0))
    with pytest.raises(CorruptFile) as fault:
        ocdbt.read_database(str(tmp_path), FolderDisk())
    assert "the tree contains itself" in render(fault.value)


def test_keys_that_grow_without_bytes_are_refused(tmp_path: Path) -> None:
    start = b"k" * 60_000
    entries = [ocdbt_writer.Entry(start + number.to_bytes(2, "big"), inline=b"v") for number in range(1500)]
    tree, manifest = ocdbt_writer.written(entries, "d", 0, bytes(16), 0)
    (tmp_path / "d").write_bytes(tree)
    (tmp_path / "manifest.ocdbt").write_bytes(manifest)
    assert len(tree) < 100_000
    with pytest.raises(UnsupportedFeature, match="too many or too long keys"):
        ocdbt.read_database(str(tmp_path), FolderDisk())


@settings(max_examples=300, deadline=2000)
@given(
    name=st.sampled_from(["tensors.ocdbt", "manifest.ocdbt", "_METADATA", "_CHECKPOINT_METADATA"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6)), min_size=1, max_size=6),
)
def test_mutated_checkpoints_give_nothing_but_source_errors(
    tmp_path_factory: pytest.TempPathFactory, name: str, edits: list[tuple[float, bytes]]
) -> None:
    """Nodes get the right checksum again, so that what is behind it is reached."""
    folder = tmp_path_factory.mktemp("mutated")
    path = Path(saved(folder, ["a", "b/c"], note="x")) / name
    stored = bytearray(path.read_bytes())
    for place, data in edits:
        at = int(place * len(stored))
        stored[at : at + len(data)] = data
    if name.endswith(".ocdbt"):
        start = 0 if name.startswith("manifest") else 65
        stored[-4:] = crc32c(bytes(stored[start:-4])).to_bytes(4, "little")
    path.write_bytes(stored)
    began = time.monotonic()
    with suppress(SourceError):
        orbax.index(str(path.parent), FolderDisk())
    assert time.monotonic() - began < 1
