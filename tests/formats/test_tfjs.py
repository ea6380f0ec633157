from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from contract import Arrays, ReadContract
from disk import FolderDisk
from executor import content
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgery.errors import CorruptFile, SourceError, UnsupportedFeature
from surgery.expr import evaluate
from surgery.formats import tfjs
from surgery.formats.base import Indexed
from surgery.joined import Joined
from surgery.regions import whole
from surgery.tensors import SourceFile

DATA = Path(__file__).parents[1] / "data" / "tfjs"
NAMES = frozenset({"float32", "int32", "bool", "uint8"})


def opened(path: Path) -> Indexed:
    return tfjs.index(str(path), FolderDisk())


def read(file: SourceFile, start: int, stop: int) -> bytes:
    return FolderDisk().open(file.path)[1](start, stop)


def written(folder: Path, *weights: dict[str, Any], paths: object = ("a.bin",), data: bytes = bytes(8)) -> Path:
    (folder / "a.bin").write_bytes(data)
    (folder / "model.json").write_text(json.dumps({"weightsManifest": [{"paths": paths, "weights": weights}]}))
    return folder / "model.json"


def weight(name: str = "w", dtype: object = "float32", shape: object = (2,), **more: object) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, **more}


class TestTfjs(ReadContract):
    format = tfjs
    holds = NAMES

    def make(self, folder: Path, arrays: Arrays) -> str:
        weights = [weight(key, array.dtype.name, array.shape) for key, array in arrays.items()]
        data = b"".join(array.tobytes() for array in arrays.values())
        return str(written(folder, *weights, data=data))


def test_every_type_and_quantisation_reads_as_tensorflow_js_reads_it() -> None:
    found = opened(DATA / "model.json").tensors
    told = {name: (dtype, tuple(shape), values) for name, dtype, shape, values in json.loads((DATA / "expected.json").read_text())}
    assert list(found) == list(told)
    assert evaluate(found["text"], whole((3,)), read).tolist() == [b"a", b"", "größe".encode()]
    for name in set(told) - {"text"}:
        assert (found[name].spec.dtype.name, found[name].spec.shape, content(found[name], FolderDisk()).hex()) == told[name]


def test_a_weight_that_lies_in_several_shards_is_the_view_of_their_ranges() -> None:
    expr = opened(DATA / "model.json").tensors["w"]
    assert isinstance(expr, Joined)
    ranges = expr.view() or ()
    assert [(Path(extent.file.path).name, extent.start, extent.nbytes) for extent in ranges] == [
        ("group1-shard1of3.bin", 23, 7),
        ("group1-shard2of3.bin", 0, 11),
        ("group1-shard3of3.bin", 0, 42),
    ]


@pytest.mark.parametrize("region", [((0, 3), (0, 5)), ((1, 2), (0, 5)), ((0, 3), (2, 3)), ((2, 3), (4, 5)), ((1, 1), (0, 5))])
def test_a_region_of_such_a_weight_is_that_part_of_it(region: tuple[tuple[int, int], ...]) -> None:
    expr = opened(DATA / "model.json").tensors["w"]
    rows = [[float(5 * row + column) * 37 % 251 for column in range(*region[1])] for row in range(*region[0])]
    assert evaluate(expr, region, read).tolist() == rows


def test_a_folder_and_the_file_stand_for_the_model_and_other_json_does_not(tmp_path: Path) -> None:
    assert tfjs.locate(str(DATA), FolderDisk()) == tfjs.locate(str(DATA / "model.json"), FolderDisk()) == str(DATA / "model.json")
    (tmp_path / "model.json").write_text("{}")
    assert tfjs.locate(str(tmp_path), FolderDisk()) is None
    assert tfjs.locate(str(tmp_path / "absent.json"), FolderDisk()) is None


def test_missing_shards_are_told_and_do_not_hide_the_specs(tmp_path: Path) -> None:
    shutil.copytree(DATA, tmp_path / "m")
    (tmp_path / "m" / "group1-shard2of3.bin").unlink()
    with pytest.raises(SourceError) as fault:
        opened(tmp_path / "m" / "model.json")
    assert fault.value.code == "missing-shard"
    found = tfjs.index(str(tmp_path / "m" / "model.json"), FolderDisk(), strict=False)
    assert {key: str(expr.spec) for key, expr in found.tensors.items()}["w"] == "f32[3,5]"
    assert len(found.notes) == 1


def test_bytes_that_belong_to_no_weight_are_told(tmp_path: Path) -> None:
    assert opened(written(tmp_path, weight(), data=bytes(11))).notes == (f"3 bytes at the end of {tmp_path}/a.bin belong to no weight",)


@pytest.mark.parametrize(
    "told",
    [
        [weight(shape=[3])],
        [weight(), weight("v", shape=[1])],
        [weight(shape=[1]), weight(shape=[1])],
        [weight(shape=[-1])],
        [weight(shape=[True])],
        [weight(shape=[1.5])],
        [weight(shape=None)],
        [weight(shape=[1 << 62, 0])],
        [weight(shape=[1] * 65)],
        [weight(name=7)],
        [{}],
        [weight(dtype="string", shape=[1 << 17])],
        [weight(dtype="float32", quantization={"dtype": "uint8", "scale": "x", "min": 0})],
        [weight(dtype="float32", quantization={"dtype": "uint8"})],
    ],
)
def test_manifests_that_contradict_themselves_or_the_shards_are_corrupt(tmp_path: Path, told: list[dict[str, Any]]) -> None:
    with pytest.raises(CorruptFile) as fault:
        opened(written(tmp_path, *told))
    assert fault.value.help


@pytest.mark.parametrize("paths", ["a.bin", [7], ["../a.bin"], ["/etc/passwd"], [""], []])
def test_shards_have_to_be_names_in_the_folder(tmp_path: Path, paths: object) -> None:
    with pytest.raises(CorruptFile):
        opened(written(tmp_path, weight(), paths=paths))


@pytest.mark.parametrize(
    "told",
    [
        weight(dtype="int64"),
        weight(dtype=["float32"]),
        weight(dtype="bool", quantization={"dtype": "uint8", "scale": 1, "min": 0}),
        weight(quantization={"dtype": "int4", "scale": 1, "min": 0}),
        weight(quantization=7),
        weight(dtype="string", shape=[1 << 40]),
    ],
)
def test_types_that_tensorflow_js_lacks_are_refused(tmp_path: Path, told: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFeature) as fault:
        opened(written(tmp_path, told))
    assert fault.value.help


@pytest.mark.parametrize("text", ["", "[]", "{", '{"weightsManifest": 7}', '{"weightsManifest": [7]}', "[" * 100_000, "\xff"])
def test_json_that_is_no_model_is_corrupt(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text, "latin-1")
    with pytest.raises(CorruptFile):
        opened(tmp_path / "model.json")


def test_json_that_would_fill_the_memory_is_refused_unparsed(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[" + "{}," * 1_000_000 + "{}]")
    with pytest.raises(UnsupportedFeature, match="values"):
        opened(tmp_path / "model.json")


def test_a_string_tensor_over_the_end_of_a_shard_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, weight(dtype="string", shape=[1]), paths=["a.bin", "b.bin"], data=b"\x02\0\0\0a")
    (tmp_path / "b.bin").write_bytes(b"b")
    with pytest.raises(UnsupportedFeature, match="in 2 shards"):
        opened(path)


@pytest.mark.parametrize("paths", [["a.bin", "a.bin"], [f"{number}.bin" for number in range(10_001)]])
def test_a_shard_named_twice_and_shards_without_number_are_damage(tmp_path: Path, paths: list[str]) -> None:
    with pytest.raises(CorruptFile, match=r"no sound TensorFlow\.js model"):
        opened(written(tmp_path, weight(), paths=paths))


def test_strings_are_looked_through_in_few_reads(tmp_path: Path) -> None:
    path = written(tmp_path, weight(dtype="string", shape=[100_000]), data=b"\1\0\0\0a" * 100_000)
    disk = FolderDisk()
    tensor = tfjs.index(str(path), disk).tensors["w"]
    assert evaluate(tensor, whole((100_000,)), read).tolist() == [b"a"] * 100_000
    assert disk.bytes_read < 600_000


MODEL = (DATA / "model.json").read_bytes()


@settings(max_examples=300, deadline=2000, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.binary(min_size=1, max_size=5)), min_size=1, max_size=3))
def test_mutated_models_give_source_errors_only(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(MODEL)
    for at, data in changes:
        damaged[at : at + len(data)] = data
    folder = tmp_path / "m"
    if not folder.exists():
        shutil.copytree(DATA, folder)
    (folder / "model.json").write_bytes(damaged)
    with suppress(SourceError):
        for expr in opened(folder / "model.json").tensors.values():
            if expr.spec.dtype.kind != "string":
                content(expr, FolderDisk())
