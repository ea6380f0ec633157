"""`${name}`, `${{ heads * head_dim }}` and `$${` in a recipe: values put into plain data, escaped for where they stand.

Serves the reading of recipes, between YAML and the steps' models. Back-references and `{n}` in `to:` are none of its business:
a `$` that is not followed by `{` is an ordinary character. Inserted values are not looked through again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from surgery import arithmetic
from surgery.errors import RecipeError

Path = tuple[str | int, ...]

TEMPLATED_KEYS = frozenset({"keys", "var_list", "variables", "edit"})
"""Fields whose mappings may have `${…}` in their keys, too."""

_NAME = re.compile(r"[^\W\d][\w-]*(?:\.[^\W\d][\w-]*)*")
_SPECIAL_IN_REGEX = re.compile(r"[][\\.^$*+?{}()|#&~-]")
_SPECIAL_IN_GLOB = re.compile(r"[\\*]")


class _Reference(NamedTuple):
    name: str
    offset: int


class _Computation(NamedTuple):
    expression: arithmetic.Expression
    offset: int


_Part = str | _Reference | _Computation


def references(text: str) -> frozenset[str]:
    """The names that `text` uses, `env.HOME` and `recipe.dir` among them.

    Raises:
        RecipeError: code `bad-template` with `offset`, for text that `fill` would refuse whatever the values.
    """
    return _names(_parts(text, ())) if "${" in text else frozenset()


def fill(data: Any, values: Mapping[str, Any], *, regex_params: frozenset[str] = frozenset()) -> tuple[Any, set[Path]]:
    """A copy of plain data with values in place of `${…}`, and the paths of texts left as they are for want of a value.

    Alone in a text a reference keeps its value's type. Under `match` text is escaped as a regular expression unless the name is
    in `regex_params`, under `keys` as a glob; list items go by the key above the list, values of mappings by their own
    key except under `match` and `with`. A mapping key stands in a path as it is written in `data`; a mapping under `keys` is exact,
    so nothing in it is escaped, nor is what `with` hands on.

    Raises:
        RecipeError: with `at`, and `offset` in the text. Codes: `bad-template` (unclosed, no name, not an expression, a value
            that fits neither text nor arithmetic), `duplicate-key` (two keys become one).
    """
    filling = _Filling(values, regex_params)
    return filling.walk(data, (), ""), filling.unresolved


class _Filling:
    """One run of `fill`; `under` is the name of the field that a value belongs to, "" inside an exact mapping."""

    def __init__(self, values: Mapping[str, Any], regex_params: frozenset[str]) -> None:
        self.values = values
        self.regex_params = regex_params
        self.unresolved: set[Path] = set()

    def walk(self, data: Any, path: Path, under: str) -> Any:
        if isinstance(data, str):
            return self.scalar(data, path, under) if "${" in data else data
        if isinstance(data, list):
            return [self.walk(item, (*path, index), under) for index, item in enumerate(data)]
        return self.mapping(data, path, under) if isinstance(data, dict) else data

    def mapping(self, data: dict[Any, Any], path: Path, under: str) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        for key, value in data.items():
            here = (*path, key)
            new = self.key(key, here) if under in TEMPLATED_KEYS and isinstance(key, str) and "${" in key else key
            if new in out:
                raise RecipeError(f"two keys of this mapping become `{new}`", code="duplicate-key", at=here, data={"key": True})
            out[new] = self.walk(value, here, _field(key, under))
        return out

    def key(self, text: str, path: Path) -> str:
        try:
            parts = _parts(text, path)
            return text if self.leaves_open(parts, path) else "".join(self.inserted(part, path, "") for part in parts)
        except RecipeError as error:
            error.data["key"] = True
            raise

    def scalar(self, text: str, path: Path, under: str) -> Any:
        parts = _parts(text, path)
        if self.leaves_open(parts, path):
            return text
        if len(parts) > 1 or isinstance(parts[0], str):
            return "".join(self.inserted(part, path, under) for part in parts)
        only = parts[0]
        return self.computed(only, path) if isinstance(only, _Computation) else self.escaped(self.values[only.name], only.name, under)

    def leaves_open(self, parts: list[_Part], path: Path) -> bool:
        known = all(name in self.values for name in _names(parts))
        if not known:
            self.unresolved.add(path)
        return not known

    def inserted(self, part: _Part, path: Path, under: str) -> str:
        """A part as text."""
        if isinstance(part, str):
            return part
        if isinstance(part, _Computation):
            return str(self.computed(part, path))
        value = self.values[part.name]
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (str, int, float)):
            return str(self.escaped(str(value), part.name, under))
        raise _bad(f"`{part.name}` is {_kind(value)} and cannot stand inside text", path, part.offset, "let `${…}` be the whole value")

    def escaped(self, value: Any, name: str, under: str) -> Any:
        """`value` as it goes under that field: texts, and the texts of lists, are escaped."""
        if isinstance(value, list):
            return [self.escaped(item, name, under) for item in value]
        if isinstance(value, str) and under == "match" and name not in self.regex_params:
            return _SPECIAL_IN_REGEX.sub(r"\\\g<0>", value)
        if isinstance(value, str) and under == "keys":
            return _SPECIAL_IN_GLOB.sub(r"\\\g<0>", value)
        return value

    def computed(self, part: _Computation, path: Path) -> int:
        for name in sorted(part.expression.names):
            value = self.values[name]
            if not isinstance(value, int):
                raise _bad(
                    f"`{name}` is {_kind(value)}, and `${{{{ }}}}` computes with integers", path, part.offset, "give the parameter `type: integer`"
                )
        try:
            return int(part.expression.evaluate(self.values))  # true and false are 1 and 0
        except arithmetic.ArithmeticFault as fault:
            raise _bad(fault.message, path, part.offset + fault.offset) from None


def _field(key: str, under: str) -> str:
    """The name of the field that the value of `key` belongs to, in a mapping that stands under `under`."""
    if under in ("match", "with"):  # what `with` gives is escaped where it is put in
        return under
    return "" if under in TEMPLATED_KEYS else key


def _names(parts: list[_Part]) -> frozenset[str]:
    names: set[str] = set()
    for part in parts:
        if isinstance(part, _Reference):
            names.add(part.name)
        elif isinstance(part, _Computation):
            names |= part.expression.names
    return frozenset(names)


def _parts(text: str, path: Path) -> list[_Part]:
    """Literal text and what stands between; never empty. Offsets count from the start of `text`."""
    parts: list[_Part] = []
    done = 0
    while (start := text.find("${", done)) >= 0:
        if start > done and text[start - 1] == "$":
            parts.append(text[done : start - 1] + "${")
            done = start + 2
            continue
        if start > done:
            parts.append(text[done:start])
        part, done = _computation(text, start, path) if text.startswith("${{", start) else _reference(text, start, path)
        parts.append(part)
    if done < len(text) or not parts:
        parts.append(text[done:])
    return parts


def _reference(text: str, start: int, path: Path) -> tuple[_Reference, int]:
    stop = _closed(text, start, "${", "}", path)
    name = text[start + 2 : stop]
    if not name.strip():
        raise _bad("`${}` names no parameter", path, start, "write `$${` for a literal `${`")
    if not _NAME.fullmatch(name):
        raise _bad(f"`{name}` is not the name of a parameter", path, start + 2, "write `$${` for a literal `${`, `${{ … }}` to compute")
    return _Reference(name, start), stop + 1


def _computation(text: str, start: int, path: Path) -> tuple[_Computation, int]:
    stop = _closed(text, start, "${{", "}}", path)
    try:
        expression = arithmetic.parse(text[start + 3 : stop])
    except arithmetic.ArithmeticFault as fault:
        help = "use `//`, which rounds down" if fault.message.startswith("`/`") else ""
        raise _bad(fault.message, path, start + 3 + fault.offset, help) from None
    return _Computation(expression, start + 3), stop + 2


def _closed(text: str, start: int, begin: str, end: str, path: Path) -> int:
    stop = text.find(end, start + len(begin))
    if stop < 0:
        raise _bad(f"`{begin}` is never closed", path, start, f"add `{end}`, or write `${begin}` for a literal `{begin}`")
    return stop


def _bad(title: str, path: Path, offset: int, help: str = "") -> RecipeError:
    return RecipeError(title, code="bad-template", at=path, offset=offset, help=help)


def _kind(value: Any) -> str:
    kinds = {bool: "a boolean", int: "an integer", float: "a number", str: "text", list: "a list", dict: "a mapping", type(None): "null"}
    return kinds.get(type(value), "no plain value")
