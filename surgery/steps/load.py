"""`load`: adds a checkpoint's tensors to the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Self

from surgery import formats
from surgery.errors import PlanError, RecipeError, near
from surgery.models import Field, model_validator
from surgery.replacement import compile_template
from surgery.select import Selector, missing, select
from surgery.steps.base import Found, Reads, Rules, State, Step, absent
from surgery.steps.naming import collision
from surgery.steps.paths import impossible_path
from surgery.table import Entry, Table, Trail
from surgery.where import Texts, texts


class Load(Step, Selector):
    """Adds a checkpoint's tensors. A key that is already there is an error unless `replace: true`."""

    word: ClassVar[str] = "load"
    example: ClassVar[str] = "{path: …}"
    RULES: ClassVar[Rules] = ({"anyOf": [absent("var_list"), absent("match", "keys", "where", "except", "count", "at_least")]},)
    path: str = Field(
        description="a file, a TensorFlow prefix, a sharded folder or its index, a folder with a `checkpoint` file; one `*` "
        "stands for the numbers of several files or of their folders"
    )
    format: str | None = Field(None, description="the format's name where its content does not tell")
    scope: str | None = Field(None, description="put every key under this prefix; with a `*` in the path, `{i}` is the number of the file, from 0")
    var_list: Annotated[list[str], Field(min_length=1)] | Annotated[dict[str, str], Field(min_length=1)] | None = Field(
        None, description="take only these keys; a mapping {a: d} takes `a` under the name `d`, as tf.train.Saver does"
    )
    root: Texts | None = Field(None, description="a part of a nested file, or a list: the first that exists; '' is the whole")
    separator: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="what joins the names of a tree to keys, in place of the format's own"
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
        yield from self._lint_scope()

    def _lint_scope(self) -> Iterator[RecipeError]:
        try:
            scope = self._scope(0)
        except RecipeError as error:
            error.at = ("scope",)
            yield error
            return
        if "*" not in self.path and "{i" in scope:
            yield RecipeError(
                "`{i}` numbers the files of a path with `*`", code="bad-option", at=("scope",), help="write `path: 'consolidated.*.pth'`, or no `{i}`"
            )
        if scope and (scope[-1].isalnum() or scope[-1] == "_"):
            yield RecipeError(
                f"the scope `{self.scope}` does not end with a separator",
                code="open-prefix",
                at=("scope",),
                help=f"write `{self.scope}/` or `{self.scope}.`",
            )

    def _scope(self, number: int) -> str:
        """The prefix for the file with this number. Raises RecipeError for a wrong template."""
        if self.scope is None or "*" not in self.path:
            return self.scope or ""
        return compile_template(self.scope, None, (("i", number),)).constant or ""

    def reads(self) -> Iterator[Reads]:
        yield Reads(self.path, self.format, False, ("path",), tuple(texts(self.root)))

    def rewrite(self, state: State) -> State:
        read = next(self.reads())
        files = [self._rows(state, found) for found in state.catalog.of(read)]
        if len(files) > 1 and self._scope(0) == self._scope(1):
            files = [_joined(files)]
        for number, table in enumerate(files):
            state = self._added(state, table, self._scope(number))
        return state

    def _rows(self, state: State, found: Found) -> Table:
        """The tensors of one file, or of a part of it, under the names that are selected by."""
        source = state.catalog.checkpoints[found.path]
        own = formats.separator(source.format)
        if self.separator is not None and not own:
            raise PlanError(
                f"{source.format} does not join names, so `separator` has no meaning",
                code="unknown-option",
                at=("separator",),
                help="`scope: {separator: {from: /, to: .}}` exchanges separators in keys",
            )
        tensors = {key: expr for key, expr in source.tensors.items() if key.startswith(found.prefix)} if found.prefix else source.tensors
        rows = {key: Entry(expr, Trail(state.step, key), source.location) for key, expr in tensors.items()}
        if not found.prefix and self.separator in (None, own):
            return Table(rows)
        names = {key: key[len(found.prefix) :].replace(own, self.separator or own) for key in rows}
        table, collisions, _ = Table(rows).rekey(names, state.step)
        if collisions:
            raise collision(collisions, help="use another `separator`")
        return table

    def _added(self, state: State, table: Table, prefix: str) -> State:
        """The state with what is selected of a table, under a prefix."""
        loaded = state.rows(table)
        if self.var_list is not None:
            names = self.var_list if isinstance(self.var_list, dict) else {key: key for key in self.var_list}
            absent = [key for key in names if key not in table]
            if absent and not self.optional:
                at = ("var_list", absent[0]) if isinstance(self.var_list, dict) else ("var_list", self.var_list.index(absent[0]))
                state = state.fault(missing(absent, loaded, at=at, searched=self.path, among=loaded.table))
            chosen = [key for key in names if key in table]
        else:
            selection = select(self, loaded)
            state = state._replace(faults=(*state.faults, *selection.faults))
            names, chosen = {}, selection.keys
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


def _joined(files: Sequence[Table]) -> Table:
    """The tensors of several files as those of one. Raises KeyCollisionError where a key is in two of them."""
    rows: dict[str, Entry] = {}
    for table in files:
        clashes = {key: (rows[key].root.key, entry.root.key) for key, entry in table.items() if key in rows}
        if clashes:
            key = next(iter(clashes))
            raise collision(
                clashes, spelled=[_origin(rows[key]), _origin(table[key])], help="load each file under its own scope: `scope: 'rank{i}/'`"
            )
        rows |= table
    return Table(rows)


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
