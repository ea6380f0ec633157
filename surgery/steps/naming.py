"""What `rename` and `copy` share: rules that give tensors names, and the messages when names collide."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from surgery.errors import KeyCollisionError, PlanError, RecipeError, SurgeryError, listed, plural
from surgery.patterns import Pattern, compile_pattern
from surgery.replacement import Template, compile_template
from surgery.select import Path, Texts, Where, missing, nothing_matched
from surgery.steps.base import Model, Rules, State, absent, given


class NameRule(Model):
    """One rule: `match` and `to`, or exact names under `keys`."""

    RULES: ClassVar[Rules] = (
        {"anyOf": [{"allOf": [given("match", "to"), absent("keys")]}, {"allOf": [given("keys"), absent("match", "to")]}]},
        {"not": given("count", "at_least")},
    )

    match: str | None = Field(None, description="regular expression searched anywhere in the key")
    to: str | None = Field(None, description="what the match becomes: \\1, \\g<name>, {n+8}")
    keys: Mapping[str, Texts] | None = Field(None, description="old key → new key, exact and simultaneous", min_length=1)
    all: bool = Field(False, description="replace each match in a key, not only the first")
    where: Where | None = Field(None, description="only tensors with these facts")
    optional: bool = Field(False, description="allow the rule to touch nothing")
    count: Annotated[int, Field(ge=0)] | None = Field(None, description="touch exactly this many keys")
    at_least: Annotated[int, Field(ge=0)] | None = Field(None, description="touch this many keys or more")
    replace: bool = Field(False, description="the new name wins over a tensor that already has it")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.keys is None) == (self.match is None) or (self.to is None) != (self.match is None):
            raise ValueError("write either `match` and `to`, or `keys: {old: new}`")
        if self.count is not None and self.at_least is not None:
            raise ValueError("`count` and `at_least` exclude each other")
        return self

    def lint(self, at: Path) -> Iterator[RecipeError]:
        """Faults of the pattern and of what `to` refers to."""
        if self.match is None or self.to is None:
            return
        field = "match"
        try:
            pattern = compile_pattern(self.match)
            field = "to"
            compile_template(self.to, pattern)
        except RecipeError as error:
            error.at = (*at, field)
            yield error

    def compiled(self) -> tuple[Pattern, Template]:
        """The pattern and the `to` of a rule that has them."""
        assert self.match is not None
        assert self.to is not None
        pattern = compile_pattern(self.match)
        return pattern, compile_template(self.to, pattern)


def broken_promises(rule: NameRule, touched: int, present: Container[str], state: State, at: Path) -> Iterator[SurgeryError]:
    """What a rule promised and did not keep: exact keys that exist (`present`), a match, a number of keys."""

    if rule.keys is not None and not rule.optional:
        absent = [key for key in rule.keys if key not in present]
        if absent:
            yield missing(absent, state, at=(*at, "keys", absent[0]))
    elif rule.match is not None and not touched and not rule.optional and rule.count is None:
        yield nothing_matched(rule.match, state.table, (*at, "match"))
    wanted = rule.count if rule.count is not None else rule.at_least
    if wanted is not None and (touched < wanted or (rule.count is not None and touched != wanted)):
        word = "count" if rule.count is not None else "at_least"
        yield PlanError(
            f"{plural(touched, 'key')} touched, {word.replace('_', ' ')} {wanted:,} wanted",
            code="wrong-count",
            at=(*at, word),
            help="look at the keys with `surgery inspect`, or correct the number",
            data={"selected": touched},
        )


def collision(collisions: Mapping[str, Sequence[str]]) -> KeyCollisionError:
    """The error for keys that would become one: all of them, the first spelled out."""
    new, old = next(iter(collisions.items()))
    more = len(collisions) - 1
    notes = [f"from {listed(list(old))}"]
    if more:
        notes.append(f"{plural(more, 'more collision')}: " + listed([f"`{key}`" for key in list(collisions)[1:]]))
    return KeyCollisionError(
        f"{len(old)} keys would both become `{new}`" if len(old) == 2 else f"{len(old)} keys would all become `{new}`",
        notes=notes,
        help="capture what tells them apart, such as `layer_(\\d+)`; drop one; or set `replace: true` to let the renamed win",
        data={"collisions": {key: list(sources) for key, sources in collisions.items()}},
    )
