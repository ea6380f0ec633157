"""The library of recipes on the command line, recipes that use others from plan to manifest, and what an installed package holds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from surgery.library import own_names

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Any]
NAMES = own_names()

OUTER = """\
surgery: 1
params: {keep: {type: string, default: module.}}
steps:
  - load: {path: a.npz}
  - use: {recipe: parts/inner.yaml, with: {prefix: '${keep}'}}
  - save: {path: b.npz}
"""
INNER = """\
surgery: 1
params: {prefix: {type: string}}
steps:
  - scope: {strip: '${prefix}'}
  - use: {recipe: tools/cast-bf16-except-norms, with: {dtype: float16}, without: [load, save]}
"""


@pytest.fixture
def recipes(work: Path) -> Path:
    np.savez("a.npz", **{"module.w": np.ones(2, "f4"), "module.norm": np.ones(2, "f4")})
    (work / "parts").mkdir()
    (work / "r.yaml").write_text(OUTER)
    (work / "parts" / "inner.yaml").write_text(INNER)
    return work


def test_a_recipe_runs_with_those_it_uses(recipes: Path, surgery: Run) -> None:
    assert surgery("lint", "r.yaml").out == "r.yaml: 4 steps, no faults\n"
    assert surgery("run", "r.yaml").code == 0
    with np.load("b.npz") as written:
        assert {key: str(written[key].dtype) for key in written.files} == {"w": "float16", "norm": "float32"}


def test_explain_leads_into_used_recipes(recipes: Path, surgery: Run) -> None:
    said = surgery("explain", "r.yaml", "w").out
    assert "`module.w` → `w`  (parts/inner.yaml:4:5)" in said
    assert "tools/cast-bf16-except-norms.yaml:12:5)" in said


def test_a_fault_of_the_plan_tells_both_places(recipes: Path, surgery: Run) -> None:
    ran = surgery("plan", "-p", "keep=no.", "r.yaml")
    assert ran.code == 1
    assert "  --> parts/inner.yaml:4:20 | - scope: {strip: '${prefix}'}\n" in ran.err
    assert "  note: used by r.yaml:5:5\n" in ran.err


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("r.yaml", "module.}", "module.} "),
        ("parts/inner.yaml", "float16", "float32, keep: x"),
        ("parts/inner.yaml", "prefix}'}", "prefix}'} # same"),
    ],
)
def test_a_change_of_any_text_is_a_run_of_its_own(recipes: Path, surgery: Run, name: str, old: str, new: str) -> None:
    surgery("run", "r.yaml")
    assert "up to date" in surgery("run", "r.yaml").out
    (recipes / name).write_text((recipes / name).read_text().replace(old, new))
    assert "up to date" not in surgery("run", "--force", "--dry-run", "r.yaml").out
    assert surgery("run", "r.yaml").err.startswith("error[output-exists]")


def test_a_value_that_only_a_used_recipe_reads_counts(recipes: Path, surgery: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipes / "parts" / "inner.yaml").write_text("surgery: 1\nenv: [SCOPE]\nsteps: [scope: {add: '${env.SCOPE}'}]\n")
    (recipes / "r.yaml").write_text(OUTER.replace(", with: {prefix: '${keep}'}", ""))
    monkeypatch.setenv("SCOPE", "one/")
    surgery("run", "r.yaml")
    assert "up to date" in surgery("run", "r.yaml").out
    assert "one/" not in Path("b.npz.surgery.json").read_text()  # of the environment only the digest
    monkeypatch.setenv("SCOPE", "two/")
    assert surgery("run", "r.yaml").err.startswith("error[output-exists]")


def test_a_name_stands_wherever_a_recipe_does(recipes: Path, surgery: Run) -> None:
    given = ["-p", "source=a.npz", "-p", "target=c.npz", "-p", "dtype=float16"]
    for command in (["lint"], ["plan"], ["run"]):
        assert surgery(*command, "tools/cast-bf16-except-norms", *given).code == 0
    assert "written" in surgery("explain", "tools/cast-bf16-except-norms", "module.w", *given).out
    ran = surgery("plan", "tools/cast-bf16-except-norm")
    assert (ran.code, ran.err.splitlines()[-1]) == (2, "  help: did you mean `tools/cast-bf16-except-norms`?")


def test_the_list_has_a_sentence_for_each_recipe(surgery: Run) -> None:
    lines = surgery("recipes", "list").out.splitlines()
    assert [line.split()[0] for line in lines[:-2]] == NAMES
    told = dict(line.split(maxsplit=1) for line in lines[:-2])
    assert told["gpt2/split-qkv"].rstrip() == "GPT-2 keeps query, key and value of each block in one tensor, `c_attn`."
    facts = surgery("recipes", "list", "--json").json
    assert [fact["name"] for fact in facts] == NAMES
    assert all(set(fact) == {"name", "summary", "description", "params", "inverse"} for fact in facts)


def test_show_tells_what_a_recipe_takes_and_then_its_text(surgery: Run) -> None:
    shown = surgery("recipes", "show", "tools/reshard").out
    assert shown.startswith("tools/reshard\n\nThe same tensors in safetensors shards of another size")
    assert '  carry       companion files to take along [array, default: ["config.json"]]\n' in shown
    assert "\n$ surgery run tools/reshard -p source=… -p target=…\n" in shown
    text = (ROOT / "surgery" / "recipes" / "tools" / "reshard.yaml").read_text()
    assert shown.endswith(text)
    assert surgery("recipes", "show", "tools/reshard", "--yaml").out == text
    assert surgery("recipes", "show", "tools/reshard", "--json").json["params"]["shard_size"]["default"] == "5GB"


def test_show_tells_the_inverse_of_a_file(work: Path, surgery: Run) -> None:
    (work / "there.yaml").write_text("surgery: 1\ninverse: back.yaml\nsteps: [drop: {match: a}]\n")
    assert "\nInverse: back.yaml\n" in surgery("recipes", "show", "there.yaml").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["recipes"], "`surgery recipes` lacks list|show"),
        (["recipes", "lst"], "did you mean `list`?"),
        (["recipes", "list", "tools/reshard"], "write `surgery recipes list [--json]`"),
        (["recipes", "show"], "write `surgery recipes list [--json]`"),
        (["recipes", "list", "--yaml"], "write `surgery recipes list [--json]`"),
        (["recipes", "show", "tools/reshrad"], "did you mean `tools/reshard`?"),
    ],
)
def test_wrong_use_of_the_command(surgery: Run, arguments: list[str], says: str) -> None:
    ran = surgery(*arguments)
    assert ran.code == 2
    assert says in ran.err


def test_other_packages_add_recipes_and_cannot_break_the_list(work: Path, surgery: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"fuse": "surgery: 1\ndescription: Fuses. All.\nsteps: [drop: {match: a}]\n", "broken": "surgery: [\n"}.items():
        (work / "site" / "acme").mkdir(parents=True, exist_ok=True)
        (work / "site" / "acme" / f"{name}.yaml").write_text(text)
    (work / "site" / "acme" / "__init__.py").write_text("")
    info = work / "site" / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[surgery.recipes]\nacme = acme\ngone = gone\n")
    monkeypatch.syspath_prepend(str(work / "site"))
    ran = surgery("recipes", "list")
    assert (ran.code, ran.out.splitlines()[len(NAMES)].split(maxsplit=1)) == (0, ["acme:fuse", "Fuses."])
    assert [line.split(": ")[0] for line in ran.err.splitlines()] == ["warning"] * 2
    assert surgery("lint", "acme:fuse").out == "acme:fuse: 1 step, no faults\n"


def test_an_installed_package_holds_the_recipes(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "surgery", tree / "surgery", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True)
    (wheel,) = (tree / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    listed = subprocess.run(
        [sys.executable, "-m", "surgery", "recipes", "list", "--json"],
        cwd=tmp_path / "site",  # `-m` looks there first
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [fact["name"] for fact in json.loads(listed.stdout)] == NAMES
