"""What a command imports: start-up is part of speed, and each of these packages costs more than a small plan."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

RECIPE = "surgery: 1\nsteps:\n  - load: {{path: {source}}}\n  - rename: {{match: ^, to: x/}}\n  - save: {{path: {target}}}\n"
DATA = Path(__file__).parent / "data"
PROBE = """
import sys
before = set(sys.modules)
from surgery.__main__ import main
code = main(sys.argv[1:])
import json
print(json.dumps([code, sorted({name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))]), file=sys.stderr)
"""


def imported(folder: Path, *arguments: str) -> set[str]:
    """The top-level packages outside the standard library that a command imports."""
    # Tools that start with every Python of an environment (coverage, editable installs) are there before.
    ran = subprocess.run([sys.executable, "-c", PROBE, *arguments], cwd=folder, capture_output=True, text=True, check=True, env={**os.environ})
    code, packages = json.loads(ran.stderr.splitlines()[-1])
    assert code == 0, ran.stderr
    return set(packages) - {"surgery"}


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    np.savez(tmp_path / "a.npz", a=np.zeros(3, "f4"))
    (tmp_path / "npz.yaml").write_text(RECIPE.format(source="a.npz", target="b.npz"))
    (tmp_path / "st.yaml").write_text(RECIPE.format(source=DATA / "safetensors" / "plain.safetensors", target="b.safetensors"))
    (tmp_path / "tf.yaml").write_text(RECIPE.format(source=DATA / "tf" / "article" / "with_matrix", target="b.safetensors"))
    return tmp_path


def test_version_imports_nothing(tmp_path: Path) -> None:
    assert imported(tmp_path, "--version") == set()


def test_the_package_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import surgery; print(sorted(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" not in ran.stdout
    assert "pydantic" not in ran.stdout


def test_lint_takes_what_reading_a_recipe_takes(recipes: Path) -> None:
    assert heavy(imported(recipes, "lint", "st.yaml")) == set()


@pytest.mark.parametrize("recipe", ["st.yaml", "npz.yaml"])
def test_a_plan_imports_no_array_library(recipes: Path, recipe: str) -> None:
    assert heavy(imported(recipes, "plan", recipe)) == set()


def test_the_plan_of_a_tensorflow_bundle_imports_no_array_library(recipes: Path) -> None:
    assert heavy(imported(recipes, "plan", "tf.yaml")) <= {"google", "google_crc32c"}


def test_a_run_that_only_copies_imports_no_array_library(recipes: Path) -> None:
    assert heavy(imported(recipes, "run", "st.yaml")) == set()


def heavy(packages: set[str]) -> set[str]:
    return packages & {"numpy", "ml_dtypes", "jsonschema", "referencing", "rich", "google", "google_crc32c"}
