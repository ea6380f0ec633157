"""Runs `tests/golden/steps/*.yaml`; `tests/golden/README.md` tells what a case may say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from surgery.errors import SurgeryError
from surgery.located import parse
from surgery.logical import LogicalPlan
from surgery.steps import WORDS
from surgery.steps.base import Output
from surgery.table import Entry, Table

GOLDEN = Path(__file__).parent.parent / "golden" / "steps"
FIELDS = {"title", "before", "targets", "files", "steps", "after", "saved", "dropped", "left_over", "notes", "checks", "error", "errors"}


def cases() -> Iterator[Any]:
    for file in sorted(GOLDEN.glob("*.yaml")):
        for case in parse(file.read_bytes(), file.name).data:
            yield pytest.param(case, id=f"{file.stem}: {case['title']}")


@pytest.mark.parametrize("case", list(cases()))
def test_step(case: dict[str, Any], plan: Callable[..., LogicalPlan]) -> None:
    assert set(case) <= FIELDS
    before = case["before"] if isinstance(case["before"], list) else [case["before"]]
    checkpoints = {f"{number}.ckpt": tensors for number, tensors in enumerate(before, 1)}
    loads = [] if any("load" in step for step in case["steps"]) else [{"load": {"path": name}} for name in checkpoints]
    steps = [*loads, *case["steps"]]
    if "error" in case or "errors" in case:
        with pytest.raises(SurgeryError) as caught:
            plan(steps, checkpoints, case.get("targets"), case.get("files"))
        compare_errors([caught.value, *caught.value.others], case.get("errors", [case.get("error")]))
        return
    logical = plan(steps, checkpoints, case.get("targets"), case.get("files"))
    assert as_text(logical.table, case["after"]) == list(case["after"].items())
    for field in FIELDS & set(case) & set(FACTS):
        assert FACTS[field](logical, case[field]) == case[field]


def compare_errors(found: list[SurgeryError], wanted: list[dict[str, Any]]) -> None:
    assert [error.code for error in found] == [error["code"] for error in wanted]
    for error, demand in zip(found, wanted, strict=True):
        for text in [demand.get("contains", [])] if isinstance(demand.get("contains"), str) else demand.get("contains", []):
            assert text in "\n".join([error.title, *error.notes, error.help])
        if "data" in demand:
            assert {key: error.data.get(key) for key in demand["data"]} == demand["data"]


def as_text(table: Table, wanted: dict[str, str]) -> list[tuple[str, str]]:
    return [(key, row(entry, wanted.get(key, ""))) for key, entry in table.items()]


def row(entry: Entry, wanted: str) -> str:
    """`f32[2] from old/key in 1.ckpt`, as far as the case wants to know."""
    origin = f" from {entry.root.key}" if " from " in wanted else ""
    return f"{entry.spec}{origin}" + (f" in {entry.source}" if " in " in wanted else "")


def saved(output: Output, wanted: dict[str, Any]) -> dict[str, Any]:
    facts = {
        "path": output.path,
        "format": output.format,
        "after": dict(as_text(output.table, wanted.get("after", {}))),
        "metadata": dict(output.metadata),
        "options": dict(output.options),
        "overwrite": output.overwrite,
        "carry": list(output.carry),
        "edit": dict(output.edit),
        "manifest": output.manifest,
        "in_place": output.in_place,
    }
    return {name: facts[name] for name in wanted}


FACTS: dict[str, Callable[[LogicalPlan, Any], Any]] = {
    "saved": lambda plan, wanted: [saved(output, demand) for output, demand in zip(plan.outputs, wanted, strict=True)],
    "dropped": lambda plan, wanted: [key for dropped in plan.dropped for key in dropped.keys],
    "left_over": lambda plan, wanted: [f"{key} in {source}" for source, key in plan.left_over],
    "notes": lambda plan, wanted: list(plan.notes),
    "checks": lambda plan, wanted: [f"{check.kind} {check.key}" + (f" {check.other_key}" if check.other_key else "") for check in plan.checks],
}


def test_every_step_has_golden_cases() -> None:
    assert {file.stem for file in GOLDEN.glob("*.yaml")} == set(WORDS)


def test_every_option_of_every_step_stands_in_a_golden_case() -> None:
    """The words are looked for in the text of the step's own file: an option that no case uses is not there."""
    from surgery.model_faults import words
    from surgery.steps import by_word

    for word in WORDS:
        text = (GOLDEN / f"{word}.yaml").read_text()
        assert [option for option in words(by_word(word)) if f"{option}:" not in text] == [], word
