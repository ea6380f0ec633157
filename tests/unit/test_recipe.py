"""From text to checked steps: templates, labels, lint mode, and the places of faults."""

from __future__ import annotations

from typing import Any

import pytest

from surgery.errors import RecipeError, SurgeryError
from surgery.recipe import load

HEAD = "surgery: 1\n"


def faults(text: str, **options: Any) -> list[SurgeryError]:
    with pytest.raises(RecipeError) as caught:
        load(text, "r.yaml", **options)
    return [caught.value, *caught.value.others]


def places(text: str, **options: Any) -> list[str]:
    return [f"{fault.code} {fault.where.line}:{fault.where.column}" if fault.where else fault.code for fault in faults(text, **options)]


def test_a_recipe_is_its_steps_in_order() -> None:
    recipe = load(HEAD + "name: bert\nsteps:\n  - load: {path: a}\n  - name: prune\n    drop: {match: x}\n", "dir/r.yaml")
    assert recipe.name == "bert"
    assert [(item.number, item.step.word, item.label) for item in recipe.steps] == [(0, "load", ""), (1, "drop", "prune")]


def test_without_a_name_it_is_called_after_its_file() -> None:
    assert load(HEAD + "steps: [{drop: {match: x}}]\n", "dir/r.yaml").name == "r.yaml"


def test_all_faults_come_together_in_the_order_of_the_file() -> None:
    text = (
        HEAD + "steps:\n  - drop: {kesy: a}\n  - renmae: {}\n  - drop: {match: '('}\n  - cast: {dtype: flaot32, rounding: up}\n  - save: {path: m}\n"
    )
    assert places(text) == ["unknown-option 3:12", "unknown-step 4:5", "bad-pattern 5:20", "bad-value 6:38", "format-needed 7:18"]


@pytest.mark.parametrize(
    ("step", "place"),
    [
        ("drop: {match: a, optional: 1}", "bad-value 3:32"),
        ("drop: {match: [a, 3]}", "bad-value 3:23"),
        ("drop: {match: a, count: -1}", "bad-value 3:29"),
        ("drop: {match: a, where: {shape: [a]}}", "bad-value 3:38"),
        ("drop: {match: a, except: {match: 3}}", "bad-value 3:38"),
        ("rename: [{match: a, to: b}, {match: a}]", "bad-value 3:33"),
        ("rename: {keys: {a: [b]}}", "bad-value 3:24"),
        ("init_missing: {variables: {a: {shape: [-1]}}, init: zeros}", "bad-value 3:44"),
        ("init_missing: {variables: {a: {}}, init: zeros}", "missing-option 3:35"),
        ("cast: {dtype: int8, overflow: clip}", "bad-value 3:35"),
        ("cast: {}", "missing-option 3:11"),
        ("drop:", "bad-value 3:5"),
        ("drop: text", "bad-value 3:11"),
    ],
)
def test_a_fault_points_to_the_value(step: str, place: str) -> None:
    assert places(HEAD + f"steps:\n  - {step}\n") == [place]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("steps: [{drop: {match: x}}]\n", "missing-option"),
        ("surgery: 2\nsteps: [{drop: {match: x}}]\n", "bad-value"),
        ("surgery: true\nsteps: [{drop: {match: x}}]\n", "bad-value"),
        ("surgery: '1'\nsteps: [{drop: {match: x}}]\n", "bad-value"),
        (HEAD, "missing-option"),
        (HEAD + "steps: []\n", "bad-value"),
        (HEAD + "steps: {drop: {match: x}}\n", "bad-value"),
        (HEAD + "steps: [drop]\n", "bad-value"),
        (HEAD + "steps: [{}]\n", "bad-step"),
        (HEAD + "steps: [{name: x}]\n", "bad-step"),
        (HEAD + "steps: [{drop: {match: x}, keep: {match: x}}]\n", "bad-step"),
        (HEAD + "step: 1\nsteps: [{drop: {match: x}}]\n", "unknown-option"),
    ],
)
def test_the_top_level(text: str, code: str) -> None:
    assert [fault.code for fault in faults(text)] == [code]


PARAMS = (
    HEAD + "params:\n  p: {type: string}\n  n: {type: integer, default: 3}\n  r: {type: string, format: regex, default: 'a+'}\nenv: [HOME]\nsteps:\n"
)


def options(step: str, **given: Any) -> Any:
    recipe = load(PARAMS + f"  - {step}\n", "dir/r.yaml", {"p": "a.b*", **given}, environment={"HOME": "/home/me", "SECRET": "x"})
    return recipe.steps[0].step


@pytest.mark.parametrize(
    ("step", "field", "value"),
    [
        ("load: {path: '${p}/x'}", "path", "a.b*/x"),
        ("load: {path: '${env.HOME}/x'}", "path", "/home/me/x"),
        ("load: {path: '${recipe.dir}/x'}", "path", "dir/x"),
        ("load: {path: '$${p}'}", "path", "${p}"),
        ("drop: {match: '^${p}'}", "match", r"^a\.b\*"),
        ("drop: {match: '${r}'}", "match", "a+"),
        ("drop: {keys: '${p}'}", "keys", r"a.b\*"),
        ("drop: {match: x, count: '${n}'}", "count", 3),
        ("transpose: {order: ['${{ n - 2 }}', 0]}", "order", [1, 0]),
    ],
)
def test_values_are_put_in_as_the_place_wants_them(step: str, field: str, value: Any) -> None:
    assert getattr(options(step), field) == value


def test_only_listed_environment_variables_are_seen() -> None:
    with pytest.raises(RecipeError) as caught:
        options("load: {path: '${env.SECRET}'}")
    assert (caught.value.code, caught.value.help) == ("unknown-param", "list it: `env: [SECRET]`")


def test_an_environment_variable_that_is_not_set() -> None:
    text = HEAD + "env: [MODEL]\nsteps:\n  - load: {path: '${env.MODEL}'}\n"
    assert [(fault.code, fault.title, fault.help) for fault in faults(text)] == [
        ("missing-param", "`env.MODEL` has no value", "set the environment variable")
    ]
    assert len(load(text, "r.yaml", lint_only=True).steps) == 1


def test_lint_checks_what_does_not_depend_on_missing_values() -> None:
    text = HEAD + "params: {p: {type: string}}\nsteps:\n  - drop: {match: '${p}', cuont: 3}\n  - keep: {match: '('}\n"
    assert places(text, lint_only=True) == ["unknown-option 4:27", "bad-pattern 5:20"]
    assert [fault.code for fault in faults(text)] == ["missing-param"]


def test_a_value_of_the_wrong_type_is_found_at_its_template() -> None:
    text = PARAMS + "  - drop: {match: x, count: '${p}'}\n"
    assert places(text, params={"p": "many"}) == ["bad-value 8:29"]


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ("  - save: {path: a.npz}\n  - save: {path: ./a.npz}\n", "path-conflict"),
        ("  - save: {path: a.npz}\n  - load: {path: a.npz}\n", "path-conflict"),
    ],
)
def test_outputs_that_get_in_each_others_way(steps: str, code: str) -> None:
    assert [fault.code for fault in faults(HEAD + "steps:\n" + steps)] == [code]


def test_loading_and_then_saving_one_path_is_allowed() -> None:
    assert len(load(HEAD + "steps:\n  - load: {path: a.npz}\n  - save: {path: a.npz}\n", "r.yaml").steps) == 2


def test_tensor_keys_are_taken_by_their_text() -> None:
    step = options("rename: {keys: {0: on, 012: '1', null: x}}")
    assert step.root[0].keys == {"0": "on", "012": "1", "null": "x"}
