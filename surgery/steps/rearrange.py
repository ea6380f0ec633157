"""`rearrange`: axes split, moved and merged by an einops pattern."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Annotated, Any, ClassVar, NamedTuple

from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.expr import Expr, Reshape, Transpose
from surgery.models import Field
from surgery.select import Selector, select
from surgery.steps.base import State, Step
from surgery.steps.groups import changed, described, refuse_blocks

_ELLIPSIS = "…"
"""What einops calls `...`."""
_MOST_CHARACTERS = 1000


class Rearrange(Step, Selector):
    """Axes split, moved and merged by an einops pattern, such as `(h d two) i -> (h two d) i`. No element is lost or repeated."""

    word: ClassVar[str] = "rearrange"
    example: ClassVar[str] = "{match: …, pattern: 'o i -> i o'}"
    pattern: str = Field(description="`old axes -> new axes`, as einops.rearrange takes it")
    axes: dict[str, Annotated[int, Field(ge=1)]] = Field({}, description="sizes of named axes; those that follow from the shape may be left out")

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        try:
            arrangement = _parsed(self.pattern)
        except ValueError as fault:
            yield RecipeError(f"{fault}", code="bad-axes", at=("pattern",), help="write it as einops does: `(h d) i -> h d i`")
            return
        unknown = [name for name in self.axes if name not in arrangement.names]
        if unknown:
            title, help = f"the pattern has no axis `{unknown[0]}`", f"its axes are {listed(sorted(arrangement.names), 20)}"
            yield RecipeError(title, code="bad-axes", at=("axes", unknown[0]), help=help)
        for group in arrangement.left:
            open_axes = [name for name in group if name not in self.axes]
            if len(open_axes) > 1:
                title = f"the sizes of {listed([f'`{name}`' for name in open_axes])} do not follow from the shape"
                yield RecipeError(title, code="bad-axes", at=("pattern",), help=f"say all but one: `axes: {{{open_axes[0]}: …}}`")

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        state = state._replace(faults=(*state.faults, *chosen.faults))
        arrangement = _parsed(self.pattern)
        tensors = {key: state.table[key].expr for key in chosen.keys}
        self._refuse_ranks(tensors, arrangement)
        sizes = {key: arrangement.sizes(expr.spec.shape, self.axes) for key, expr in tensors.items()}
        wrong = {key: expr for key, expr in tensors.items() if sizes[key] is None}
        if wrong:
            given = listed([f"{name} = {size:,}" for name, size in self.axes.items()], 8)
            raise PlanError(
                f"{plural(len(wrong), 'tensor')} cannot be cut as `{self.pattern}` says",
                code="indivisible",
                at=("axes",) if self.axes else ("pattern",),
                notes=[listed(described(wrong)), f"with {given}" if given else ""],
                help="each axis has to be the product of the axes in its parentheses; correct `axes`, or select other tensors",
            )
        refuse_blocks(tensors if arrangement.left[-1:] != arrangement.right[-1:] else {})
        made = {key: arrangement.apply(expr, sizes[key] or {}) for key, expr in tensors.items()}
        _refuse_widths(tensors, made)
        return changed(state, made)

    def sizes_of(self, shape: tuple[int, ...]) -> dict[str, int]:
        """The sizes of the axes that become one with others, for a tensor of a shape that fits."""
        arrangement = _parsed(self.pattern)
        sizes = arrangement.sizes(shape, self.axes) or {}
        return {name: sizes[name][0] for group in arrangement.right if len(group) > 1 for name in group if name != _ELLIPSIS}

    def _refuse_ranks(self, tensors: Mapping[str, Expr], arrangement: _Arrangement) -> None:
        wrong = {key: expr for key, expr in tensors.items() if not arrangement.takes(len(expr.spec.shape))}
        if wrong:
            axes = plural(len(arrangement.left), "axis", "axes")
            raise PlanError(
                f"`pattern` has {axes}, and {plural(len(wrong), 'tensor')} {'has' if len(wrong) == 1 else 'have'} another number",
                code="rank",
                at=("pattern",),
                notes=[listed(described(wrong))],
                help=f"select by rank too: `where: {{ndim: {len(arrangement.left)}}}`, or write `...` for further axes",
            )


class _Arrangement(NamedTuple):
    """Both sides of a pattern: for each axis the names of what it is made of, none for an axis of length 1, `…` for any further axes."""

    left: Sequence[Sequence[str]]
    right: Sequence[Sequence[str]]

    @property
    def names(self) -> set[str]:
        return {name for group in self.left for name in group} - {_ELLIPSIS}

    def takes(self, rank: int) -> bool:
        """Whether a tensor of this rank has the axes of the left side."""
        return rank >= len(self.left) - 1 if [_ELLIPSIS] in self.left else rank == len(self.left)

    def sizes(self, shape: tuple[int, ...], known: Mapping[str, int]) -> dict[str, tuple[int, ...]] | None:
        """For each name its size (for the ellipsis several), None where the shape is no product of them."""
        spare = len(shape) - len(self.left) + 1
        found: dict[str, tuple[int, ...]] = {name: (size,) for name, size in known.items()}
        at = 0
        for group in self.left:
            if group == [_ELLIPSIS]:
                found[_ELLIPSIS] = shape[at : at + spare]
                at += spare
                continue
            whole, rest = shape[at], prod(known[name] for name in group if name in known)
            unknown = [name for name in group if name not in known]
            if whole % rest or (not unknown and whole != rest):
                return None
            found |= dict.fromkeys(unknown, (whole // rest,))
            at += 1
        return found

    def apply(self, expr: Expr, sizes: Mapping[str, tuple[int, ...]]) -> Expr:
        """The rearranged tensor, of no more nodes than it takes."""
        order = [name for group in self.right for name in group]
        axes = [(name, number) for group in self.left for name in group for number in range(len(sizes[name]))]
        moved = tuple(axes.index((name, number)) for name in order for number in range(len(sizes[name])))
        expr = _reshaped(expr, tuple(sizes[name][number] for name, number in axes))
        expr = Transpose(expr, moved) if moved != tuple(sorted(moved)) else expr
        result = (sizes[_ELLIPSIS] if group == [_ELLIPSIS] else (prod(size for name in group for size in sizes[name]),) for group in self.right)
        return _reshaped(expr, tuple(size for merged in result for size in merged))


def _reshaped(expr: Expr, shape: tuple[int, ...]) -> Expr:
    return expr if shape == expr.spec.shape else Reshape(expr, shape)


def _parsed(pattern: str) -> _Arrangement:
    """Both sides of a pattern, read by einops. Raises ValueError where that refuses it, or where an axis would be lost, made or repeated."""
    from einops import EinopsError
    from einops.parsing import ParsedExpression

    sides = pattern.split("->")
    if len(sides) != 2 or len(pattern) > _MOST_CHARACTERS:
        raise ValueError("a pattern has two sides, `old axes -> new axes`")
    try:
        left, right = (ParsedExpression(side) for side in sides)
    except EinopsError as error:
        raise ValueError(str(error)) from None
    if left.has_non_unitary_anonymous_axes or right.has_non_unitary_anonymous_axes:
        raise ValueError("numbers other than 1 stand for no axis: name it, and give its size under `axes`")
    if left.identifiers != right.identifiers:
        (lost, *_) = sorted(left.identifiers ^ right.identifiers)
        raise ValueError(f"`{'...' if lost == _ELLIPSIS else lost}` stands on one side only")
    if left.has_ellipsis_parenthesized:
        raise ValueError("`...` cannot stand in parentheses on the left")
    return _Arrangement(_groups(left), _groups(right))


def _groups(side: Any) -> list[list[str]]:
    """The axes of one side, each as the list of names that it is made of."""
    return [[group] if group == _ELLIPSIS else list(group) for group in side.composition]


def _refuse_widths(tensors: Mapping[str, Expr], made: Mapping[str, Expr]) -> None:
    wrong = {key: expr for key, expr in tensors.items() if not expr.spec.dtype.itemsize and made[key].view() is None}
    if wrong:
        title = "tensors whose elements are no whole bytes cannot be rearranged"
        raise PlanError(title, code="not-computable", notes=[listed(described(wrong))], help="take them out: `except: [{where: {dtype: …}}]`")


STEP = Rearrange
