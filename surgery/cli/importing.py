"""`surgery import`: the mapping that its words mean, read by the module of its kind."""

from __future__ import annotations

from surgery.errors import RecipeError, SurgeryError, near
from surgery.importers import KINDS
from surgery.importers.draft import Draft

_DIRECTIONS = ("forward", "reverse")
_MOST_BYTES = 50_000_000


def imported(kind: str, mapping: str, direction: str) -> tuple[Draft, str]:
    """The recipe for a mapping, checked as any other is, and how its header names the mapping.

    Raises:
        RecipeError: an unknown kind, a file that cannot be read or is no such mapping.
        SurgeryError: the package that knows the mapping is not installed.
    """
    from importlib import import_module

    if kind not in KINDS:
        close = near(kind, KINDS)
        help = f"did you mean `{close[0]}`?" if close else f"kinds are {', '.join(KINDS)}"
        raise RecipeError(f"no kind of mapping is called `{kind}`", code="bad-option", help=help)
    if direction not in _DIRECTIONS:
        raise RecipeError(f"no direction is called `{direction}`", code="bad-option", help=f"directions are {' and '.join(_DIRECTIONS)}")
    reader = import_module(f"surgery.importers.{KINDS[kind].module}")
    reverse = direction == "reverse"
    if not KINDS[kind].of_file:
        draft, name = reader.read(mapping, reverse), mapping
    else:
        name = mapping.rpartition("/")[2]
        try:
            draft = reader.read(_text(mapping), name.partition(".")[0] or name, reverse)
        except RecipeError as error:
            error.notes = (*error.notes, f"in {mapping}")
            raise
    _refuse_faults(draft)
    return draft, name


def _text(path: str) -> str:
    from surgery.files import LocalDisk

    try:
        file, read = LocalDisk().open(path)
        data = read(0, min(file.nbytes, _MOST_BYTES + 1))
    except SurgeryError as error:
        raise RecipeError(error.title, code=error.code, sentence=error.sentence, help="give the path of the mapping") from None
    if len(data) > _MOST_BYTES:
        raise RecipeError(f"a mapping has {_MOST_BYTES:,} bytes or less", code="bad-value", help="is this the right file?")
    return data.decode(errors="surrogateescape")


def _refuse_faults(draft: Draft) -> None:
    """A recipe that would not pass `surgery lint` is not handed out: the fault is shown in its text."""
    from surgery.recipe import load

    load(draft.text("surgery import"), "(surgery import)", {}, lint_only=True)
