"""`use`: another recipe's steps. They take its place when the recipe is read (`surgery/recipe.py`), so a plan never meets it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from surgery.errors import RecipeError
from surgery.models import Field
from surgery.steps.base import Step
from surgery.steps.paths import impossible_path


class Use(Step):
    """Puts another recipe's steps in its place.

    Paths in them are relative to the working directory as everywhere, `${recipe.dir}` is the other recipe's folder.
    """

    word: ClassVar[str] = "use"
    example: ClassVar[str] = "{recipe: …}"
    recipe: str = Field(description="a file, relative to this recipe's folder, or a name that `surgery recipes list` shows")
    with_: Mapping[str, Any] = Field({}, alias="with", description="values of its parameters; those without one have their defaults")
    without: str | Annotated[list[str], Field(min_length=1)] = Field(
        [], description="steps to be left out: their words, such as [load, save], or their labels (`name:`)"
    )

    @property
    def left_out(self) -> frozenset[str]:
        """The words and labels of `without`."""
        return frozenset([self.without] if isinstance(self.without, str) else self.without)

    def lint(self) -> Iterator[RecipeError]:
        yield from impossible_path(self.recipe, ("recipe",))


STEP = Use
