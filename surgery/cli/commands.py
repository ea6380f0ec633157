"""The commands. Each imports what it needs when it runs, so that a small plan does not pay for the rest."""

from __future__ import annotations

import sys
from typing import Any

from surgery.errors import RecipeError, SurgeryError, plural


def run(
    recipes: list[str],
    param: list[str],
    params: str | None,
    dry_run: bool,
    force: bool,
    strict: bool,
    verify: bool,
    verify_inverse: bool,
    resume: bool,
    digest: bool,
    jobs: int | None,
    memory: str,
    json: bool,
) -> None:
    """Plan a recipe and carry it out, unless its outputs are up to date."""
    from surgery.api import checked
    from surgery.report import plan_json, plan_text, report_json, report_text, up_to_date_json, up_to_date_text
    from surgery.up_to_date import up_to_date

    results: list[dict[str, Any]] = []
    values, texts, budget = _file_params(params), _texts(param), _budget(memory)
    for recipe in recipes:
        try:
            loaded = checked(recipe, values, texts=texts)
            found = () if dry_run or force or verify or verify_inverse else up_to_date(loaded, strict=strict, digest=digest)
            if found:
                results.append(up_to_date_json(found))
                if not json:
                    _say(up_to_date_text(found))
                continue
            plan = _planned(loaded, jobs=jobs, memory=budget, force=force, strict=strict, verify_inverse=verify_inverse)
            if not json:
                _say(plan_text(plan))
            if dry_run:
                results.append(plan_json(plan))
                continue
            report = _apply(plan, resume=resume, verify=verify, digest=digest)
        except SurgeryError as error:
            error.data |= {"done": results} if results else {}
            raise
        results.append(report_json(report))
        if not json:
            _say(report_text(report))
    if json:
        _print_json(results[0] if len(results) == 1 else results)


def plan(recipe: str, param: list[str], params: str | None, force: bool, strict: bool, jobs: int | None, memory: str, json: bool) -> None:
    """Work everything out from headers and print it; nothing is written."""
    from surgery.report import plan_json, plan_text

    planned = _plan(recipe, param, params, jobs, memory, force, strict)
    if json:
        _print_json(plan_json(planned))
    else:
        _say(plan_text(planned))


def lint(recipes: list[str], param: list[str], params: str | None, json: bool) -> None:
    """Check recipes without opening a checkpoint; parameters may lack values."""
    from os import environ

    from surgery.library import find
    from surgery.recipe import load

    checked = []
    for path in recipes:
        source = find(path)
        recipe = load(source.text, source.name, _file_params(params), texts=_texts(param), environment=environ, lint_only=True)
        checked.append({"recipe": path, "steps": len(recipe.steps)})
        if not json:
            _say(f"{path}: {plural(len(recipe.steps), 'step')}, no faults")
    if json:
        _print_json(checked)


def test(recipes: list[str], keyword: str | None, json: bool) -> int:
    """Run the self-tests of recipes, without weights: small inputs stand in for what they load."""
    from surgery.library import find
    from surgery.report import result_json, result_text
    from surgery.selftest import run_tests

    results = []
    for recipe in recipes:
        for result in run_tests(find(recipe), keyword or ""):
            results.append(result)
            if not json:
                _say(result_text(result))
    failed = sum(not result.passed for result in results)
    if json:
        _print_json({"tests": [result_json(result) for result in results], "failed": failed})
    else:
        _say(f"{plural(len(results), 'test')}, {failed:,} failed" if results else "no tests")
    return 1 if failed else 0


def invert(recipe: str, param: list[str], params: str | None, out: str | None, json: bool) -> None:
    """Print the recipe that makes the inputs of a plan from its outputs, and tell what has no inverse."""
    from surgery.round_trip import prove, written

    planned = _plan(recipe, param, params, None, "512MiB", True, False)
    way = written(planned.logical, planned.facts.catalog)
    proof = prove(planned.logical, way)
    if out is not None:
        from surgery.files import unlink, write_file

        unlink(out)
        write_file(out, way.text.encode())
    if json:
        _print_json({"recipe": way.text, "lost": list(way.lost), **proof.as_json()})
    elif out is None:
        sys.stdout.write(way.text)
    print(f"note: {proof}", file=sys.stderr)


def inspect(path: str, tree: bool, key: str | None, spec: bool, format: str | None, json: bool) -> None:
    """List the tensors of a checkpoint, as tf.train.list_variables does."""
    from surgery import formats, report
    from surgery.api import Checkpoint
    from surgery.files import LocalDisk
    from surgery.probe import open_checkpoint

    if format is not None and format not in formats.NAMES:
        raise RecipeError(f"no format is called `{format}`", code="unknown-format", help=f"formats are {', '.join(formats.NAMES)}")
    if sum((tree, spec, key is not None)) + (json and (tree or spec)) > 1:
        raise RecipeError("these options exclude each other", code="bad-option", help="give one of --tree, --spec and --key; --json goes with --key")
    with Checkpoint(open_checkpoint(path, LocalDisk(), format, strict=key is not None)) as checkpoint:
        for note in checkpoint.indexed.notes:
            print(f"note: {note}", file=sys.stderr)
        if key is not None:
            tensor = checkpoint[key]
            _print_json(report.tensor_json(tensor)) if json else _say(report.tensor_text(tensor))
        elif json:
            _print_json(report.checkpoint_json(checkpoint))
        elif spec:
            _say(report.spec_yaml(checkpoint))
        elif tree:
            _say(report.tree(checkpoint.indexed.tensors))
        else:
            _say(report.listing(checkpoint))


def explain(recipe: str, key: str, param: list[str], params: str | None) -> None:
    """Tell where one tensor of the output comes from, step by step."""
    from surgery.report import explain as explained

    _say(explained(_plan(recipe, param, params, None, "512MiB", True, False), key))


def rename(
    source: str,
    target: str | None,
    sub: list[tuple[str, str]],
    prefix: str | None,
    format: str | None,
    in_place: bool,
    dry_run: bool,
    force: bool,
    json: bool,
) -> None:
    """Rename tensors without writing a recipe."""
    from surgery.api import checked
    from surgery.cli.oneliner import as_command_line, rename_recipe
    from surgery.report import plan_json, plan_text, report_json, report_text, up_to_date_json, up_to_date_text
    from surgery.up_to_date import up_to_date

    with as_command_line():
        loaded = checked(rename_recipe(source, target, sub, prefix, format, in_place))
        found = () if dry_run or force else up_to_date(loaded)
        if found:
            _print_json(up_to_date_json(found)) if json else _say(up_to_date_text(found))
            return
        planned = _planned(loaded, force=force)
        if dry_run:
            _print_json(plan_json(planned)) if json else _say(plan_text(planned))
            return
        report = _apply(planned)
    _print_json(report_json(report)) if json else _say(report_text(report))


def import_(kind: str, mapping: str, output: str | None, direction: str) -> None:
    """Read another tool's mapping of names and tensors into a recipe."""
    from shlex import join

    from surgery.cli.importing import imported

    draft, name = imported(kind, mapping, direction)
    words = [kind, name] + (["--direction", direction] if direction != "forward" else [])
    text = draft.text(join(["surgery", "import", *words]))
    if output is None:
        sys.stdout.write(text)
    else:
        from surgery.files import unlink, write_file

        unlink(output)
        write_file(output, text.encode())
    for reason in draft.unexpressed:
        print(f"note: not expressed: {reason}", file=sys.stderr)


def steps(word: str | None) -> None:
    """List the steps, or the options of one."""
    from surgery.cli.tables import step_list, step_options

    _say(step_options(word) if word else step_list())


def formats(json: bool) -> None:
    """List the formats with what can be done with them here, and what to install for the rest."""
    from surgery.cli.tables import format_facts, format_list

    if json:
        _print_json(format_facts())
    else:
        _say(format_list())


def recipes(action: str, name: str | None, yaml: bool, json: bool) -> None:
    """List the recipes that are installed, or show one."""
    from surgery.cli.recipes import about, everything, recipe_list, recipe_text, wrong_action

    if action not in ("list", "show"):
        raise wrong_action(action)
    if (action == "show") != (name is not None) or (yaml and (json or action == "list")):
        help = "write `surgery recipes list [--json]` or `surgery recipes show NAME [--yaml | --json]`"
        raise RecipeError(f"`surgery recipes {action}` does not go with this", code="bad-option", help=help)
    if name is not None:
        found = about(name)
        _print_json(found.facts()) if json else sys.stdout.write(found.text) if yaml else _say(recipe_text(found))
        return
    read, warnings = everything()
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    _print_json([each.facts() for each in read]) if json else _say(recipe_list(read))


def schema(write: str | None) -> None:
    """Print the JSON Schema of recipes, for editors and for other validators."""
    from surgery.schema import schema_text

    if write is None:
        sys.stdout.write(schema_text())
    else:
        from surgery.files import unlink, write_file

        unlink(write)
        write_file(write, schema_text().encode())


def demo(folder: str | None) -> None:
    """Make a small TensorFlow bundle, inspect it, operate on it, and show what a missing key looks like."""
    from surgery.cli.demo import run_demo

    run_demo(folder)


def _plan(recipe: str, param: list[str], params: str | None, jobs: int | None, memory: str, force: bool, strict: bool) -> Any:
    return _planned(recipe, _file_params(params), _texts(param), jobs, _budget(memory), force, strict)


def _planned(
    recipe: Any,
    params: dict[str, Any] | None = None,
    texts: dict[str, str] | None = None,
    jobs: int | None = None,
    memory: int | None = None,
    force: bool = False,
    strict: bool = False,
    verify_inverse: bool = False,
) -> Any:
    from surgery.api import DEFAULT_MEMORY
    from surgery.api import plan as make_plan

    budget = DEFAULT_MEMORY if memory is None else memory
    return make_plan(recipe, params, texts=texts, jobs=jobs, memory=budget, force=force, strict=strict, verify_inverse=verify_inverse)


def _budget(memory: str) -> int:
    from surgery.units import parse_size

    try:
        return parse_size(memory)
    except ValueError as error:
        raise RecipeError(str(error), code="bad-option") from None


def _texts(values: list[str]) -> dict[str, str]:
    texts = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise RecipeError(f"`-p {value}` has no `=`", code="bad-option", help="write `-p name=value`")
        texts[name] = text
    return texts


def _file_params(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    from surgery.library import read
    from surgery.located import parse

    source = read(path)
    document = parse(source.text, path)
    if not isinstance(document.data, dict):
        raise RecipeError("a file of parameters is a mapping", code="bad-value", help="write `name: value` lines").located(document.where(()))
    return document.data


def _apply(plan: Any, *, resume: bool = False, verify: bool = False, digest: bool = False) -> Any:
    from surgery.cli.progress import progress

    with progress(plan.nbytes) as advance:
        return plan.run(resume=resume, verify=verify, digest=digest, progress=advance)


def _print_json(value: Any) -> None:
    from json import dumps

    print(dumps(value, indent=2))


def _say(text: str) -> None:
    print(text, flush=True)  # at once: what comes next may take an hour
