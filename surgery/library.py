"""Where recipes come from: files, the library that is installed with this package, and those of other packages.

Serves whoever is given the path or the name of a recipe, `use` in another recipe included. Reads texts and knows nothing of
what stands in them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from surgery.errors import RecipeError, SurgeryError, near
from surgery.files import LocalDisk

GROUP = "surgery.recipes"
"""Entry points of packages with recipes: `acme = "acme_models.recipes"` makes `acme:llama/fuse` of `llama/fuse.yaml` in that package's folder."""

SUFFIX = ".yaml"
OWN = posixpath.join(posixpath.dirname(__file__), "recipes")
_NAME = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)*")
_MOST_DEEP = 8
_MOST_BYTES = 4 << 20


class Source(NamedTuple):
    """The text of a recipe and what it is called in messages."""

    text: str | bytes
    name: str


class Shelves(NamedTuple):
    """Folders of recipes by the name of their entry point, and a line for each entry point that leads to none."""

    folders: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def find(reference: str, folder: str = "") -> Source:
    """The recipe that is meant: a file, seen from `folder` (of the recipe that asks), or else a name of a library.

    Raises:
        RecipeError: there is neither, or the file cannot be read; without a place.
    """
    disk = LocalDisk()
    path = posixpath.normpath(posixpath.join(folder, reference)) if reference else ""
    if disk.is_file(path):
        return read(path)
    known = path_of(reference)
    if known:
        return read(known)
    if disk.is_folder(path) or not _NAME.fullmatch(reference.rpartition(":")[2]) or reference.endswith((SUFFIX, ".yml", ".json")):
        return read(path)
    raise _unknown(reference)


def read(path: str) -> Source:
    """The text of a file. Raises RecipeError where it cannot be read."""
    try:
        file, read = LocalDisk().open(path)
        return Source(read(0, min(file.nbytes, _MOST_BYTES + 1)), path)
    except SurgeryError as error:
        raise RecipeError(error.title, code=error.code, sentence=error.sentence, help="give the path of a recipe, a YAML file") from None


def path_of(name: str) -> str | None:
    """The file of a library's recipe; None where no library has it. Other packages are only looked for where the name says so."""
    package, colon, rest = name.rpartition(":")
    if not _NAME.fullmatch(rest):
        return None
    folder = others().folders.get(package) if colon else OWN
    path = posixpath.join(folder, rest + SUFFIX) if folder else ""
    return path if LocalDisk().is_file(path) else None


def own_names() -> list[str]:
    """The names of the recipes that are installed with this package, in order."""
    return [name for name, _ in _recipes_in(OWN)]


def names() -> tuple[dict[str, str], tuple[str, ...]]:
    """The file of every recipe of every library by name, and warnings about entry points that lead nowhere."""
    found = dict(_recipes_in(OWN))
    shelves = others()
    for package, folder in shelves.folders.items():
        found |= {f"{package}:{name}": path for name, path in _recipes_in(folder)}
    return found, shelves.warnings


def others() -> Shelves:
    """The libraries of other packages, which are found without importing them. What is wrong with one does not hide the others."""
    from importlib.metadata import entry_points

    folders: dict[str, str] = {}
    warnings: list[str] = []
    for entry in sorted(entry_points(group=GROUP)):
        try:
            folder = _folder_of(entry.value)
        except Exception as error:  # whatever a package of somebody else may do
            warnings.append(f"the entry point `{entry.name} = {entry.value}` of `{GROUP}` leads to no folder: {error or type(error).__name__}")
            continue
        if folders.setdefault(entry.name, folder) != folder:
            warnings.append(f"several packages have an entry point `{entry.name}` of `{GROUP}`; {folders[entry.name]} is taken, {folder} is not")
    return Shelves(folders, tuple(warnings))


def _folder_of(module: str) -> str:
    """The folder of a package, or the one that a module of a package lies in; nothing is imported."""
    from importlib.util import find_spec

    top, *rest = module.strip().split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"there is no package `{top}`")
    disk = LocalDisk()
    for root in spec.submodule_search_locations:
        folder = posixpath.join(root, *rest)
        if disk.is_folder(folder):
            return folder
        if disk.is_file(f"{folder}.py"):
            return posixpath.dirname(folder)
    raise LookupError("there is no such module")


def _recipes_in(folder: str, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Name and path of each recipe below a folder."""
    disk = LocalDisk()
    for name in disk.names(folder):
        path = posixpath.join(folder, name)
        if name.endswith(SUFFIX) and disk.is_file(path):
            yield prefix + name.removesuffix(SUFFIX), path
        elif depth < _MOST_DEEP and name[0] not in "._" and disk.is_folder(path):
            yield from _recipes_in(path, f"{prefix}{name}/", depth + 1)


def _unknown(reference: str) -> RecipeError:
    known, warnings = names()
    last = {name.rpartition("/")[2]: name for name in known}
    close = near(reference, known) or [last[name] for name in near(reference.rpartition("/")[2], last)]
    return RecipeError(
        f"there is no file `{reference}`, and no recipe is called so",
        code="no-such-recipe",
        notes=warnings,
        help=f"did you mean `{close[0]}`?" if close else "`surgery recipes list` shows the names",
    )
