"""Paths that stand for several files, or for a part of one, from the disk to the plan."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from surgery.api import plan
from surgery.errors import SurgeryError
from surgery.files import LocalDisk
from surgery.several import is_numbered, numbered_files

DATA = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize(
    ("path", "numbered"),
    [("a.*.pth", True), ("d/*", True), ("*#part", True), ("a", False), ("d*/a", True), ("a#*", False), ("*.*", False), ("d*/a.*", False)],
)
def test_one_star_in_a_path(path: str, numbered: bool) -> None:
    assert is_numbered(path) == numbered


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["c.10.pth", "c.9.pth"] + [f"c.{n}.pth" for n in range(9)], [f"c.{n}.pth" for n in range(11)]),
        (["c.00.pth", "c.01.pth", "c.x.pth", "c..pth", "c.02.pth.bak", "xc.02.pth"], ["c.00.pth", "c.01.pth"]),
        (["c.1.pth", "c.2.pth"], ["c.1.pth", "c.2.pth"]),
        (["c.*.pth", "c.0.pth"], ["c.*.pth"]),
    ],
)
def test_files_in_the_order_of_their_numbers(work: Path, names: list[str], found: list[str]) -> None:
    for name in names:
        (work / name).touch()
    (work / "c.77.pth").mkdir()
    assert numbered_files("c.*.pth", LocalDisk()) == tuple(found)
    assert numbered_files(f"{work}/c.*.pth", LocalDisk()) == tuple(f"{work}/{name}" for name in found)


def test_folders_in_the_order_of_their_numbers(work: Path) -> None:
    for name in ("r_9/x/a.pt", "r_10/x/a.pt", *(f"r_{n:02}/x/a.pt" for n in range(9)), "r_/x/a.pt", "r_11/a.pt"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).touch()
    numbers = [*(f"{n:02}" for n in range(9)), "9", "10"]
    assert numbered_files("r_*/x/a.pt#model", LocalDisk()) == tuple(f"r_{number}/x/a.pt#model" for number in numbers)


@pytest.mark.parametrize(
    ("names", "code", "title"),
    [
        ([], "no-such-checkpoint", "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for c.*.pth"),
        (["c.00.pth", "c.02.pth"], "missing-shard", "number 1 of c.*.pth is not there"),
        (["c.2.pth", "c.3.pth"], "missing-shard", "number 0 of c.*.pth is not there"),
        (["c.0.pth", "c.999999999999999999.pth"], "missing-shard", "number 1 of c.*.pth is not there"),
        (["c.0.pth", "c.00.pth"], "ambiguous-source", "two files of c.*.pth have the number 0"),
    ],
)
def test_files_that_are_no_row(work: Path, names: list[str], code: str, title: str) -> None:
    for name in names:
        (work / name).touch()
    with pytest.raises(SurgeryError) as caught:
        numbered_files("c.*.pth", LocalDisk())
    assert (caught.value.code, caught.value.title) == (code, title)


def test_shards_are_joined_and_a_shard_that_appears_is_another_run(surgery: Callable[..., Any], recipe: Callable[..., str], work: Path) -> None:
    for rank in range(2):
        np.savez(f"c.{rank:02}.npz", w=np.full(2, rank, "f4"))
    path = recipe(
        {"load": {"path": "c.*.npz", "scope": "rank{i}/"}},
        {"concat": {"match": r"^rank(?P<i>\d+)/w$", "to": "w", "axis": 0}},
        {"save": {"path": "out.npz", "overwrite": "replace"}},
    )
    assert surgery("run", path).code == 0
    assert np.load("out.npz")["w"].tolist() == [0, 0, 1, 1]
    assert surgery("run", path).out == "out.npz: up to date\n"
    np.savez("c.02.npz", w=np.full(2, 2, "f4"))
    assert surgery("run", path).code == 0
    assert np.load("out.npz")["w"].tolist() == [0, 0, 1, 1, 2, 2]


def keys(recipe: Callable[..., str], **options: Any) -> list[str]:
    return list(plan(recipe({"load": options}, {"save": {"path": "out.npz"}})).outputs[0])


def fault(recipe: Callable[..., str], **options: Any) -> SurgeryError:
    with pytest.raises(SurgeryError) as caught:
        keys(recipe, **options)
    return caught.value


def test_the_first_part_of_a_pickle_that_exists(recipe: Callable[..., str], work: Path) -> None:
    shutil.copy(DATA / "torch" / "nested.pt", "m.pt")
    wanted = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert keys(recipe, path="m.pt", root=["state_dict", "model", ""]) == wanted
    assert keys(recipe, path="m.pt", root="model", separator="/", scope="x/")[0] == "x/0/weight"
    assert keys(recipe, path="m.pt", root=["state_dict", ""])[0] == "model.0.weight"


def test_a_dotted_key_is_no_part(recipe: Callable[..., str], work: Path) -> None:
    shutil.copy(DATA / "torch" / "nested.pt", "m.pt")
    assert keys(recipe, path="m.pt#model", root=["0", ""])[0] == "0.weight"


def test_the_first_part_of_a_tree_that_exists(recipe: Callable[..., str], work: Path) -> None:
    shutil.copy(DATA / "flax" / "plain.msgpack", "m.msgpack")
    assert keys(recipe, path="m.msgpack", root=["target", "params"]) == ["Dense_0/kernel", "Dense_0/bias", "größe", "none"]
    assert keys(recipe, path="m.msgpack", root="params/Dense_0/", separator=".", match="^kernel$") == ["kernel"]
    assert keys(recipe, path="m.msgpack", separator=".", var_list={"params.Dense_0.bias": "b"}) == ["b"]


def test_parts_of_several_files(recipe: Callable[..., str], work: Path) -> None:
    for rank in range(2):
        shutil.copy(DATA / "torch" / "nested.pt", f"m.{rank}.pt")
    assert keys(recipe, path="m.*.pt", root="model", scope="r{i}.", match="0.bias") == ["r0.0.bias", "r1.0.bias"]
    assert keys(recipe, path="m.*.pt#model", scope="r{i}.", match="0.bias") == ["r0.0.bias", "r1.0.bias"]


@pytest.mark.parametrize(
    ("file", "title", "note"),
    [
        ("torch/nested.pt", "m has none of the parts `a`, `b`", "there are model, optimizer"),
        ("flax/plain.msgpack", "m has none of the parts `a`, `b`", "there are params, step"),
        ("safetensors/plain.safetensors", "m has none of the parts `a`, `b`", "safetensors keeps no parts"),
    ],
)
def test_none_of_the_parts_exists(recipe: Callable[..., str], work: Path, file: str, title: str, note: str) -> None:
    shutil.copy(DATA / file, "m")
    error = fault(recipe, path="m", root=["a", "b"])
    assert (error.code, error.title, error.notes) == ("no-such-checkpoint", title, (note,))


def test_parts_of_nothing(recipe: Callable[..., str], work: Path) -> None:
    assert "Failed to find any matching files for m.pt" in fault(recipe, path="m.pt", root=["a", ""]).title


def test_keys_that_become_one_by_another_separator(recipe: Callable[..., str], work: Path) -> None:
    plan(
        recipe({"init_missing": {"variables": {"a.b": {"shape": [1]}, "a/b": {"shape": [1]}}, "init": "zeros"}}, {"save": {"path": "m.msgpack"}})
    ).run()
    assert fault(recipe, path="m.msgpack", separator=".").code == "key-collision"


def test_a_tree_that_is_saved_with_its_separator_is_the_same_file(recipe: Callable[..., str], work: Path) -> None:
    shutil.copy(DATA / "flax" / "plain.msgpack", "m.msgpack")
    plan(recipe({"load": {"path": "m.msgpack", "separator": "."}}, {"save": {"path": "out.msgpack", "separator": "."}})).run()
    assert Path("out.msgpack").read_bytes() == Path("m.msgpack").read_bytes()
