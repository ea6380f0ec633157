"""What a value of YAML may be: one class for each kind of type, which checks plain data and tells every fault.

Serves `models`. A kind is made of an annotation once and then only checks. Kinds of faults are named as pydantic names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Union, get_args, get_origin

Path = tuple[str | int, ...]
REQUIRED: Any = object()
"""The default of a field that has none."""


class Fault(NamedTuple):
    """A value at a path that does not fit, with the facts that its message needs."""

    kind: str
    at: Path
    value: Any
    facts: Mapping[str, Any] = {}


class Limits(NamedTuple):
    """What is demanded besides the type; lengths are those of texts, lists and mappings."""

    min_length: int | None = None
    max_length: int | None = None
    ge: float | None = None
    pattern: str | None = None

    def check(self, value: Any, at: Path, faults: list[Fault]) -> None:
        """Add the first fault of a value whose type is right."""
        if self.min_length is not None and len(value) < self.min_length:
            faults.append(Fault("too_short", at, value, {"min_length": self.min_length}))
        elif self.max_length is not None and len(value) > self.max_length:
            faults.append(Fault("too_long", at, value, {"max_length": self.max_length}))
        elif self.ge is not None and not value >= self.ge:
            faults.append(Fault("greater_than_equal", at, value, {"ge": self.ge}))
        elif self.pattern is not None and not re.fullmatch(self.pattern, value):
            faults.append(Fault("string_pattern_mismatch", at, value, {"pattern": self.pattern}))


class OneOrMany:
    """Annotation for a list that may also be written as its single item, a mapping."""


class FieldInfo(NamedTuple):
    """What is declared of a field of a model. With `rest` it takes all words that are no field, as a mapping."""

    default: Any
    alias: str | None
    description: str
    limits: Limits
    rest: bool
    annotation: Any = None

    @property
    def required(self) -> bool:
        """Whether the field must be given."""
        return self.default is REQUIRED


class Kind(Protocol):
    """A type that values are checked against."""

    def check(self, value: Any, at: Path, faults: list[Fault]) -> Any:
        """The value as the model holds it; anything where faults were added."""


class Anything(NamedTuple):
    """No demand at all."""

    def check(self, value: Any, at: Path, faults: list[Fault]) -> Any:
        return value


class Scalar(NamedTuple):
    """A text, an integer, a number, or true and false; an integer is a number, true is neither."""

    word: str
    types: type | tuple[type, ...]
    limits: Limits = Limits()

    def check(self, value: Any, at: Path, faults: list[Fault]) -> Any:
        if not isinstance(value, self.types) or (isinstance(value, bool) and self.types is not bool):
            faults.append(Fault(f"{self.word}_type", at, value))
        else:
            self.limits.check(value, at, faults)
        return value


class Choice(NamedTuple):
    """One of some texts."""

    texts: tuple[str, ...]

    def check(self, value: Any, at: Path, faults: list[Fault]) -> Any:
        if not isinstance(value, str) or value not in self.texts:
            faults.append(Fault("literal_error", at, value, {"texts": self.texts}))
        return value


class Many(NamedTuple):
    """A list; with `or_one` its single item, a mapping, stands for it too."""

    item: Kind
    limits: Limits = Limits()
    or_one: bool = False

    def check(self, value: Any, at: Path, faults: list[Fault]) -> Any:
        if self.or_one and isinstance(value, dict):
            value = [value]
        if not isinstance(value, list):
            faults.append(Fault("list_type", at, value))
            return value
        before = len(faults)
        items = [self.item.check(item, (*at, index), faults) for index, item in enumerate(value)]
        if len(faults) == before:
            self.limits.check(items, at, faults)
        return items


class Keyed(NamedTuple):
    """A mapping whose keys are text."""

    value: Kind
    limits: Limits = Limits()

    def check(self, value: Any, at: Path, faults: list[Fault]) -> Any:
        if not isinstance(value, dict):
            faults.append(Fault("dict_type", at, value))
            return value
        before = len(faults)
        items = {key: self.value.check(item, (*at, key), faults) for key, item in value.items()}
        if len(faults) == before:
            self.limits.check(items, at, faults)
        return items


class Either(NamedTuple):
    """A value of the first kind that it fits; the faults are those of all kinds."""

    branches: tuple[Kind, ...]
    nullable: bool

    def check(self, value: Any, at: Path, faults: list[Fault]) -> Any:
        if value is None and self.nullable:
            return None
        found: list[Fault] = []
        for branch in self.branches:
            own: list[Fault] = []
            result = branch.check(value, at, own)
            if not own:
                return result
            found += own
        faults += found
        return value


_SCALARS: Mapping[Any, Scalar] = {
    str: Scalar("string", str),
    int: Scalar("int", int),
    float: Scalar("float", (int, float)),
    bool: Scalar("bool", bool),
}


def kind_of(annotation: Any, limits: Limits = Limits()) -> Kind:  # noqa: B008
    """The kind of a type; `limits` hold for each branch of a union. Raises TypeError for a type that models do not know."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = next((extra.limits for extra in arguments if isinstance(extra, FieldInfo)), limits)
        kind = kind_of(arguments[0], limits)
        alone = any(isinstance(extra, OneOrMany) for extra in arguments)
        return kind._replace(or_one=True) if alone and isinstance(kind, Many) else kind
    if origin in (Union, UnionType):
        branches = tuple(kind_of(branch, limits) for branch in arguments if branch is not NoneType)
        return Either(branches, NoneType in arguments)
    if origin is list:
        return Many(kind_of(arguments[0]), limits)
    if origin in (dict, Mapping):
        return Keyed(kind_of(arguments[1]), limits)
    if origin is Literal:
        return Choice(arguments)
    if annotation is Any:
        return Anything()
    if annotation in _SCALARS:
        return _SCALARS[annotation]._replace(limits=limits)
    if hasattr(annotation, "check"):
        checked: Kind = annotation
        return checked
    raise TypeError(f"models know no type {annotation}")
