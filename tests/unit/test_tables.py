from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

from surgery import formats
from surgery.cli.tables import format_facts, format_list

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def lines() -> dict[str, str]:
    return {line.split()[0]: line for line in format_list().splitlines() if line}


def facts() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in format_facts()}


def test_formats_tell_what_can_be_done_with_them() -> None:
    assert " read, write  " in lines()["safetensors"]
    assert " read         " in lines()["tfjs"]


def test_a_format_whose_package_is_missing_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats._ROWS, "npz", formats._ROWS["npz"]._replace(needs=("no_such_package", "arrays")))
    assert " needs model-surgery[arrays]  " in lines()["npz"]
    assert lines()["npz:"] == "npz: pip install 'model-surgery[arrays]'"
    assert lines()["everything:"] == "everything: pip install 'model-surgery[all]'"
    assert facts()["npz"]["works"] is False
    assert facts()["npz"]["install"] == "pip install 'model-surgery[arrays]'"


def test_a_format_whose_package_is_there_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats._ROWS, "npz", formats._ROWS["npz"]._replace(needs=("numpy", "arrays")))
    assert " read, write  " in lines()["npz"]
    assert (facts()["npz"]["works"], facts()["npz"]["install"]) == (True, None)


def test_facts_tell_the_types_in_the_order_of_the_documentation() -> None:
    assert facts()["npz"]["writes"] == facts()["npz"]["reads"]
    assert facts()["npz"]["writes"][:4] == ["bool", "int8", "uint8", "int16"]
    assert facts()["tfjs"]["writes"] == []
    assert "complex64" in facts()["tfjs"]["reads"]
    assert facts()["tf"]["options"] == ["align", "latest", "meta", "shard_size"]


@pytest.mark.parametrize("name", formats.NAMES)
def test_each_format_reads_what_it_writes(name: str) -> None:
    """A format that is only read has to say itself what it reads."""
    assert facts()[name]["reads"]
    assert set(facts()[name]["writes"]) <= set(facts()[name]["reads"])


def wanted() -> set[tuple[str, str]]:
    """Each package that is asked for somewhere, with the extra that brings it."""
    trees = [ast.parse(file.read_text()) for file in (ROOT / "surgery").rglob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "required"]
    literals = [[argument.value for argument in call.args if isinstance(argument, ast.Constant)] for call in calls]
    rows = [row.needs for row in formats._ROWS.values() if row.needs is not None]
    return {(values[0], values[1]) for values in literals if len(values) == 2} | set(rows)


def test_the_extra_that_is_named_for_a_package_brings_it_and_so_does_all() -> None:
    for package, extra in wanted():
        assert any(requirement.startswith(package.partition(".")[0]) for requirement in EXTRAS[extra])
        assert extra in EXTRAS["all"][0].partition("[")[2].rstrip("]").split(",")
