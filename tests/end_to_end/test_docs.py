"""Every fenced block of the pages is run, and every table in them that lists something is compared with the code."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from docs_runner import NOT_RUN, REPOSITORY, BlockError, agrees, blocks, run_page, run_surgery

from surgery.cli.recipes import about
from surgery.files import faults
from surgery.library import own_names

PAGES = [*(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_does_what_the_page_says(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_commands_that_are_not_run_exist() -> None:
    rules = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for command in NOT_RUN:
        word, *arguments = command.split()
        if word == "make":
            assert {argument for argument in arguments if "=" not in argument} <= rules, command
        elif word == "python":
            file = arguments[1] + "/__main__.py" if arguments[0] == "-m" else arguments[0]
            assert (REPOSITORY / file).is_file(), command
        else:
            assert command in (".ci/run", "pip install .")
    assert (REPOSITORY / ".ci/run").is_file()


def test_ci_runs_the_tests_then_those_against_the_reference_implementations() -> None:
    lines = (REPOSITORY / ".ci/run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make")] == ["make test", "make test-peers"]


def test_the_readme_lists_each_command() -> None:
    from surgery.cli.app import COMMANDS

    readme = (REPOSITORY / "README.md").read_text()
    table = readme[readme.index("| command |") : readme.index("- `-p NAME=VALUE`")]
    told = [word for row in re.findall(r"^\| (.+?) \|", table, re.MULTILINE) for word in re.findall(r"`([a-z]+)", row)]
    assert sorted(told) == sorted(COMMANDS)


def test_the_readme_lists_each_step() -> None:
    from surgery.steps import WORDS

    readme = (REPOSITORY / "README.md").read_text()
    table = readme[readme.index("| for | steps |") : readme.index("Not yet:")]
    assert sorted(word for row in re.findall(r"`([a-z_ ]+)` \|$", table, re.MULTILINE) for word in row.split()) == sorted(WORDS)


def test_the_readme_tells_the_default_of_memory() -> None:
    from surgery.api import DEFAULT_MEMORY

    assert "512 MiB by default" in (REPOSITORY / "README.md").read_text()
    assert DEFAULT_MEMORY == 512 * 1024 * 1024


def test_the_demo_ends_with_a_missing_key_and_leaves_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with chdir(tmp_path):
        text, code = run_surgery(["demo", str(folder)])
    assert code == 0
    assert text.count("(exit code ") == 1
    assert "\nKey bert/pooler/dense/kernel not found in checkpoint\n\t [[{{step expect}} = steps[1] at broken.yaml:4:5]]\n" in text
    assert sorted(path.name for path in folder.iterdir()) == ["broken.yaml", "fit.yaml", "fitted", "make.yaml", "pretrained"]
    assert sorted(path.name for path in (folder / "fitted").iterdir()) == ["model.safetensors", "model.safetensors.surgery.json"]


def test_the_page_of_steps_is_what_the_models_say() -> None:
    assert (REPOSITORY / "docs" / "steps.md").read_text() == _maker("make_steps").page(), "run `python docs/make_steps.py`"


def test_the_tables_of_formats_are_what_the_formats_say() -> None:
    text = (REPOSITORY / "docs" / "formats.md").read_text()
    assert text == _maker("make_formats").page(text), "run `python docs/make_formats.py`"
    assert "| `bfloat16` | yes | yes | – | yes |" in text
    assert "| `string` | yes | – | – | – |" in text


def test_the_page_of_recipes_is_what_they_tell_of_themselves() -> None:
    assert (REPOSITORY / "docs" / "recipes.md").read_text() == _maker("make_recipes").page(), "run `python docs/make_recipes.py`"


def test_the_page_of_architecture_names_modules_that_there_are() -> None:
    named = set(re.findall(r"`([a-z_/]+)(?:\.py|/)`", (REPOSITORY / "docs" / "architecture.md").read_text()))
    assert {name for name in named if not list((REPOSITORY / "surgery").glob(f"{name}*"))} == set()
    assert {"reductions", "inverse", "importers/draft", "formats/in_place"} <= named


JOBS = re.findall(r"^\| \d+ \| .+$", (REPOSITORY / "docs" / "conversions.md").read_text(), re.MULTILINE)


def test_the_page_of_conversions_has_a_row_for_each_job() -> None:
    assert [int(row.split("|")[1]) for row in JOBS] == list(range(1, 25))


@pytest.mark.parametrize("row", JOBS, ids=lambda row: f"job{row.split('|')[1].strip()}")
def test_a_row_of_conversions_names_recipes_a_command_that_they_take_and_tests_that_there_are(row: str) -> None:
    recipes, command, tests = row.split(" | ")[2:5]
    named = re.findall(r"\[([^]]+)\]\(recipes\.md#([^)]+)\)", recipes)
    assert named
    assert {name: anchor for name, anchor in named if anchor != name.replace("/", "") or name not in own_names()} == {}
    _, word, recipe, *options = shlex.split(command.strip("`"))
    assert (word, recipe in dict(named)) == ("run", True)
    params = about(recipe).params
    given = {option.partition("=")[0] for option in options if option != "-p"}
    assert {name for name, schema in params.items() if "default" not in schema} <= given <= set(params)
    proofs = re.findall(r"\[(\w+\.py)::(\w+)\]\(\.\./([^)]+)\)", tests)
    assert len(proofs) == tests.count("[")
    for file, name, path in proofs:
        assert Path(path).name == file
        assert re.search(rf"^def {name}\(", (REPOSITORY / path).read_text(), re.MULTILINE), f"{path}::{name}"


def test_the_page_about_importing_begins_as_its_script_says() -> None:
    """Its numbers are compared where transformers is installed."""
    assert (REPOSITORY / "docs" / "importing.md").read_text().startswith(_maker("make_importing").HEAD), "run `python docs/make_importing.py`"


def _maker(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_errors_lists_each_code_and_no_other() -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", (REPOSITORY / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == _codes_in_use()


def _codes_in_use() -> set[str]:
    """Codes in keyword arguments, assignments and defaults of parameters, and those of the table of system errors."""
    codes = {"storage", *(code for code, _ in faults._FAULTS.values())}
    for path in (REPOSITORY / "surgery").rglob("*.py"):
        for value in _code_expressions(ast.parse(path.read_text())):
            codes |= {node.value for node in ast.walk(value) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return codes - {""}


def _code_expressions(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            yield from (node.value for target in node.targets if getattr(target, "id", "") in ("code", "default_code"))
        elif isinstance(node, ast.arguments):
            yield from (default for argument, default in zip(node.kwonlyargs, node.kw_defaults, strict=True) if argument.arg == "code" and default)
        elif isinstance(node, ast.keyword) and node.arg == "code":
            yield node.value


def test_the_runner_sees_a_wrong_output(tmp_path: Path) -> None:
    with pytest.raises(BlockError, match=r"page\.md:2: \$ surgery --version\n--- the page says"):
        run_page(_page(tmp_path, "```console\n$ surgery --version\nsurgery 0\n```\n"), tmp_path)


def test_the_runner_sees_a_wrong_exit_code(tmp_path: Path) -> None:
    with pytest.raises(BlockError, match="exit code 2"):
        run_page(_page(tmp_path, "```console\n$ surgery steps nothing\n…\n…\n```\n"), tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "```\nno language\n```\n",
        "```bash\nls\n```\n",
        "```console\n$ curl example.org\n```\n",
        "```console\n$ make test\npassed\n```\n",
        "```yaml\nsurgery: 1\nsteps: [{nonsense: {}}]\n```\n",
        "<!-- skip -->\n```yaml\na: 1\n```\n",
        "<!-- broken: a.yaml -->\n```yaml\nsurgery: 1\nsteps: [{load: {path: a}}]\n```\n",
        "```python\nassert 1 == 2\n```\n",
        "```python\n>>> 1 + 1\n3\n```\n",
        "```python\nprint(1)\n```\n<!-- prints -->\n```text\n2\n```\n",
        "```text\n$ surgery --version\n```\n",
        "```text\nnever closed\n",
        "<!-- fragment -->\nno block\n",
        "<!-- setup: mv a b -->\n",
    ],
)
def test_the_runner_passes_over_nothing(text: str, tmp_path: Path) -> None:
    with pytest.raises(BlockError):
        run_page(_page(tmp_path, text), tmp_path)


def test_a_placeholder_stands_for_anything_within_a_line() -> None:
    assert agrees("done … s\nend\n", "done 0.10 s\nend\n")
    assert not agrees("done …\n", "done 0.10 s\nend\n")


def test_the_runner_tells_blocks_with_their_lines() -> None:
    page = "# Title\n\n<!-- file: a.yaml -->\n```yaml\nx: 1\n```\n\n- item\n  ```text\n  y\n  ```\n"
    assert [(block.line, block.language, block.notes) for block in blocks(page)] == [(5, "yaml", ("file: a.yaml",)), (10, "text", ())]


def _page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text)
    return path
