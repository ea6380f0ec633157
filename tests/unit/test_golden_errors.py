"""The whole text of one error for each code, as a user meets it: `tests/golden/errors/<code>.txt`.

Each case is a recipe, or steps behind `load: {path: base.npz}`, run by the command line in a folder of small checkpoints.
`--update` writes the texts anew; whoever changes a message reads the difference.
"""

from __future__ import annotations

import ast
import fcntl
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from surgery import patterns
from surgery.errors import StaleSource, SurgeryError, UnsupportedFeature
from surgery.formats.base import required

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "errors"
DATA = HERE.parent / "data"
SOURCE = HERE.parent.parent / "surgery"

RECIPES = {
    "bad-recipe": "- load: {path: base.npz}\n",
    "yaml": "surgery: 1\nsteps:\n  - drop: {keys: [a, b}\n",
    "yaml-limit": f"surgery: 1\nname: {'[' * 70}{']' * 70}\nsteps: []\n",
    "yaml-tag": "surgery: !!int '1'\nsteps: []\n",
    "duplicate-key": "surgery: 1\nsteps:\n  - drop: {keys: [a, b], keys: [c]}\n",
    "bad-key": "surgery: 1\nparams: {1: {type: string}}\nsteps: []\n",
    "bad-value": "surgery: 1\nsteps:\n  - drop: {match: a, optional: yes}\n",
    "missing-option": "surgery: 1\nsteps:\n  - load: {scope: a/}\n",
    "unknown-option": "surgery: 1\nsteps:\n  - rename: {macth: a, to: b}\n",
    "unknown-step": "surgery: 1\nsteps:\n  - renmae: {match: a, to: b}\n",
    "bad-step": "surgery: 1\nsteps:\n  - drop: {match: a}\n    keep: {match: b}\n",
    "bad-pattern": "surgery: 1\nsteps:\n  - rename: {match: 'layer_(\\d+', to: 'l\\1'}\n",
    "bad-template": "surgery: 1\nsteps:\n  - rename: {match: 'layer_\\d+', to: 'l\\1'}\n",
    "missing-param": "surgery: 1\nparams:\n  source: {type: string, description: checkpoint prefix}\nsteps:\n  - load: {path: '${source}'}\n",
    "unknown-param": "surgery: 1\nparams:\n  source: {default: a}\nsteps:\n  - load: {path: '${sorce}'}\n",
    "bad-param": "surgery: 1\nparams:\n  layers: {type: integer, minimum: 1, default: 0, description: their number}\nsteps:\n  - load: {path: a}\n",
    "tensor-in-use": "surgery: 1\nsteps:\n  - load: {path: nested.onnx}\n  - drop: {keys: c}\n  - save: {path: m.onnx}\n",
    "bad-schema": "surgery: 1\nparams:\n  layers: {type: intger}\nsteps:\n  - load: {path: a}\n",
    "no-such-recipe": "surgery: 1\nsteps:\n  - use: {recipe: tool/strip-wrapper}\n",
    "use-cycle": "surgery: 1\nsteps:\n  - use: {recipe: inner.yaml}\n",
    "use-limit": "surgery: 1\nsteps:\n" + 1001 * "  - use: {recipe: tiny.yaml}\n",
}

STEPS = {
    "needs-selector": "drop: {}",
    "open-prefix": "scope: {strip: bert}",
    "bad-path": "load: {path: '', scope: x/}",
    "bad-order": "transpose: {order: [1, 1]}",
    "bad-split": "split: {match: w, parts: 3, to: [q, k]}",
    "read-only-format": "save: {path: model.json}",
    "model-needed": "save: {path: out.onnx}",
    "format-needed": "save: {path: out/model.ckpt}",
    "unknown-format": "save: {path: out/model, format: safetensor}",
    "unknown-group": "drop: {match: 'layer_(?P<n>\\d+)', where: {m: [8, 32]}}",
    "unknown-dtype": "cast: {dtype: bfloat}",
    "path-conflict": "save: {path: m.npz}\n  - save: {path: ./m.npz}",
    "bad-option": "save: {path: m.npz, edit: {config.json: {vocab_size: 5}}}",
    "bad-initializer": "init_missing: {variables: {a: {shape: [2]}}, init: normel}",
    "missing-key": "expect:\n      variables: {bert/kernel: {shape: [2, 3]}, bert/gamma: {shape: [3]}}\n      unexpected: allow",
    "key-collision": "rename: {match: 'bert/.*', to: w}",
    "nothing-matched": "drop: {keys: 'Bert/**'}",
    "wrong-count": "drop: {match: ^bert/, count: 12}",
    "shape-mismatch": "expect: {variables: {bert/w: {shape: [3, 2]}}, unexpected: allow}",
    "dtype-mismatch": "expect: {variables: {bert/b: {shape: [3], dtype: float64}}, unexpected: allow}",
    "unexpected-key": "expect: {variables: {bert/b: {shape: [3]}}}",
    "lossy-cast": "cast: {dtype: int8}",
    "bad-policy": "cast: {dtype: float8_e4m3fn, overflow: inf}",
    "no-cast": "load: {path: tf/dtypes/all}\n  - cast: {keys: [t/string, t/qint8], dtype: float32}",
    "not-computable": "load: {path: tf/object/plain-1, scope: x/}\n  - assert: {keys: x/_CHECKPOINTABLE_OBJECT_GRAPH, close_to: {key: global_step}}",
    "indivisible": "split: {match: ^bert/, axis: -1, sizes: [2, 2], to: [q, k]}",
    "untransposed": "init_missing: {variables: {a/kernel: {shape: [4, 4]}}, init: ones}\n  - rename: {match: /kernel$, to: .weight}\n"
    "  - expect: {variables: {a.weight: {shape: [4, 4]}}, unexpected: allow}",
    "unlike-members": "concat: {keys: [bert/w, bert/b], to: both}",
    "incomplete-group": "copy: {keys: {bert/b: [e.0.w, e.2.w]}}\n  - stack: {match: '^e\\.(?P<i>\\d+)\\.', to: e.}",
    "repeated-member": "concat: {match: '/(w|b)$', to: /all}",
    "not-tied": "tie: {keys: [bert/w, bert/b]}",
    "bad-shape": "reshape: {keys: bert/w, shape: [4, -1]}",
    "bad-axes": "rearrange: {keys: bert/w, pattern: 'o (i -> i o'}",
    "bad-slice": "slice: {keys: bert/w, step: 0}",
    "out-of-range": "slice: {keys: bert/w, axis: 1, stop: 4}",
    "trim": "resize: {keys: bert/w, axis: 1, size: 2}",
    "bad-data": "resize: {keys: bert/w, old_vocab: base.npz, new_vocab: base.npz}",
    "rank": "transpose: {order: [1, 0]}",
    "bad-formula": "compute: {let: {w: ^bert/w$}, expr: 'w + 2 * (w @ w', to: w}",
    "unfit-tensors": "compute: {let: {w: ^bert/w$}, expr: w @ w, to: w}",
    "missing-scale": "dequantize: {match: '^bert/', scale: s/}",
    "no-initializer": "init_missing: {variables: {cls/w: {shape: [2]}, cls/b: {shape: [2]}}}",
    "no-spec": "init_missing: {like: names.index.json, init: zeros}",
    "bad-number": "rename: {match: 'bert/(?P<n>\\w)', to: '{n+1}'}",
    "pattern-timeout": "copy: {keys: {bert/b: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!}}\n  - drop: {match: '^(a|aa)+$'}",
    "no-such-checkpoint": "load: {path: base.npy, scope: x/}",
    "no-such-file": "load: {path: latest, scope: x/}",
    "ambiguous-source": "load: {path: two, scope: x/}",
    "missing-shard": "load: {path: names.safetensors.index.json, scope: x/}",
    "corrupt-file": "load: {path: cut.npz, scope: x/}",
    "unsupported": "load: {path: object.npy, scope: x/}",
    "checksum": "load: {path: flipped, scope: x/}\n  - save: {path: m.npz}",
    "output-exists": "save: {path: base.npz}",
    "not-in-place": "drop: {keys: global_step}\n  - load: {path: plain.safetensors}\n  - save: {path: plain.safetensors, in_place: true}",
    "too-many-tensors": "save: {path: one.npy}",
    "bad-prefix": "save: {path: out/checkpoint, format: tf}",
    "bad-name": "save: {path: out/.m.surgery, format: npz}",
    "dtype-not-storable": "cast: {dtype: bfloat16}\n  - save: {path: m.npz}",
    "key-not-storable": "rename: {keys: {bert/b: __metadata__}}\n  - save: {path: m.safetensors}",
    "shape-not-storable": f"init_missing: {{variables: {{deep: {{shape: {[1] * 65}}}}}, init: zeros}}\n  - save: {{path: m.npz}}",
    "object-graph-addition": "load: {path: tf/object/plain-1}\n  - save: {path: out/m, format: tf}",
    "object-graph-unreadable": "rename: {keys: {bert/b: _CHECKPOINTABLE_OBJECT_GRAPH}}\n  - save: {path: out/m, format: tf}",
    "overflow": "init_missing: {variables: {big: {shape: [2]}}, init: {constant: 70000}}\n  - cast: {dtype: float16}\n  - save: {path: m.npz}",
    "nan-cast": "load: {path: nan.npz}\n  - cast: {keys: nan, dtype: int8, rounding: nearest}\n  - save: {path: m.npz, keys: nan}",
    "assert": "load: {path: nan.npz}\n  - assert: {finite: true}\n  - save: {path: m.npz}",
    "bad-companion": "load: {path: sharded, scope: x/}\n  - save: {path: out, format: safetensors, carry: [merges.txt], edit: {merges.txt: {a: 1}}}",
    "folder-in-the-way": "save: {path: shut/way.npz, overwrite: replace}",
    "no-folder": "save: {path: base.npz/m.npz}",
    "name-too-long": f"save: {{path: out/{'x' * 250}.npz}}",
    "foreign-journal": "save: {path: moved/m.npz}",
    "locked": "save: {path: held/m.npz}",
    "disk-full": "save: {path: m.npz}",
}

UNREACHABLE = {
    "apply": "the default of ApplyError",
    "error": "the default of SurgeryError",
    "file-too-large": "needs a limit that a test would set for its own process",
    "io-error": "needs a device that fails",
    "left-over": "needs --strict; see below",
    "mismatch": "the default of MismatchError",
    "object-graph-key": "YAML holds no text that is not UTF-8, and TensorFlow writes no such keys into a graph",
    "permission-denied": "root is refused nothing",
    "plan": "the default of PlanError",
    "read-only": "needs such a file system",
    "source": "the default of SourceError",
    "stale-source": "needs a change between plan and run; see below",
    "storage": "whatever else an operating system may say",
    "unreadable": "whatever else an operating system may say",
}
"""Codes without a case among the recipes above."""


@pytest.fixture
def folder(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory with the checkpoints that the cases load."""
    np.savez("base.npz", **{"bert/w": np.ones((2, 3), "f4"), "bert/b": np.zeros(3, "f4"), "global_step": np.array(7)})
    np.savez("nan.npz", nan=np.array([0.0, np.nan], "f4"))
    np.save("object.npy", np.array([{"a": 1}]), allow_pickle=True)
    Path("cut.npz").write_bytes(Path("base.npz").read_bytes()[:400])
    Path("names.index.json").write_text('{"weight_map": {"cls/w": "model-00001-of-00001.safetensors"}}')
    Path("names.safetensors.index.json").write_text('{"weight_map": {"cls/w": "model-00001-of-00001.safetensors"}}')
    for name in ("two", "shut/way.npz", "latest", "held"):
        Path(name).mkdir(parents=True)
    for name in ("a", "b"):
        shutil.copy(DATA / "safetensors" / "plain.safetensors", f"two/{name}.safetensors")
    Path("latest/checkpoint").write_text('model_checkpoint_path: "model.ckpt-30"\n')
    Path("tiny.yaml").write_text("surgery: 1\nsteps: [drop: {keys: a}]\n")
    Path("inner.yaml").write_text("surgery: 1\nsteps: [use: {recipe: r.yaml}]\n")
    os.symlink(DATA / "tf", "tf")
    shutil.copy(DATA / "safetensors" / "plain.safetensors", "plain.safetensors")
    shutil.copy(DATA / "onnx" / "nested.onnx", "nested.onnx")
    shutil.copytree(DATA / "safetensors" / "sharded", "sharded")
    Path("sharded/merges.txt").write_text("a b\n")
    for part in ("index", "data-00000-of-00001"):
        shutil.copy(DATA / "tf" / "article" / f"with_matrix.{part}", f"flipped.{part}")
    data = bytearray(Path("flipped.data-00000-of-00001").read_bytes())
    data[-1] ^= 1
    Path("flipped.data-00000-of-00001").write_bytes(data)
    monkeypatch.setattr(patterns, "SECONDS_PER_STEP", 0.2)
    Path("held/.m.npz.surgery").mkdir()
    Path("moved/.m.npz.surgery").mkdir(parents=True)
    journal = b'{"files": ["m.npz"], "remove": [], "replaces_index": [], "folder": [0, 0]}'
    Path("moved/.m.npz.surgery/.journal.surgery").write_bytes(journal + b"\n%08x\n" % zlib.crc32(journal))
    lock = os.open("held/.m.npz.surgery", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield work
    os.close(lock)


@pytest.mark.parametrize("code", [*RECIPES, *STEPS])
def test_error(code: str, folder: Path, surgery: Callable[..., Any], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    text = RECIPES.get(code) or f"surgery: 1\nsteps:\n  - load: {{path: base.npz}}\n  - {STEPS[code]}\n"
    (folder / "r.yaml").write_text(text)
    if code == "disk-full":
        monkeypatch.setattr("surgery.files.free_bytes", lambda folder: 100)
    ran = surgery("run", "--jobs", "1", "r.yaml")
    compare(code, ran.err, ran.code, request)


def test_not_a_file(folder: Path, surgery: Callable[..., Any], request: pytest.FixtureRequest) -> None:
    ran = surgery("run", "shut")
    compare("not-a-file", ran.err, ran.code, request)


def test_left_over(folder: Path, recipe: Callable[..., str], surgery: Callable[..., Any], request: pytest.FixtureRequest) -> None:
    ran = surgery("run", "--strict", recipe({"load": {"path": "base.npz"}}, {"save": {"path": "m.npz", "match": "^bert/"}}))
    compare("left-over", ran.err, ran.code, request)


def test_no_inverse(folder: Path, recipe: Callable[..., str], surgery: Callable[..., Any], request: pytest.FixtureRequest) -> None:
    recipe({"load": {"path": "m.npz"}}, {"save": {"path": "base.npz"}}, name="back.yaml")
    steps = [{"load": {"path": "base.npz"}}, {"transpose": {"keys": "bert/w"}}, {"save": {"path": "m.npz"}}]
    ran = surgery("run", "--verify-inverse", recipe(*steps, inverse="back.yaml"))
    compare("no-inverse", ran.err, ran.code, request)


def test_missing_package(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    with pytest.raises(UnsupportedFeature) as caught:
        required("onnx", "onnx")
    compare("missing-package", f"{caught.value}\n", caught.value.exit_code, request)


def test_stale_source(folder: Path, recipe: Callable[..., str], request: pytest.FixtureRequest) -> None:
    import surgery as api

    plan = api.plan(recipe({"load": {"path": "base.npz"}}, {"save": {"path": "m.npz"}}))
    np.savez("base.npz", other=np.ones(5, "f4"))
    with pytest.raises(StaleSource) as caught:
        plan.run()
    compare("stale-source", f"{caught.value}\n", caught.value.exit_code, request)


def compare(code: str, text: str, exit_code: int, request: pytest.FixtureRequest) -> None:
    text += f"(exit code {exit_code})\n"
    file = GOLDEN / f"{code}.txt"
    if request.config.getoption("--update"):
        file.write_text(text)
    assert text == file.read_text()


def test_every_code_has_a_golden_text() -> None:
    known = {file.stem for file in GOLDEN.glob("*.txt")}
    assert sorted(codes() - known - set(UNREACHABLE)) == []
    assert sorted(known - codes()) == []


def test_a_golden_text_is_of_the_code_it_is_named_by() -> None:
    """Sentences of TensorFlow have no code in front; all others do."""
    for file in sorted(GOLDEN.glob("*.txt")):
        first = file.read_text().splitlines()[0]
        assert first.startswith(f"error[{file.stem}]: ") or not first.startswith("error["), file.name


def codes() -> set[str]:
    """Every code that stands in the source: `code="…"`, the table of the operating system's refusals, and the classes' defaults."""
    found = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                found.add(node.value.value)
    classes = [SurgeryError]
    while classes:
        error = classes.pop()
        found.add(error.default_code)
        classes += [child for child in error.__subclasses__() if child.__module__ == "surgery.errors"]
    from surgery.files.faults import _FAULTS

    return found - {"", None} | {code for code, _ in _FAULTS.values()}
