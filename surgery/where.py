"""Facts about tensors and the types of selecting words: what `where` may say, and which of it can never hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from surgery.dtypes import DTYPES
from surgery.errors import PlanError, RecipeError, near
from surgery.keys import is_integer
from surgery.models import Field, Model
from surgery.patterns import Pattern
from surgery.replacement import Template, compile_template
from surgery.steps.base import Rules
from surgery.tensors import TensorSpec
from surgery.units import SIZE, parse_size

Path = tuple[str | int, ...]
Texts = str | Annotated[list[str], Field(min_length=1)]
Rank = Annotated[int, Field(ge=0)]
AnySize = Annotated[int, Field(ge=-1)]
Size = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=SIZE)]


def texts(value: Texts | None) -> list[str]:
    """A text or a list of texts, as a list."""
    return [] if value is None else [value] if isinstance(value, str) else value


class Where(Model):
    """Facts about a tensor. Further words are named groups of `match` with an integer or a half-open `[low, high]`."""

    RULES: ClassVar[Rules] = ({"minProperties": 1},)

    dtype: Texts | None = Field(None, description="element type, or a list of them")
    ndim: Rank | Annotated[list[Rank], Field(min_length=1)] | None = Field(None, description="number of axes, or a list of numbers")
    shape: list[AnySize] | None = Field(None, description="exact shape; -1 stands for any size")
    min_bytes: Size | None = Field(None, description="at least this many bytes (20MB, 1GiB)")
    max_bytes: Size | None = Field(None, description="at most this many bytes")
    named_groups: dict[str, int | Annotated[list[int], Field(min_length=2, max_length=2)]] = Field({}, rest=True)

    def lint(self, groups: Collection[str], at: Path) -> Iterator[RecipeError]:
        """Facts that say nothing, that nothing can satisfy, or that do not exist; `groups` are the named ones of `match`."""
        if not any(value not in (None, {}) for value in vars(self).values()):
            yield RecipeError(
                f"`{at[-1]}` is empty, and would select everything", code="needs-selector", at=at, help="add a fact, such as `dtype: float32`"
            )
        for path, name in placed(self.dtype, (*at, "dtype")):
            if name not in DTYPES:
                yield unknown_dtype(name, path)
        if self.min_bytes is not None and self.max_bytes is not None and parse_size(self.min_bytes) > parse_size(self.max_bytes):
            yield _unsatisfiable("`min_bytes` is more than `max_bytes`", (*at, "min_bytes"), "exchange them")
        for name, wanted in self.groups().items():
            if name not in groups:
                yield _unknown_group(name, sorted(groups), (*at, name))
            elif isinstance(wanted, list) and wanted[0] >= wanted[1]:
                yield _unsatisfiable(f"no number is in {wanted}", (*at, name), "write [low, high] for low ≤ number < high")

    def groups(self) -> Mapping[str, int | list[int]]:
        """The conditions on named groups."""
        return self.named_groups

    def test(self) -> Callable[[TensorSpec], bool]:
        """The conditions on the spec, as one predicate."""
        names = set(texts(self.dtype))
        ndims = {self.ndim} if isinstance(self.ndim, int) else set(self.ndim or ())
        low = None if self.min_bytes is None else parse_size(self.min_bytes)
        high = None if self.max_bytes is None else parse_size(self.max_bytes)
        shape = self.shape

        def holds(spec: TensorSpec) -> bool:
            return not (
                (names and spec.dtype.name not in names)
                or (ndims and len(spec.shape) not in ndims)
                or (low is not None and spec.nbytes < low)
                or (high is not None and spec.nbytes > high)
                or (
                    shape is not None
                    and (len(shape) != len(spec.shape) or any(want not in (-1, size) for want, size in zip(shape, spec.shape, strict=True)))
                )
            )

        return holds


def _unsatisfiable(title: str, at: Path, help: str) -> RecipeError:
    return RecipeError(f"{title}, so nothing can be selected", code="bad-option", at=at, help=help)


def _unknown_group(name: str, groups: list[str], at: Path) -> RecipeError:
    words = ["dtype", "ndim", "shape", "min_bytes", "max_bytes", *groups]
    close = near(name, words)
    return RecipeError(
        f"`{name}` is neither a fact nor a named group of `match`",
        code="unknown-group",
        at=at,
        help=f"did you mean `{close[0]}`?" if close else f"write `(?P<{name}>\\d+)` in `match`, or one of {', '.join(words[:5])}",
    )


def in_groups(groups: Mapping[str, int | list[int]], match: Any) -> bool:
    """Whether the named groups of a match are integers within their bounds. A pattern of a list may lack some of the names."""
    found = match.groupdict()
    for name, wanted in groups.items():
        text = found.get(name)
        if not is_integer(text):
            return False
        low, high = (wanted, wanted + 1) if isinstance(wanted, int) else wanted
        if not low <= int(text) < high:
            return False
    return True


def has_companions(match: Any, having: Sequence[Template], keys: Container[str]) -> bool:
    """Whether all keys are there that `having` asks for: the key of the match with the match replaced, as `rename` would call it.

    Raises PlanError for a number that is none.
    """
    key = match.string
    try:
        return all(key[: match.start()] + template.expand(match) + key[match.end() :] in keys for template in having)
    except PlanError as error:
        error.at = ("having",)
        raise


def lint_having(having: Texts | None, patterns: Sequence[Pattern], at: Path) -> Iterator[RecipeError]:
    """Faults of templates; what they refer to has to be in each pattern."""
    for path, text in placed(having, at):
        try:
            for pattern in patterns:
                compile_template(text, pattern)
        except RecipeError as error:
            error.at = path
            yield error


def placed(value: Texts | None, at: Path) -> Iterator[tuple[Path, str]]:
    """Each text of a field with its path in the recipe."""
    if isinstance(value, str):
        yield at, value
    for index, text in enumerate(value if isinstance(value, list) else ()):
        yield (*at, index), text


def unknown_dtype(name: str, at: Path) -> RecipeError:
    """The error for a dtype that does not exist, with the nearest one that does."""
    close = near(name, DTYPES)
    return RecipeError(
        f"no dtype is called `{name}`",
        code="unknown-dtype",
        at=at,
        help=f"did you mean `{close[0]}`?" if close else f"dtypes are {', '.join(DTYPES)}",
    )
