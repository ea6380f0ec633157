"""`init_missing`: adds every wanted key that is absent, and never changes one that is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from surgery.errors import PlanError, RecipeError, SurgeryError, listed, plural
from surgery.kinds import OneOrMany
from surgery.models import Field, Model
from surgery.patterns import compile_pattern
from surgery.steps.base import State, Wanted
from surgery.steps.mismatch import mismatches
from surgery.steps.targets import Init, Targets, lint_init
from surgery.table import Entry, Trail
from surgery.where import Texts, placed, texts


class InitRule(Model):
    """Which missing keys get which initializer."""

    match: Texts = Field(description="regular expression searched anywhere in the key; a list: any of them")
    init: Init = Field(description="the initializer")


class InitMissing(Targets):
    """Adds every wanted (and selected) key that is absent. A restored value can't be overwritten.

    The initializer is the first of: the first rule that matches, the variable's own `init`, the step's `init`.
    """

    word: ClassVar[str] = "init_missing"
    example: ClassVar[str] = "{like: …}"
    init: Init | None = Field(None, description="zeros, ones, {normal: {std: 0.02}}, glorot_uniform, …")
    rules: Annotated[list[InitRule], Field(min_length=1), OneOrMany()] | None = Field(None, description="[{match, init}], the first that matches")
    seed: int = Field(0, description="seed of random initializers; seed and key give the same bits everywhere")

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_targets()
        if self.init is not None:
            yield from lint_init(self.init, ("init",))
        for index, rule in enumerate(self.rules or ()):
            yield from lint_init(rule.init, ("rules", index, "init"))
            for at, text in placed(rule.match, ("rules", index, "match")):
                try:
                    compile_pattern(text)
                except RecipeError as error:
                    error.at = at
                    yield error

    def rewrite(self, state: State) -> State:
        wanted = self.select_wanted(state, self.wanted(state))
        faults = mismatches(misfit for misfit in self.misfits(state, wanted) if not misfit.of_dtype)
        absent = {key: target for key, target in wanted.items() if key not in state.table}
        rows, more = self._made(absent, state.step)
        return state._replace(table=state.table.plus(rows), faults=(*state.faults, *faults, *more))

    def _made(self, absent: Mapping[str, Wanted], step: int) -> tuple[dict[str, Entry], list[SurgeryError]]:
        from surgery.expr import Fill
        from surgery.initializers import check, parse

        rows: dict[str, Entry] = {}
        without_spec: list[str] = []
        without_init: list[str] = []
        unfit: dict[str, list[tuple[str, str]]] = {}
        for key, target in absent.items():
            init = self._init_of(key, target)
            if target.spec is None:
                without_spec.append(key)
            elif init is None:
                without_init.append(key)
            else:
                initializer = parse(init)
                reason = check(initializer, target.spec)
                if reason is not None:
                    unfit.setdefault(str(init), []).append((f"`{key}` {target.spec}", reason))
                rows[key] = Entry(Fill(target.spec, initializer, self.seed, key), Trail(step, key))
        faults: list[SurgeryError] = [_unfit(found) for found in unfit.values()]
        if without_spec:
            faults.append(
                PlanError(
                    f"{self.target_name} tells the name of {plural(len(without_spec), 'missing key')} and no shape",
                    code="no-spec",
                    at=("like",),
                    notes=[listed(without_spec)],
                    help="use the checkpoint itself as `like`, or spell them out under `variables`",
                )
            )
        if without_init:
            faults.append(
                PlanError(
                    f"{plural(len(without_init), 'missing key')} without an initializer",
                    code="no-initializer",
                    notes=[listed(without_init, 20)],
                    help="add `init: zeros` (or another), or a rule that matches them",
                    data={"keys": without_init},
                )
            )
        return rows, faults

    def _init_of(self, key: str, target: Wanted) -> str | Mapping[str, Any] | None:
        for rule in self.rules or ():
            if any(compile_pattern(text).compiled.search(key, timeout=1) for text in texts(rule.match)):
                return rule.init
        return target.init if target.init is not None else self.init


def _unfit(found: list[tuple[str, str]]) -> PlanError:
    """The error for tensors that one initializer cannot make, each with the reason."""
    (first, reason), *others = found
    more = f"{plural(len(others), 'more tensor')}: {listed([name for name, _ in others])}" if others else ""
    return PlanError(f"{first}: {reason}", code="bad-initializer", notes=[more], help="choose another `init` for it")


STEP = InitMissing
