"""An item of a recipe's `steps`: one step word with its options, checked by the step's model, and its place for messages.

Serves the reading of recipes and whoever reports on a step. Knows nothing of parameters, which have their values by now.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from surgery import steps as registry
from surgery.errors import RecipeError, SurgeryError, Where, near
from surgery.located import LITERAL_KEYS, Document
from surgery.model_faults import faults_of, place
from surgery.models import ValidationError
from surgery.steps.base import Step
from surgery.steps.load import Load
from surgery.steps.save import Save

Path = tuple[str | int, ...]


class StepItem(NamedTuple):
    """A checked step with its place.

    `number` counts all steps of a recipe, those of used recipes in their place; `position` those of the step's own document.
    `used_by` are the `use` steps that it came by, the nearest first.
    """

    step: Step
    number: int
    label: str
    document: Document
    position: int
    used_by: tuple[Where, ...] = ()

    @property
    def path(self) -> Path:
        """Where the step stands in its document."""
        return ("steps", self.position, self.step.word)

    @property
    def where(self) -> Where:
        """The place of its word."""
        return self.document.where(self.path, key=True)

    def locate(self, error: SurgeryError) -> SurgeryError:
        """Give an error that a step raised its position and the step's name."""
        at_key = not error.at or (len(error.at) > 1 and error.at[-2] in LITERAL_KEYS and isinstance(error.at[-1], str))
        where = place(self.document, (*self.path, *error.at), error.offset, key=at_key)
        error.located(where, f"{self.step.word} steps[{self.number}]" + (f" ({self.label})" if self.label else ""))
        if self.label and not error.sentence:
            error.notes = (f"the step is called `{self.label}`", *error.notes)
        return told(error, self.used_by)


def read_step(document: Document, index: int, raw: Any, unresolved: set[Path]) -> tuple[Step | None, list[SurgeryError]]:
    """The step of an item of `steps`, or all that is wrong with it as far as that does not depend on the `unresolved` texts in it."""
    path: Path = ("steps", index)
    words = [word for word in raw if word != "name"]
    if len(words) != 1:
        return None, [_not_one_word(document, path, words)]
    if not isinstance(raw.get("name", ""), str):
        return None, [RecipeError("`name` wants text", code="bad-value", help="put it in quotes").located(document.where((*path, "name")))]
    word = words[0]
    try:
        model = registry.by_word(word)
    except KeyError:
        close = near(word, registry.WORDS)
        help = (f"did you mean `{close[0]}`? " if close else "") + "`surgery steps` lists them all"
        return None, [RecipeError(f"no step is called `{word}`", code="unknown-step", help=help).located(document.where((*path, word), key=True))]
    try:
        step = model.model_validate(raw[word])
    except ValidationError as error:
        found = faults_of(error, document, (*path, word), model)
        hidden = {(*path, *place_) for place_ in unresolved}
        return None, [fault for fault in found if not any(_within(fault.at, place_) for place_ in hidden)]
    return step, []


def _not_one_word(document: Document, path: Path, words: Sequence[str]) -> SurgeryError:
    slips = [word for word in words if word not in registry.WORDS and near(word, ["name"])]
    if slips:
        error = RecipeError(f"a step has no option `{slips[0]}`", code="unknown-option", help="did you mean `name`?")
        return error.located(document.where((*path, slips[0]), key=True))
    error = RecipeError(
        "a step is one word with its options", code="bad-step", help="write `- rename: {match: a, to: b}`; `name:` may stand beside it"
    )
    return error.located(document.where((*path, words[1]), key=True) if len(words) > 1 else document.where(path))


def _within(at: Path, open_path: Path) -> bool:
    """A fault at or above an unresolved `${…}` says nothing yet."""
    return at[: len(open_path)] == open_path or open_path[: len(at)] == at


def told(error: SurgeryError, used_by: Iterable[Where]) -> SurgeryError:
    """The error, telling by which `use` steps its place came into the recipe."""
    notes = [f"used by {where}" for where in used_by]
    error.notes = (*error.notes, *(note for note in notes if note not in error.notes))
    return error


def conflicts(items: Iterable[StepItem]) -> list[SurgeryError]:
    """Two saves to one path, and loading what the recipe itself saves."""
    saved: dict[str, StepItem] = {}
    faults: list[SurgeryError] = []
    for item in items:
        if not isinstance(item.step, (Load, Save)):
            continue
        path = posixpath.normpath(item.step.path)
        if path in saved:
            what = "saved twice" if isinstance(item.step, Save) else "loaded after this recipe saves it"
            error = RecipeError(
                f"`{item.step.path}` is {what}",
                code="path-conflict",
                at=("path",),
                notes=[f"first saved by steps[{saved[path].number}] at {saved[path].where}"],
                help="save under another path" if isinstance(item.step, Save) else "go on with the table, or use two recipes",
            )
            faults.append(item.locate(error))
        elif isinstance(item.step, Save):
            saved[path] = item
    return faults
