"""The hunt for faulty readers: that sound files pass every stage, that a faulty reader is found, and a little hunting in each run."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from fuzz import FINDINGS, trial
from fuzz.child import Hunt
from fuzz.mutations import mutated
from fuzz.targets import DATA, TARGETS, Seed, archives_sealed, databases_sealed, tables_sealed
from fuzz.trial import OtherValues, TooSlow, try_out
from surgery.errors import CorruptFile
from surgery.formats.tf_table import read_table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_sound_files_pass_every_stage(name: str, tmp_path: Path) -> None:
    hunt = Hunt(name, tmp_path / "found", tmp_path)
    for number in range(len(hunt.target.seeds)):
        hunt.trial(number, hunt.sound(number), True)
    assert not hunt.findings
    assert hunt.outcomes["listed" if name == "tf-meta" else "converted"]  # others are refused: reference files show that, too


@pytest.mark.parametrize("name", TARGETS)
def test_a_moment_of_damage_finds_nothing(name: str, tmp_path: Path) -> None:
    hunt, chance = Hunt(name, tmp_path / "found", tmp_path), random.Random(1)
    hunt.seconds = 10  # the machine may be busy
    sounds = [hunt.sound(number) for number in range(len(hunt.target.seeds))]
    stop = time.monotonic() + 0.3  # `make fuzz` takes longer
    while time.monotonic() < stop:
        number = chance.randrange(len(sounds))
        hunt.trial(number, mutated(sounds[number], chance, sounds), True)
    assert not hunt.findings, (tmp_path / FINDINGS).read_text()


def test_an_exception_is_saved_once_with_what_repeats_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(path: str, out: Path, seconds: float) -> str:
        raise IndexError("list index out of range")

    monkeypatch.setattr("fuzz.child.try_out", faulty)
    hunt = Hunt("npz", tmp_path / "found", tmp_path)
    for damaged in (b"one", b"two"):
        hunt.trial(0, damaged, False)
    (name,) = hunt.findings
    seed = TARGETS["npz"].seeds[0]
    assert (tmp_path / "found" / name / seed.damaged).read_bytes() == b"one"
    assert f"--repeat {tmp_path / 'found' / name / seed.opened}" in (tmp_path / FINDINGS).read_text()
    assert hunt.outcomes == {"found": 2}


def test_a_slow_reader_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(path: str, disk: object, *, strict: bool) -> None:
        while True:
            pass

    monkeypatch.setattr(trial, "open_checkpoint", slow)
    with pytest.raises(TooSlow, match=r"more than 0\.1 s"):
        try_out(str(tmp_path / "a.npz"), tmp_path / "out", 0.1)


def test_a_conversion_with_other_values_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(3, np.float32))
    monkeypatch.setattr(trial, "_values", lambda path: {"w": np.zeros(3, np.float32)})
    with pytest.raises(OtherValues, match="w"):
        try_out(str(tmp_path / "a.npz"), tmp_path / "out")


def test_damage_behind_a_checksum_is_sealed_in() -> None:
    seed: Seed = TARGETS["tf-index"].seeds[0]
    sound = seed.files()[seed.damaged]
    damaged = bytearray(sound)
    damaged[4] ^= 0xFF

    def entries(table: bytes) -> list[tuple[bytes, bytes]]:
        return read_table(lambda start, stop: table[start:stop], len(table), "a.index")

    with pytest.raises(CorruptFile, match="checksum"):
        entries(bytes(damaged))
    try:
        found = entries(tables_sealed(sound, bytes(damaged)))
    except CorruptFile as fault:
        assert "checksum" not in fault.title  # noqa: PT017
    else:
        assert found != entries(sound)


def test_a_zip_archive_is_sealed_so_that_every_reader_agrees() -> None:
    sound = (DATA / "torch_more" / "stored.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        content = archive.read(name)
    damaged = sound.replace(content, content[:-2] + b"??")
    with zipfile.ZipFile(io.BytesIO(archives_sealed(sound, damaged))) as archive:
        assert archive.read(name) == content[:-2] + b"??"


def test_a_database_is_sealed_so_that_its_nodes_are_parsed() -> None:
    seed = TARGETS["ocdbt"].seeds[0]
    sound = seed.files()[seed.damaged]
    damaged = sound[:20] + b"?" + sound[21:]
    assert damaged != sound
    sealed = databases_sealed(sound, damaged)
    assert int.from_bytes(sealed[-4:], "little") == google_crc32c.value(damaged[:-4])
    assert databases_sealed(sound, sound) == sound


def test_damage_is_the_same_for_the_same_seed_and_bounded() -> None:
    one, two = ([mutated(bytes(100), chance, [b"other"]) for _ in range(500)] for chance in (random.Random(3), random.Random(3)))
    assert one == two
    assert len(set(one)) > 400
    assert max(map(len, one)) <= 100 + (1 << 16)


@pytest.mark.slow
def test_the_command_tells_what_became_of_the_files(tmp_path: Path) -> None:
    for name in ("fuzz", "surgery", "tests/data/safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "fuzz", "safetensors", "--seconds", "2", "--seed", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1].removeprefix("safetensors: "))
    assert set(told) <= {"converted", "refused", "read", "listed"}
    assert told["refused"] > 10
