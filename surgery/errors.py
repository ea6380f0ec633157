"""Every fault a user can meet, as data first and as text last.

Low-level code raises without a position; the planner adds the step, and `render` turns the whole into the text of
the terminal. This module serves all stages and knows none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

SHOWN = 5
"""Items of a list that a message spells out before it says "and N more"."""


class Where(NamedTuple):
    """A place in a recipe: 1-based line and column, the text of that line, and how many characters are meant."""

    file: str
    line: int
    column: int
    text: str = ""
    width: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class SurgeryError(Exception):
    """A fault with a stable code, a first line, facts (`notes`) and one thing to do (`help`).

    `at` is the path of the offending field relative to its step (`("match",)`); whoever knows the recipe turns it into
    `where`. `sentence` marks a first line that is TensorFlow's own: it is printed with nothing before it. `others`
    holds the further faults of the same phase, so that one exception reports all of them. `data` is for `--json`.
    """

    exit_code = 1
    default_code = "error"

    def __init__(
        self,
        title: str,
        *,
        code: str = "",
        notes: Iterable[str] = (),
        help: str = "",
        at: tuple[str | int, ...] = (),
        offset: int | None = None,
        sentence: bool = False,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(title)
        self.title = title
        self.code = code or self.default_code
        self.notes = tuple(note for note in notes if note)
        self.help = help
        self.at = at
        self.offset = offset
        self.sentence = sentence
        self.data = dict(data or {})
        self.where: Where | None = None
        self.step: str = ""
        self.others: tuple[SurgeryError, ...] = ()

    def located(self, where: Where | None, step: str = "") -> Self:
        """Set the place once; a place that is already there is the more exact one and stays."""
        if self.where is None:
            self.where = where
        self.step = self.step or step
        return self

    def __str__(self) -> str:
        return "\n".join(render(error) for error in (self, *self.others))


class RecipeError(SurgeryError):
    """The recipe or the command line is wrong; found before any checkpoint is opened."""

    exit_code = 2
    default_code = "bad-recipe"


class PlanError(SurgeryError):
    """The recipe does not fit these checkpoints; found from headers."""

    default_code = "plan"


class NotFoundError(PlanError):
    """Keys are wanted and absent. `keys` has all of them, in the order they were asked for."""

    default_code = "missing-key"

    @property
    def keys(self) -> tuple[str, ...]:
        """All missing keys."""
        return tuple(self.data.get("keys", ()))


class KeyCollisionError(PlanError):
    """Several tensors would get one key. `collisions` maps each such key to its sources."""

    default_code = "key-collision"

    @property
    def collisions(self) -> Mapping[str, Sequence[str]]:
        """New key → the old keys that would become it."""
        return dict(self.data.get("collisions", {}))


class MismatchError(PlanError):
    """A tensor has another shape or dtype than the target wants."""

    default_code = "mismatch"


class SourceError(SurgeryError):
    """A checkpoint cannot be read."""

    default_code = "source"


class CorruptFile(SourceError):
    """The bytes of a file contradict its format."""

    default_code = "corrupt-file"


class UnsupportedFeature(SourceError):
    """The file is well-formed and uses something this version does not read or write."""

    default_code = "unsupported"


class StaleSource(SourceError):
    """A source changed after the plan was made."""

    default_code = "stale-source"


class ApplyError(SurgeryError):
    """The plan was right and the machine said no: disk full, permission, or a value check that failed."""

    default_code = "apply"


_CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160))}
_CONTROL_BUT_LINES = {code: text for code, text in _CONTROL.items() if chr(code) not in "\n\t"}


def one_line(text: str) -> str:
    """Text with control characters escaped, so that a key of a file can neither steer a terminal nor forge a line."""
    return text if text.isprintable() else text.translate(_CONTROL)


def listed(items: Sequence[str], shown: int = SHOWN) -> str:
    """`a, b, c and 7 more`: the first items, then a count."""
    head = ", ".join(map(one_line, items[:shown]))
    rest = len(items) - shown
    return f"{head} and {rest:,} more" if rest > 0 else head


def plural(count: int, noun: str, many: str = "") -> str:
    """`1 key`, `2 keys`, `1,000 keys`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def near(word: str, words: Iterable[str], *, most: int = 1) -> list[str]:
    """The words most like `word`; none where nothing is alike. For short lists (steps, options), not for keys."""
    from difflib import get_close_matches

    return get_close_matches(word, list(words), n=most, cutoff=0.6)


def gather(errors: Sequence[SurgeryError]) -> SurgeryError:
    """One exception for all faults of a phase: the first, carrying the others."""
    first = errors[0]
    first.others = tuple(error for error in errors if error is not first)
    return first


def render(error: SurgeryError) -> str:
    """The text of one fault: first line, place with caret, notes, help."""
    title = one_line(error.title)
    lines = [title if error.sentence else f"error[{error.code}]: {title}"]
    if error.sentence and error.step:
        lines.append(f"\t [[{{{{step {error.step.split()[0]}}}}} = {error.step.split(' ', 1)[1]} at {error.where}]]")
    if error.where is not None:
        text = error.where.text.rstrip()
        indent = len(text) - len(text.lstrip())
        arrow = f"  --> {error.where}"
        lines.append(f"{arrow} | {text.lstrip()}" if text else arrow)
        if text:
            column = max(error.where.column - 1 - indent, 0)
            width = max(1, min(error.where.width, len(text) - indent - column))
            lines.append(f"{' ' * len(arrow)} | {' ' * column}{'^' * width}")
    lines += [_indented("note", note) for note in error.notes]
    if error.help:
        lines.append(_indented("help", error.help))
    return "\n".join(lines).translate(_CONTROL_BUT_LINES)


def _indented(label: str, text: str) -> str:
    first, *rest = text.split("\n")
    return "\n".join([f"  {label}: {first}", *(f"        {line}" for line in rest)])


def as_json(error: SurgeryError) -> dict[str, Any]:
    """The fault as `--json` prints it; the further faults of its phase stand under `others`."""
    where = error.where
    return {
        "code": error.code,
        "class": type(error).__name__,
        "message": error.title,
        "where": where and {"file": where.file, "line": where.line, "column": where.column},
        "step": error.step or None,
        "notes": list(error.notes),
        "help": error.help or None,
        "data": error.data,
        "others": [as_json(other) for other in error.others],
    }
