"""`resize`: an axis of another length, such as that of a vocabulary; rows may follow their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.expr import Expr
from surgery.gather import Take
from surgery.models import Field, model_validator
from surgery.select import Selector, select
from surgery.steps.base import Reads, Rules, State, Step, absent, given
from surgery.steps.groups import changed, cut_out, described, refuse_axis, refuse_widths, side_by_side
from surgery.steps.lengthen import FILL, lint_fill, lint_lengths, new_elements, refuse_fill
from surgery.steps.paths import impossible_path
from surgery.vocabularies import Vocabulary, remap, vocabulary

_VOCABULARIES = ("old_vocab", "new_vocab")


class Tokens(NamedTuple):
    """The two vocabularies of a step. Of the old one only ids below `limit` count."""

    old: Vocabulary
    new: Vocabulary
    limit: int | None

    @property
    def rows(self) -> int:
        """How many rows the tokens of both vocabularies need of the old table."""
        shared = (row for token, row in self.old.ids.items() if token in self.new.ids)
        return max((row + 1 for row in shared if self.limit is None or row < self.limit), default=0)


class Change(NamedTuple):
    """What becomes of an axis: its new length, how many elements are new, and, if they do not just stay, the old or new element of each place."""

    size: int
    added: int
    sources: Sequence[int] | None


class Resize(Step, Selector):
    """An axis of another length. Elements that stay keep their place; new ones come behind them.

    With two vocabularies the elements follow their tokens instead, as with TensorFlow's `VocabInfo`: a new token, an id without a token, and
    what is beyond the new vocabulary get new elements; tokens that are gone take theirs with them, and so does what lay beyond the old one.
    A vocabulary is a text file with a token on each line, a JSON object of tokens and ids, a JSON list, or a `tokenizer.json`.
    """

    word: ClassVar[str] = "resize"
    example: ClassVar[str] = "{match: …, axis: 0, size: 50300, multiple_of: 64, fill: mean}"
    RULES: ClassVar[Rules] = (
        {"anyOf": [given("size"), given("multiple_of"), given(*_VOCABULARIES)]},
        {"anyOf": [given(*_VOCABULARIES), absent(*_VOCABULARIES, "old_vocab_size")]},
    )

    axis: int = Field(0, description="the axis that changes; negative ones count from the last, -1")
    size: Annotated[int, Field(ge=0)] | None = Field(None, description="the new length; else the present one, or that of the new vocabulary")
    multiple_of: Annotated[int, Field(ge=1)] | None = Field(None, description="the length is rounded up to a multiple of this")
    fill: str | dict[str, Any] = Field("zeros", description=FILL)
    seed: int = Field(0, description="seed of random fills; seed and key give the same bits everywhere")
    allow_trim: bool = Field(False, description="let elements go where the axis becomes shorter")
    old_vocab: str | None = Field(None, description="a file with the tokens of the table as it is")
    new_vocab: str | None = Field(None, description="a file with the tokens that it is to have")
    old_vocab_size: Annotated[int, Field(ge=1)] | None = Field(None, description="only so many tokens of `old_vocab` are in the table, from id 0 on")

    @model_validator
    def _some_length(self) -> Self:
        if (self.old_vocab is None) != (self.new_vocab is None) or (self.old_vocab_size is not None and self.old_vocab is None):
            raise ValueError("`old_vocab` and `new_vocab` go together, and `old_vocab_size` only with them")
        if self.size is None and self.multiple_of is None and self.new_vocab is None:
            raise ValueError("write `size`, `multiple_of`, or `old_vocab` and `new_vocab`")
        return self

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        yield from lint_fill(self.fill)
        yield from lint_lengths({"size": self.size, "multiple_of": self.multiple_of})
        for word in _VOCABULARIES:
            if getattr(self, word) is not None:
                yield from impossible_path(getattr(self, word), (word,))

    def reads(self) -> Iterator[Reads]:
        for word in _VOCABULARIES:
            if getattr(self, word) is not None:
                yield Reads(getattr(self, word), None, False, (word,), parse=vocabulary)

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        tensors = {key: state.table[key].expr for key in chosen.keys}
        refuse_axis(tensors, self.axis)
        tokens = self._tokens(state)
        if tokens is not None:
            self._refuse_rows(tensors, tokens)
        self._refuse_trim(tensors, tokens)
        lengths = {key: expr.spec.shape[self.axis] for key, expr in tensors.items()}
        changes = {length: self._change(length, tokens) for length in dict.fromkeys(lengths.values())}
        refuse_fill({key: expr for key, expr in tensors.items() if changes[lengths[key]].added}, self.axis, self.fill)
        made = {key: self._resized(expr, key, changes[lengths[key]]) for key, expr in tensors.items()}
        refuse_widths(tensors, {key: [expr] for key, expr in made.items()})
        told = (_told(key, changes[length]) for key, length in lengths.items()) if tokens else ()
        return changed(state._replace(notes=(*state.notes, *told)), made)

    def _tokens(self, state: State) -> Tokens | None:
        if self.old_vocab is None:
            return None
        old, new = (state.catalog.contents[getattr(self, word), vocabulary] for word in _VOCABULARIES)
        return Tokens(old, new, self.old_vocab_size)

    def _refuse_rows(self, tensors: Mapping[str, Expr], tokens: Tokens) -> None:
        short = {key: expr for key, expr in tensors.items() if expr.spec.shape[self.axis] < tokens.rows}
        if short:
            key = next(iter(short))
            raise PlanError(
                f"a token of `{self.old_vocab}` has the id {tokens.rows - 1:,}, and `{key}` has {short[key].spec.shape[self.axis]:,} elements",
                code="out-of-range",
                at=("old_vocab",),
                notes=[listed(described(short))],
                help="name the vocabulary of this table, or leave out the rest of it with `old_vocab_size`",
            )

    def _refuse_trim(self, tensors: Mapping[str, Expr], tokens: Tokens | None) -> None:
        """Raise PlanError where elements would go unasked: those of a tensor, or those that the new vocabulary wants."""
        wanted = {key: tokens.new.size if tokens else expr.spec.shape[self.axis] for key, expr in tensors.items()}
        lost = {key: least - self._size(least, tokens) for key, least in wanted.items()}
        cut = {key: expr for key, expr in tensors.items() if lost[key] > 0}
        if cut and not self.allow_trim:
            key = next(iter(cut))
            what = "of the new vocabulary" if tokens else "it has"
            raise PlanError(
                f"`{key}` would lack {plural(lost[key], 'element')} {what} along axis {self.axis}",
                code="trim",
                at=("size",),
                notes=[listed(described(cut))],
                help="add `allow_trim: true` if they may go",
            )

    def _size(self, present: int, tokens: Tokens | None) -> int:
        least = self.size if self.size is not None else tokens.new.size if tokens else present
        return -(-least // (self.multiple_of or 1)) * (self.multiple_of or 1)

    def _change(self, present: int, tokens: Tokens | None) -> Change:
        size = self._size(present, tokens)
        if tokens is None:
            return Change(size, max(size - present, 0), None)
        sources = remap(tokens.old, tokens.new, present, size, tokens.limit)
        return Change(size, sum(source >= present for source in sources), sources)

    def _resized(self, expr: Expr, key: str, change: Change) -> Expr:
        axis = self.axis % len(expr.spec.shape)
        if change.added:
            expr = side_by_side([expr, new_elements(expr, axis, change.added, self.fill, self.seed, key)], axis)
        if change.sources is not None:
            return Take(expr, axis, change.sources)
        return expr if change.size == expr.spec.shape[axis] else cut_out(expr, axis, 0, change.size)


def _told(key: str, change: Change) -> str:
    return f"{key}: {plural(change.size - change.added, 'row')} followed their tokens, {change.added:,} are new"


STEP = Resize
