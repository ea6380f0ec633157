"""The values of a recipe's parameters: from the command line, a file, or the default; checked against their JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from surgery.directives import Directive, directive
from surgery.errors import RecipeError, SurgeryError, listed, near
from surgery.located import Document
from surgery.patterns import compile_pattern

_LONG_TEXT = 1000
_TYPES: Mapping[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,)}
_SAID = {"type", "description", "default", "title", "examples", "format"}
"""Words of a schema that demand a type or nothing; `format` is not enforced."""
_KNOWN: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(_SAID - {"type"}, object),
    "type": str,
    "enum": list,
    "minimum": (int, float),
    "minItems": int,
    "items": Mapping,
}
"""Words whose meaning is known here, and what they hold: the validator's import takes longer than a small plan."""


def resolve(
    schemas: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, Any],
    texts: Mapping[str, str],
    document: Document,
    *,
    required: bool,
) -> tuple[dict[str, Any], frozenset[str], list[SurgeryError]]:
    """The value of each parameter, the names of those that are patterns (`format: regex`), and all faults.

    `texts` (from `-p`) stay text where the schema allows a string, and are read as JSON elsewhere. Without `required` a
    parameter may have no value. Those whose default is looked up elsewhere get none here.
    """
    faults: list[SurgeryError] = []
    values: dict[str, Any] = {}
    for name in [*given, *texts]:
        if name not in schemas:
            close = near(name, schemas)
            known = f"the recipe declares {listed([f'`{known}`' for known in schemas], 20)}" if schemas else "the recipe declares no parameters"
            help = f"did you mean `{close[0]}`?" if close else known
            faults.append(RecipeError(f"{document.name} has no parameter `{name}`", code="unknown-param", help=help, data={"param": name}))
    for name, schema in schemas.items():
        try:
            elsewhere = _checked(name, schema)
        except RecipeError as wrong:
            faults.append(wrong.located(document.where(("params", name, *wrong.at))))
            continue
        if name in texts:
            value = _from_text(texts[name], schema)
        elif name in given:
            value = given[name]
        elif elsewhere:
            continue
        elif "default" in schema:
            value = schema["default"]
        else:
            if required:
                error = RecipeError(
                    f"the parameter `{name}` has no value", code="missing-param", notes=about(name, schema), help=f"pass it: `-p {name}=…`"
                )
                faults.append(error.located(document.where(("params", name), key=True)))
            continue
        fault = value_fault(value, schema)
        if fault:
            error = RecipeError(
                f"the parameter `{name}`: {fault}",
                code="bad-param",
                notes=about(name, schema),
                help=f"pass another: `-p {name}=…`",
                data={"param": name},
            )
            faults.append(error.located(document.where(("params", name), key=True)))
        values[name] = settled(value, schema)
    patterns = frozenset(name for name, schema in schemas.items() if schema.get("format") == "regex")
    return values, patterns, faults


def _checked(name: str, schema: Mapping[str, Any]) -> Directive | None:
    """Where the default stands, if not in the schema itself. Raises RecipeError for a wrong schema, and a fallback that does not fit it."""
    fault = _schema_fault(schema)
    if fault:
        help = "write a JSON Schema, such as `{type: string}` or `{type: integer}`"
        raise RecipeError(f"the schema of `{name}`: {fault}", code="bad-schema", help=help)
    elsewhere = directive(schema)
    fault = value_fault(elsewhere.fallback[0], schema) if elsewhere and elsewhere.fallback else ""
    if fault:
        raise RecipeError(f"the parameter `{name}`: {fault}", code="bad-param", at=("default", "else"), notes=about(name, schema))
    return elsewhere


def about(name: str, schema: Mapping[str, Any]) -> list[str]:
    """What the recipe says about a parameter."""
    return [f"`{name}`: {schema['description']}"] if schema.get("description") else []


def _known(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is surely sound, which is known without the validator."""
    words = all(word in _KNOWN and isinstance(said, _KNOWN[word]) and (word in _SAID or not isinstance(said, bool)) for word, said in schema.items())
    return words and schema.get("type", "string") in _TYPES and schema.get("minItems", 0) >= 0 and ("items" not in schema or _known(schema["items"]))


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value surely fits a known schema; what may fit in another way is left to the validator."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (
        ("type" not in schema or (isinstance(value, _TYPES[schema["type"]]) and (number or schema["type"] not in ("integer", "number"))))
        and ("enum" not in schema or any(value == each and type(value) is type(each) for each in schema["enum"]))
        and ("minimum" not in schema or (number and value >= schema["minimum"]))
        and (not {"items", "minItems"} & schema.keys() or (isinstance(value, list) and len(value) >= schema.get("minItems", 0)))
        and ("items" not in schema or all(_fits(item, schema["items"]) for item in value))
    )


def _schema_fault(schema: Mapping[str, Any]) -> str:
    if _known(schema):
        return ""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return error.message
    for pattern in _values_of(schema, "pattern", "patternProperties"):
        try:  # the validator matches with `re` and without a clock, so only what is fast on any key is let through
            if compile_pattern(pattern).safe_length < _LONG_TEXT:
                return f"the pattern `{pattern}` could take forever"
        except RecipeError as error:
            return f"the pattern `{pattern}`: {error.title}"
    references = _values_of(schema, "$ref", "$dynamicRef")
    return f"references are not supported (`{references[0]}`)" if references else ""


def _values_of(schema: Any, *words: str) -> list[str]:
    """The texts under these words at any depth; the keys where a word holds a mapping."""
    if isinstance(schema, list):
        return [text for value in schema for text in _values_of(value, *words)]
    if not isinstance(schema, Mapping):
        return []
    own = [text for word in words if word in schema for text in ([schema[word]] if isinstance(schema[word], str) else schema[word])]
    return own + [text for value in schema.values() for text in _values_of(value, *words)]


def value_fault(value: Any, schema: Mapping[str, Any]) -> str:
    """What is wrong with a value, "" where it fits; the schema is one that `resolve` let through."""
    if _known(schema) and _fits(value, schema):
        return ""
    if _known(schema) and schema.keys() <= _SAID and not (isinstance(value, float) and value.is_integer()):
        return f"{json.dumps(value)} is not of type '{schema['type']}'"
    from jsonschema import Draft202012Validator
    from referencing import Registry

    errors = sorted(Draft202012Validator(schema, registry=Registry()).iter_errors(value), key=lambda error: list(error.absolute_path))
    return errors[0].message if errors else ""


def settled(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value that fits, as it is used: 12.0 is an integer to JSON Schema, and has to be one for `${{ }}` and for sizes."""
    return int(value) if isinstance(value, float) and value.is_integer() and schema.get("type") == "integer" else value


def _from_text(text: str, schema: Mapping[str, Any]) -> Any:
    if not value_fault(text, schema):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
