"""`surgery recipes`: which recipes the libraries hold, and what one of them is for, as text and as data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from surgery import library
from surgery.errors import RecipeError, near
from surgery.head import head_of
from surgery.located import parse

_SENTENCE = re.compile(r"(.+?[.!?])(?:\s|$)", re.DOTALL)


class About(NamedTuple):
    """What a recipe tells about itself."""

    name: str
    description: str
    params: Mapping[str, Mapping[str, Any]]
    inverse: str
    text: str

    @property
    def summary(self) -> str:
        """The first sentence of the description, on one line."""
        found = _SENTENCE.match(self.description)
        return " ".join((found[1] if found else self.description).split())

    @property
    def command(self) -> str:
        """How it is run, with the parameters that have no default."""
        return " ".join(["surgery run", self.name, *(f"-p {name}=…" for name, schema in self.params.items() if "default" not in schema)])

    def facts(self) -> dict[str, Any]:
        """The same as plain data, without the text."""
        return {"name": self.name, "summary": self.summary, "description": self.description, "params": dict(self.params), "inverse": self.inverse}


def about(name: str) -> About:
    """What the recipe of this name, or in this file, tells about itself. Raises RecipeError where it cannot be read."""
    source = library.find(name)
    document = parse(source.text, source.name)
    head = head_of(document)
    return About(name, head.description.strip(), head.params, head.inverse, document.source.text)


def everything() -> tuple[list[About], list[str]]:
    """All recipes of all libraries, and warnings about what cannot be read of other packages."""
    found, warnings = library.names()
    read: list[About] = []
    unread = list(warnings)
    for name, path in found.items():
        try:
            read.append(about(path)._replace(name=name))
        except RecipeError as error:
            unread.append(f"`{name}` is no recipe: {error.title} ({error.where})")
    return read, unread


def recipe_list(recipes: list[About]) -> str:
    """Each recipe with the first sentence of its description."""
    width = max(len(each.name) for each in recipes)
    lines = [f"{each.name:<{width}}  {each.summary}" for each in recipes]
    return "\n".join([*lines, "", "`surgery recipes show NAME` tells all about one, `surgery run NAME -p …` runs it."])


def recipe_text(recipe: About) -> str:
    """What a recipe is for, its parameters, how it is run, and its text."""
    width = max(map(len, recipe.params), default=0)
    params = [f"  {name:<{width}}  {told(schema)}" for name, schema in recipe.params.items()]
    lines = [recipe.name, *_paragraph(recipe.description), *(["", "Parameters:", *params] if params else [])]
    lines += ["", f"Inverse: {recipe.inverse}"] if recipe.inverse else []
    return "\n".join([*lines, "", f"$ {recipe.command}", "", recipe.text.rstrip()])


def told(schema: Mapping[str, Any]) -> str:
    """What a parameter is, its type where that is not text, and its default."""
    kind = schema.get("type", "")
    notes = [] if kind in ("", "string") else [kind if isinstance(kind, str) else " or ".join(kind)]
    notes += [f"default: {_shown(schema['default'])}"] if "default" in schema else []
    return " ".join(part for part in (schema.get("description", ""), f"[{', '.join(notes)}]" if notes else "") if part)


def wrong_action(action: str) -> RecipeError:
    """The error for a word other than `list` and `show`."""
    close = near(action, ["list", "show"])
    help = f"did you mean `{close[0]}`?" if close else "write `surgery recipes list` or `surgery recipes show NAME`"
    return RecipeError(f"`surgery recipes` does not take `{action}`", code="bad-option", help=help)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _paragraph(text: str) -> list[str]:
    return ["", *text.splitlines()] if text else []
