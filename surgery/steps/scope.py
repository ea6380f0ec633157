"""`scope`: literal prefixes put on, taken off and exchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

from surgery.errors import PlanError, RecipeError, plural
from surgery.models import Field, Model, model_validator
from surgery.select import Selector, select
from surgery.steps.base import Rules, State, Step, absent, given
from surgery.steps.naming import collision
from surgery.where import Texts, placed, texts


class Separator(Model):
    """Which separator becomes which."""

    from_: str = Field(alias="from", min_length=1, description="the separator in the keys")
    to: str = Field(min_length=1, description="the separator they get")


class Scope(Step, Selector):
    """Puts a prefix on, takes prefixes off, or exchanges one. Keys without the prefix stay as they are."""

    word: ClassVar[str] = "scope"
    example: ClassVar[str] = "{strip: …}"
    RULES: ClassVar[Rules] = (
        {"anyOf": [given("add"), given("strip"), given("from", "to"), given("separator")]},
        {"anyOf": [given("from", "to"), absent("from", "to")]},
        {"anyOf": [absent("strip", "from"), absent("add", "from"), absent("add", "strip")]},
        {"anyOf": [given("strip"), {"properties": {"repeat": {"not": {"const": True}}}}]},
    )
    add: str | None = Field(None, description="the prefix to put on, with its separator: encoder/")
    strip: Texts | None = Field(None, description="prefix to take off, or a list: each once, in order, at the front")
    repeat: bool = Field(False, description="take `strip` off until none is left")
    from_: str | None = Field(None, alias="from", description="the prefix to exchange")
    to: str | None = Field(None, description="what it becomes")
    separator: Separator | None = Field(None, description="exchange separators: {from: /, to: .}")

    @model_validator
    def _one_form(self) -> Self:
        forms = [self.add is not None, self.strip is not None, self.from_ is not None]
        if sum(forms) > 1 or (self.from_ is None) != (self.to is None) or not (any(forms) or self.separator):
            raise ValueError("write one of `add`, `strip`, or `from` and `to`; `separator` may stand alone or beside it")
        if self.repeat and self.strip is None:
            raise ValueError("`repeat` goes with `strip`")
        return self

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        prefixes = [*placed(self.add, ("add",)), *placed(self.strip, ("strip",)), *placed(self.from_, ("from",)), *placed(self.to, ("to",))]
        for at, prefix in prefixes:
            if prefix and (prefix[-1].isalnum() or prefix[-1] == "_"):
                yield RecipeError(
                    f"the prefix `{prefix}` does not end with a separator",
                    code="open-prefix",
                    at=at,
                    help=f"write `{prefix}/` or `{prefix}.`; for parts of a name use `rename: {{match: '^{prefix}', to: …}}`",
                )
            if not prefix and at != ("to",) and at != ("from",):
                yield RecipeError("the prefix is empty", code="open-prefix", at=at, help="name a prefix, or leave the step out")

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        if chosen.faults:
            return state._replace(faults=(*state.faults, *chosen.faults))
        names = {key: self._renamed(key) for key in chosen.keys}
        state = self._expect_prefixes(state, chosen.keys)
        table, collisions, _ = state.table.rekey(names, state.step)
        if collisions:
            raise collision(collisions, help="`drop` or `rename` one of them first, or select fewer keys")
        return state.rows(table)

    def _renamed(self, key: str) -> str:
        if self.strip is not None:
            key = self._stripped(key)
        elif self.from_ is not None and key.startswith(self.from_):
            key = (self.to or "") + key[len(self.from_) :]
        elif self.add is not None:
            key = self.add + key
        return key.replace(self.separator.from_, self.separator.to) if self.separator else key

    def _stripped(self, key: str) -> str:
        while True:
            before = key
            for prefix in texts(self.strip):
                key = key.removeprefix(prefix)
            if not self.repeat or key == before:
                return key

    def _expect_prefixes(self, state: State, keys: list[str]) -> State:
        """A prefix that no key has is a slip, unless the step is optional or names several of which one fits."""
        prefixes = [*texts(self.strip), *texts(self.from_ or None)]
        if self.optional or not prefixes or any(key.startswith(prefix) for key in keys for prefix in prefixes):
            return state
        at = ("strip",) if self.strip is not None else ("from",)
        first = next(iter(keys), "")
        return state.fault(
            PlanError(
                f"none of {plural(len(keys), 'key')} starts with `{'` or `'.join(prefixes)}`",
                code="nothing-matched",
                at=at,
                notes=[f"the first key is `{first}`"] if first else [],
                help="correct the prefix, or set `optional: true`",
            )
        )


STEP = Scope
