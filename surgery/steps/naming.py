"""What `rename` and `copy` share: rules that give tensors names, and the messages when names collide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from surgery.errors import KeyCollisionError, PlanError, RecipeError, SurgeryError, listed, plural
from surgery.models import Field, Model, model_validator
from surgery.patterns import Clock, Pattern, compile_pattern
from surgery.replacement import compile_template
from surgery.select import Facts, how_to_look, missing, nothing_matched, timed_out
from surgery.steps.base import Rules, State, absent, given
from surgery.tensors import TensorSpec
from surgery.where import Path, Texts, Where, has_companions, in_groups, texts


class NameRule(Model):
    """One rule: `match` and `to`, or exact names under `keys`."""

    RULES: ClassVar[Rules] = (
        {"anyOf": [{"allOf": [given("match", "to"), absent("keys")]}, {"allOf": [given("keys"), absent("match", "to", "having")]}]},
        {"not": given("count", "at_least")},
    )

    match: str | None = Field(None, description="regular expression searched anywhere in the key")
    to: str | None = Field(None, description="what the match becomes: \\1, \\g<name>, {n+8}")
    keys: Mapping[str, Texts] | None = Field(None, description="old key → new key, exact and simultaneous", min_length=1)
    all: bool = Field(False, description="replace each match in a key, not only the first")
    where: Where | None = Field(None, description="only tensors with these facts")
    having: Texts | None = Field(None, description="with `match`: other keys that must exist too, worked out as `to` is")
    optional: bool = Field(False, description="allow the rule to touch nothing")
    count: Annotated[int, Field(ge=0)] | None = Field(None, description="touch exactly this many keys")
    at_least: Annotated[int, Field(ge=0)] | None = Field(None, description="touch this many keys or more")
    replace: bool = Field(False, description="the new name wins over a tensor that already has it")

    @model_validator
    def _one_form(self) -> Self:
        if (self.keys is None) == (self.match is None) or (self.to is None) != (self.match is None):
            raise ValueError("write either `match` and `to`, or `keys: {old: new}`")
        if self.having is not None and self.match is None:
            raise ValueError("`having` is worked out from `match`")
        if self.count is not None and self.at_least is not None:
            raise ValueError("`count` and `at_least` exclude each other")
        return self

    def lint(self, at: Path) -> Iterator[RecipeError]:
        """Faults of the pattern, of what `to` refers to, and of `where`."""
        faults = list(Facts(match=self.match, where=self.where, having=self.having).lint_facts(at))
        yield from faults
        if self.match is not None and self.to is not None and not any(fault.at == (*at, "match") for fault in faults):
            try:
                compile_template(self.to, compile_pattern(self.match))
            except RecipeError as error:
                error.at = (*at, "to")
                yield error

    def apply(self, names: Sequence[str], spec_of: Callable[[int], TensorSpec], clock: Clock) -> Applied:
        """What the rule makes of these names; `spec_of` tells the tensor at a position. Raises TimeoutError, PlanError."""
        absent: list[str] = []
        if self.keys is not None:
            wanted = {name: texts(new) for name, new in self.keys.items()}
            changes = [(position, new) for position, name in enumerate(names) if name in wanted for new in wanted[name]]
            present = wanted.keys() & set(names)
            absent = [name for name in wanted if name not in present]
        else:
            assert self.match is not None
            assert self.to is not None
            pattern = compile_pattern(self.match)
            accept = self._acceptance(names, pattern)
            changes = pattern.substitutions(names, compile_template(self.to, pattern), self.all, clock, accept)
        if self.where is not None:
            holds = self.where.test()
            changes = [(position, new) for position, new in changes if holds(spec_of(position))]
        return Applied(changes, absent)

    def _acceptance(self, names: Sequence[str], pattern: Pattern) -> Callable[[Any], bool] | None:
        """What is asked of a key's match beside being there: numbers within bounds, and other keys."""
        groups = self.where.groups() if self.where else {}
        if self.having is None:
            return partial(in_groups, groups) if groups else None
        templates = [compile_template(text, pattern) for text in texts(self.having)]
        there = frozenset(names)
        return lambda match: in_groups(groups, match) and has_companions(match, templates, there)


class Applied(NamedTuple):
    """Positions of names with what they become (several times where a key is copied to several), and exact keys that are not there."""

    changes: list[tuple[int, str]]
    absent: list[str]


@contextmanager
def blamed_on(rule: NameRule, index: int) -> Iterator[None]:
    """Faults get the place of the rule that met them."""
    try:
        yield
    except TimeoutError:
        raise timed_out(rule.match or "", (index, "match")) from None
    except PlanError as error:
        error.at = (index, *(error.at or ("to",)))
        raise


def broken_promises(rule: NameRule, touched: int, absent: Sequence[str], state: State, at: Path) -> Iterator[SurgeryError]:
    """What a rule promised and did not keep: exact keys that exist, a match, a number of keys."""
    if absent and not rule.optional:
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
            help=f"{how_to_look(state.table)}, or correct the number",
            data={"selected": touched},
        )


CAPTURE = "capture what tells them apart, such as `layer_(\\d+)`; drop one; or set `replace: true` to let the renamed win"


def collision_help(rules: Sequence[NameRule]) -> str:
    """What to do about a collision that these rules make."""
    return CAPTURE if any(rule.match is not None for rule in rules) else "give each of them a key of its own, or `drop` one first"


def collision(collisions: Mapping[str, Sequence[str]], *, spelled: Sequence[str] = (), help: str = CAPTURE) -> KeyCollisionError:
    """The error for keys that would become one: all of them, the first spelled out (as `spelled`, where keys alone do not tell enough)."""
    new, old = next(iter(collisions.items()))
    more = len(collisions) - 1
    notes = [f"from {listed(spelled or list(old))}"]
    if more:
        notes.append(f"{plural(more, 'more collision')}: " + listed([f"`{key}`" for key in list(collisions)[1:]]))
    return KeyCollisionError(
        f"{len(old)} keys would both become `{new}`" if len(old) == 2 else f"{len(old)} keys would all become `{new}`",
        notes=notes,
        help=help,
        data={"collisions": {key: list(sources) for key, sources in collisions.items()}},
    )
