"""What a pickle becomes while it is interpreted, and what it costs: the stack, names of classes that are not looked up, and objects counted
before they are made. Knows no opcode. Serves `pickle_opcodes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from surgery.formats.tape import Tape

MOST_OBJECTS = 1_000_000
_OBJECTS_PER_NAME = 8
BYTES_PER_OBJECT = 64
"""So many bytes of text count as one more object."""
_LONGEST_INT_KEY = 63  # bits; larger ones can be chosen to have the same hash


class Global:
    """The name of a class or function, which is not looked up."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Stub:
    """An object of a class that is not known: what it would have been made with, and its state."""

    __slots__ = ("arguments", "items", "name", "state")

    def __init__(self, name: str, arguments: object = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: object = None
        self.items: dict[Any, object] = {}


class Builder(Protocol):
    """What calls and persistent names mean. `spend` is to be told how many objects a call makes; ValueError refuses the pickle."""

    def call(self, function: Global, arguments: tuple[object, ...], spend: Callable[[int], None]) -> object: ...

    def build(self, target: object, state: object) -> None: ...

    def persistent(self, name: object) -> object: ...


class Machine:
    """What a pickle is interpreted with: a stack, the stacks below its marks, what it remembers, and how many objects it may still make."""

    def __init__(self, tape: Tape, builder: Builder) -> None:
        self.tape = tape
        self.take = tape.take
        self.byte = tape.byte
        self.op_start = tape.at
        self.builder = builder
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[str, Global] = {}
        self.left = MOST_OBJECTS

    def spend(self, objects: int) -> None:
        """Account for objects before they are made. Raises ValueError where there are too many."""
        self.left -= objects
        if self.left < 0:
            raise ValueError(f"more than {MOST_OBJECTS:,} objects, or as much text")

    def push(self, value: object) -> None:
        self.spend(1)
        self.stack.append(value)

    def unsigned(self, nbytes: int) -> int:
        """A little-endian number without sign."""
        return int.from_bytes(self.take(nbytes), "little")

    def signed(self, nbytes: int) -> int:
        """A little-endian number with a sign."""
        return int.from_bytes(self.take(nbytes), "little", signed=True)

    def line(self) -> bytes:
        """The bytes up to the end of the line, which take longer than others."""
        self.spend(2)
        return self.tape.line()

    def above_mark(self) -> list[Any]:
        """Everything since the last mark."""
        found, self.stack = self.stack, self.outer.pop()
        return found

    def named(self, module: str, name: str) -> Global:
        dotted = f"{module}.{name}"
        if dotted not in self.globals:
            self.spend(_OBJECTS_PER_NAME + len(dotted) // BYTES_PER_OBJECT)
            self.globals[dotted] = Global(dotted)
        return self.globals[dotted]

    def encodes_next(self) -> bool:
        """Whether the next value is for `_codecs.encode`: it is bytes, then, in the disguise of protocol 2."""
        below = self.stack or (self.outer[-1] if self.outer else [])
        return bool(below) and type(below[-1]) is Global and below[-1].name == "_codecs.encode"

    def call(self, function: object, arguments: object) -> None:
        """Push what a call would give."""
        if type(function) is not Global or type(arguments) is not tuple:
            raise ValueError("a call of something that is no function")
        self.push(self.builder.call(function, arguments, self.spend))

    def remember(self, place: int) -> None:
        self.spend(1)
        self.memo[place] = self.stack[-1]

    def recall(self, place: int) -> None:
        if place not in self.memo:
            raise ValueError(f"nothing is remembered under {place}")
        self.stack.append(self.memo[place])

    def put_items(self, flat: list[Any]) -> None:
        """Keys and values, in turn, into the mapping on the stack."""
        target = self.stack[-1]
        mapping = target.items if type(target) is Stub else target
        if type(mapping) is not dict or len(flat) % 2:
            raise ValueError("items for something that is no mapping")
        for position in range(0, len(flat), 2):
            mapping[_as_key(flat[position])] = flat[position + 1]

    def put_values(self, values: list[Any]) -> None:
        """Values at the end of the list on the stack."""
        target = self.stack[-1]
        if type(target) is list:
            target.extend(values)
        elif type(target) is Stub:
            target.items.update((len(target.items) + number, value) for number, value in enumerate(values))
        else:
            raise ValueError("values for something that is no list")


def _as_key(value: object) -> object:
    """What can stand for a key without its hash being costly: nested tuples take time that is exponential in their depth."""
    if type(value) is tuple or (type(value) is int and value.bit_length() > _LONGEST_INT_KEY):
        return Stub(type(value).__name__, value)
    if type(value) in (list, dict):
        raise ValueError("a key that is a container")
    return value
