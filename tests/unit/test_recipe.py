"""From text to checked steps: templates, labels, lint mode, and the places of faults."""

from __future__ import annotations

from typing import Any

import pytest

import surgery
from surgery.errors import RecipeError, SurgeryError
from surgery.library import Source
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


@pytest.mark.parametrize(
    ("step", "title", "help"),
    [
        ("load: a.npz", "`load` wants a mapping", "write `load: {path: a.npz}`"),
        ("drop:", "`drop` wants a mapping", "write `drop: {match: …}`"),
        ("", "item 0 of `steps` wants a mapping", "write a step as `- drop: {match: …}`, or take the `-` away"),
        ("load: {path: 12}", "`path` wants text", "put it in quotes: '12'"),
        ("drop: {keys: 1e3}", "`keys` wants text or a list", "put it in quotes: '1e3'"),
        ("drop: {keys: {a: b}}", "`keys` wants text or a list", ""),
        ("{name: 1, drop: {match: a}}", "`name` wants text", "put it in quotes"),
        ("{nmae: x, drop: {match: a}}", "a step has no option `nmae`", "did you mean `name`?"),
        ("init_missing: {variables: {a: {shape: [1], dtpe: x}}, init: ones}", "`a` has no option `dtpe`", "did you mean `dtype`?"),
        ("init_missing: {like: a, rules: [{match: a}]}", "`rules` lacks `init`", "add `init:`"),
        ("init_missing: {like: a, rules: {matsch: a, init: ones, match: b}}", "`rules` has no option `matsch`", "did you mean `match`?"),
        ("assert: {close_to: {key: a, rtoll: 1}}", "`close_to` has no option `rtoll`", "did you mean `rtol`?"),
        ("drop: {match: a, except: [{keyss: b}]}", "`except` has no option `keyss`", "did you mean `keys`?"),
        ("scope: {separator: {from: '', to: .}}", "`from` is empty", ""),
        ("load: {path: a, var_list: []}", "`var_list` is empty", ""),
        ("save: {path: a, format: tf, shard_size: 5 parsecs}", "`5 parsecs` is no size; write 20MB, 5GB or 2GiB", ""),
        ("save: {path: a, format: tf, shard_size: -5}", "`shard_size` is -5, and the least is 0", ""),
        ("drop: {match: (?P<n>a), where: {n: [5]}}", "`n` wants at least 2 items, not 1", ""),
        ("drop: {where: {shape: [-2]}}", "item 0 of `shape` is -2, and the least is -1", ""),
        ("cast: {dtype: int8, overflow: clamp}", "`overflow` wants `error`, `saturate`, `inf` or `wrap`", ""),
        (
            "transpose: {order: ['${{ 4 / 2 }}']}",
            "`/` is not part of an integer expression (names, integers, + - * // % and parentheses are)",
            "use `//`, which rounds down",
        ),
    ],
)
def test_a_fault_is_said_in_the_words_of_the_place(step: str, title: str, help: str) -> None:
    assert [(fault.title, fault.help) for fault in faults(HEAD + f"steps:\n  - {step}\n")] == [(title, help)]


@pytest.mark.parametrize(
    ("step", "code", "help"),
    [
        ("load: {path: ~/x.npz}", "bad-path", "use `${env.HOME}` with `env: [HOME]`"),
        ("save: {path: 's3://bucket/x.npz'}", "bad-path", "copy it to this machine, or mount it"),
        ("expect: {like: 'gs://bucket/x'}", "bad-path", "copy it to this machine, or mount it"),
        ("save: {path: out/m.safetensors, shard_size: 5GB}", "bad-option", "write `path: out/m, format: safetensors`"),
        ("save: {path: out, shard_size: 5GB}", "format-needed", "add `format: torch` or `format: safetensors` or `format: tf`"),
        ("save: {path: out, format: safetensors, shard_size: 0KB}", "bad-option", "give a size above zero, such as 5GB"),
        ("drop: {where: {}}", "needs-selector", "add a fact, such as `dtype: float32`"),
        ("keep: {where: {dtype: null}}", "needs-selector", "add a fact, such as `dtype: float32`"),
        ("rename: {match: a, to: b, where: {}}", "needs-selector", "add a fact, such as `dtype: float32`"),
        ("rename: {match: a, to: '${x}'}", "unknown-param", "declare it: `params: {x: {type: string}}`; a literal is `$${{x}}`"),
        ("scope: {from: a/, to: '${x}/'}", "unknown-param", "declare it: `params: {x: {type: string}}`; a literal is `$${x}`"),
    ],
)
def test_help_says_what_to_write(step: str, code: str, help: str) -> None:
    assert [(fault.code, fault.help) for fault in faults(HEAD + f"steps:\n  - {step}\n")] == [(code, help)]


def test_a_slip_beside_the_steps_is_told_by_the_words_of_the_top_level() -> None:
    (fault,) = faults(HEAD + "nmae: x\nsteps: [{drop: {match: x}}]\n")
    assert (fault.title, fault.help) == ("the recipe has no option `nmae`", "did you mean `name`?")


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


def test_the_name_of_a_step_is_told_with_its_fault() -> None:
    steps = ["init_missing: {variables: {a: {shape: [1]}}, init: ones}", "{name: no leftovers, drop: {match: b}}", "save: {path: x.npz}"]
    with pytest.raises(SurgeryError) as caught:
        surgery.plan(Source("surgery: 1\nsteps:\n" + "".join(f"  - {step}\n" for step in steps), "r.yaml"))
    assert (caught.value.code, caught.value.notes[0]) == ("nothing-matched", "the step is called `no leftovers`")
