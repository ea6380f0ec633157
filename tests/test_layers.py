"""The structure that the architecture promises: imports go downwards, storage, YAML and the terminal have one home each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "surgery"

LAYERS = [
    "errors kinds arithmetic formula keys units dtypes randomness regions checksums yaml_faults arrays parallel",
    "data_files tensors models located pattern_facts twins casting ggml_blocks directives",
    "patterns initializers vocabularies",
    "replacement nodes template parameters model_faults files",
    "stored moves math_nodes reductions resampling",
    "expr joined quantised chunked",
    "blocking journal calculation means gather",
    "manifest",
    "commit table formats.base",
    "witness tasks formats verify defaults",
    "work written",
    "results tasklog",
    "steps.base sweep",
    "where",
    "select",
    "steps.naming steps.mismatch steps.paths steps.targets steps.groups",
    "steps.joining steps.lengthen cases",
    "steps case_values",
    "head library items",
    "recipe several value_checks cutting companions tied",
    "probe logical execute",
    "inverse.families inverse.text",
    "inverse.rules",
    "inverse.names",
    "inverse.values inverse.groups",
    "inverse",
    "round_trip physical up_to_date",
    "report",
    "api schema",
    "selftest importers.draft importers.transforms",
    "importers",
    "cli.arguments cli.progress cli.tables cli.oneliner cli.recipes cli.importing",
    "cli",
    "__main__",
]
"""From the bottom up. A module imports from the layers below its own, and from its own package where that is in its layer.

A package's name stands for its modules that are not named elsewhere. What only type checkers read does not count.
"""

NEIGHBOURS: dict[tuple[str, str], str] = {}
MAKE_FILES = {"cli.demo": {"os", "tempfile"}, "cli.frame": {"os"}, "api": {"os"}, "selftest": {"tempfile"}}
"""Modules outside `files` that may import something that touches storage, and for what: a folder for a demo and for tests, /dev/null, `fspath`."""

THIRD_PARTY = {
    "yaml": {"located"},
    "jsonschema": {"parameters"},
    "referencing": {"parameters"},
    "regex": {"patterns"},
    "pydantic": set(),
    "google_crc32c": {"checksums", "formats.tf_codecs", "formats.tf_table"},
    "google": {"formats.tf_entries", "formats.tf_state", "formats.tf_object_graph", "formats.tf_messages_pb2"},
    "ml_dtypes": {"dtypes", "casting"},
    "einops": {"steps.rearrange"},
}
"""Who may import what. numpy is wherever arrays are; `models` stands in for pydantic."""

HEAVY = {"numpy", "ml_dtypes", "google_crc32c", "google", "jsonschema", "referencing", "yaml"}
EAGER = {"formats.tf_messages_pb2": {"google"}}
"""Heavy packages are imported inside functions, so that who does not need them does not wait for them; generated code cannot."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(SOURCE.rglob("*.py")):
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
        yield name.removesuffix(".__init__") if name != "__init__" else "", ast.parse(file.read_text())


MODULES = dict(modules())


def imports(tree: ast.Module, *, at_import_time: bool = False) -> Iterator[str]:
    """Full names of what a module imports, for type checkers alone excepted."""
    skipped = {id(node) for branch in ast.walk(tree) if is_for_type_checkers(branch) for child in branch.body for node in ast.walk(child)}
    if at_import_time:
        functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        skipped |= {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def own(name: str) -> str | None:
    """The module of this project behind an imported name."""
    if not name.startswith("surgery"):
        return None
    rest = name.removeprefix("surgery").removeprefix(".")
    while rest and rest not in MODULES:
        rest = rest.rpartition(".")[0]
    return rest


def layer(module: str) -> int:
    for number, names in enumerate(LAYERS):
        if module in names.split():
            return number
    package = module.rpartition(".")[0]
    assert package, f"`{module}` has no layer: add it to LAYERS"
    return layer(package)


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_go_downwards(module: str) -> None:
    for name in imports(MODULES[module]):
        target = own(name)
        if not target or target == module:
            continue
        same_package = target.split(".")[0] == module.split(".")[0] and layer(target) == layer(module)
        allowed = layer(target) < layer(module) or same_package or (module, target) in NEIGHBOURS
        assert allowed, f"{module} (layer {layer(module)}) imports {target} (layer {layer(target)})"


def test_no_module_imports_itself_in_a_circle_when_it_is_loaded() -> None:
    """Layers allow neighbours to know each other, not to load each other."""
    graph = {module: {own(name) for name in imports(tree, at_import_time=True)} - {None, "", module} for module, tree in MODULES.items()}
    loaded: set[str] = {""}
    while rest := set(graph) - loaded:
        ready = {module for module in rest if graph[module] <= loaded}
        assert ready, f"these load each other: {sorted(rest)}"
        loaded |= ready


def test_every_name_of_the_layers_exists() -> None:
    names = [name for names in LAYERS for name in names.split()]
    assert [name for name in names if name not in MODULES] == []
    assert len(names) == len(set(names))


@pytest.mark.parametrize("module", [name for name in MODULES if name and not name.startswith("files")])
def test_only_files_touches_storage(module: str) -> None:
    touching = {"shutil", "tempfile", "io", "mmap", "fcntl", "pathlib", "glob", "subprocess"}
    taken = {name.split(".")[0] for name in imports(MODULES[module])}
    assert taken & touching <= MAKE_FILES.get(module, set())
    assert "os" not in taken or module in MAKE_FILES or os_names(module) <= {"os.environ", "os.path.dirname", "os.path.join"}
    opened = [node for node in ast.walk(MODULES[module]) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"]
    assert opened == []


def os_names(module: str) -> set[str]:
    return {name for name in imports(MODULES[module]) if name.split(".")[0] == "os"}


@pytest.mark.parametrize("package", THIRD_PARTY)
def test_a_third_party_package_is_known_by_few(package: str) -> None:
    users = {module for module, tree in MODULES.items() for name in imports(tree) if name.split(".")[0] == package}
    assert users == THIRD_PARTY[package]


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_are_not_imported_at_module_level(module: str) -> None:
    taken = {name.split(".")[0] for name in imports(MODULES[module], at_import_time=True)}
    assert taken & HEAVY <= EAGER.get(module, set())


def test_nothing_imports_a_framework() -> None:
    for module, tree in MODULES.items():
        assert not {name.split(".")[0] for name in imports(tree)} & {"tensorflow", "torch", "jax", "safetensors", "h5py"}, module
