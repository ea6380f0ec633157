"""A table of names, `old,new` or `key,old,new`, as a recipe.

With three columns either `key` is a tensor, in whose name the text `old` becomes `new`; or, where no row is like that, it is a label
and says nothing. A first line that names the columns may be left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from surgery.errors import RecipeError
from surgery.importers.draft import Draft, Step

_HEADERS = (("old", "new"), ("key", "old", "new"))


def read(text: str, name: str, reverse: bool) -> Draft:
    """The recipe for a CSV file of names; `reverse` goes from the new ones to the old.

    Raises:
        RecipeError: a line has another number of columns.
    """
    rows = _rows(text)
    labelled = len(rows[0]) == 3 and not any(row[1] and row[1] in row[0] for row in rows)
    names: dict[str, str] = {}
    unexpressed = []
    for row in rows:
        old, new = _names(row, labelled)
        fault = _fault(row, old, new, labelled)
        if fault:
            unexpressed.append(f"{','.join(row)}, {fault}")
        elif names.setdefault(old, new) != new:
            unexpressed.append(f"{','.join(row)}, `{old}` becomes `{names[old]}` already")
    if reverse:
        turned = {new: old for old, new in names.items()}
        lost = [old for old, new in names.items() if turned[new] != old]
        unexpressed += [f"{old},{names[old]}, `{names[old]}` becomes `{turned[names[old]]}` already" for old in lost]
        names = turned
    changes = {old: new for old, new in names.items() if old != new}
    steps: list[Step] = [{"rename": [{"keys": changes}]}] if changes else []
    return Draft(name, "Names from a table.", steps, len(rows), unexpressed)


def _rows(text: str) -> list[list[str]]:
    import csv  # which few commands need

    rows = [[cell.strip() for cell in row] for row in csv.reader(text.removeprefix("\ufeff").splitlines()) if any(row)]
    if rows and tuple(cell.lower() for cell in rows[0]) in _HEADERS:
        rows = rows[1:]
    widths = {len(row) for row in rows}
    if len(widths) != 1 or not widths <= {2, 3}:
        raise RecipeError(
            "a table of names has two columns, `old,new`, or three, `key,old,new`, in every line",
            code="bad-value",
            help="quote names that hold a comma" if widths else "the table has no rows",
        )
    return rows


def _names(row: Sequence[str], labelled: bool) -> tuple[str, str]:
    """The whole key before and after."""
    if len(row) == 2 or labelled:
        return row[-2], row[-1]
    key, old, new = row
    return key, key.replace(old, new, 1)


def _fault(row: Sequence[str], old: str, new: str, labelled: bool) -> str:
    if len(row) == 3 and not labelled and (not row[1] or row[1] not in row[0]):
        return f"`{row[1]}` does not occur in `{row[0]}`"
    return "" if old and new else "a name is empty"
