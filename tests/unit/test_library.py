"""Names and files of recipes, and the libraries of other packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgery import library
from surgery.errors import RecipeError

TEXT = "surgery: 1\nsteps: [drop: {match: a}]\n"


@pytest.fixture
def acme(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose entry points lead to its recipes, to a module, and to nothing."""
    site = work / "site"
    for name in ("acme/recipes/llama/fuse.yaml", "acme/recipes/plain.yaml", "acme/recipes/__pycache__/no.yaml", "lone/beside.yaml"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(TEXT)
    for module in ("acme/__init__.py", "acme/recipes/__init__.py", "lone/__init__.py", "lone/module.py"):
        (site / module).write_text("raise RuntimeError('imported')\n")
    info = site / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[surgery.recipes]\nacme = acme.recipes\nlone = lone.module\ngone = gone.recipes\nodd = acme.nothing\n")
    monkeypatch.syspath_prepend(str(site))
    return site


def fault(reference: str, folder: str = "") -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        library.find(reference, folder)
    return caught.value


def test_a_name_is_found_in_the_library() -> None:
    source = library.find("tools/reshard")
    assert source.name.endswith("surgery/recipes/tools/reshard.yaml")
    assert b"name: tools/reshard\n" in bytes(source.text)  # type: ignore[arg-type]


def test_a_file_is_seen_from_the_folder_of_the_recipe_that_asks(work: Path) -> None:
    (work / "a").mkdir()
    (work / "b.yaml").write_text(TEXT)
    assert library.find("../b.yaml", "a").name == "b.yaml"
    assert library.find(str(work / "b.yaml"), "a").name == str(work / "b.yaml")


def test_a_file_wins_over_a_name(work: Path) -> None:
    (work / "tools").mkdir()
    (work / "tools" / "reshard").write_text(TEXT)
    assert library.find("tools/reshard").name == "tools/reshard"
    assert library.find("tools/reshard", "elsewhere").name.endswith(".yaml")


def test_a_folder_of_that_name_hides_no_recipe(work: Path) -> None:
    (work / "tools" / "reshard").mkdir(parents=True)
    assert library.find("tools/reshard").name.endswith("reshard.yaml")


@pytest.mark.parametrize(
    ("reference", "help"),
    [
        ("tools/reshrad", "did you mean `tools/reshard`?"),
        ("reshard", "did you mean `tools/reshard`?"),
        ("completely-different", "`surgery recipes list` shows the names"),
        ("acme:llama/fus", "did you mean `acme:llama/fuse`?"),
        (":tools/reshard", "did you mean `tools/reshard`?"),
        ("nobody:x", "`surgery recipes list` shows the names"),
    ],
)
def test_a_name_that_no_library_has(acme: Path, reference: str, help: str) -> None:
    assert (fault(reference).code, fault(reference).help) == ("no-such-recipe", help)


@pytest.mark.parametrize("reference", ["r.yaml", "../surgery/recipes/tools/reshard", "/tools/reshard", "tools//reshard", "a b", ""])
def test_what_looks_like_a_path_is_looked_for_as_a_file(work: Path, reference: str) -> None:
    assert fault(reference).code == "no-such-file"


def test_names_are_those_of_the_folder_and_of_other_packages(acme: Path) -> None:
    names, _ = library.names()
    assert "gpt2/split-qkv" in names
    assert [name for name in names if ":" in name] == ["acme:llama/fuse", "acme:plain", "lone:beside"]
    assert names["lone:beside"] == str(acme / "lone" / "beside.yaml")
    assert library.find("acme:llama/fuse").name == str(acme / "acme" / "recipes" / "llama" / "fuse.yaml")


def test_an_entry_point_that_leads_nowhere_is_a_warning(acme: Path) -> None:
    assert [line.split("` of ")[0] for line in library.names()[1]] == [
        "the entry point `gone = gone.recipes",
        "the entry point `odd = acme.nothing",
    ]
    assert fault("completely-different").notes == library.names()[1]


def test_of_two_packages_with_one_name_the_first_is_taken(acme: Path) -> None:
    info = acme / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[surgery.recipes]\nacme = lone.module\n")
    shelves = library.others()
    assert shelves.folders["acme"] == str(acme / "acme" / "recipes")
    assert any("several packages have an entry point `acme`" in line for line in shelves.warnings)


def test_other_packages_are_only_looked_for_where_a_name_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "others", lambda: pytest.fail("looked for"))
    assert library.path_of("tools/reshard")
    assert library.path_of("tools/nothing") is None
