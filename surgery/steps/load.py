"""`load`: adds a checkpoint's tensors to the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Self

from surgery import formats
from surgery.errors import RecipeError, near
from surgery.models import Field, model_validator
from surgery.select import Selector, missing, select
from surgery.steps.base import Reads, Rules, State, Step, absent
from surgery.steps.naming import collision
from surgery.steps.paths import impossible_path
from surgery.table import Entry, Table, Trail


class Load(Step, Selector):
    """Adds a checkpoint's tensors. A key that is already there is an error unless `replace: true`."""

    word: ClassVar[str] = "load"
    example: ClassVar[str] = "{path: …}"
    RULES: ClassVar[Rules] = ({"anyOf": [absent("var_list"), absent("match", "keys", "where", "except", "count", "at_least")]},)
    path: str = Field(description="a file, a TensorFlow prefix, a sharded folder or its index, a folder with a `checkpoint` file")
    format: str | None = Field(None, description="the format's name where its content does not tell")
    scope: str | None = Field(None, description="put every key under this prefix")
    var_list: Annotated[list[str], Field(min_length=1)] | Annotated[dict[str, str], Field(min_length=1)] | None = Field(
        None, description="take only these keys; a mapping {a: d} takes `a` under the name `d`, as tf.train.Saver does"
    )
    replace: bool = Field(False, description="a loaded tensor wins over one that has its key")

    @model_validator
    def _one_choice(self) -> Self:
        words = (self.match, self.keys, self.where, self.except_, self.count, self.at_least)
        if self.var_list is not None and any(word is not None for word in words):
            raise ValueError("`var_list` and selecting words exclude each other")
        return self

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        yield from impossible_path(self.path)
        yield from unknown_format(self.format)
        if self.scope and (self.scope[-1].isalnum() or self.scope[-1] == "_"):
            yield RecipeError(
                f"the scope `{self.scope}` does not end with a separator",
                code="open-prefix",
                at=("scope",),
                help=f"write `{self.scope}/` or `{self.scope}.`",
            )

    def reads(self) -> Iterator[Reads]:
        yield Reads(self.path, self.format, False, ("path",))

    def rewrite(self, state: State) -> State:
        source = state.catalog.checkpoints[self.path]
        rows = {key: Entry(expr, Trail(state.step, key), source.location) for key, expr in source.tensors.items()}
        loaded = state.rows(Table(rows))
        if self.var_list is not None:
            names = self.var_list if isinstance(self.var_list, dict) else {key: key for key in self.var_list}
            absent = [key for key in names if key not in rows]
            if absent and not self.optional:
                at = ("var_list", absent[0]) if isinstance(self.var_list, dict) else ("var_list", self.var_list.index(absent[0]))
                state = state.fault(missing(absent, loaded, at=at, searched=self.path, among=loaded.table))
            chosen = [key for key in names if key in rows]
        else:
            selection = select(self, loaded)
            state = state._replace(faults=(*state.faults, *selection.faults))
            names, chosen = {}, selection.keys
        prefix = self.scope or ""
        kept = loaded.table if len(chosen) == len(loaded.table) else loaded.table.only(chosen)
        new_names = {key: prefix + names.get(key, key) for key in kept} if prefix or names else {}
        table, collisions, _ = kept.rekey(new_names, state.step)
        if collisions:
            raise collision(collisions, help="give each of them a name of its own in `var_list`")
        standing = [key for key in table if key in state.table] if state.table else []
        clashes = {} if self.replace else {key: (key, table[key].root.key) for key in standing}
        if clashes:
            key = next(iter(clashes))
            leave_out = "leave it out of `var_list`" if self.var_list is not None else "leave it out with `except`"
            raise collision(
                clashes,
                spelled=[_origin(state.table[key]), _origin(table[key])],
                help=f"load one of them under a `scope`, {leave_out}, or set `replace: true`",
            )
        return state.lost(standing).rows(state.table.plus(table))


def _origin(entry: Entry) -> str:
    return f"`{entry.root.key}` of {entry.source}" if entry.source else f"`{entry.root.key}` made by steps[{entry.root.step}]"


def unknown_format(name: str | None) -> Iterator[RecipeError]:
    """The error for a format name that does not exist."""
    if name is not None and name not in formats.NAMES:
        close = near(name, formats.NAMES)
        yield RecipeError(
            f"no format is called `{name}`",
            code="unknown-format",
            at=("format",),
            help=f"did you mean `{close[0]}`?" if close else f"formats are {', '.join(formats.NAMES)}",
        )


STEP = Load
