"""What steps share that make one tensor of several: which belong together, in which order, and whether any is missing.

`to`, worked out for each selected key, is the name of its group. Its place in the group is the pattern of `match` that it fits (in the
list's order), and then the numbers in those parentheses of the pattern that `to` does not use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any, ClassVar, Literal, NamedTuple

from surgery import keys as keytext
from surgery.errors import PlanError, RecipeError, SurgeryError, listed, plural
from surgery.expr import Expr
from surgery.models import Field
from surgery.patterns import Clock, Pattern, compile_pattern
from surgery.replacement import Number, Template, compile_template
from surgery.select import Selector, select, timed_out
from surgery.steps.base import State, Step
from surgery.steps.groups import lint_names, put_in_place
from surgery.where import in_groups, texts

Place = tuple[int, ...]
"""Of a member in its group: the pattern, then the numbers."""

_MOST_LOOKED_AT = 10_000
"""Missing members that are made out; a key with a huge number must not cost as much memory."""


class Member(NamedTuple):
    """A selected key as a part of a group; `spans` are where its numbers stand in the key."""

    key: str
    place: Place
    spans: tuple[tuple[int, int], ...] = ()


class Joining(Step, Selector):
    """Fields and checks of the steps that make one tensor of each group; what they make of one is their `join`."""

    to: str = Field(description="what the match becomes, as in `rename`; keys that become the same belong together")
    keep_inputs: bool = Field(False, description="keep the tensors that are joined, too")
    incomplete: Literal["error", "skip"] = Field("error", description="what becomes of a group that lacks a member: skip leaves it alone")

    joined: ClassVar[str] = "joined"
    """What happens to the members, for messages."""

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        yield from lint_names(self, self.to)

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        groups = group(self, chosen.keys, self.to)
        groups, fault = complete(groups, self.incomplete)
        state = state.fault(fault) if fault else state
        results: dict[str, list[tuple[str, Expr]]] = {}
        order = {key: at for at, key in enumerate(state.table)}
        for name, members in groups.items():
            expr = self.join(name, {member.key: state.table[member.key].expr for member in members})
            first, *others = sorted((member.key for member in members), key=order.__getitem__)
            results.setdefault(first, []).append((name, expr))
            results |= {key: [] for key in others}
        return put_in_place(state, results, keep_inputs=self.keep_inputs)

    def join(self, name: str, members: Mapping[str, Expr]) -> Expr:
        """The tensor of one group, of its members in order. Raises PlanError where they do not fit together."""
        raise NotImplementedError

    def unfit(self, name: str, members: Mapping[str, Expr], demand: str, help: str) -> PlanError:
        """The error for members that are not alike enough."""
        return PlanError(
            f"the members of `{name}` cannot be {self.joined}: {demand}",
            code="unlike-members",
            notes=[listed([f"{key} ({expr.spec})" for key, expr in members.items()], 8)],
            help=help,
        )


def whole_elements(step: Joining, name: str, members: Mapping[str, Expr], result: Expr) -> Expr:
    """The result, unless its elements are bits or of no fixed width and would have to be moved one by one. Raises PlanError."""
    if not result.spec.dtype.itemsize and result.view() is None:
        raise step.unfit(name, members, "their elements are no whole bytes", "take them out: `except: [{where: {dtype: …}}]`")
    return result


def group(selector: Selector, keys: Sequence[str], to: str) -> dict[str, list[Member]]:
    """The selected keys by the name that `to` gives to them, each group in order.

    Without `match` all keys are one group in the order of `keys`, those of a glob in the order of their numbers.

    Raises:
        PlanError: two keys have one place in a group, a number is none (`bad-number`), or patterns take too long.
    """
    if selector.match is None:
        name = compile_template(to, None).constant or ""
        return {name: [Member(key, (at,)) for at, key in enumerate(_listed_order(selector, keys))]} if keys else {}
    groups: dict[str, list[Member]] = {}
    patterns = [compile_pattern(text) for text in texts(selector.match)]
    bounds = selector.where.groups() if selector.where else {}
    for name, member in _members(patterns, keys, to, bounds):
        groups.setdefault(name, []).append(member)
    for name, members in groups.items():
        members.sort(key=lambda member: member.place)
        for before, after in pairwise(members):
            if before.place == after.place:
                raise _repeated(name, before, after, patterns)
    return groups


def _listed_order(selector: Selector, keys: Sequence[str]) -> list[str]:
    rank: dict[str, int] = {}
    for at, text in enumerate(texts(selector.keys)):
        glob = keytext.glob(text) if keytext.is_glob(text) else None
        for key in keys if glob else [keytext.literal(text)]:
            if glob is None or glob.fullmatch(key):
                rank.setdefault(key, at)
    return sorted(keys, key=lambda key: (rank.get(key, 0), keytext.natural(key)))


def _members(patterns: Sequence[Pattern], keys: Sequence[str], to: str, bounds: Mapping[str, int | list[int]]) -> Iterator[tuple[str, Member]]:
    templates = [compile_template(to, pattern) for pattern in patterns]
    numbers = [_unused(pattern, template) for pattern, template in zip(patterns, templates, strict=True)]
    clock = Clock.over(len(keys))
    for key in keys:
        at, match = _fitting(patterns, key, bounds, clock)
        try:
            name = key[: match.start()] + templates[at].expand(match) + key[match.end() :]
        except PlanError as error:
            error.at = error.at or ("to",)
            raise
        counted = [number for number in numbers[at] if keytext.is_integer(match.group(number))]
        yield name, Member(key, (at, *(int(match.group(number)) for number in counted)), tuple(match.span(number) for number in counted))


def _fitting(patterns: Sequence[Pattern], key: str, bounds: Mapping[str, int | list[int]], clock: Clock) -> tuple[int, Any]:
    """The first pattern that fits a key which one of them has selected, and its match."""
    try:
        found = ((at, pattern.search(key, clock)) for at, pattern in enumerate(patterns))
        return next((at, match) for at, match in found if match and in_groups(bounds, match))
    except TimeoutError:
        raise timed_out(listed([pattern.text for pattern in patterns]), ("match",)) from None


def _unused(pattern: Pattern, template: Template) -> list[int]:
    """The groups of a pattern, by number, that a `to` does not use."""
    names = pattern.compiled.groupindex
    used = {part for part in template.parts if isinstance(part, int)}
    used |= {names[name] for part in template.parts if isinstance(part, Number) for name in part.names}
    return [number for number in range(1, pattern.compiled.groups + 1) if number not in used]


def _repeated(name: str, one: Member, other: Member, patterns: Sequence[Pattern]) -> PlanError:
    numbered = len(one.place) > 1
    what = f"the number {listed([str(number) for number in one.place[1:]])}" if numbered else f"one place (`{patterns[one.place[0]].text}`)"
    return PlanError(
        f"two members of `{name}` have {what}",
        code="repeated-member",
        at=("match",),
        notes=[f"`{one.key}` and `{other.key}`"],
        help="use what tells them apart in `to`, or select one of them"
        if numbered
        else "let the pattern capture their number, `(?P<i>\\d+)`; or list one pattern for each, in order",
    )


def complete(groups: Mapping[str, list[Member]], incomplete: str) -> tuple[dict[str, list[Member]], SurgeryError | None]:
    """The groups that lack nothing, and the error for the others unless they are to be skipped.

    A group has to have a member at each place that a member of any group has, and numbers count from 0 without a gap.
    """
    wanted = _all_places({member.place for members in groups.values() for member in members})
    lacking = {name: gone for name, members in groups.items() if (gone := _without(wanted, members))}
    whole = {name: members for name, members in groups.items() if name not in lacking}
    if not lacking or incomplete == "skip":
        return whole, None
    name, gone = next(iter(lacking.items()))
    return whole, PlanError(
        f"`{name}` lacks {listed(_lacking(groups[name], gone), 4)}",
        code="incomplete-group",
        at=("match",),
        notes=[
            f"it has {listed([member.key for member in groups[name]], 4)}",
            f"{plural(len(lacking) - 1, 'more group')} with members missing: {listed(list(lacking)[1:])}" if len(lacking) > 1 else "",
        ],
        help="correct `match` or the checkpoint; `incomplete: skip` leaves such groups as they are",
        data={"groups": {name: _lacking(groups[name], gone) for name, gone in lacking.items()}},
    )


def _all_places(places: set[Place]) -> Callable[[], Iterator[Place]]:
    """Every place that a complete group has, in order; those of one pattern have as many numbers as it has of them."""
    boxes = []
    for pattern in range(max((place[0] for place in places), default=-1) + 1):
        numbers = [place[1:] for place in places if place[0] == pattern]
        depth = max(map(len, numbers), default=0)
        boxes.append([max((number[axis] for number in numbers if len(number) > axis), default=0) for axis in range(depth)])
    return lambda: ((pattern, *number) for pattern, tops in enumerate(boxes) for number in _up_to(tops))


def _up_to(tops: Sequence[int]) -> Iterator[Place]:
    """Every row of numbers up to these, one after the other: `itertools.product` would hold all numbers of an axis at once."""
    if not tops:
        yield ()
        return
    for number in range(tops[0] + 1):
        for rest in _up_to(tops[1:]):
            yield (number, *rest)


def _without(wanted: Callable[[], Iterator[Place]], members: Sequence[Member]) -> list[Place]:
    """The places that a group lacks."""
    there = {member.place for member in members}
    return [place for place in islice(wanted(), len(there) + _MOST_LOOKED_AT) if place not in there]


def _lacking(members: Sequence[Member], gone: Sequence[Place]) -> list[str]:
    """The missing members as keys where a neighbour tells how they would be called, else as what is known of them."""
    out = []
    for place in gone:
        kin = next((member for member in members if member.place[0] == place[0] and len(member.place) == len(place)), None)
        out.append(_renumbered(kin, place[1:]) if kin and kin.spans else f"pattern {place[0] + 1} of `match`")
    return out


def _renumbered(kin: Member, numbers: Sequence[int]) -> str:
    key = kin.key
    for (start, stop), number in sorted(zip(kin.spans, numbers, strict=True), reverse=True):
        key = f"{key[:start]}{number:0{stop - start if key[start] == '0' and stop - start > 1 else 0}d}{key[stop:]}"
    return f"`{key}`"
