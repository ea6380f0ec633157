"""What `default: {from: …}` of a parameter says: places in JSON files and in the metadata of checkpoints. Pure; opens nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from surgery.errors import RecipeError

_METADATA = "#metadata/"
_POSITION = re.compile(r"0|[1-9]\d{0,9}", re.ASCII)
_HELP = "write `config.json#/num_attention_heads`, or `source#metadata/general.architecture`"


class Place(NamedTuple):
    """`file` is a path, or with `key` perhaps the name of a parameter that holds one; `pointer` is a JSON Pointer, where one is given."""

    text: str
    file: str
    key: str | None
    pointer: str | None

    @property
    def parts(self) -> tuple[str, ...]:
        """The texts that may have `${…}` in them."""
        return tuple(text for text in (self.file, self.key, self.pointer) if text is not None)

    @property
    def relative(self) -> bool:
        """Whether it is a file beside the loaded checkpoint; what begins with a `${…}` is a path like any other."""
        return self.key is None and not self.file.startswith(("/", "${"))


class Directive(NamedTuple):
    """The places in the order in which they are looked at, and the plain value for when nothing is there, if there is one.

    `many` tells that they were given as a list.
    """

    places: tuple[Place, ...]
    fallback: tuple[Any, ...]
    many: bool


def is_directive(schema: Mapping[str, Any]) -> bool:
    """Whether a default says where the value stands. A mapping with a word besides `from` and `else` is a plain value."""
    default = schema.get("default")
    return isinstance(default, Mapping) and "from" in default and set(default) <= {"from", "else"}


def directive(schema: Mapping[str, Any]) -> Directive | None:
    """The directive that a schema has for a default; None for a plain default, and for none.

    Raises RecipeError (`bad-schema`) with its place in the schema.
    """
    if not is_directive(schema):
        return None
    default = schema["default"]
    told = default["from"]
    many = isinstance(told, list)
    texts = told if isinstance(told, list) else [told]
    if not texts and "else" not in default:
        raise RecipeError("`from` names no place", code="bad-schema", at=("default", "from"), help=_HELP)
    places = tuple(_place(text, ("default", "from", index) if many else ("default", "from")) for index, text in enumerate(texts))
    return Directive(places, (default["else"],) if "else" in default else (), many)


def _place(text: Any, at: tuple[str | int, ...]) -> Place:
    if not isinstance(text, str):
        raise RecipeError("`from` wants text, or a list of texts", code="bad-schema", at=at, help=_HELP)
    file, begun, key = text.partition(_METADATA)
    if begun:
        key, inner, pointer = key.partition("#")
        place = Place(text, file, key, pointer if inner else None)
    else:
        file, begun, pointer = text.partition("#")
        place = Place(text, file, None, pointer)
    wrong = place.pointer is not None and not re.fullmatch(r"(/([^~]|~[01])*)?", place.pointer, re.DOTALL)
    if not begun or not file or place.key == "" or wrong:
        raise RecipeError(f"`{text}` is no place in a file", code="bad-schema", at=at, help=_HELP)
    return place


def at_pointer(value: Any, pointer: str) -> Any:
    """The part of a JSON value that a JSON Pointer names (RFC 6901, as text and not as part of a URI). Raises KeyError."""
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, Sequence) and not isinstance(value, str) and _POSITION.fullmatch(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            raise KeyError(pointer)
    return value
