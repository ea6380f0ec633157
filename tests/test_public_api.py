"""What `import surgery` promises: the names, their laziness, and the classes of errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import surgery

NAMES = [
    "ApplyError",
    "Checkpoint",
    "CorruptFile",
    "KeyCollisionError",
    "LazyTensor",
    "MismatchError",
    "NotFoundError",
    "Plan",
    "PlanError",
    "RecipeError",
    "Report",
    "SourceError",
    "StaleSource",
    "SurgeryError",
    "UnsupportedFeature",
    "__version__",
    "open",
    "plan",
]


def test_the_public_names() -> None:
    assert sorted(surgery.__all__) == NAMES
    assert dir(surgery) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(surgery, name)
    assert value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'surgery' has no attribute 'opne'"):
        surgery.opne  # noqa: B018


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("SurgeryError", "Exception"),
        ("RecipeError", "SurgeryError"),
        ("PlanError", "SurgeryError"),
        ("NotFoundError", "PlanError"),
        ("KeyCollisionError", "PlanError"),
        ("MismatchError", "PlanError"),
        ("SourceError", "SurgeryError"),
        ("CorruptFile", "SourceError"),
        ("UnsupportedFeature", "SourceError"),
        ("StaleSource", "SourceError"),
        ("ApplyError", "SurgeryError"),
    ],
)
def test_the_tree_of_errors(name: str, parent: str) -> None:
    assert [base.__name__ for base in getattr(surgery, name).__bases__] == [parent]


def test_a_missing_key_of_a_checkpoint_is_a_key_error_too(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "a.npz", a=np.arange(3, dtype="f4"))
    with surgery.open(tmp_path / "a.npz") as checkpoint:
        assert checkpoint.get("d") is None
        assert "d" not in checkpoint
        with pytest.raises(KeyError):
            checkpoint["d"]
        with pytest.raises(surgery.NotFoundError, match="Key d not found in checkpoint") as caught:
            checkpoint["d"]
    assert caught.value.keys == ("d",)


def test_a_checkpoint_is_a_mapping_of_lazy_tensors(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "a.npz", b=np.arange(6, dtype="f4").reshape(2, 3), a=np.array(7))
    with surgery.open(tmp_path / "a.npz") as checkpoint:
        assert list(checkpoint) == ["b", "a"]
        assert len(checkpoint) == 2
        assert checkpoint.format == "npz"
        assert (checkpoint["b"].dtype, checkpoint["b"].shape) == ("float32", (2, 3))
        assert checkpoint["b"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
        assert repr(checkpoint["b"]) == "<b: f32[2,3]>"
        assert checkpoint["a"].numpy()[()] == 7


def test_a_plan_tells_its_outputs_and_runs(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "a.npz", a=np.arange(3, dtype="f4"))
    (tmp_path / "r.yaml").write_text(
        "surgery: 1\nparams: {source: {type: string}}\nsteps:\n"
        "  - load: {path: '${source}'}\n  - rename: {match: ^, to: x/}\n"
        f"  - save: {{path: {tmp_path}/out.npz}}\n"
    )
    plan = surgery.plan(tmp_path / "r.yaml", params={"source": str(tmp_path / "a.npz")})
    assert str(plan.outputs[0]["x/a"].spec) == "f32[3]"
    assert not (tmp_path / "out.npz").exists()
    report = plan.run()
    assert [output.tensors for output in report.outputs] == [1]
    with np.load(tmp_path / "out.npz") as saved:
        assert {key: saved[key].tolist() for key in saved} == {"x/a": [0, 1, 2]}


def test_the_package_is_typed() -> None:
    assert (Path(surgery.__file__).parent / "py.typed").exists()


def test_star_import_gives_the_public_names() -> None:
    code = "from surgery import *; print(plan.__name__, SurgeryError.__name__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "plan SurgeryError\n"
