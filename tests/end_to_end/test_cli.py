"""Each command as a user calls it: exit codes, what goes to stdout and what to stderr, and what surrounds a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from surgery import __version__
from surgery import open as open_checkpoint
from surgery.formats import NAMES
from surgery.steps import WORDS

DATA = Path(__file__).parent.parent / "data"
Run = Callable[..., Any]
Recipe = Callable[..., str]
COMMANDS = ["run", "plan", "lint", "inspect", "explain", "rename", "import", "steps", "formats", "schema", "demo"]
LOAD = {"load": {"path": "a.npz"}}
SAVE = {"save": {"path": "b.npz"}}


@pytest.fixture(autouse=True)
def source(work: Path) -> None:
    np.savez("a.npz", **{"bert/w": np.arange(6, dtype="f4").reshape(2, 3), "bert/b": np.zeros(3, "f4"), "step": np.array(7)})


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "surgery", *arguments], capture_output=True, text=True, **options)


def keys(path: str) -> list[str]:
    with open_checkpoint(path) as checkpoint:
        return list(checkpoint)


# What each command prints


def test_version(surgery: Run) -> None:
    assert surgery("--version") == (0, f"surgery {__version__}\n", "")
    assert surgery("-V") == (0, f"surgery {__version__}\n", "")


def test_without_arguments_the_help_lists_all_commands() -> None:
    ran = command()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Usage: surgery [OPTIONS] COMMAND" in ran.stderr
    assert [name for name in COMMANDS if f"  {name} " not in ran.stderr] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(surgery: Run, name: str) -> None:
    for flag in ("-h", "--help"):
        ran = surgery(name, flag)
        assert ran.code == 0
        assert f"Usage: surgery {name}" in ran.out


def test_run_tells_what_it_planned_and_wrote(surgery: Run, recipe: Recipe) -> None:
    ran = surgery("run", recipe(LOAD, {"scope": {"strip": "bert/"}}, SAVE))
    assert ran.code == 0
    assert ran.err == ""
    assert ran.out.startswith("read   a.npz: npz, 3 tensors, 44 B\n")
    assert "write  b.npz: npz, 3 tensors, 44 B copied, 1 file\n       w  f32[2,3]\n       b  f32[3]\n       step  i64[]\n" in ran.out
    assert "wrote  b.npz: 3 tensors, " in ran.out
    assert keys("b.npz") == ["w", "b", "step"]


def test_plan_and_dry_run_write_nothing(surgery: Run, recipe: Recipe, work: Path) -> None:
    path = recipe(LOAD, SAVE)
    before = sorted(work.iterdir())
    for arguments in (["plan", path], ["run", "--dry-run", path]):
        ran = surgery(*arguments)
        assert ran.code == 0
        assert "write  b.npz: npz, 3 tensors" in ran.out
    assert sorted(work.iterdir()) == before


def test_lint_needs_no_checkpoint_and_no_values(surgery: Run, recipe: Recipe) -> None:
    path = recipe({"load": {"path": "${nowhere}"}}, SAVE, params={"nowhere": {"type": "string"}})
    assert surgery("lint", path) == (0, "r.yaml: 2 steps, no faults\n", "")
    assert surgery("lint", "--json", path).json == [{"recipe": "r.yaml", "steps": 2}]


def test_lint_takes_several_recipes(surgery: Run, recipe: Recipe) -> None:
    ran = surgery("lint", recipe(LOAD, SAVE), recipe(LOAD, name="s.yaml"))
    assert ran == (0, "r.yaml: 2 steps, no faults\ns.yaml: 1 step, no faults\n", "")


def test_inspect_prints_what_list_variables_returns(surgery: Run) -> None:
    assert surgery("inspect", "a.npz").out == "[('bert/b', [3]), ('bert/w', [2, 3]), ('step', [])]\n"


def test_inspect_tree(surgery: Run) -> None:
    assert surgery("inspect", "--tree", "a.npz").out == (
        "├── bert/  (2 tensors, 36 B)\n│   ├── w  f32[2,3]  24 B\n│   └── b  f32[3]  12 B\n└── step  i64[]  8 B\n"
    )


def test_inspect_key_shows_place_and_values(surgery: Run) -> None:
    ran = surgery("inspect", "--key", "bert/w", "a.npz")
    assert ran.out.startswith("bert/w  f32[2,3]  24 B\na.npz, bytes ")
    assert ran.out.endswith("[[0. 1. 2.]\n [3. 4. 5.]]\n")


def test_inspect_key_that_is_missing(surgery: Run) -> None:
    ran = surgery("inspect", "--key", "bert/v", "a.npz")
    assert ran.code == 1
    assert ran.err.startswith("Key bert/v not found in checkpoint\n")
    assert "near names: bert/" in ran.err


def test_inspect_spec_is_a_target_for_expect(surgery: Run, recipe: Recipe) -> None:
    Path("spec.yaml").write_text(surgery("inspect", "--spec", "a.npz").out)
    assert Path("spec.yaml").read_text() == (
        "variables:\n  bert/w: {shape: [2, 3], dtype: float32}\n  bert/b: {shape: [3], dtype: float32}\n  step: {shape: [], dtype: int64}\n"
    )
    assert surgery("plan", recipe(LOAD, {"expect": {"like": "spec.yaml"}}, SAVE)).code == 0


@pytest.mark.parametrize("key", ["größe/😀", "on", "0", "a: b", "'", '"', "\\", "with space", "#", "null", "- a", "tab\t"])
def test_a_spec_with_odd_keys_is_read_back(surgery: Run, recipe: Recipe, key: str) -> None:
    save = {"save": {"path": "odd.safetensors"}}
    assert surgery("run", recipe({"init_missing": {"variables": {key: {"shape": [2]}}, "init": "zeros"}}, save)).code == 0
    Path("spec.yaml").write_text(surgery("inspect", "--spec", "odd.safetensors").out)
    ran = surgery("plan", recipe({"load": {"path": "odd.safetensors"}}, {"expect": {"like": "spec.yaml"}}, SAVE))
    assert ran.code == 0, ran.err


def test_inspect_json(surgery: Run) -> None:
    told = surgery("inspect", "--json", "a.npz").json
    assert told["format"] == "npz"
    assert told["tensors"]["bert/w"] == {"dtype": "float32", "shape": [2, 3], "nbytes": 24}


def test_explain_tells_every_hop(surgery: Run) -> None:
    lines = ["load: {path: a.npz}", "scope: {strip: bert/}", "cast: {keys: w, dtype: float16}", "save: {path: b.npz}"]
    Path("r.yaml").write_text("surgery: 1\nsteps:\n" + "".join(f"  - {line}\n" for line in lines))
    heading, stored, *hops, computed, written = [" ".join(line.split()) for line in surgery("explain", "r.yaml", "w").out.splitlines()]
    assert heading == "w f16[2,3]"
    assert stored.startswith("stored a.npz, bytes ")
    assert stored.endswith(" (f32[2,3])")
    assert hops == ["load `bert/w` (r.yaml:3:5)", "scope `bert/w` → `w` (r.yaml:4:5)", "cast `w` (r.yaml:5:5)"]
    assert computed == "bytes computed: cast(f32[2,3]) → f16[2,3]"
    assert written.startswith("written ./b.npz, bytes ")


def test_explain_of_a_key_that_was_renamed_tells_its_new_name(surgery: Run, recipe: Recipe) -> None:
    ran = surgery("explain", recipe(LOAD, {"scope": {"strip": "bert/"}}, SAVE), "bert/w")
    assert ran.code == 1
    assert "a tensor that was called so is `w` in b.npz" in ran.err


def test_rename_is_a_recipe_in_one_line(surgery: Run) -> None:
    ran = surgery("rename", "a.npz", "b.npz", "--sub", "bert", "encoder", "--sub", "/(.)$", r".\1", "--prefix", "x{}${p}\\1.")
    assert ran.code == 0, ran.err
    assert keys("b.npz") == ["x{}${p}\\1.encoder.w", "x{}${p}\\1.encoder.b", "x{}${p}\\1.step"]


def test_rename_onto_itself_needs_force(surgery: Run) -> None:
    assert surgery("rename", "a.npz", "a.npz", "--prefix", "x/").code == 1
    assert surgery("rename", "a.npz", "a.npz", "--prefix", "x/", "--force").code == 0
    assert keys("a.npz") == ["x/bert/w", "x/bert/b", "x/step"]


def test_rename_without_rules(surgery: Run) -> None:
    ran = surgery("rename", "a.npz", "b.npz")
    assert ran.code == 2
    assert "nothing to rename" in ran.err


def test_rename_dry_run(surgery: Run) -> None:
    assert "write  b.npz" in surgery("rename", "a.npz", "b.npz", "--prefix", "x/", "--dry-run").out
    assert not Path("b.npz").exists()


def test_rename_takes_letters_of_any_script(surgery: Run) -> None:
    assert surgery("rename", "a.npz", "größe😀.npz", "--prefix", "😀/").code == 0
    assert keys("größe😀.npz")[0] == "😀/bert/w"


def test_steps_lists_all_and_each(surgery: Run) -> None:
    assert [line.split()[0] for line in surgery("steps").out.splitlines()[: len(WORDS)]] == list(WORDS)
    for word in WORDS:
        ran = surgery("steps", word)
        assert ran.code == 0
        assert ran.out.startswith(f"{word}: ")
    assert "did you mean `rename`?" in surgery("steps", "renmae").err


def test_formats_lists_all(surgery: Run) -> None:
    listed, _, _ = surgery("formats").out.partition("\n\n")
    assert [line.split()[0] for line in listed.splitlines()] == list(NAMES)
    assert [each["name"] for each in json.loads(surgery("formats", "--json").out)] == list(NAMES)


def test_schema_prints_and_writes_the_same(surgery: Run) -> None:
    printed = surgery("schema").out
    assert json.loads(printed)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for _ in range(2):
        assert surgery("schema", "--write", "s.json").code == 0
        assert Path("s.json").read_text() == printed


def test_demo_runs_in_a_folder_twice(surgery: Run) -> None:
    for _ in range(2):
        ran = surgery("demo", "there")
        assert ran.code == 0
        assert "Key bert/pooler/dense/kernel not found in checkpoint" in ran.err
    assert keys("there/fitted/model.safetensors")[-2:] == ["classifier.weight", "classifier.bias"]


# What each command takes


def test_a_word_that_begins_with_a_dash_can_be_a_value(surgery: Run) -> None:
    assert surgery("rename", "a.npz", "b.npz", "--sub", "step", "-x", "--prefix", "--").code == 0
    assert keys("b.npz") == ["--bert/w", "--bert/b", "---x"]


def test_options_may_stand_between_recipes(surgery: Run, recipe: Recipe) -> None:
    first, second = recipe(LOAD, SAVE), recipe(LOAD, {"save": {"path": "c.npz"}}, name="s.yaml")
    assert surgery("run", first, "--dry-run", second).code == 0


def test_after_two_dashes_no_word_is_an_option(surgery: Run, work: Path) -> None:
    (work / "-p").write_bytes((work / "a.npz").read_bytes())
    assert surgery("inspect", "--", "-p").code == 0


def test_a_value_may_be_attached(surgery: Run, recipe: Recipe) -> None:
    path = recipe(LOAD, {"rename": {"match": "^", "to": "${p}"}}, SAVE, params={"p": {"type": "string"}})
    assert surgery("run", "-pp=x/", "--memory=1MiB", "--jobs=1", path).code == 0
    assert keys("b.npz") == ["x/bert/w", "x/bert/b", "x/step"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plna"], "error[bad-option]: no command is called `plna`\n  help: did you mean `plan`?\n"),
        (["zzz"], "error[bad-option]: no command is called `zzz`\n  help: `surgery --help` lists them all\n"),
        (["plan", "--fore"], "error[bad-option]: `surgery plan` has no option `--fore`\n  help: did you mean `--force`?\n"),
        (["-x"], "error[bad-option]: `surgery` has no option `-x`\n  help: `surgery --help` tells what it takes\n"),
        (["plan"], "error[bad-option]: `surgery plan` lacks RECIPE\n  help: `surgery plan --help` tells what it takes\n"),
        (["explain", "r.yaml"], "error[bad-option]: `surgery explain` lacks KEY\n  help: `surgery explain --help` tells what it takes\n"),
        (["formats", "npz"], "error[bad-option]: `surgery formats` does not take `npz`\n  help: `surgery formats --help` tells what it takes\n"),
        (["run", "--jobs"], "error[bad-option]: `--jobs` takes 1 value\n  help: write `--jobs N`\n"),
        (["rename", "a", "b", "--sub", "c"], "error[bad-option]: `--sub` takes 2 values\n  help: write `--sub A B`\n"),
        (["run", "--force=yes", "r.yaml"], "error[bad-option]: `--force` takes no value\n  help: write `--force` alone\n"),
        (["run", "--jobs", "0", "r.yaml"], "error[bad-option]: `--jobs 0`: the number of threads is 1 or more\n  help: write `--jobs N`\n"),
    ],
)
def test_wrong_use_is_told_in_one_line(surgery: Run, arguments: list[str], says: str) -> None:
    assert surgery(*arguments) == (2, "", says)


# Exit codes


def test_2_for_wrong_use(surgery: Run) -> None:
    for arguments in (["run"], ["rnu"], ["run", "--jobs", "0", "r.yaml"], ["run", "--nonsense", "r.yaml"], ["explain", "r.yaml"]):
        assert surgery(*arguments).code == 2, arguments


def test_2_for_a_recipe_that_is_not_there(surgery: Run) -> None:
    ran = surgery("run", "nowhere.yaml")
    assert ran.code == 2
    assert ran.err.startswith("nowhere.yaml; No such file or directory\n")
    assert "give the path of a recipe" in ran.err


def test_2_for_a_folder_in_place_of_a_recipe(surgery: Run, work: Path) -> None:
    ran = surgery("lint", str(work))
    assert ran.code == 2
    assert "is a folder, not a file" in ran.err


def test_2_for_a_checkpoint_in_place_of_a_recipe(surgery: Run) -> None:
    assert surgery("run", "a.npz").code == 2


def test_1_for_what_headers_contradict(surgery: Run, recipe: Recipe) -> None:
    assert surgery("run", recipe(LOAD, {"drop": {"keys": "d"}}, SAVE)).code == 1
    assert surgery("inspect", "nothing").code == 1


def test_3_with_a_traceback_for_a_bug(surgery: Run, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise ZeroDivisionError("ouch")

    monkeypatch.setattr("surgery.logical.plan", broken)
    ran = surgery("plan", recipe(LOAD, SAVE))
    assert ran.code == 3
    assert "ZeroDivisionError: ouch" in ran.err
    assert "This is a bug in surgery" in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_130_when_interrupted_and_nothing_is_left(recipe: Recipe, work: Path, number: signal.Signals) -> None:
    variables = {f"v{key}": {"shape": [4000, 4000]} for key in range(20)}
    path = recipe({"init_missing": {"variables": variables, "init": "normal"}}, {"save": {"path": "out/big.safetensors"}})
    process = subprocess.Popen(
        [sys.executable, "-m", "surgery", "run", "--jobs", "1", path], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not Path("out").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("interrupted; outputs are as they were before, or complete\n")
    assert not Path("out").exists()


# --json


@pytest.mark.parametrize("arguments", [["run"], ["run", "--dry-run"], ["plan"], ["lint"]])
def test_json_is_all_there_is_on_stdout(surgery: Run, recipe: Recipe, arguments: list[str]) -> None:
    ran = surgery(*arguments, "--json", recipe(LOAD, SAVE))
    assert ran.code == 0
    assert isinstance(ran.json, (dict, list))
    assert ran.err == ""


def test_a_plan_as_json_has_every_key(surgery: Run, recipe: Recipe) -> None:
    told = surgery("plan", "--json", recipe(LOAD, {"drop": {"keys": "step"}}, {"scope": {"strip": "bert/"}}, SAVE)).json
    assert told["outputs"][0]["tensors"]["w"] == {"dtype": "float32", "shape": [2, 3], "from": "bert/w", "checkpoint": "a.npz"}
    assert told["dropped"] == [{"step": 1, "keys": ["step"]}]
    assert told["left_over"] == []


def test_a_fault_as_json_stands_on_stdout_and_its_text_on_stderr(surgery: Run, recipe: Recipe) -> None:
    ran = surgery("plan", "--json", recipe(LOAD, {"drop": {"keys": ["d", "e"], "match": "zz"}}, SAVE))
    assert ran.code == 1
    error = ran.json["error"]
    assert (error["code"], error["class"], error["message"]) == ("missing-key", "NotFoundError", "Key d not found in checkpoint")
    assert error["where"]["file"] == "r.yaml"
    assert error["data"]["keys"] == ["d", "e"]
    assert [other["code"] for other in error["others"]] == ["nothing-matched"]
    assert ran.err.startswith("Key d not found in checkpoint\n")


def test_faults_found_before_any_checkpoint_are_json_too(surgery: Run, recipe: Recipe) -> None:
    ran = surgery("run", "--json", recipe({"renmae": {}}))
    assert ran.code == 2
    assert ran.json["error"]["code"] == "unknown-step"


def test_several_recipes_give_one_list(surgery: Run, recipe: Recipe) -> None:
    first = recipe(LOAD, SAVE)
    second = recipe({"load": {"path": "b.npz"}}, {"save": {"path": "c.npz"}}, name="s.yaml")
    ran = surgery("run", "--json", first, second)
    assert ran.code == 0, ran.err
    assert [report["outputs"][0]["path"] for report in ran.json] == ["b.npz", "c.npz"]


def test_of_several_recipes_those_behind_a_fault_do_not_run(surgery: Run, recipe: Recipe) -> None:
    first, second = recipe(LOAD, {"drop": {"keys": "d"}}, SAVE), recipe(LOAD, {"save": {"path": "c.npz"}}, name="s.yaml")
    assert surgery("run", first, second).code == 1
    assert not Path("c.npz").exists()


# Parameters

PARAMS = {
    "text": {"type": "string", "default": ""},
    "number": {"type": "integer", "default": 0},
    "list": {"type": "array", "default": []},
    "either": {"type": ["string", "integer"], "default": 0},
}


def test_a_number_is_read_as_json(surgery: Run, recipe: Recipe) -> None:
    path = recipe({"init_missing": {"variables": {"n": {"shape": ["${number}"]}}, "init": "zeros"}}, SAVE, params=PARAMS)
    assert surgery("plan", "--json", "-p", "number=3", path).json["outputs"][0]["tensors"]["n"]["shape"] == [3]


def test_where_the_schema_allows_text_it_stays_text(surgery: Run, recipe: Recipe) -> None:
    path = recipe({"init_missing": {"variables": {"n": {"shape": ["${either}"]}}, "init": "zeros"}}, SAVE, params=PARAMS)
    assert surgery("plan", path).code == 0
    ran = surgery("plan", "-p", "either=3", path)
    assert ran.code == 2
    assert "wants an integer" in ran.err


def test_a_list_is_json_and_text_may_have_equals_signs(surgery: Run, recipe: Recipe) -> None:
    path = recipe(LOAD, {"keep": {"keys": "${list}"}}, {"rename": {"keys": {"bert/w": "${text}"}}}, SAVE, params=PARAMS)
    ran = surgery("plan", "--json", "-p", 'list=["bert/w"]', "-p", "text=a=b", path)
    assert list(ran.json["outputs"][0]["tensors"]) == ["a=b"]


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(surgery: Run, recipe: Recipe) -> None:
    path = recipe(LOAD, {"scope": {"add": "${text}"}}, SAVE, params={"text": {"type": "string", "default": "default/"}})
    Path("p.yaml").write_text("text: file/\n")
    Path("p.json").write_text('{"text": "json/"}')

    def first(*arguments: str) -> str:
        return next(iter(surgery("plan", "--json", *arguments, path).json["outputs"][0]["tensors"]))

    assert first() == "default/bert/w"
    assert first("--params", "p.yaml") == "file/bert/w"
    assert first("--params", "p.json") == "json/bert/w"
    assert first("--params", "p.yaml", "-p", "text=line/") == "line/bert/w"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-p", "number"], "`-p number` has no `=`"),
        (["-p", "=3"], "`-p =3` has no `=`"),
        (["-p", "numbr=3"], "did you mean `number`?"),
        (["-p", "number=many"], "\"many\" is not of type 'integer'"),
        (["--params", "nowhere.yaml"], "nowhere.yaml; No such file or directory"),
        (["--params", "list.yaml"], "a file of parameters is a mapping"),
        (["--memory", "lots"], "`lots` is no size"),
    ],
)
def test_wrong_arguments(surgery: Run, recipe: Recipe, arguments: list[str], says: str) -> None:
    Path("list.yaml").write_text("- a\n")
    ran = surgery("plan", *arguments, recipe(LOAD, SAVE, params=PARAMS))
    assert ran.code == 2
    assert says in ran.err


# Options of a run


def test_strict_refuses_what_is_left_over(surgery: Run, recipe: Recipe) -> None:
    path = recipe(LOAD, {"save": {"path": "b.npz", "match": "^bert/"}})
    assert "note   1 loaded tensor left over, neither saved nor dropped: step" in surgery("plan", path).out
    ran = surgery("plan", "--strict", path)
    assert ran.code == 1
    assert "error[left-over]: 1 loaded tensor is neither saved nor dropped" in ran.err


def test_force_replaces_what_exists(surgery: Run, recipe: Recipe) -> None:
    path = recipe(LOAD, {"keep": {"keys": "step"}}, SAVE)
    Path("b.npz").write_text("mine")
    assert surgery("run", path).code == 1
    assert Path("b.npz").read_text() == "mine"
    assert surgery("run", "--force", path).code == 0
    assert keys("b.npz") == ["step"]


def test_verify_reads_what_no_byte_of_is_moved(surgery: Run, recipe: Recipe) -> None:
    for part in ("index", "data-00000-of-00001"):
        shutil.copy(DATA / "tf" / "article" / f"with_matrix.{part}", f"m.{part}")
    path = recipe({"load": {"path": "m"}}, {"save": {"path": "c.safetensors"}})
    ran = surgery("run", "--verify", "--json", path)
    assert ran.json["outputs"][0]["verified"] == 3


@pytest.mark.parametrize("memory", ["1MiB", "64KB", "1000000", "2GiB"])
def test_any_budget_gives_the_same_file(surgery: Run, recipe: Recipe, memory: str) -> None:
    np.savez("a.npz", w=np.arange(400_000, dtype="f4").reshape(1000, 400))
    path = recipe(LOAD, {"transpose": {}}, SAVE)
    assert surgery("run", "--force", path).code == 0
    whole = Path("b.npz").read_bytes()
    assert surgery("run", "--force", "--memory", memory, path).code == 0
    assert Path("b.npz").read_bytes() == whole


# The terminal


def test_messages_have_no_colour_without_a_terminal(surgery: Run) -> None:
    assert "\x1b" not in surgery("run", "nowhere.yaml").err


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_respected_on_a_terminal(no_color: str, coloured: bool) -> None:
    terminal, other_end = os.openpty()
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm"}
    subprocess.run([sys.executable, "-m", "surgery", "run", "nowhere.yaml"], stderr=other_end, stdout=subprocess.DEVNULL, env=environment)
    os.close(other_end)
    said = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert said.startswith("\x1b[1;31mnowhere.yaml; No such file" if coloured else "nowhere.yaml; No such file")


def test_a_closed_pipe_is_no_fault(recipe: Recipe) -> None:
    variables = {f"layer_{number}/kernel": {"shape": []} for number in range(20_000)}
    Path("spec.yaml").write_text(json.dumps({"variables": variables}))
    recipe({"init_missing": {"like": "spec.yaml", "init": "zeros"}}, {"save": {"path": "many.safetensors"}})
    assert command("run", "r.yaml").returncode == 0
    shell = f"{sys.executable} -m surgery inspect many.safetensors | head -1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert ran.stdout == "[('layer_0/kernel', []),\n0\n"
    assert ran.stderr == ""


def test_keys_that_are_not_utf8_are_printed_escaped() -> None:
    ran = command("inspect", "--tree", str(DATA / "tf" / "odd_names" / "binary"), env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert ran.returncode == 0, ran.stderr
    assert "\\udc" in ran.stdout


# Completion


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["surgery", "ins"], ["inspect"]),
        (["surgery", "--v"], ["--version"]),
        (["surgery", "rename", "a.npz", "--p"], ["--prefix"]),
        (["surgery", "plan", "-"], ["-p", "--param", "--params", "--force", "--strict", "--jobs", "--memory", "--json", "-h", "--help"]),
        (["surgery", "plan", "a"], []),  # the shell's own completion of file names follows
        (["surgery", "run", "tools/re"], ["tools/reshard"]),
        (["surgery", "recipes", "s"], ["show"]),
        (["surgery", "recipes", "show", "gpt2/s"], ["gpt2/split-qkv"]),
    ],
)
def test_bash_completes_commands_and_their_options(surgery: Run, line: list[str], offered: list[str]) -> None:
    script = surgery("--show-completion", "bash").out
    tab = f"COMP_WORDS=({' '.join(line)}); COMP_CWORD={len(line) - 1}; _surgery; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    ran = subprocess.run(["bash", "-c", f"set -eu\n{script}\n{tab}"], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == offered


@pytest.mark.parametrize(("shell", "line"), [("zsh", "complete -o default -F _surgery surgery"), ("fish", "-l prefix -r -d 'put P in front of")])
def test_there_are_completions_for_other_shells(surgery: Run, shell: str, line: str) -> None:
    assert line in surgery("--show-completion", shell).out


def test_completion_for_an_unknown_shell(surgery: Run) -> None:
    ran = surgery("--show-completion", "tcsh")
    assert ran.code == 2
    assert "shells are bash, zsh, fish" in ran.err
