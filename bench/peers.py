"""Where the other tools are, or why they are not here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bench.measure import PYTHON, Case

RECIPES = Path(__file__).parent / "recipes"
_SCRIPTS = Path(__file__).parent / "scripts"
_MERGEKIT = Path(__file__).parent.parent / ".venv-mergekit" / "bin" / "mergekit-yaml"
_INSTALL = "`make bench` installs it where a package index has it"


def script(name: str, file: str, arguments: str, *packages: str, flush: str = "out.safetensors") -> Case:
    """A Python script of `bench/scripts` that needs these packages, its output flushed as surgery flushes its own."""
    missing = [package for package in packages if find_spec(package) is None]
    lacking = f"no package {', '.join(missing)}; {_INSTALL}" if missing else ""
    return Case(name, flushed(f"'{PYTHON}' '{_SCRIPTS / file}' {arguments}", flush), lacking=lacking)


def mergekit(recipe: str, options: str = "") -> Case:
    """mergekit in its own environment with the recipe `mergekit_RECIPE.yaml`; no model card, no search for a tokenizer."""
    lacking = "" if _MERGEKIT.exists() else f"not installed; {_INSTALL}"
    command = f"HF_HUB_OFFLINE=1 '{_MERGEKIT}' '{RECIPES}/mergekit_{recipe}.yaml' out --no-copy-tokenizer --no-write-model-card --quiet {options}"
    return Case("mergekit", flushed(command, "out/*.safetensors"), lacking=lacking)


def flushed(command: str, files: str) -> list[str]:
    """A shell command that ends when its files, where it writes any, are on the device."""
    return ["sh", "-c", f"{command} && sync {files}" if files else command]
