"""Selecting keys: the same words, the same strictness and the same messages in every step."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from surgery import keys as keytext
from surgery.errors import NotFoundError, PlanError, RecipeError, SurgeryError, listed, plural
from surgery.kinds import OneOrMany
from surgery.models import Field, Model, model_validator
from surgery.patterns import Clock, Pattern, compile_pattern
from surgery.replacement import compile_template
from surgery.steps.base import Rules, State, absent, given
from surgery.table import Table
from surgery.tensors import TensorSpec
from surgery.where import Path, Texts, Where, has_companions, in_groups, lint_having, placed, texts


class Facts(Model):
    """What keys can be selected by. All given words must hold."""

    RULES: ClassVar[Rules] = ({"anyOf": [absent("having"), given("match")]},)

    match: Texts | None = Field(None, description="regular expression searched anywhere in the key; a list: any of them")
    keys: Texts | None = Field(None, description="one key or a list, exact or glob: `*` stops at / and ., `**` does not")
    where: Where | None = Field(None, description="facts: dtype, ndim, shape, min_bytes, max_bytes, named groups of match")

    having: Texts | None = Field(None, description="other keys that must exist too: what `rename` would make of the key with this as its `to`")

    @model_validator
    def _having_a_match(self) -> Self:
        if self.having is not None and self.match is None:
            raise ValueError("`having` is worked out from `match`")
        return self

    def given(self) -> bool:
        """True if anything is selected by."""
        return bool(self.match or self.keys or self.where)

    def lint_facts(self, at: Path = ()) -> Iterator[RecipeError]:
        """Faults of patterns and of `where`."""
        patterns: list[Pattern] = []
        for path, text in placed(self.match, (*at, "match")):
            try:
                patterns.append(compile_pattern(text))
            except RecipeError as error:
                error.at = path
                yield error
        groups = {name for pattern in patterns for name in pattern.compiled.groupindex}
        yield from lint_having(self.having, patterns, (*at, "having"))
        if self.where is not None:
            yield from self.where.lint(groups, (*at, "where"))


class Selector(Facts):
    """The selecting words every step shares, and how strict they are."""

    RULES: ClassVar[Rules] = ({"not": given("count", "at_least")},)

    except_: Annotated[list[Facts], Field(min_length=1), OneOrMany()] | None = Field(
        None, alias="except", description="any of these, taken away again"
    )
    optional: bool = Field(False, description="allow the rule to touch nothing")
    count: Annotated[int, Field(ge=0)] | None = Field(None, description="touch exactly this many keys")
    at_least: Annotated[int, Field(ge=0)] | None = Field(None, description="touch this many keys or more")

    @model_validator
    def _one_demand(self) -> Self:
        if self.count is not None and self.at_least is not None:
            raise ValueError("`count` and `at_least` exclude each other")
        return self

    def lint_selector(self, at: Path = ()) -> Iterator[RecipeError]:
        """Faults of all selecting words."""
        yield from self.lint_facts(at)
        for index, facts in enumerate(self.except_ or ()):
            yield from facts.lint_facts((*at, "except", index))
            if not facts.given():
                yield RecipeError("`except` selects nothing", code="needs-selector", at=(*at, "except", index), help="add `match`, `keys` or `where`")


class Selection(NamedTuple):
    """The selected keys in table order, and the faults met on the way (a rule that touched nothing, a missing key)."""

    keys: list[str]
    faults: list[SurgeryError]


class _Matcher:
    """Facts compiled for one table; remembers which of its texts touched anything."""

    def __init__(self, facts: Facts, table: Table, clock: Clock) -> None:
        self.table = table
        self.clock = clock
        self.patterns: list[Pattern] = [compile_pattern(text) for text in texts(facts.match)]
        self.exact = {keytext.literal(text) for text in texts(facts.keys) if not keytext.is_glob(text)}
        self.globs = [(text, keytext.glob(text)) for text in texts(facts.keys) if keytext.is_glob(text)]
        self.by_keys = facts.keys is not None
        self.holds = facts.where.test() if facts.where else None
        self.groups = facts.where.groups() if facts.where else {}
        self.having = {pattern.text: [compile_template(text, pattern) for text in texts(facts.having)] for pattern in self.patterns}
        self.touched: set[str] = set()

    def selects(self, key: str) -> bool:
        """Whether all facts hold for this key."""
        if self.by_keys:
            named = key in self.exact
            for text, compiled in self.globs:
                if compiled.fullmatch(key):
                    self.touched.add(text)
                    named = True
            if not named:
                return False
        if self.patterns:
            fitting = None  # of several patterns the first that fits: it is the one that a `to` goes by
            for pattern in self.patterns:
                match = pattern.search(key, self.clock)
                if match is not None:
                    self.touched.add(pattern.text)
                    if fitting is None and in_groups(self.groups, match):
                        fitting = pattern.text, match
            if fitting is None or not has_companions(fitting[1], self.having[fitting[0]], self.table):
                return False
        return self.holds is None or self.holds(self.table[key].expr.spec)


def timed_out(pattern: str, at: Path) -> PlanError:
    """The error for patterns that take too long."""
    return PlanError(
        f"`{pattern}` takes too long on these keys",
        code="pattern-timeout",
        at=at,
        help="avoid repeats inside repeats such as `(a+)+`; anchor the pattern with ^ or $",
    )


def select(selector: Selector, state: State, default: Callable[[TensorSpec], bool] | None = None, at: Path = ()) -> Selection:
    """The keys of the table that a selector means.

    Without any selecting word: all keys, or those whose spec satisfies `default`. Each exact key must exist, each glob and
    each pattern must touch something, unless the selector is optional; `count` and `at_least` are about the final number.
    """
    table = state.table
    if not selector.given() and selector.except_ is None and default is None:
        chosen, faults = list(table), list[SurgeryError]()
    else:
        chosen, faults = _walk(selector, state, default, at)
    return Selection(chosen, faults or _number(selector, len(chosen), table, at))


def _walk(selector: Selector, state: State, default: Callable[[TensorSpec], bool] | None, at: Path) -> tuple[list[str], list[SurgeryError]]:
    table, clock = state.table, Clock.over(len(state.table))
    wanted = _Matcher(selector, table, clock)
    unwanted = [_Matcher(facts, table, clock) for facts in selector.except_ or ()]
    given = selector.given()
    only_exact = wanted.by_keys and not wanted.globs and not wanted.patterns
    candidates: Sequence[str] = [key for key in table if key in wanted.exact] if only_exact else list(table)
    chosen: list[str] = []
    try:
        for key in candidates:
            if given:
                if not wanted.selects(key):
                    continue
            elif default is not None and not default(table[key].expr.spec):
                continue
            if unwanted and any(facts.selects(key) for facts in unwanted):
                continue
            chosen.append(key)
    except TimeoutError:
        raise timed_out(listed(texts(selector.match)), (*at, "match")) from None
    except PlanError as error:
        error.at = (*at, *error.at)
        raise
    faults = [] if selector.optional else _untouched(selector, wanted, state, at)
    if not faults and not chosen and not selector.optional and selector.count is None and table:
        faults = [
            PlanError(
                f"the selection is empty: none of {plural(len(table), 'key')} fits all of its words",
                code="nothing-matched",
                at=at,
                help="loosen `where`, `having` or `except`, or set `optional: true`",
            )
        ]
    return chosen, faults


def _untouched(selector: Selector, wanted: _Matcher, state: State, at: Path) -> list[SurgeryError]:
    table = state.table
    faults: list[SurgeryError] = []
    absent = [(path, keytext.literal(text)) for path, text in placed(selector.keys, (*at, "keys")) if not keytext.is_glob(text)]
    absent = [(path, key) for path, key in absent if key not in table]
    if absent:
        faults.append(missing([key for _, key in absent], state, at=absent[0][0]))
    for path, text in placed(selector.keys, (*at, "keys")):
        if keytext.is_glob(text) and text not in wanted.touched:
            faults.append(_glob_matched_nothing(text, table, path))
    faults += [nothing_matched(text, table, path) for path, text in placed(selector.match, (*at, "match")) if text not in wanted.touched]
    return faults


def _number(selector: Selector, chosen: int, table: Table, at: Path) -> list[SurgeryError]:
    if selector.count is not None and chosen != selector.count:
        word, demand = "count", f"exactly {selector.count:,}"
    elif selector.at_least is not None and chosen < selector.at_least:
        word, demand = "at_least", f"at least {selector.at_least:,}"
    else:
        return []
    return [
        PlanError(
            f"{plural(chosen, 'key')} of {len(table):,} selected, {demand} wanted",
            code="wrong-count",
            at=(*at, word),
            help=f"{how_to_look(table)}, or correct the number",
            data={"selected": chosen},
        )
    ]


def nothing_matched(text: str, table: Table, at: Path, note: str = "", help: str = "") -> PlanError:
    """The error for a rule that touches no key. `help` is a spelling that would."""
    help = f"{help or how_to_look(table)}{';' if help else ','} or set `optional: true`"
    return PlanError(f"`{text}` matches none of {plural(len(table), 'key')}", code="nothing-matched", at=at, notes=[note], help=help)


def _glob_matched_nothing(text: str, table: Table, at: Path) -> PlanError:
    note = "globs are case-sensitive and cover the whole key; `*` stops at `/` and `.`, `**` does not"
    folded = keytext.glob(text.lower())
    hits = [key for key in table if folded.fullmatch(key.lower())]
    if hits:
        return nothing_matched(text, table, at, note, f"{plural(len(hits), 'key')} would match without regard to case, such as `{hits[0]}`")
    wider = keytext.glob(f"**{text.strip('*')}**")
    hits = [key for key in table if wider.fullmatch(key)]
    return nothing_matched(text, table, at, note, f"`**{text.strip('*')}**` matches {len(hits):,}" if hits else "")


def missing(
    wanted: Sequence[str],
    state: State,
    *,
    at: Path,
    searched: str = "",
    among: Mapping[str, Any] | None = None,
    wanted_by: str = "",
) -> NotFoundError:
    """TensorFlow's sentence for the first missing key, with all of them, where was searched, near names and what became of them."""
    table: Mapping[str, Any] = state.table if among is None else among
    look = how_to_look(state.table) if among is None else _inspect([searched])
    searched = searched or listed(_sources(state.table), 3) or "the table"
    count = plural(len(wanted), "key")
    has = f"which has {len(table):,}" if among is not None else f"{len(table):,} in the table at this point"
    notes = [f"{count}{wanted_by} {'is' if len(wanted) == 1 else 'are'} missing in {searched}, {has}"]
    if len(wanted) > 1:
        notes.append("missing: " + listed(list(wanted), 20) + (" (`--json` lists all)" if len(wanted) > 20 else ""))
    if among is None:
        notes += _fates(wanted, state)
    close = list(dict.fromkeys(name for key in wanted[:3] for name in keytext.near_names(key, table)))
    return NotFoundError(
        f"Key {wanted[0]} not found in checkpoint",
        sentence=True,
        at=at,
        notes=notes,
        help=f"near names: {listed(close)}" if close else look,
        data={"keys": list(wanted), "searched": searched, "near": close},
    )


def _sources(table: Table) -> list[str]:
    return sorted({entry.source for entry in table.values() if entry.source})


def how_to_look(table: Table) -> str:
    """The command that lists the keys of a table's checkpoints."""
    return _inspect(_sources(table)) if _sources(table) else "look at the steps before this one"


def _inspect(paths: Sequence[str]) -> str:
    return "list the keys with " + " and ".join(f"`surgery inspect {shlex.quote(path)}`" for path in paths[:2])


def _fates(wanted: Sequence[str], state: State) -> list[str]:
    """What earlier steps did to keys that are missing now: dropped, renamed, or made into others."""
    notes = []
    asked = set(wanted)
    for dropped in state.dropped:
        gone = [key for key in dropped.keys if key in asked]
        if gone:
            notes.append(f"steps[{dropped.step}] dropped {listed(gone)}")
    became: dict[tuple[int, str], list[str]] = {}
    for key, entry in state.table.items():
        hop = entry.trail
        while hop.before is not None:
            if hop.key in asked:
                became.setdefault((hop.step, hop.key), []).append(key)
            hop = hop.before
    notes += [
        f"steps[{step}] renamed `{old}`; it is now `{new[0]}`" if len(new) == 1 else f"steps[{step}] made {listed(new)} of `{old}`"
        for (step, old), new in sorted(became.items())[:3]
    ]
    return notes


def drop(state: State, keys: Sequence[str]) -> State:
    """The state without these keys, remembering which step took them."""
    return state.rows(state.table.without(keys)).lost(keys)
