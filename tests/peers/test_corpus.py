"""25 checkpoints that no one here made, read, renamed and converted: equal to what each format's own library reads in them.

A package that cannot be downloaded skips its tests; one that arrived and differs fails them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from peer_bundles import load, run, save
from real_files import DATA, ENTRIES, fetch

import surgery

pytestmark = pytest.mark.peers

Content = dict[str, tuple[str, tuple[int, ...], str | None]]

REFUSED = {"mtcnn/npy": "unsupported"}
"""The one file that is a pickle of arrays under a name that numpy does not read without `allow_pickle`."""

READABLE = [name for name in ENTRIES if name not in REFUSED]
TWINS = [pair for pair in json.loads((DATA / "twins.json").read_text()) if pair["a"] in READABLE]
NOT_IN_THE_STATE_DICT = {"silero-vad/jit": {"_state", "_context"}}
"""Tensors of a TorchScript module that are attributes: torch keeps them and does not list them."""


def expected(name: str, path: str) -> Content:
    """What the format's own library reads: key → type, shape, SHA-256 of the little-endian bytes; strings have none."""
    rows = json.loads((DATA / "expected" / f"{name.replace('/', '__')}.json").read_text())["tensors"]
    return {key or Path(path).stem: (dtype, tuple(shape), digest) for key, dtype, shape, digest in rows}


def content(path: str) -> Content:
    with surgery.open(path) as checkpoint:
        return {key: (tensor.dtype, tensor.shape, digest_of(tensor)) for key, tensor in checkpoint.items()}


def digest_of(tensor: Any) -> str | None:
    return None if tensor.dtype == "string" else hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("name", READABLE)
def test_a_real_file_reads_as_its_own_library_reads_it(name: str) -> None:
    path = fetch(name)
    found = content(path)
    assert {key: found[key] for key in found if key not in NOT_IN_THE_STATE_DICT.get(name, ())} == expected(name, path)


@pytest.mark.parametrize("name", READABLE)
def test_a_real_file_has_the_same_values_under_other_names(tmp_path: Path, name: str) -> None:
    path = fetch(name)
    wanted = expected(name, path)
    strings = any(dtype == "string" for dtype, _, _ in wanted.values())
    target, options = (tmp_path / "renamed", {"format": "tf"}) if strings else (tmp_path / "renamed.safetensors", {})
    run(load(path), {"rename": {"match": "^", "to": "real/"}}, save(target, **options))
    found = content(str(target))
    assert {key: found[f"real/{key}"] for key in wanted} == wanted
    assert all(key.startswith("real/") for key in found)


@pytest.mark.parametrize("name", REFUSED)
def test_a_real_pickle_in_a_numpy_file_is_refused(name: str) -> None:
    with pytest.raises(surgery.SourceError) as refused:
        content(fetch(name))
    assert refused.value.code == REFUSED[name]


@pytest.mark.parametrize("pair", TWINS, ids=lambda pair: f"{pair['a']} as {pair['b']}")
def test_a_model_converted_has_the_values_of_its_published_twin(tmp_path: Path, pair: dict[str, Any]) -> None:
    """Matched by value when the list was made: each row is a key here, the key there, and the order of axes between them."""
    with surgery.open(fetch(pair["b"])) as twin:
        wanted = {there: digest_of(twin[there]) for _, there, _ in pair["rows"]}
    turns = [{"transpose": {"keys": there, "order": axes(rule)}} for _, there, rule in pair["rows"] if rule != "same"]
    target = tmp_path / "converted.safetensors"
    run(load(fetch(pair["a"]), var_list={here: there for here, there, _ in pair["rows"]}), *turns, save(target))
    with surgery.open(str(target)) as converted:
        assert {key: digest_of(tensor) for key, tensor in converted.items()} == wanted


def axes(rule: str) -> list[int]:
    word, order = rule.split()
    assert word == "transpose"
    return [int(axis) for axis in order.split(",")]
