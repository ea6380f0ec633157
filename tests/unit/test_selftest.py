"""`tests:` of a recipe: what stands in for loads, saves, targets and files, what is told of a difference, and what form is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from surgery.api import Source
from surgery.cases import Result
from surgery.errors import RecipeError
from surgery.recipe import load
from surgery.selftest import run_tests

LOAD = "load: {path: no/such.ckpt}"
SAVE = "save: {path: no/such/folder/out.safetensors}"
W = "w: {shape: [2, 3]}"


def text(steps: list[str], *tests: str, head: str = "") -> str:
    cases = "".join(f"  - {{name: t{number}, {test}}}\n" for number, test in enumerate(tests))
    return f"surgery: 1\n{head}steps:\n" + "".join(f"  - {step}\n" for step in steps) + (f"tests:\n{cases}" if cases else "")


def run(steps: list[str], test: str, head: str = "") -> list[str]:
    """What one test of a recipe finds wrong."""
    (result,) = run_tests(Source(text(steps, test, head=head), "r.yaml"))
    return list(result.differences)


def test_inputs_stand_in_for_loads_and_saves_go_nowhere(work: Path) -> None:
    assert run([LOAD, SAVE], f"inputs: [{{{W}}}], expect: {{keys: [w], tensors: {{w: {{values: [[0, 1, 2], [3, 4, 5]]}}}}}}") == []
    assert list(work.iterdir()) == []


def test_each_load_has_an_input_of_its_own_under_its_scope() -> None:
    steps = ["load: {path: a, scope: x/}", "load: {path: b.pth, format: torch, scope: y/}", SAVE]
    wanted = "expect: {keys: [x/w, y/w], tensors: {x/w: {values: 1}, y/w: {values: 2}}}"
    assert run(steps, f"inputs: [{{w: {{fill: 1}}}}, {{w: {{fill: 2}}}}], {wanted}") == []


@pytest.mark.parametrize(("format", "path"), [("tf", "a.ckpt"), ("npz", "a"), ("torch", "a.pt"), ("safetensors, shard_size: 100kB", "folder")])
def test_saves_are_in_their_own_format(format: str, path: str) -> None:
    assert run([LOAD, f"save: {{path: {path}, format: {format}}}"], f"inputs: [{{{W}}}], expect: {{tensors: {{w: {{input: w}}}}}}") == []


def test_each_save_has_an_expectation_of_its_own() -> None:
    steps = [LOAD, "save: {path: a.npz}", "rename: {match: w, to: v}", "save: {path: b.npz}"]
    assert run(steps, f"inputs: [{{{W}}}], expect: [{{keys: [w]}}, {{keys: [v]}}]") == []
    assert run(steps, f"inputs: [{{{W}}}], expect: {{keys: [w]}}") == ["1 expectation for 2 saves: list one for each, in order"]


def test_without_a_save_the_table_is_looked_at() -> None:
    assert run([LOAD, "transpose: {keys: w}"], f"inputs: [{{{W}}}], expect: {{tensors: {{w: {{values: [0, 3, 1, 4, 2, 5], shape: [3, 2]}}}}}}") == []


def test_paths_need_no_parameter_and_other_parameters_do() -> None:
    head = "params: {source: {type: string}, heads: {type: integer}}\n"
    steps = ["load: {path: '${source}'}", "reshape: {keys: w, shape: ['${heads}', -1]}", SAVE]
    assert run(steps, f"params: {{heads: 3}}, inputs: [{{{W}}}], expect: {{tensors: {{w: {{shape: [3, 2]}}}}}}", head) == []
    assert run(steps, f"inputs: [{{{W}}}], expect: {{}}", head) == ["error[missing-param]: the parameter `heads` has no value (r.yaml:2:34)"]


def test_a_parameter_that_is_more_than_a_path_has_to_be_given() -> None:
    head = "params: {part: {type: string}}\n"
    steps = [LOAD, "keep: {match: '^${part}'}", "save: {path: '${part}.npz'}"]
    assert run(steps, "inputs: [{a.w: {shape: []}}]", head) == ["error[missing-param]: the parameter `part` has no value (r.yaml:2:10)"]
    assert run(steps, "params: {part: a.}, inputs: [{a.w: {shape: []}}]", head) == []


def test_targets_stand_in_for_like() -> None:
    steps = [LOAD, "init_missing: {like: a.npz, init: zeros}", "expect: {like: a.npz}", "expect: {like: b.npz, unexpected: allow}", SAVE]
    inputs = f"inputs: [{{{W}}}]"
    both = "targets: [{w: {shape: [2, 3]}, b: {shape: [1]}}, {b: {shape: [1]}}]"
    assert run(steps, f"{inputs}, {both}, expect: {{keys: [w, b], tensors: {{b: {{values: [0]}}}}}}") == []
    assert run(steps, f"{inputs}, targets: [{{w: {{shape: [2]}}}}]") == ["1 target for 2 paths of `like`: list one for each, in order"]


def test_files_lie_beside_the_inputs() -> None:
    steps = ["load: {path: model}", "save: {path: out, format: safetensors, shard_size: 1GB, carry: [config.json], edit: {config.json: {a: 2}}}"]
    assert run(steps, f"inputs: [{{{W}}}], files: {{config.json: {{a: 1}}}}") == []
    assert run(steps, f"inputs: [{{{W}}}]") == ["error[nothing-matched]: no companion file fits `config.json` (r.yaml:4:69)"]


def test_an_expected_error_is_found_among_all() -> None:
    steps = [LOAD, "drop: {keys: [a]}", "drop: {match: x}", SAVE]
    assert run(steps, f"inputs: [{{{W}}}], error: missing-key") == []
    assert run(steps, f"inputs: [{{{W}}}], error: nothing-matched") == []
    wrong = "error[missing-key]: Key a not found in checkpoint (r.yaml:4:19)"
    assert run(steps, f"inputs: [{{{W}}}]") == [wrong]
    assert run(steps, f"inputs: [{{{W}}}], error: rank") == [f"{wrong}; rank expected"]
    assert run([LOAD, SAVE], f"inputs: [{{{W}}}], error: rank") == ["no error, rank expected"]


def test_a_check_on_values_fails_a_test() -> None:
    steps = [LOAD, "tie: {keys: [a, b]}", SAVE]
    assert run(steps, "inputs: [{a: {fill: [1, 2]}, b: {fill: [1, 2]}}], expect: {keys: [a]}") == []
    assert run(steps, "inputs: [{a: {fill: [1, 2]}, b: {fill: [1, 3]}}], error: assert") == []


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ("dtype: float16", "w: dtype float32, float16 expected"),
        ("shape: [3, 2]", "w: shape [2, 3], [3, 2] expected"),
        ("values: [[0, 1, 2], [3, 9, 5]]", "w: value 4.0 at [1, 1], 9.0 expected; 1 of 6 values differ"),
        ("values: [0, 1, 2, 3]", "w: shape [2, 3], values of the shape [4] expected"),
        ("values: [-0.0, 1, 2, 3, 4, 5]", "w: value 0.0 at [0, 0], -0.0 expected; 1 of 6 values differ"),
        ("values: [0.1, 1, 2, 3, 4, 5], rtol: 0.5", "w: value 0.0 at [0, 0], 0.10000000149011612 expected; 1 of 6 values differ"),
        ("input: v", "no input has a tensor `v`"),
    ],
)
def test_a_difference_is_told(expected: str, told: str) -> None:
    (found,) = run([LOAD, SAVE], f"inputs: [{{{W}}}], expect: {{tensors: {{w: {{{expected}}}}}}}")
    assert found.endswith(told)


@pytest.mark.parametrize("expected", ["values: [0.1, 1, 2, 3, 4, 5], atol: 0.2", "fill: arange", "input: w", "values: [0, 1, 2, 3, 4, 5]"])
def test_equal_values_pass(expected: str) -> None:
    assert run([LOAD, SAVE], f"inputs: [{{{W}}}], expect: {{tensors: {{w: {{{expected}}}}}}}") == []


def test_nan_is_nan() -> None:
    assert run([LOAD, SAVE], "inputs: [{w: {fill: [.nan, 1]}}], expect: {tensors: {w: {values: [.nan, 1]}}}") == []


def test_missing_and_unexpected_keys_are_told() -> None:
    wanted = "expect: {keys: [v], tensors: {v: {shape: []}, u: {shape: []}}}"
    assert run([LOAD, SAVE], f"inputs: [{{{W}}}], {wanted}") == ["missing: v", "unexpected: w", "u: there is no such tensor; there are w"]


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int64", "uint64", "float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"]
)
def test_counting_is_exact_in_every_dtype(dtype: str) -> None:
    """The first values are 0, 1, 2, …; they begin again where the next would not be exact, so all are whole numbers."""
    import ml_dtypes

    from surgery.case_values import array_of
    from surgery.cases import Tensor

    found = array_of(Tensor(shape=[600], dtype=dtype), "w")
    period = {"bool": 2, "int8": 128, "uint8": 256, "bfloat16": 256, "float8_e4m3fn": 16, "float8_e5m2": 8}.get(dtype, 600)
    assert found.dtype == np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    assert found.astype("f8").tolist() == [float(number % period) for number in range(600)]


def test_the_inverse_gives_the_inputs_back() -> None:
    inputs = "inputs: [{m.a: {shape: [2, 2]}, m.b: {shape: [3], dtype: bfloat16}}], inverse: true"
    exact = [LOAD, "transpose: {keys: m.a}", "cast: {dtype: float32}", "scope: {strip: m.}", SAVE]
    assert run(exact, inputs) == []
    assert run([LOAD, "drop: {keys: m.b}", SAVE], inputs) == ["inverse: m.b is not given back"]
    assert run([LOAD, "cast: {keys: m.a, dtype: float16}", SAVE], inputs) == ["inverse: m.a is rounded on the way"]


def test_a_named_inverse_that_leaves_a_square_matrix_turned_fails(work: Path) -> None:
    (work / "back.yaml").write_text(text(["load: {path: a}", "save: {path: b.npz}"]))
    inputs = "inputs: [{w: {shape: [2, 2]}}], inverse: true"
    (told,) = run([LOAD, "transpose: {keys: w}", SAVE], inputs, "inverse: back.yaml\n")
    assert told.startswith("inverse: `w` differs from ")


def test_a_test_that_lacks_an_input_is_told() -> None:
    assert run([LOAD, SAVE], "expect: {}") == ["0 inputs for 1 load: list one for each `load`, in order"]


@pytest.mark.parametrize(
    ("test", "code", "meant"),
    [
        ("inptus: []", "unknown-option", "inptus"),
        ("inputs: [{w: {shape: [2], dtpye: int8}}]", "unknown-option", "dtpye"),
        ("inputs: [{w: {shape: [2], dtype: int9}}]", "unknown-dtype", "int9"),
        ("inputs: [{w: {dtype: int8}}]", "bad-shape", "{dtype: int8}"),
        ("inputs: [{w: {shape: [2], fill: noraml}}]", "bad-initializer", "noraml"),
        ("inputs: [{w: {shape: [3], fill: [1, 2]}}]", "bad-shape", "[1, 2]"),
        ("expect: {tensors: {w: {values: [[1], [2, 3]]}}}", "bad-shape", "[[1], [2, 3]]"),
        ("expect: {tensors: {w: {values: [1], input: v}}}", "bad-value", "{values: [1], input: v}"),
        ("expect: {}, error: rank", "bad-value", "{name: t0, expect: {}, error: rank}"),
        ("targets: [{w: {shape: [2], dtype: flaot32}}]", "unknown-dtype", "flaot32"),
    ],
)
def test_a_mistake_in_a_test_is_one_of_the_recipe(test: str, code: str, meant: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(text([LOAD], test), "r.yaml", lint_only=True)
    where = caught.value.where
    assert where is not None
    assert (caught.value.code, where.text[where.column - 1 :][: where.width]) == (code, meant)


@pytest.fixture
def two(work: Path) -> str:
    """A recipe with a test that passes and one that fails."""
    (work / "r.yaml").write_text(text([LOAD, SAVE], f"inputs: [{{{W}}}], expect: {{keys: [w]}}", f"inputs: [{{{W}}}], expect: {{keys: [v]}}"))
    return "r.yaml"


def test_the_command_tells_each_test_and_fails(two: str, surgery: Callable[..., Any]) -> None:
    ran = surgery("test", two)
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "ok      r.yaml: t0",
        "FAILED  r.yaml: t1 (r.yaml:7:5)",
        "        missing: v",
        "        unexpected: w",
        "2 tests, 1 failed",
    ]


def test_the_command_can_be_asked_for_some_and_for_json(two: str, surgery: Callable[..., Any]) -> None:
    ran = surgery("test", two, "-k", "t0", "--json")
    assert ran.code == 0
    assert ran.json == {"tests": [{"recipe": "r.yaml", "name": "t0", "line": 6, "passed": True, "differences": []}], "failed": 0}


def test_a_recipe_without_tests_passes(work: Path, surgery: Callable[..., Any]) -> None:
    (work / "r.yaml").write_text(text([LOAD]))
    assert surgery("test", "r.yaml").out == "no tests\n"


def test_a_result_has_passed_without_differences() -> None:
    (result,) = run_tests(Source(text([LOAD, SAVE], f"inputs: [{{{W}}}]"), "r.yaml"))
    assert isinstance(result, Result)
    assert result.passed
