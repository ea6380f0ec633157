"""The commands. Each imports what it needs when it runs, so that a small plan does not pay for the rest."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from surgery.errors import RecipeError, SurgeryError, plural

app = typer.Typer(
    name="surgery",
    help="Checkpoint surgery: rename, re-scope, drop, initialise, cast and re-save, planned from headers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="a recipe, a YAML file")]
Values = Annotated[list[str] | None, typer.Option("-p", "--param", metavar="NAME=VALUE", help="value of a parameter; may be repeated")]
ParamsFile = Annotated[str | None, typer.Option("--params", metavar="FILE", help="parameters as YAML or JSON")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON to stdout")]
Force = Annotated[bool, typer.Option("--force", help="let every save replace what exists")]
Strict = Annotated[bool, typer.Option("--strict", help="left-over tensors are an error")]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="threads; default: the number of cores")]
Memory = Annotated[str, typer.Option("--memory", metavar="SIZE", help="budget of all arrays together, such as 2GiB")]


def run_app(arguments: list[str]) -> int:
    """Parse the arguments and run the command; returns the exit code."""
    try:
        result = app(args=_pairs(arguments), prog_name="surgery", standalone_mode=True)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    return result if isinstance(result, int) else 0


def _pairs(arguments: list[str]) -> list[str]:
    """`--sub A B` may be repeated, which typer cannot do with pairs: each pair becomes one argument."""
    out: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--sub" and len(rest) >= 2 and out[:1] == ["rename"]:
            out += [word, json.dumps([rest.pop(0), rest.pop(0)])]
        elif word == "--":
            return [*out, word, *rest]
        else:
            out.append(word)
    return out


def _version(wanted: bool) -> None:
    if wanted:
        from surgery import __version__

        typer.echo(f"surgery {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="print the version")] = False,
) -> None:
    pass


@app.command()
def run(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="recipes, run one after the other")],
    param: Values = None,
    params: ParamsFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and stop")] = False,
    force: Force = False,
    strict: Strict = False,
    verify: Annotated[bool, typer.Option("--verify", help="verify stored checksums even where no byte is moved")] = False,
    jobs: Jobs = None,
    memory: Memory = "512MiB",
    as_json: AsJson = False,
) -> None:
    """Plan a recipe and carry it out."""
    from surgery.report import plan_json, plan_text, report_json, report_text

    results: list[dict[str, Any]] = []
    for recipe in recipes:
        try:
            plan = _plan(recipe, param, params, jobs, memory, force, strict)
            if not as_json:
                typer.echo(plan_text(plan))
            if dry_run:
                results.append(plan_json(plan))
                continue
            report = _apply(plan, verify)
        except SurgeryError as error:
            error.data |= {"done": results} if results else {}
            raise
        results.append(report_json(report))
        if not as_json:
            typer.echo(report_text(report))
    if as_json:
        _print_json(results[0] if len(results) == 1 else results)


@app.command()
def plan(
    recipe: RecipePath,
    param: Values = None,
    params: ParamsFile = None,
    force: Force = False,
    strict: Strict = False,
    jobs: Jobs = None,
    memory: Memory = "512MiB",
    as_json: AsJson = False,
) -> None:
    """Work everything out from headers and print it; nothing is written."""
    from surgery.report import plan_json, plan_text

    planned = _plan(recipe, param, params, jobs, memory, force, strict)
    if as_json:
        _print_json(plan_json(planned))
    else:
        typer.echo(plan_text(planned))


@app.command()
def lint(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="recipes to check")],
    param: Values = None,
    params: ParamsFile = None,
    as_json: AsJson = False,
) -> None:
    """Check recipes without opening a checkpoint; parameters may lack values."""
    from os import environ

    from surgery.api import read_recipe
    from surgery.recipe import load

    checked = []
    for path in recipes:
        source = read_recipe(path)
        recipe = load(source.text, source.name, _file_params(params), texts=_texts(param), environment=environ, lint_only=True)
        checked.append({"recipe": path, "steps": len(recipe.steps)})
        if not as_json:
            typer.echo(f"{path}: {plural(len(recipe.steps), 'step')}, no faults")
    if as_json:
        _print_json(checked)


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(metavar="PATH", help="a file, a TensorFlow prefix, or a folder")],
    tree: Annotated[bool, typer.Option("--tree", help="keys as a tree of scopes, with dtype, shape and bytes")] = False,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="one tensor with its place and values")] = None,
    spec: Annotated[bool, typer.Option("--spec", help="a target spec (`variables:`) to be used with `like:`")] = False,
    format: Annotated[str | None, typer.Option("--format", help="the format, where content does not tell it")] = None,
    as_json: AsJson = False,
) -> None:
    """List the tensors of a checkpoint, as tf.train.list_variables does."""
    from surgery import formats, report
    from surgery.api import Checkpoint
    from surgery.files import LocalDisk
    from surgery.probe import open_checkpoint

    if format is not None and format not in formats.NAMES:
        raise RecipeError(f"no format is called `{format}`", code="unknown-format", help=f"formats are {', '.join(formats.NAMES)}")
    if sum((tree, spec, key is not None)) + (as_json and (tree or spec)) > 1:
        raise RecipeError("these options exclude each other", code="bad-option", help="give one of --tree, --spec and --key; --json goes with --key")
    with Checkpoint(open_checkpoint(path, LocalDisk(), format, strict=key is not None)) as checkpoint:
        for note in checkpoint.indexed.notes:
            typer.echo(f"note: {note}", err=True)
        if key is not None:
            tensor = checkpoint[key]
            _print_json(report.tensor_json(tensor)) if as_json else typer.echo(report.tensor_text(tensor))
        elif as_json:
            _print_json(report.checkpoint_json(checkpoint))
        elif spec:
            typer.echo(report.spec_yaml(checkpoint))
        elif tree:
            typer.echo(report.tree(checkpoint.indexed.tensors))
        else:
            typer.echo(report.listing(checkpoint))


@app.command()
def explain(
    recipe: RecipePath,
    key: Annotated[str, typer.Argument(metavar="KEY", help="a key of an output")],
    param: Values = None,
    params: ParamsFile = None,
) -> None:
    """Tell where one tensor of the output comes from, step by step."""
    from surgery.report import explain as explained

    typer.echo(explained(_plan(recipe, param, params, None, "512MiB", True, False), key))


@app.command()
def rename(
    source: Annotated[str, typer.Argument(metavar="CKPT", help="a checkpoint")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="where the renamed one goes; may be CKPT itself with --force")],
    sub: Annotated[list[str] | None, typer.Option("--sub", metavar="A B", help="replace each match of the pattern A by B; may be repeated")] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", metavar="P", help="put P in front of every key, after --sub")] = None,
    format: Annotated[str | None, typer.Option("--format", help="format of OUT; default: from its suffix, else that of CKPT")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and stop")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Rename tensors without writing a recipe."""
    from surgery.cli.oneliner import as_command_line, rename_recipe
    from surgery.report import plan_json, plan_text, report_json, report_text

    with as_command_line():
        planned = _planned(rename_recipe(source, target, sub or [], prefix, format), force=force)
        if dry_run:
            _print_json(plan_json(planned)) if as_json else typer.echo(plan_text(planned))
            return
        report = _apply(planned, False)
    _print_json(report_json(report)) if as_json else typer.echo(report_text(report))


@app.command()
def steps(word: Annotated[str | None, typer.Argument(metavar="[STEP]", help="one step with all its options")] = None) -> None:
    """List the steps, or the options of one."""
    from surgery.cli.tables import step_list, step_options

    typer.echo(step_options(word) if word else step_list())


@app.command()
def formats() -> None:
    """List the formats with what they can do."""
    from surgery.cli.tables import format_list

    typer.echo(format_list())


@app.command()
def schema(
    write: Annotated[str | None, typer.Option("--write", metavar="FILE", help="write it to a file")] = None,
) -> None:
    """Print the JSON Schema of recipes, for editors and for other validators."""
    from surgery.schema import schema_text

    if write is None:
        typer.echo(schema_text(), nl=False)
    else:
        from surgery.files import unlink, write_file

        unlink(write)
        write_file(write, schema_text().encode())


@app.command()
def demo(
    folder: Annotated[str | None, typer.Argument(metavar="[FOLDER]", help="where to make the demo files; default: a temporary folder")] = None,
) -> None:
    """Make a small TensorFlow bundle, inspect it, operate on it, and show what a missing key looks like."""
    from surgery.cli.demo import run_demo

    run_demo(folder)


def _plan(recipe: str, param: list[str] | None, params: str | None, jobs: int | None, memory: str, force: bool, strict: bool) -> Any:
    return _planned(recipe, _file_params(params), _texts(param), jobs, memory, force, strict)


def _planned(
    recipe: Any,
    params: dict[str, Any] | None = None,
    texts: dict[str, str] | None = None,
    jobs: int | None = None,
    memory: str = "512MiB",
    force: bool = False,
    strict: bool = False,
) -> Any:
    from surgery.api import plan as make_plan
    from surgery.units import parse_size

    try:
        budget = parse_size(memory)
    except ValueError as error:
        raise RecipeError(str(error), code="bad-option") from None
    return make_plan(recipe, params, texts=texts, jobs=jobs, memory=budget, force=force, strict=strict)


def _texts(values: list[str] | None) -> dict[str, str]:
    texts = {}
    for value in values or ():
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise RecipeError(f"`-p {value}` has no `=`", code="bad-option", help="write `-p name=value`")
        texts[name] = text
    return texts


def _file_params(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    from surgery.api import read_recipe
    from surgery.located import parse

    source = read_recipe(path)
    document = parse(source.text, path)
    if not isinstance(document.data, dict):
        raise RecipeError("a file of parameters is a mapping", code="bad-value", help="write `name: value` lines").located(document.where(()))
    return document.data


def _apply(plan: Any, verify: bool) -> Any:
    from surgery.cli.progress import progress

    with progress(plan.nbytes) as advance:
        return plan.run(verify=verify, progress=advance)


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")
