"""`surgery test`: runs what stands under `tests:` in a recipe, in a temporary folder and without its real files.

Each `load` reads a small checkpoint that is made of the test's inputs, whatever its path and format; each `save` writes below the folder.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from surgery import api
from surgery.case_values import array_of, difference, encoded
from surgery.cases import Case, Expectation, Result, cases_of
from surgery.dtypes import DTYPES
from surgery.errors import SurgeryError, listed, plural
from surgery.files import Sources, make_folder, write_file
from surgery.head import Head, head_of, path_params
from surgery.items import StepItem
from surgery.library import Source
from surgery.located import Document, parse
from surgery.recipe import Recipe, load
from surgery.round_trip import prove
from surgery.several import is_numbered
from surgery.steps.base import Step
from surgery.steps.load import Load
from surgery.steps.save import Save
from surgery.steps.targets import Targets
from surgery.value_checks import check_values

if TYPE_CHECKING:
    from surgery.case_values import Array

Tensors = Mapping[str, api.LazyTensor]


class Unfit(Exception):
    """A test that does not go with its recipe; the text says why."""


def run_tests(source: Source, keyword: str = "") -> Iterator[Result]:
    """Run the tests of a recipe that have this text in their name, one after the other. Raises RecipeError where the recipe itself is wrong."""
    document = parse(source.text, source.name)
    head = head_of(document)
    load(source.text, source.name, lint_only=True)
    for index, case in enumerate(cases_of(document)):
        if keyword in case.name:
            yield Result(source.name, case.name, document.where(("tests", index)), tuple(_differences(_Trial(source, document, head, case))))


class _Trial(NamedTuple):
    """A test with the recipe that it is about."""

    source: Source
    document: Document
    head: Head
    case: Case


def _differences(trial: _Trial) -> Iterator[str]:
    with TemporaryDirectory(prefix="surgery-test-") as folder:
        try:
            inputs = [{key: array_of(tensor, key) for key, tensor in tensors.items()} for tensors in trial.case.inputs]
            plan = api.plan(_recipe(trial, folder, inputs), jobs=1)
            plan.run()
        except Unfit as unfit:
            yield str(unfit)
        except SurgeryError as error:
            yield from _unexpected(error, trial.case.error)
        else:
            if trial.case.error is not None:
                yield f"no error, {trial.case.error} expected"
            else:
                yield from _not_given_back(plan) if trial.case.inverse else ()
                yield from _misfits(plan, trial.case.expect or (), {key: array for arrays in inputs for key, array in arrays.items()})


def _unexpected(error: SurgeryError, wanted: str | None) -> Iterator[str]:
    if wanted not in [fault.code for fault in (error, *error.others)]:
        told = f"error[{error.code}]: {error.title}" + (f" ({error.where})" if error.where else "")
        yield told if wanted is None else f"{told}; {wanted} expected"


def _recipe(trial: _Trial, folder: str, inputs: Sequence[Mapping[str, Array]]) -> Recipe:
    """The recipe of a test, with paths below the folder, and its inputs written there."""
    params = _params(trial, folder)
    recipe = api.checked(trial.source, params, environment=dict.fromkeys(trial.head.env, ""))
    dtypes = [{key: DTYPES[tensor.dtype] for key, tensor in tensors.items()} for tensors in trial.case.inputs]
    contents = [encoded(arrays, names) for arrays, names in zip(inputs, dtypes, strict=True)]
    moved = dict(_loads(recipe.steps, contents, trial.case.files, folder))
    moved |= _saves(recipe.steps, moved, folder) | _likes(recipe.steps, trial.case, folder)
    return recipe._replace(steps=tuple(item._replace(step=moved.get(item.number, item.step)) for item in recipe.steps))


def _params(trial: _Trial, folder: str) -> dict[str, Any]:
    """The parameters of a test; those that only say paths, and are not given, mean some in the folder, with the test's files around."""
    params = {name: _own_file(value, trial.case.files, folder) for name, value in trial.case.params.items()}
    _write_files(f"{folder}/params", trial.case.files)
    for name in path_params(trial.document):
        if name not in params:
            params[name] = f"{folder}/params/{name}.safetensors"
            _write_files(params[name], trial.case.files)
    return params


def _own_file(value: Any, files: Mapping[str, Any], folder: str) -> Any:
    """The value of a parameter, where it names one of the test's files the path of that."""
    return f"{folder}/params/{value}" if isinstance(value, str) and value in files else value


def _write_files(folder: str, files: Mapping[str, Any]) -> None:
    make_folder(folder)
    for name, content in files.items():
        path = posixpath.join(folder, name)
        make_folder(posixpath.dirname(path))
        write_file(path, content.encode() if isinstance(content, str) else json.dumps(content).encode())


def _loads(items: Sequence[StepItem], contents: Sequence[bytes], files: Mapping[str, Any], folder: str) -> Iterator[tuple[int, Step]]:
    """The loads by their numbers, each reading what is written for it: a folder with one file and the test's files, or numbered files."""
    loads = [(item.number, item.step) for item in items if isinstance(item.step, Load)]
    numbered = [number for number, step in loads if is_numbered(step.path)]
    spare = len(contents) - (len(loads) - len(numbered))
    if spare < len(numbered) or spare % max(len(numbered), 1) or (spare and not numbered):
        raise Unfit(f"{plural(len(contents), 'input')} for {plural(len(loads), 'load')}: list one for each `load`, in order")
    rest = iter(contents)
    for number, step in loads:
        place = f"{folder}/inputs/{number}"
        _write_files(place, files)
        if number in numbered:
            for index in range(spare // len(numbered)):
                write_file(f"{place}/part.{index:02}.safetensors", next(rest))
            yield number, _reading(step, f"{place}/part.*.safetensors")
        else:
            write_file(f"{place}/model.safetensors", next(rest))
            yield number, _reading(step, place)


def _reading(step: Load, path: str) -> Load:
    """A load of another path. Its input has the keys that are found there, so it needs no way into a nested file."""
    way = {name: field.default for name, field in step.fields().items() if name in ("format", "root", "separator")}
    return step.model_copy(path=path, **way)


def _saves(items: Sequence[StepItem], loads: Mapping[int, Step], folder: str) -> dict[int, Step]:
    """The saves by their numbers, each below the folder, or in place of the input that it changes."""
    read = {item.step.path: loads[item.number] for item in items if isinstance(item.step, Load)}
    moved: dict[int, Step] = {}
    for item in items:
        if isinstance(item.step, Save):
            here = read.get(item.step.path) if item.step.in_place else None
            name = posixpath.basename(item.step.path.rstrip("/"))
            moved[item.number] = item.step.model_copy(path=here.path if isinstance(here, Load) else f"{folder}/outputs/{item.number}/{name}")
    return moved


def _likes(items: Sequence[StepItem], case: Case, folder: str) -> dict[int, Step]:
    """The steps that compare with a target, by their numbers, each reading one of the test's; without any the recipe's own are read."""
    comparing = [(item.number, item.step, item.step.like) for item in items if isinstance(item.step, Targets) and item.step.like is not None]
    paths = list(dict.fromkeys(path for _, _, path in comparing))
    if not case.targets:
        return {}
    if len(paths) != len(case.targets):
        raise Unfit(f"{plural(len(case.targets), 'target')} for {plural(len(paths), 'path')} of `like`: list one for each, in order")
    make_folder(f"{folder}/targets")
    for number, variables in enumerate(case.targets):
        spelled = {key: {"shape": variable.shape, "dtype": variable.dtype, "init": variable.init} for key, variable in variables.items()}
        write_file(f"{folder}/targets/{number}.yaml", json.dumps({"variables": spelled}).encode())
    return {number: step.model_copy(like=f"{folder}/targets/{paths.index(path)}.yaml") for number, step, path in comparing}


def _misfits(plan: api.Plan, wanted: Sequence[Expectation], inputs: Mapping[str, Array]) -> Iterator[str]:
    """What of the outputs is not as expected; without a save, of the table."""
    with ExitStack() as stack:
        outputs: list[Tensors] = [stack.enter_context(api.open(output.path, format=output.format)) for output in plan.logical.outputs]
        if not outputs:
            sources = stack.enter_context(Sources())
            outputs = [{key: api.LazyTensor(key, entry.expr, sources.read) for key, entry in plan.logical.table.items()}]
        if wanted and len(wanted) != len(outputs):
            yield f"{plural(len(wanted), 'expectation')} for {plural(len(outputs), 'save')}: list one for each, in order"
            return
        for tensors, expectation in zip(outputs, wanted, strict=False):
            yield from _misfit(tensors, expectation, inputs)


def _not_given_back(plan: api.Plan) -> Iterator[str]:
    """What of the inputs the inverse does not give back, bit by bit."""
    try:
        proof = prove(plan.logical, api.way_back(plan.logical, plan.facts.catalog))
    except SurgeryError as error:
        yield f"inverse: error[{error.code}]: {error.title}"
        return
    yield from (f"inverse: {misfit}" for misfit in proof.misfits)
    yield from (f"inverse: {key} is not given back" for _, key in proof.missing)
    yield from (f"inverse: {key} is rounded on the way" for _, key in proof.rounded)
    with Sources() as sources:
        for check in proof.checks:
            try:
                check_values(check, sources.read, api.DEFAULT_MEMORY)
            except SurgeryError as error:
                yield f"inverse: {error.title}"


def _misfit(tensors: Tensors, wanted: Expectation, inputs: Mapping[str, Array]) -> Iterator[str]:
    if wanted.keys is not None:
        missing = [key for key in wanted.keys if key not in tensors]
        unexpected = [key for key in tensors if key not in wanted.keys]
        yield from [f"missing: {listed(missing, 20)}"] if missing else []
        yield from [f"unexpected: {listed(unexpected, 20)}"] if unexpected else []
    for key, expected in wanted.tensors.items():
        if key in tensors:
            found = difference(tensors[key].numpy(), tensors[key].spec.dtype, expected, inputs, key)
            yield from [f"{key}: {found}"] if found else []
        elif wanted.keys is None or key not in wanted.keys:
            yield f"{key}: there is no such tensor; there are {listed(list(tensors), 8) or 'none'}"
