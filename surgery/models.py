"""Models: classes whose annotated fields say what may stand in YAML, and the check of plain data against them.

The types are `str`, `int`, `float`, `bool`, `Any`, `Literal` of texts, `list`, `dict` and `Mapping` with text as keys, unions, `None`,
models, and any of these in `Annotated` with limits. Names are those of pydantic, which is not used: to import it and to build its
validators takes longer than all else that a small plan does. Knows no recipe and no JSON Schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, Self, TypeVar, get_type_hints

from surgery.kinds import REQUIRED, Fault, FieldInfo, Kind, Limits, Many, Path, kind_of

F = TypeVar("F", bound=Callable[..., Any])


def Field(  # noqa: N802
    default: Any = REQUIRED,
    *,
    alias: str | None = None,
    description: str = "",
    min_length: int | None = None,
    max_length: int | None = None,
    ge: float | None = None,
    pattern: str | None = None,
    rest: bool = False,
) -> Any:
    """Declare a field of a model, or limits inside `Annotated`."""
    return FieldInfo(default, alias, description, Limits(min_length, max_length, ge, pattern), rest)


def model_validator(method: F) -> F:
    """Mark a method that is called when all fields are right, and raises ValueError where they do not go together."""
    method.__dict__["is_check"] = True
    return method


class ValidationError(Exception):
    """Data that does not fit a model, with all reasons."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(", ".join(f"{'.'.join(map(str, fault.at))}: {fault.kind}" for fault in faults))
        self.faults = faults


class Model:
    """The base of everything that is read from YAML: strict types, unknown words refused, frozen.

    A model whose only field is `root` stands for the value of that field, not for a mapping.
    """

    _declared: ClassVar[Mapping[str, FieldInfo]] = {}

    def __init_subclass__(cls) -> None:
        cls._declared = {name: value for name, value in vars(cls).items() if isinstance(value, FieldInfo)}
        for name in cls._declared:
            delattr(cls, name)

    def __init__(self, **values: Any) -> None:
        """A model of values that are known to fit, by their names in Python; the others have their defaults."""
        vars(self).update({name: values.get(name, field.default) for name, field in self.fields().items()})

    @classmethod
    @cache
    def fields(cls) -> Mapping[str, FieldInfo]:
        """All fields by their name in Python, those of base classes first."""
        hints = get_type_hints(cls, include_extras=True)
        declared = {name: field for base in reversed(cls.__mro__) for name, field in vars(base).get("_declared", {}).items()}
        return {name: field._replace(annotation=hints[name]) for name, field in declared.items()}

    @classmethod
    @cache
    def kinds(cls) -> Mapping[str, Kind]:
        """What each field takes."""
        return {name: kind_of(field.annotation, field.limits) for name, field in cls.fields().items()}

    @classmethod
    def item(cls) -> type[Model]:
        """The model itself; of one that stands for a list, the model of its items."""
        kind = cls.kinds().get("root")
        return kind.item if isinstance(kind, Many) and isinstance(kind.item, type) and issubclass(kind.item, Model) else cls

    @classmethod
    def model_validate(cls, data: Any) -> Self:
        """The model of plain data. Raises ValidationError with all faults."""
        faults: list[Fault] = []
        made: Self = cls.check(data, (), faults)
        if faults:
            raise ValidationError(faults)
        return made

    def model_copy(self, **changes: Any) -> Self:
        """The same with other values."""
        return type(self)(**vars(self) | changes)

    @classmethod
    def check(cls, data: Any, at: Path, faults: list[Fault]) -> Any:
        """The model of the data at a path; anything where faults were added."""
        before = len(faults)
        if list(cls.fields()) == ["root"]:
            values = {"root": cls.kinds()["root"].check(data, at, faults)}
        elif isinstance(data, dict):
            values = cls._read(data, at, faults)
        else:
            faults.append(Fault("model_type", at, data))
        if len(faults) > before:
            return None
        made = cls(**values)
        try:
            for check in cls._checks():
                check(made)
        except ValueError as error:
            faults.append(Fault("value_error", at, data, {"error": error}))
        return made

    @classmethod
    def _read(cls, data: dict[str, Any], at: Path, faults: list[Fault]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        kinds, rest = cls.kinds(), dict(data)
        for name, field in cls.fields().items():
            word = field.alias or name
            if field.rest:
                values[name] = kinds[name].check(rest, at, faults)
                rest = {}
            elif word in rest:
                values[name] = kinds[name].check(rest.pop(word), (*at, word), faults)
            elif field.required:
                faults.append(Fault("missing", (*at, word), data))
        faults += [Fault("extra_forbidden", (*at, word), value) for word, value in rest.items()]
        return values

    @classmethod
    @cache
    def _checks(cls) -> tuple[Callable[[Any], Any], ...]:
        methods = {name: method for base in reversed(cls.__mro__) for name, method in vars(base).items() if hasattr(method, "is_check")}
        return tuple(methods.values())

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a {type(self).__name__} is frozen")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"
