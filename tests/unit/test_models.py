"""What models take and refuse, compared with pydantic's strict mode, whose meaning they have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.kinds import OneOrMany, kind_of
from surgery.models import Field, Model, ValidationError, model_validator


class Point(Model):
    """A place."""

    NOTE: ClassVar[str] = "no field"

    x: int = Field(description="to the right")
    from_: float | None = Field(None, alias="from", ge=0)

    @model_validator
    def _on_the_diagonal(self) -> None:
        if self.from_ is not None and self.from_ != self.x:
            raise ValueError("not on the diagonal")


class Named(Point):
    """A place with a name, and marks."""

    x: int = Field(3, ge=-1)
    name: str = Field("", max_length=3)
    marks: dict[str, int] = Field({}, rest=True)


class Points(Model):
    """One place or several."""

    root: Annotated[list[Point], Field(min_length=1), OneOrMany()] = Field()


def faults(model: type[Model], data: Any) -> list[tuple[str, tuple[str | int, ...]]]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return [(fault.kind, fault.at) for fault in caught.value.faults]


def test_fields_get_their_values_or_defaults() -> None:
    point = Point.model_validate({"x": 2, "from": 2})
    assert (point.x, point.from_) == (2, 2)
    assert Point.model_validate({"x": 1}).from_ is None


def test_a_subclass_may_declare_a_field_anew_in_its_old_place() -> None:
    assert list(Named.fields()) == ["x", "from_", "name", "marks"]
    assert Named.model_validate({}).x == 3


def test_all_faults_are_told() -> None:
    assert faults(Point, {"from": "a", "y": 1}) == [("missing", ("x",)), ("float_type", ("from",)), ("extra_forbidden", ("y",))]
    assert faults(Point, []) == [("model_type", ())]


def test_a_check_of_the_whole_runs_when_all_fields_are_right() -> None:
    assert faults(Point, {"x": 1, "from": 2}) == [("value_error", ())]
    assert faults(Named, {"x": 1, "from": 2}) == [("value_error", ())]
    assert faults(Point, {"x": "1", "from": 2}) == [("int_type", ("x",))]


def test_words_that_are_no_field_go_where_the_rest_goes() -> None:
    assert Named.model_validate({"x": 1, "a": 2, "b": 3}).marks == {"a": 2, "b": 3}
    assert faults(Named, {"a": "2"}) == [("int_type", ("a",))]


def test_a_root_stands_for_its_value_and_a_single_item_for_a_list() -> None:
    assert [point.x for point in Points.model_validate([{"x": 1}, {"x": 2}]).root] == [1, 2]
    assert [point.x for point in Points.model_validate({"x": 1}).root] == [1]
    assert faults(Points, []) == [("too_short", ())]
    assert Points.item() is Point
    assert Point.item() is Point


def test_a_model_is_frozen() -> None:
    point = Point.model_validate({"x": 1})
    with pytest.raises(AttributeError):
        point.x = 2
    assert point.model_copy(x=2).x == 2
    assert point.x == 1


def test_an_unknown_type_is_told_to_who_writes_the_model() -> None:
    with pytest.raises(TypeError, match="models know no type"):
        kind_of(set[int])


TYPES: list[tuple[Any, Any]] = [
    (str, str),
    (int, int),
    (float, float),
    (bool, bool),
    (Any, Any),
    (Literal["a", "b"], Literal["a", "b"]),
    (list[int] | None, list[int] | None),
    (dict[str, float] | str, dict[str, float] | str),
    (Mapping[str, list[str]], Mapping[str, list[str]]),
    (Annotated[int, Field(ge=-1)], Annotated[int, pydantic.Field(ge=-1)]),
    (Annotated[str, Field(pattern="^a+$")], Annotated[str, pydantic.Field(pattern="^a+$")]),
    (Annotated[str, Field(min_length=1, max_length=2)], Annotated[str, pydantic.Field(min_length=1, max_length=2)]),
    (str | Annotated[list[str], Field(min_length=2)], str | Annotated[list[str], pydantic.Field(min_length=2)]),
    (Annotated[dict[str, Any], Field(min_length=1)], Annotated[dict[str, Any], pydantic.Field(min_length=1)]),
]
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["", "a", "b", "aa", "aaa", "a\n"])
DATA = st.recursive(SCALARS, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from("ab"), inside), max_leaves=5)


@pytest.mark.parametrize(("ours", "theirs"), TYPES)
@given(data=DATA)
def test_the_same_values_fit_as_in_pydantic(ours: Any, theirs: Any, data: Any) -> None:
    found: list[Any] = []
    kind_of(ours).check(data, (), found)
    try:
        pydantic.TypeAdapter(theirs, config={"strict": True}).validate_python(data)
    except pydantic.ValidationError as error:
        kinds = {detail["type"].removeprefix("string_too_").replace("mapping_type", "dict_type") for detail in error.errors()}
        assert {fault.kind.removeprefix("too_") if isinstance(fault.value, str) else fault.kind for fault in found} == kinds
    else:
        assert found == []
