"""Manifests: how they are spelled, what they take for unchanged, and that nothing that stands in one can harm."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from surgery.manifest import Evidence, Manifest, Request, Stamp, Written, decode, file_name, is_manifest, is_manifest_name

GOLDEN = Path(__file__).parent.parent / "golden" / "manifest.json"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
ASKED = Request("1.2.3", "5e" * 32, {"dtype": "float16", "heads": 12, "recipe.dir": "jobs"}, digest=True)
SOURCE, TOKENIZER, MODEL, STATE = Stamp(40, 7, 100), Stamp(12, 8, 101), Stamp(20, 9, 102), Stamp(30, 10, 103)
RUN = Manifest(
    ASKED,
    Evidence(
        {"in/model.safetensors": SOURCE, "in/tokenizer.json": TOKENIZER, "in/checkpoint": None}, {"in": ["tokenizer.json", "model.safetensors"]}
    ),
    (
        Written("out/m", {"out/m.index": MODEL}, {"out/checkpoint": STATE}, ["out/m.meta"], {"out/m.index": ABC}),
        Written("b\udcff.npz", {"b\udcff.npz": Stamp(1, 2, 3)}, {}, []),
    ),
)
NOW: dict[str, Stamp | None] = {
    "in/model.safetensors": SOURCE,
    "in/tokenizer.json": TOKENIZER,
    "in/checkpoint": None,
    "out/m.index": MODEL,
    "out/checkpoint": STATE,
    "b\udcff.npz": Stamp(1, 2, 3),
}
FOLDERS = {"in": ["model.safetensors", "tokenizer.json"]}


def test_it_is_spelled_like_this() -> None:
    assert RUN.encode().decode("ascii") == GOLDEN.read_text()


def test_what_was_written_is_read_back() -> None:
    found = decode(GOLDEN.read_bytes())
    assert found is not None
    assert found.request == RUN.request
    assert found.evidence == RUN.evidence._replace(folders=FOLDERS)
    assert found.outputs == list(RUN.outputs)


def test_all_as_it_was_left() -> None:
    assert RUN.holds(NOW, FOLDERS)
    assert RUN.paths == NOW.keys()


@pytest.mark.parametrize("path", NOW)
@pytest.mark.parametrize("change", [{"nbytes": 41}, {"mtime_ns": 0}, {"inode": 5}, None])
def test_any_change_of_a_file_counts_but_the_content_of_a_shared_one(path: str, change: dict[str, int] | None) -> None:
    before = NOW[path]
    now = None if change is None else (before or SOURCE)._replace(**change)
    expected = (now is None) if before is None else (path == "out/checkpoint" and now is not None)
    assert RUN.holds(NOW | {path: now}, FOLDERS) == expected


@pytest.mark.parametrize(("names", "expected"), [(["config.json"], False), (["m.npz.surgery.json", "surgery.json", ".m.npz.surgery"], True)])
def test_a_new_name_in_a_folder_that_was_listed_counts_unless_it_is_of_this_tool(names: list[str], expected: bool) -> None:
    assert RUN.holds(NOW, {"in": [*FOLDERS["in"], *names]}) == expected


def test_a_name_that_is_gone_counts() -> None:
    assert not RUN.holds(NOW, {"in": ["model.safetensors"]})
    assert not RUN.holds(NOW, {})


class TestOutputsThatWereSources:
    """A run that replaces what it reads: a new file in place of the old, an old shard gone, another name in the folder."""

    RUN = Manifest(
        ASKED,
        Evidence({"./m/1.st": SOURCE, "m/2.st": SOURCE, "m/checkpoint": SOURCE}, {"m/": ["1.st", "2.st", "checkpoint"]}),
        (Written("m", {"m/1.st": MODEL}, {"m/checkpoint": STATE}, ["m/2.st"]), Written("n", {"m/3.st": MODEL}, {"m/checkpoint": MODEL}, [])),
    )
    NOW: dict[str, Stamp | None] = {"./m/1.st": MODEL, "m/1.st": MODEL, "m/2.st": None, "m/3.st": MODEL, "m/checkpoint": MODEL}
    FOLDERS = {"m/": ["1.st", "3.st", "checkpoint"]}

    def test_they_are_unchanged_as_the_run_left_them(self) -> None:
        assert self.RUN.holds(self.NOW, self.FOLDERS)

    @pytest.mark.parametrize("change", [{"./m/1.st": STATE}, {"m/2.st": STATE}, {"m/checkpoint": STATE}, {"m/3.st": None}])
    def test_anything_else_is_a_change(self, change: dict[str, Stamp | None]) -> None:
        assert not self.RUN.holds(self.NOW | change, self.FOLDERS)


@pytest.mark.parametrize(
    ("change", "covered"),
    [
        ({}, True),
        ({"version": "1.2.4"}, False),
        ({"recipe_sha256": "00" * 32}, False),
        ({"parameters": {**ASKED.parameters, "heads": 12.0}}, False),
        ({"parameters": {"dtype": "float16", "heads": 12}}, False),
        ({"parameters": dict(reversed(ASKED.parameters.items()))}, True),
        ({"strict": True}, False),
        ({"digest": False}, True),
    ],
)
def test_a_run_covers_requests_for_no_more_than_itself(change: dict[str, Any], covered: bool) -> None:
    assert ASKED.covers(ASKED._replace(**change)) == covered


def test_not_a_number_is_the_same_value_again() -> None:
    asked = ASKED._replace(parameters={"fill": float("nan")})
    found = decode(RUN._replace(request=asked).encode())
    assert found is not None
    assert found.request.covers(asked)


BROKEN = [b"", b"{}", b"[]", b"null", b"3", b'"surgery_manifest"', b"\xff\xfe", b"[" * 100_000, b'{"surgery_manifest": 1}', bytes(100)]


@pytest.mark.parametrize("data", BROKEN)
def test_other_texts_are_no_manifests(data: bytes) -> None:
    assert decode(data) is None


@pytest.mark.parametrize(
    ("data", "answer"), [(GOLDEN.read_bytes(), True), (b'{"surgery_manifest": 99, "new": []}', True), *((data, False) for data in BROKEN[:8])]
)
def test_a_manifest_of_any_version_is_recognised(data: bytes, answer: bool) -> None:
    assert is_manifest(data) == answer


def test_a_manifest_of_another_version_is_not_read() -> None:
    assert decode(GOLDEN.read_bytes().replace(b'"surgery_manifest": 1', b'"surgery_manifest": 2')) is None


@pytest.mark.parametrize("path", ["a\0b", "\ud800", 3, None, ["a"]])
def test_paths_that_cannot_be_are_refused(path: Any) -> None:
    fields = json.loads(GOLDEN.read_bytes())
    fields["outputs"][0]["path"] = path
    assert decode(json.dumps(fields).encode()) is None


def test_damage_never_raises() -> None:
    """Whatever comes out, all that is asked of a manifest can be asked of it."""
    dice = random.Random(4)
    whole = GOLDEN.read_bytes()
    read = 0
    for _ in range(3000):
        data = bytearray(whole[: dice.choice([len(whole), dice.randrange(len(whole))])])
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data)) if data else 0 :][:1] = b""
            if data:
                data[dice.randrange(len(data))] = dice.choice(b'0"{}[],:\\ntx\xff')
        found = decode(bytes(data))
        if found is not None:
            read += 1
            assert found.request.covers(ASKED) in (True, False)
            assert found.holds(dict.fromkeys(found.paths), {}) is False
    assert read > 0


@pytest.mark.parametrize(("output", "name"), [("m.npz", "m.npz.surgery.json"), ("", "surgery.json")])
def test_names(output: str, name: str) -> None:
    assert file_name(output) == name
    assert is_manifest_name(name)


@pytest.mark.parametrize("name", ["m.npz", "my-surgery.json", "surgery.json.npz", ".m.surgery"])
def test_names_of_others(name: str) -> None:
    assert not is_manifest_name(name)
