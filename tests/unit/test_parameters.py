import json
from itertools import combinations
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from surgery import parameters
from surgery.errors import SurgeryError
from surgery.located import parse
from surgery.parameters import resolve


def resolved(schemas: Any, given: Any = None, texts: Any = None, *, required: bool = True) -> tuple[dict[str, Any], list[SurgeryError]]:
    document = parse(json.dumps({"params": schemas}), "r.yaml")
    values, _, faults = resolve(schemas, given or {}, texts or {}, document, required=required)
    return values, faults


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "3", "3"),
        ({"type": "integer"}, "3", 3),
        ({"type": "number"}, "3", 3),
        ({"type": "number"}, "1e3", 1000.0),
        ({"type": "boolean"}, "true", True),
        ({"type": "array"}, "[1, 2]", [1, 2]),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": ["string", "integer"]}, "3", "3"),
        ({"type": ["integer", "null"]}, "null", None),
        ({"enum": ["a", 3]}, "a", "a"),
        ({"enum": ["a", 3]}, "3", 3),
        ({}, "3", "3"),
        ({"type": "string"}, "", ""),
    ],
)
def test_text_from_the_command_line(schema: Any, text: str, value: Any) -> None:
    values, faults = resolved({"p": schema}, texts={"p": text})
    assert faults == []
    assert values == {"p": value}
    assert type(values["p"]) is type(value)


@pytest.mark.parametrize(
    ("schema", "value", "says"),
    [
        ({"type": "integer"}, "3", "\"3\" is not of type 'integer'"),
        ({"type": "integer"}, True, "true is not of type 'integer'"),
        ({"type": "integer"}, 1.5, "1.5 is not of type 'integer'"),
        ({"type": "boolean"}, 1, "1 is not of type 'boolean'"),
        ({"type": "string"}, None, "null is not of type 'string'"),
        ({"type": "integer", "minimum": 1}, 0, "0 is less than the minimum of 1"),
        ({"enum": ["a", "b"]}, "c", "'c' is not one of ['a', 'b']"),
        ({"type": "array", "items": {"type": "string"}}, ["a", 1], "1 is not of type 'string'"),
        ({"type": "string", "pattern": "^a"}, "b", "'b' does not match '^a'"),
    ],
)
def test_a_value_that_does_not_fit(schema: Any, value: Any, says: str) -> None:
    _, faults = resolved({"p": schema}, {"p": value})
    assert [fault.code for fault in faults] == ["bad-param"]
    assert faults[0].title == f"the parameter `p`: {says}"


@pytest.mark.parametrize("given", [3, 3.0])
def test_a_whole_float_is_an_integer_as_json_schema_says(given: Any) -> None:
    values, faults = resolved({"p": {"type": "integer"}, "q": {"type": "number"}}, {"p": given, "q": 3.0})
    assert faults == []
    assert [(value, type(value)) for value in values.values()] == [(3, int), (3.0, float)]


def test_given_values_win_over_defaults_and_texts_over_both() -> None:
    schemas = {
        "a": {"type": "string", "default": "default"},
        "b": {"type": "string", "default": "default"},
        "c": {"type": "string", "default": "default"},
    }
    values, faults = resolved(schemas, {"b": "file", "c": "file"}, {"c": "line"})
    assert faults == []
    assert values == {"a": "default", "b": "file", "c": "line"}


def test_a_default_is_checked_too() -> None:
    assert [fault.code for fault in resolved({"p": {"type": "integer", "default": "x"}})[1]] == ["bad-param"]


def test_a_parameter_without_a_value_is_a_fault_unless_linting() -> None:
    assert [fault.code for fault in resolved({"p": {"type": "string"}})[1]] == ["missing-param"]
    assert resolved({"p": {"type": "string"}}, required=False) == ({}, [])


def test_an_unknown_parameter_has_a_suggestion() -> None:
    _, faults = resolved({"source": {"default": 1}}, {"sorce": 2})
    assert [(fault.code, fault.help) for fault in faults] == [("unknown-param", "did you mean `source`?")]


@pytest.mark.parametrize(("schemas", "help"), [({"a": {}, "b": {}}, "the recipe declares `a`, `b`"), ({}, "the recipe declares no parameters")])
def test_an_unknown_parameter_is_told_which_there_are(schemas: Any, help: str) -> None:
    _, faults = resolved(schemas, {"source": 2}, required=False)
    assert [fault.help for fault in faults] == [help]


def test_all_faults_come_together() -> None:
    _, faults = resolved({"a": {"type": "string"}, "b": {"type": "integer"}}, {"b": "x", "c": 1})
    assert sorted(fault.code for fault in faults) == ["bad-param", "missing-param", "unknown-param"]


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "intger"}, "'intger' is not valid"),
        ({"pattern": "^(a+)+$"}, "could take forever"),
        ({"properties": {"x": {"pattern": "("}}}, "'(' is not a 'regex'"),
        ({"patternProperties": {"(a+)+$": {}}}, "could take forever"),
        ({"$ref": "file:///etc/passwd"}, "references are not supported"),
        ({"items": {"$ref": "http://example.com/s.json"}}, "references are not supported"),
    ],
)
def test_a_schema_that_is_refused(schema: Any, says: str) -> None:
    _, faults = resolved({"p": schema}, {"p": "a"})
    assert [fault.code for fault in faults] == ["bad-schema"]
    assert says in faults[0].title


def test_a_reference_within_a_schema_could_double_at_each_level_and_is_refused() -> None:
    doubling: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    _, faults = resolved({"p": {"$defs": doubling, "$ref": "#/$defs/d0"}}, {"p": 1})
    assert [fault.code for fault in faults] == ["bad-schema"]


def test_patterns_are_told_by_their_format() -> None:
    schemas = {"p": {"type": "string", "format": "regex", "default": "a+"}, "q": {"type": "string", "default": "a+"}}
    _, patterns, _ = resolve(schemas, {}, {}, parse("{}", "r.yaml"), required=True)
    assert patterns == {"p"}


WORDS: dict[str, list[Any]] = {
    "type": ["string", "integer", "number", "boolean", "array", "object", "nonsense", ["string", "null"]],
    "enum": [[0, "a"], [True, 1.0], [], 3],
    "minimum": [0, 1.5, "1", True],
    "minItems": [0, 2, -1, True],
    "items": [{"type": "string"}, {"minimum": 1}, {"type": "string", "nonsense": 1}, 5],
}
VALUES = [None, True, False, 0, 1, 2.0, 1.5, -1, "", "a", [], ["a"], ["a", "b"], [1, 2], [True], {}, {"a": 1}]
SCHEMAS = [dict([one, two, ("format", "regex")]) for one, two in combinations([(word, said) for word, many in WORDS.items() for said in many], 2)]


def test_what_is_known_without_the_validator_is_what_it_says() -> None:
    known = [schema for schema in SCHEMAS if parameters._known(schema)]
    assert 40 < len(known) < len(SCHEMAS)
    for schema in known:
        Draft202012Validator.check_schema(schema)
        for value in VALUES:
            assert (parameters.value_fault(value, schema) == "") == Draft202012Validator(schema).is_valid(value), (schema, value)
