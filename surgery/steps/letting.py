"""Tensors by names: patterns under `let`, whose keys belong together where `to` makes one name of them.

This is `joining` for members that have names instead of places. A pattern without groups, where `to` uses some, is one tensor for all results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, Self, TypeVar

from surgery.errors import PlanError, RecipeError, SurgeryError, listed, plural
from surgery.kinds import OneOrMany
from surgery.models import Field, model_validator
from surgery.patterns import compile_pattern
from surgery.replacement import compile_template
from surgery.select import Facts, Selector, nothing_matched, select
from surgery.steps.base import Rules, State, Step
from surgery.steps.groups import lint_names
from surgery.steps.joining import Member, complete, group
from surgery.where import Path, Where

E = TypeVar("E", bound=SurgeryError)


class Tensors(NamedTuple):
    """What a `let` means: for each result its keys by name (those of its own first), and the faults met on the way."""

    groups: Mapping[str, Mapping[str, str]]
    faults: Sequence[SurgeryError]


class Letting(Step):
    """Fields and checks of a step that names its tensors."""

    RULES: ClassVar[Rules] = Selector.RULES

    let: dict[str, str] = Field(description="name → regular expression for its tensors, searched anywhere in the key", min_length=1)
    to: str = Field(description="what the match becomes, as in `rename`; keys that become the same belong together")
    keep_inputs: bool = Field(False, description="keep the tensors of `let`, too")
    incomplete: Literal["error", "skip"] = Field("error", description="what becomes of a group that lacks a member: skip leaves it alone")
    where: Where | None = Field(None, description="only tensors with these facts, and named groups of the patterns")
    except_: Annotated[list[Facts], Field(min_length=1), OneOrMany()] | None = Field(
        None, alias="except", description="any of these, taken away again"
    )
    optional: bool = Field(False, description="allow the patterns to match nothing")
    count: Annotated[int, Field(ge=0)] | None = Field(None, description="take exactly this many keys")
    at_least: Annotated[int, Field(ge=0)] | None = Field(None, description="take this many keys or more")

    @model_validator
    def _one_demand(self) -> Self:
        if self.count is not None and self.at_least is not None:
            raise ValueError("`count` and `at_least` exclude each other")
        return self

    def lint_let(self) -> Iterator[RecipeError]:
        """Faults of the patterns, of the other selecting words, and of what `to` refers to."""
        faults = [_in_let(fault, list(self.let)) for fault in self._selector(list(self.let)).lint_selector()]
        yield from faults or lint_names(self._selector(self._own_names()), self.to)

    def tensors(self, state: State) -> Tensors:
        """The tensors of each result. Raises PlanError where groups cannot be made out."""
        shared, faults = self._shared(state)
        own = self._own_names()
        try:
            chosen = select(self._selector(own), state)
            faults += [_in_let(fault, own) for fault in chosen.faults]
            found = {} if faults else group(self._selector(own), chosen.keys, self.to)
        except PlanError as fault:
            raise _in_let(fault, own) from None
        groups = {name: _by_place(name, members, own) for name, members in found.items()}
        present = {*shared, *(own[at] for members in groups.values() for at in members)}
        unmatched = [name for name in self.let if groups and name not in present]
        if unmatched:  # as `optional` allows it: there is no group that could be complete
            faults += [nothing_matched(self.let[name], state.table, ("let", name)) for name in unmatched if self.incomplete == "error"]
            return Tensors({}, faults)
        whole, lacking = complete({name: list(members.values()) for name, members in groups.items()}, self.incomplete)
        if lacking is not None:
            lacking.at, lacking.help = ("let",), lacking.help.replace("`match`", "`let`")
            faults.append(lacking)
        return Tensors({name: {own[member.place[0]]: member.key for member in members} | shared for name, members in whole.items()}, faults)

    def _own_names(self) -> list[str]:
        """The names whose tensors differ from result to result."""
        try:
            compile_template(self.to, None)
        except RecipeError:
            return [name for name, pattern in self.let.items() if compile_pattern(pattern).compiled.groups]
        return list(self.let)

    def _selector(self, names: Sequence[str]) -> Selector:
        words = {word: getattr(self, word) for word in ("where", "except_", "optional", "count", "at_least")}
        return Selector(match=[self.let[name] for name in names], **words)

    def _shared(self, state: State) -> tuple[dict[str, str], list[SurgeryError]]:
        """The keys of the other names, each of which has to mean one tensor."""
        keys: dict[str, str] = {}
        faults: list[SurgeryError] = []
        own = self._own_names()
        for name in self.let:
            if name not in own:
                chosen = select(Selector(match=[self.let[name]], optional=self.optional), state)
                faults += [_in_let(fault, [name]) for fault in chosen.faults] + ([_several(name, chosen.keys)] if len(chosen.keys) > 1 else [])
                keys.update((name, key) for key in chosen.keys)
        return keys, faults


def _by_place(name: str, members: Sequence[Member], own: Sequence[str]) -> dict[int, Member]:
    """The one member of a group for each pattern, by the number of the pattern. Raises PlanError where a pattern has several."""
    found: dict[int, Member] = {}
    for member in members:
        at = member.place[0]
        if at in found:
            raise PlanError(
                f"two tensors of `{name}` would be `{own[at]}`",
                code="repeated-member",
                at=("let", own[at]),
                notes=[f"`{found[at].key}` and `{member.key}`"],
                help="use what tells them apart in `to`, or take one away with `except`",
            )
        found[at] = member._replace(place=(at,), spans=())
    return found


def _several(name: str, keys: Sequence[str]) -> PlanError:
    return PlanError(
        f"`{name}` is one tensor for all results, and {plural(len(keys), 'key')} match",
        code="repeated-member",
        at=("let", name),
        notes=[listed(keys)],
        help="match one of them; or capture what `to` uses, such as `^(.*)\\.weight$`, for one in each group",
    )


def _in_let(fault: E, names: Sequence[str]) -> E:
    """A fault of the list of patterns, at the place of the name in `let`."""
    at: Path = fault.at
    if at[:1] == ("match",):
        fault.at = ("let", names[at[1]]) if len(at) > 1 and isinstance(at[1], int) else ("let",)
    return fault
