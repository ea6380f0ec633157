"""What each command imports: start-up is part of speed, and each of the packages and modules named here is a part of it that is seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent / "data"
PROBE = """
import sys
before = set(sys.modules)
from surgery.__main__ import main
code = main(sys.argv[1:])
taken = sorted(set(sys.modules) - before)
import json
print(json.dumps([code, taken]), file=sys.stderr)
"""

_EXPENSIVE = """
    argparse ast asyncio bz2 concurrent.futures csv ctypes dataclasses decimal difflib dis email fractions getopt hashlib hmac http importlib.metadata
    importlib.resources inspect ipaddress locale logging lzma multiprocessing optparse pathlib pickle platform random secrets shutil socket ssl
    statistics subprocess tempfile textwrap tokenize traceback typing unittest urllib uuid xml zipfile zoneinfo
"""
EXPENSIVE = frozenset(_EXPENSIVE.split())
"""Modules of the standard library that take more than half a millisecond and are easily imported for little."""

RECIPES = {
    "copy": ["load: {{path: {safetensors}}}", "rename: {{match: ^, to: x/}}", "save: {{path: copy.safetensors}}"],
    "npz": ["load: {{path: a.npz}}", "rename: {{match: ^, to: x/}}", "save: {{path: b.npz}}"],
    "tf": ["load: {{path: {tf}}}", "rename: {{match: ^, to: x/}}", "save: {{path: tf.safetensors}}"],
    "cast": ["load: {{path: {safetensors}}}", "cast: {{keys: layer.0.weight, dtype: bfloat16}}", "save: {{path: cast.safetensors}}"],
}
SOURCES = {"safetensors": DATA / "safetensors" / "plain.safetensors", "tf": DATA / "tf" / "article" / "with_matrix"}

READS_A_RECIPE = {"yaml", "regex", "typing", "locale"}  # `regex` imports `locale`
PLANS = READS_A_RECIPE | {"ctypes"}  # statfs tells whether the file system shares blocks
RUNS = PLANS | {"concurrent.futures", "logging", "traceback", "textwrap", "tokenize", "hashlib", "shutil", "bz2", "lzma"}
"""`concurrent.futures` imports `logging` and its company, the folder of the output is removed by `shutil`, its manifest needs `hashlib`."""

MAY_IMPORT = [
    ("--version", set()),
    ("--help", {"typing"}),
    ("formats", {"typing"}),
    ("steps", READS_A_RECIPE),
    ("schema", READS_A_RECIPE | {"inspect", "ast", "dis", "tokenize"}),
    ("lint copy.yaml", READS_A_RECIPE),
    ("lint llama/meta-to-hf", READS_A_RECIPE),
    ("recipes show tied/drop", READS_A_RECIPE),
    ("invert copy.yaml", PLANS),
    ("import csv names.csv", READS_A_RECIPE | {"csv"}),
    ("plan copy.yaml", PLANS),
    ("plan npz.yaml", PLANS),
    ("plan tf.yaml", PLANS | {"google", "google_crc32c", "pickle"}),  # protobuf imports `pickle`
    ("run copy.yaml", RUNS),
    ("run cast.yaml", RUNS | {"numpy", "ml_dtypes"}),
    ("rename a.npz c.npz --prefix x/", RUNS),
    ("inspect a.npz", {"typing", "dataclasses", "inspect", "ast", "dis", "tokenize"}),  # all but the first by `pprint`
]


def imported(folder: Path, *arguments: str) -> set[str]:
    """The packages outside the standard library that a command imports, and the expensive modules of it."""
    # Tools that start with every Python of an environment (coverage, editable installs) are there before.
    ran = subprocess.run([sys.executable, "-c", PROBE, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    code, modules = json.loads(ran.stderr.splitlines()[-1])
    assert code == 0, ran.stderr
    packages = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"surgery"}
    return {name for name in packages if "cython" not in name} | (EXPENSIVE & set(modules))  # what is compiled by Cython names its helpers so


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    np.savez(tmp_path / "a.npz", a=np.zeros(3, "f4"))
    (tmp_path / "names.csv").write_text("a,b\n")
    for name, steps in RECIPES.items():
        lines = ["surgery: 1", "steps:", *(f"  - {step.format(**SOURCES)}" for step in steps)]
        (tmp_path / f"{name}.yaml").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize(("command", "allowed"), MAY_IMPORT, ids=[command for command, _ in MAY_IMPORT])
def test_a_command_imports_what_it_needs(recipes: Path, command: str, allowed: set[str]) -> None:
    taken = imported(recipes, *command.split())
    if "numpy" in allowed:  # what numpy imports is not ours to choose
        taken &= allowed | {"yaml", "regex", "pydantic", "jsonschema", "google"}
    assert taken <= allowed


def test_the_package_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import surgery; print(*sorted(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["__future__", "surgery"]
