"""What computing must not change: bytes, whatever the threads and the memory; damage that is noticed; holes that stay holes; little memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import surgery as api

Run = Callable[..., Any]
Recipe = Callable[..., str]
MIB, GIB = 1 << 20, 1 << 30

CAST = {"cast": {"dtype": "float64"}}
TRANSPOSE = {"transpose": {"match": "^matrix", "order": [1, 0]}}
TURN = {"transpose": {"match": "^heads", "order": [0, 2, 1, 3]}}
TURN_ROUND = {"transpose": {"match": "^heads", "order": [3, 1, 0, 2]}}
SPLIT = {"split": {"match": "^matrix", "axis": -1, "sizes": [200, 568], "to": ["left", "right"]}}
WORK = {
    "cast": [CAST],
    "transpose": [TRANSPOSE],
    "transpose four axes": [TURN],
    "turn four axes round": [TURN_ROUND],
    "transpose and cast": [TRANSPOSE, TURN_ROUND, CAST],
    "split": [SPLIT],
    "split, transpose and cast": [SPLIT, {"transpose": {"match": "^left", "order": [1, 0]}}, CAST],
}
SAVES = {"safetensors": {"path": "out/m.safetensors"}, "tf": {"path": "out/m", "format": "tf"}, "npz": {"path": "out/m.npz"}}


def arrays() -> dict[str, Any]:
    """A matrix of 3 MiB and a tensor of four axes, both of more than one strip where memory is scarce."""
    dice = np.random.default_rng(4)
    return {
        "matrix": dice.integers(-1000, 1000, (1024, 768)).astype("<f4"),
        "heads": dice.integers(-1000, 1000, (64, 12, 31, 33)).astype("<f4"),
        "step": np.array(7, "<f4"),
    }


EXPECTED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "cast": lambda found: {key: array.astype("f8") for key, array in found.items()},
    "transpose": lambda found: found | {"matrix": found["matrix"].T},
    "transpose four axes": lambda found: found | {"heads": found["heads"].transpose(0, 2, 1, 3)},
    "turn four axes round": lambda found: found | {"heads": found["heads"].transpose(3, 1, 0, 2)},
    "split": lambda found: {"left": found["matrix"][:, :200], "right": found["matrix"][:, 200:], **found},
    "transpose and cast": lambda found: EXPECTED["cast"](EXPECTED["turn four axes round"](EXPECTED["transpose"](found))),
    "split, transpose and cast": lambda found: EXPECTED["cast"](EXPECTED["split"](found) | {"left": found["matrix"][:, :200].T}),
}


@pytest.fixture
def source(work: Path, recipe: Recipe, surgery: Run) -> str:
    """A TensorFlow bundle of `arrays()`: each tensor has a checksum."""
    np.savez("a.npz", **arrays())
    assert surgery("run", recipe({"load": {"path": "a.npz"}}, {"save": {"path": "in/m", "format": "tf"}})).code == 0
    Path("a.npz").unlink()
    return "in/m"


def written() -> dict[str, bytes]:
    """The bytes of all files of an output but its manifest, which tells times."""
    return {path.name: path.read_bytes() for path in Path("out").iterdir() if not path.name.endswith("surgery.json")}


def values(path: str) -> dict[str, Any]:
    with api.open(path) as checkpoint:
        return {key: tensor.numpy() for key, tensor in checkpoint.items()}


@pytest.mark.parametrize("form", SAVES)
@pytest.mark.parametrize("work_", WORK)
def test_neither_threads_nor_memory_change_a_byte(source: str, recipe: Recipe, surgery: Run, work_: str, form: str) -> None:
    path = recipe({"load": {"path": source}}, *WORK[work_], {"save": SAVES[form]})
    first: dict[str, bytes] = {}
    for memory, jobs in product(("1MiB", "8MiB", "512MiB"), ("1", "2", "7")):
        ran = surgery("run", path, "--force", "--memory", memory, "--jobs", jobs)
        assert ran.code == 0, ran.err
        first = first or written()
        assert written() == first, (memory, jobs)
    found = values(SAVES[form]["path"])
    expected = EXPECTED[work_](arrays())
    expected = {key: array for key, array in expected.items() if key in found}
    assert found.keys() == expected.keys() >= {"step", "heads"}
    assert {key: array.tobytes() for key, array in found.items()} == {key: array.tobytes() for key, array in expected.items()}


# Damage


def damage(prefix: str, key: str) -> None:
    """Flip a bit in the middle of a tensor."""
    with api.open(prefix) as checkpoint:
        (extent,) = checkpoint[key].expr.view() or ()
    path = Path(extent.file.path)
    data = bytearray(path.read_bytes())
    data[extent.start + extent.nbytes // 2] ^= 1
    path.write_bytes(data)


WAYS: dict[str, tuple[list[Any], list[str]]] = {
    "cast in strips": ([CAST], []),
    "cast in small strips": ([CAST], ["--memory", "1MiB", "--jobs", "1"]),
    "transposed at once": ([TRANSPOSE], []),
    "transposed in tiles": ([TRANSPOSE], ["--memory", "1MiB", "--jobs", "2"]),
    "transposed and cast in tiles": ([TRANSPOSE, CAST], ["--memory", "1MiB", "--jobs", "2"]),
    "split across": ([SPLIT], []),
    "split along": ([{"split": {"match": "^matrix", "parts": 2, "to": ["top", "bottom"]}}], []),
    "split, half of it dropped": ([SPLIT, {"drop": {"keys": "right"}}], []),
    "used under two names": ([{"copy": {"keys": {"matrix": "matrix2"}}}, CAST], []),
}


@pytest.mark.parametrize("form", SAVES)
@pytest.mark.parametrize("way", WAYS)
def test_damage_is_told_as_it_is_where_bytes_are_copied(source: str, recipe: Recipe, surgery: Run, way: str, form: str) -> None:
    damage(source, "matrix")
    copied = surgery("run", recipe({"load": {"path": source}}, {"save": SAVES[form]}))
    steps, options = WAYS[way]
    ran = surgery("run", recipe({"load": {"path": source}}, *steps, {"save": SAVES[form]}), *options)
    assert copied.err.startswith("TensorBundle at in/m shard 0 (3145728 bytes): Checksum does not match: stored ")
    assert (ran.code, copied.code) == (1, 1)
    assert ran.err.count("Checksum does not match") == 1
    assert without_key(ran.err) == without_key(copied.err)
    assert not Path("out").exists() or not written()


def without_key(text: str) -> str:
    """A key that is made by the recipe may stand for the stored one."""
    lines = text.splitlines()
    assert lines[1].startswith("  note: key ")
    return "\n".join([lines[0], lines[1].partition(", ")[2], *lines[2:]])


@pytest.mark.parametrize("way", WAYS)
def test_what_is_whole_is_verified_once_however_it_is_read(source: str, recipe: Recipe, surgery: Run, way: str) -> None:
    steps, options = WAYS[way]
    path = recipe({"load": {"path": source}}, *steps, {"save": SAVES["safetensors"]})
    ran = surgery("run", path, "--json", *options)
    assert ran.code == 0, ran.err
    (output,) = ran.json["outputs"]
    with api.open(SAVES["safetensors"]["path"]) as checkpoint:
        parts = len(checkpoint.keys() & {"left", "right", "top", "bottom"})
        assert output["verified"] == len(checkpoint) - max(0, parts - 1)  # a tensor that was cut is verified under one of its names


def test_what_a_resumed_run_had_computed_already_is_verified_too(source: str, recipe: Recipe, surgery: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe({"load": {"path": source}}, CAST, {"save": SAVES["safetensors"]})

    def fail(*_: object) -> None:
        raise api.ApplyError("no room for the header", code="disk-full")

    with monkeypatch.context() as patch:
        patch.setattr("surgery.execute._seal", fail)
        assert surgery("run", "--resume", path).code == 1
    told = surgery("run", "--resume", "--json", path).json
    assert told["resumed_bytes"] == 2 * sum(array.nbytes for array in arrays().values())
    assert told["outputs"][0]["verified"] == 3


# Holes


def sparse(path: Path, shape: tuple[int, ...], rows: dict[int, bytes]) -> None:
    """A safetensors file with one float32 tensor `w` of zeros, but for some rows; zeros take no space."""
    nbytes = 4 * int(np.prod(shape))
    text = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, nbytes]}}).encode()
    text = text.ljust(4096 - 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for row, data in rows.items():
            file.seek(4096 + row * nbytes // shape[0])
            file.write(data)
        file.truncate(4096 + nbytes)
        os.fsync(file.fileno())
    if path.stat().st_blocks * 512 > nbytes // 2:
        pytest.skip("needs a file system with holes")


ROW = np.arange(1, 1025, dtype="<f4")
SPARSE_WORK: dict[str, tuple[list[Any], int]] = {
    "copied": ([], 4),
    "cast": ([CAST], 8),
    "cast to bfloat16": ([{"cast": {"dtype": "bfloat16"}}], 2),
}


@pytest.mark.parametrize("form", ["safetensors", "tf"])
@pytest.mark.parametrize("work_", SPARSE_WORK)
def test_holes_of_a_source_are_holes_of_the_output(work: Path, recipe: Recipe, surgery: Run, work_: str, form: str) -> None:
    sparse(Path("in.safetensors"), (16384, 1024), {5: ROW.tobytes(), 16383: ROW.tobytes()})
    steps, itemsize = SPARSE_WORK[work_]
    ran = surgery("run", recipe({"load": {"path": "in.safetensors"}}, *steps, {"save": SAVES[form]}))
    assert ran.code == 0, ran.err
    sizes = {path: path.stat() for path in Path("out").iterdir()}
    assert sum(status.st_size for status in sizes.values()) > 16384 * 1024 * itemsize
    assert sum(status.st_blocks * 512 for status in sizes.values()) < 8 * MIB
    with api.open(SAVES[form]["path"]) as checkpoint:
        assert checkpoint["w"].spec.nbytes == 16384 * 1024 * itemsize
        found = checkpoint["w"].numpy()
    assert found[[5, 16383]].astype("f8").tolist() == [ROW.astype(found.dtype).astype("f8").tolist()] * 2
    assert np.flatnonzero(found.view(f"u{itemsize}").any(axis=1)).tolist() == [5, 16383]


def test_room_for_holes_is_not_asked_for(work: Path, recipe: Recipe, surgery: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse(Path("in.safetensors"), (16384, 1024), {5: ROW.tobytes()})
    monkeypatch.setattr("surgery.files.free_bytes", lambda folder: 2 * MIB)
    path = recipe({"load": {"path": "in.safetensors"}}, {"rename": {"keys": {"w": "v"}}}, {"save": SAVES["safetensors"]})
    assert surgery("run", path).code == 0
    Path("full.safetensors").write_bytes(Path("in.safetensors").read_bytes())
    ran = surgery("run", recipe({"load": {"path": "full.safetensors"}}, {"save": {"path": "full/m.safetensors"}}))
    assert (ran.code, "error[disk-full]" in ran.err) == (1, True)


BOUNDED: dict[str, tuple[int, dict[str, Any], list[str]]] = {
    "cast": (2 * GIB, {"cast": {"dtype": "bfloat16"}}, []),
    "renamed": (2 * GIB, {"rename": {"keys": {"w": "v"}}}, []),
    "transposed": (256 * MIB, {"transpose": {"order": [1, 0]}}, ["--memory", "32MiB"]),
}


@pytest.mark.parametrize("work_", BOUNDED)
def test_what_is_large_needs_little_memory(work: Path, recipe: Recipe, work_: str) -> None:
    nbytes, step, options = BOUNDED[work_]
    sparse(Path("in.safetensors"), (nbytes // 4096, 1024), {5: ROW.tobytes()})
    path = recipe({"load": {"path": "in.safetensors"}}, step, {"save": {"path": "out.safetensors"}})
    command = [sys.executable, "-m", "surgery", "run", "--json", "--jobs", "2", *options, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["peak_rss_bytes"] < 100_000_000
