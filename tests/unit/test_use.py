"""`use`: other recipes' steps put in its place, with their own parameters, and faults that tell both places."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from surgery.errors import RecipeError, SurgeryError
from surgery.library import Source
from surgery.recipe import Recipe, load

INNER = """\
surgery: 1
params:
  source: {type: string, description: a checkpoint}
  part: {type: string}
  heads: {type: integer, minimum: 1, default: 4}
steps:
  - load: {path: '${source}'}
  - name: strip
    scope: {from: '${part}', to: 'h${heads}/'}
  - save: {path: '${recipe.dir}/out.npz'}
"""


def read(files: Mapping[str, str], **options: Any) -> Recipe:
    """The recipe `r.yaml` of these texts; paths in `use` are keys of `files`."""

    def find(reference: str, folder: str) -> Source:
        name = f"{folder}/{reference}" if folder else reference
        if name not in files:
            raise RecipeError(f"there is no `{name}`", code="no-such-recipe")
        return Source(files[name], name)

    return load(files["r.yaml"], "r.yaml", find=find, **options)


def faults(files: Mapping[str, str], **options: Any) -> list[SurgeryError]:
    with pytest.raises(RecipeError) as caught:
        read(files, **options)
    return [caught.value, *caught.value.others]


def using(*steps: str, **inner: str) -> dict[str, str]:
    """`r.yaml` with these steps, and other recipes by their names."""
    lines = "".join(f"  - {step}\n" for step in steps)
    return {"r.yaml": f"surgery: 1\nsteps:\n{lines}", "dir/inner.yaml": INNER} | {f"{name}.yaml": text for name, text in inner.items()}


GIVEN = "with: {source: a.npz, part: x/}"


def test_the_steps_take_its_place_and_are_counted_through() -> None:
    recipe = read(using("drop: {match: a}", f"use: {{recipe: dir/inner.yaml, {GIVEN}}}", "drop: {match: b}"))
    assert [(item.number, item.step.word, str(item.where)) for item in recipe.steps] == [
        (0, "drop", "r.yaml:3:5"),
        (1, "load", "dir/inner.yaml:7:5"),
        (2, "scope", "dir/inner.yaml:9:5"),
        (3, "save", "dir/inner.yaml:10:5"),
        (4, "drop", "r.yaml:5:5"),
    ]
    assert [[str(where) for where in item.used_by] for item in recipe.steps] == [[], *[["r.yaml:4:5"]] * 3, []]


def test_values_are_those_of_with_and_of_the_defaults_and_the_folder_is_its_own() -> None:
    load, scope, save = (item.step for item in read(using(f"use: {{recipe: dir/inner.yaml, {GIVEN}}}")).steps)
    assert vars(load)["path"] == "a.npz"
    assert (vars(scope)["from_"], vars(scope)["to"]) == ("x/", "h4/")
    assert vars(save)["path"] == "dir/out.npz"


def test_values_are_handed_on_with_their_types_and_escaped_once() -> None:
    outer = """\
surgery: 1
params: {n: {type: integer}, p: {type: string}}
steps: [use: {recipe: keep.yaml, with: {match: '${p}', keys: '${{ n * 2 }}'}}]
"""
    keep = """\
surgery: 1
params: {match: {type: string}, keys: {type: integer}}
steps: [drop: {match: '^${match}$', count: '${keys}'}]
"""
    (item,) = read({"r.yaml": outer, "keep.yaml": keep}, params={"n": 3, "p": "a.b"}).steps
    assert (vars(item.step)["match"], vars(item.step)["count"]) == (r"^a\.b$", 6)


@pytest.mark.parametrize("without", ["[load, save]", "[load, strip, save]", "save"])
def test_steps_are_left_out_by_word_or_label(without: str) -> None:
    recipe = read(using(f"use: {{recipe: dir/inner.yaml, {GIVEN}, without: {without}}}"))
    assert [item.step.word for item in recipe.steps] == {"[load, save]": ["scope"], "[load, strip, save]": [], "save": ["load", "scope"]}[without]


def test_what_is_left_out_is_left_out_of_recipes_that_it_uses() -> None:
    middle = "surgery: 1\nsteps:\n  - use: {recipe: dir/inner.yaml, with: {part: x/}}\n  - drop: {match: a}\n"
    recipe = read(using("use: {recipe: middle.yaml, without: [load, save]}", middle=middle))
    assert [item.step.word for item in recipe.steps] == ["scope", "drop"]
    assert [str(where) for where in recipe.steps[0].used_by] == ["middle.yaml:3:5", "r.yaml:3:5"]


def test_labels_of_the_use_and_of_the_step_are_both_told() -> None:
    recipe = read({**using(), "r.yaml": f"surgery: 1\nsteps:\n  - name: base\n    use: {{recipe: dir/inner.yaml, {GIVEN}}}\n"})
    assert [item.label for item in recipe.steps] == ["base", "base / strip", "base"]


def test_a_fault_in_a_used_recipe_tells_all_places() -> None:
    middle = "surgery: 1\nsteps:\n  - use: {recipe: last.yaml}\n"
    last = "surgery: 1\nsteps:\n  - renmae: {match: a, to: b}\n  - drop: {match: '('}\n  - drop: {}\n"
    found = faults(using("use: {recipe: middle.yaml}", middle=middle, last=last))
    assert [(fault.code, str(fault.where)) for fault in found] == [
        ("unknown-step", "last.yaml:3:5"),
        ("bad-pattern", "last.yaml:4:20"),
        ("needs-selector", "last.yaml:5:5"),
    ]
    assert {fault.notes[-2:] for fault in found} == {("used by middle.yaml:3:5", "used by r.yaml:3:5")}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("surgery: 2\nsteps: [drop: {match: a}]\n", "bad-value inner.yaml:1:10"),
        ("surgery: 1\nsteps: [drop: {match: a}\n", "yaml inner.yaml:2:8"),
        ("surgery: 1\nsteps: [drop: {match: '${p}'}]\n", "unknown-param inner.yaml:2:23"),
        ("surgery: 1\nparams: {p: {type: intger}}\nsteps: [drop: {match: a}]\n", "bad-schema inner.yaml:2:13"),
        ("surgery: 1\nparams: {p: {type: integer, default: a}}\nsteps: [drop: {match: a}]\n", "bad-param inner.yaml:2:10"),
        ("surgery: 1\nparams: {p: {type: array, default: [a]}}\nsteps: [drop: {match: 'x${p}'}]\n", "bad-template inner.yaml:3:25"),
    ],
)
def test_a_used_recipe_is_checked_as_every_other(text: str, place: str) -> None:
    (fault,) = faults(using("use: {recipe: inner.yaml}", inner=text))
    assert f"{fault.code} {fault.where}" == place
    assert fault.notes[-1] == "used by r.yaml:3:5"


@pytest.mark.parametrize(
    ("given", "place", "help"),
    [
        ("{source: a, part: x/, haeds: 3}", "unknown-param r.yaml:3:63", "did you mean `heads`?"),
        ("{source: a, part: x/, heads: 0}", "bad-param r.yaml:3:70", "give another value"),
        ("{source: a, part: x/, heads: '3'}", "bad-param r.yaml:3:70", "give another value"),
        (
            "{source: a}",
            "missing-param r.yaml:3:41",
            "give it, `with: {part: …}`, or leave out the step that wants it, such as `without: [load, save]`",
        ),
    ],
)
def test_faults_of_values_are_at_the_use(given: str, place: str, help: str) -> None:
    (fault,) = faults(using(f"use: {{recipe: dir/inner.yaml, with: {given}}}"))
    assert (f"{fault.code} {fault.where}", fault.help) == (place, help)


def test_a_value_that_waits_for_the_outer_recipe_is_asked_for_there() -> None:
    middle = "surgery: 1\nparams: {from: {type: string}}\nsteps: [use: {recipe: dir/inner.yaml, with: {source: '${from}', part: x/}}]\n"
    files = using("use: {recipe: middle.yaml}", middle=middle)
    (fault,) = faults(files)
    assert (fault.code, str(fault.where), fault.title) == ("missing-param", "r.yaml:3:19", "the parameter `from` of middle.yaml has no value")
    assert "wanted at middle.yaml:3:54" in fault.notes
    assert [item.step.word for item in read({**files, "r.yaml": files["r.yaml"].replace("}", ", without: load}")}).steps] == ["scope", "save"]


def test_a_parameter_is_missed_once_however_many_steps_want_it() -> None:
    inner = "surgery: 1\nparams: {p: {type: string}}\nsteps: [drop: {match: '${p}'}, keep: {match: '${p}'}]\n"
    (fault,) = faults(using("use: {recipe: inner.yaml}", inner=inner))
    assert fault.code == "missing-param"


def test_a_lint_passes_over_values_of_the_outer_recipe_only() -> None:
    outer = "surgery: 1\nparams: {s: {type: string}}\nsteps:\n  - use: {recipe: dir/inner.yaml, with: {source: '${s}', part: x/}}\n"
    assert len(read({**using(), "r.yaml": outer}, lint_only=True).steps) == 3
    (fault,) = faults({**using(), "r.yaml": outer.replace(", part: x/", "")}, lint_only=True)
    assert (fault.code, fault.title) == ("missing-param", "the parameter `part` of dir/inner.yaml has no value")


def test_a_lint_cannot_look_into_a_recipe_whose_name_is_open() -> None:
    outer = "surgery: 1\nparams: {r: {type: string}}\nsteps: [use: {recipe: '${r}'}]\n"
    assert read({"r.yaml": outer}, lint_only=True).steps == ()


def test_a_used_recipe_reads_only_the_environment_that_it_lists() -> None:
    inner = "surgery: 1\nenv: [HOME]\nsteps: [load: {path: '${env.HOME}'}]\n"
    recipe = read(using("use: {recipe: inner.yaml}", inner=inner), environment={"HOME": "/h", "SECRET": "x"})
    assert vars(recipe.steps[0].step)["path"] == "/h"
    assert recipe.used[0].params == {"env.HOME": "/h", "recipe.dir": "."}
    (fault,) = faults(using("use: {recipe: inner.yaml}", inner=inner))
    assert (fault.code, fault.help) == ("missing-param", "set the environment variable")


def test_recipes_that_use_each_other_are_refused() -> None:
    a, b = (f"surgery: 1\nsteps: [use: {{recipe: {other}.yaml}}]\n" for other in "ba")
    (fault,) = faults(using("use: {recipe: a.yaml}", a=a, b=b))
    assert (fault.code, str(fault.where)) == ("use-cycle", "b.yaml:2:23")
    assert fault.notes == ("a.yaml → b.yaml → a.yaml", "used by a.yaml:2:9", "used by r.yaml:3:5")


def test_a_recipe_may_be_used_twice_side_by_side() -> None:
    step = "use: {recipe: dir/inner.yaml, with: {part: x/}, without: [load, save]}"
    assert len(read(using(step, step)).steps) == 2


@pytest.mark.parametrize(("deep", "fine"), [(16, True), (17, False)])
def test_recipes_use_each_other_to_a_limit(deep: int, fine: bool) -> None:
    chain = {f"n{number}": f"surgery: 1\nsteps: [use: {{recipe: n{number + 1}.yaml}}]\n" for number in range(1, deep)}
    files = using("use: {recipe: n1.yaml}", **chain, **{f"n{deep}": "surgery: 1\nsteps: [drop: {match: a}]\n"})
    if fine:
        assert len(read(files).steps) == 1
    else:
        assert [fault.code for fault in faults(files)] == ["use-limit"]


def test_two_saves_to_one_path_are_found_across_recipes() -> None:
    (fault,) = faults(using(f"use: {{recipe: dir/inner.yaml, {GIVEN}}}", "save: {path: dir/out.npz}"))
    assert fault.code == "path-conflict"
    assert fault.notes == ("first saved by steps[2] at dir/inner.yaml:10:5",)


@pytest.mark.parametrize("name", ["", "~/r.yaml", "https://example.org/r.yaml", "a\\0b"])
def test_a_path_that_no_file_has(name: str) -> None:
    (fault,) = faults(using(f'use: {{recipe: "{name}"}}'))
    assert (fault.code, str(fault.where)) == ("bad-path", "r.yaml:3:19")


def test_real_files_are_relative_to_the_recipe_that_names_them(work: Path) -> None:
    (work / "a" / "b").mkdir(parents=True)
    (work / "a" / "r.yaml").write_text("surgery: 1\nsteps: [use: {recipe: b/one.yaml}]\n")
    (work / "a" / "b" / "one.yaml").write_text(
        "surgery: 1\nsteps: [use: {recipe: ../two.yaml}, {use: {recipe: tools/extract-part, with: {part: x/}, without: [load, save]}}]\n"
    )
    (work / "a" / "two.yaml").write_text("surgery: 1\nsteps: [drop: {match: a}]\n")
    recipe = load((work / "a" / "r.yaml").read_text(), "a/r.yaml", lint_only=True)
    assert [(item.step.word, Path(item.document.name).name) for item in recipe.steps] == [
        ("drop", "two.yaml"),
        ("keep", "extract-part.yaml"),
        ("scope", "extract-part.yaml"),
    ]
