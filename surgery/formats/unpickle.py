"""An interpreter of pickles that runs nothing: protocols 0 to 5, with every opcode that means an import or a call turned into data.

Containers, numbers, text and bytes are built. Names of classes and functions become `Global`; what would call one is handed to a
`Builder`, which may know it and otherwise makes a `Stub`. Work and memory are bounded, whatever the bytes say. Source of format
facts: `pickletools.py` of CPython 3.13.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any, Protocol

from surgery.formats.collecting import no_garbage_collection
from surgery.formats.tape import PickleFault, Tape

MOST_OPERATIONS = 2_000_000
"""A tensor takes about 35, and about 20 objects; this ends within a second."""
MOST_OBJECTS = 1_000_000
_MOST_NUMBER_BYTES = 1024
_NUMBER_BYTES_PER_OBJECT = 8
_OBJECTS_PER_NAME = 8
_MOST_TEXT_BYTES = 1 << 20
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


def unpickle(tape: Tape, builder: Builder) -> object:
    """Interpret the next pickle on a tape, which then stands behind it.

    Values are None, bool, int, float, str, bytes, list (sets, too), tuple, dict, `Span`, `Global`, `Stub` and what `builder` makes. Nothing is
    copied that a pickle refers to twice, so that values may be shared, and contain themselves.

    Raises:
        PickleFault: it is no pickle, or wants more than MOST_OPERATIONS, MOST_OBJECTS, or what cannot be had here.
    """
    machine = _Machine(tape, builder)
    try:
        with no_garbage_collection():
            return machine.run()
    except IndexError:
        raise PickleFault("the stack has too few values", machine.op_start, tape.at) from None
    except (ValueError, TypeError) as fault:
        raise PickleFault(str(fault), machine.op_start, tape.at) from None


class _Machine:
    def __init__(self, tape: Tape, builder: Builder) -> None:
        self.tape = tape
        self.take = tape.take
        self.op_start = tape.at
        self.builder = builder
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[str, Global] = {}
        self.left = MOST_OBJECTS

    def run(self) -> object:
        tape, operations = self.tape, _OPERATIONS
        for _ in range(MOST_OPERATIONS):
            self.op_start = tape.at
            code = tape.byte()
            if code == _STOP:
                return self.stack.pop()
            operation = operations.get(code)
            if operation is None:
                raise ValueError(f"{code:#04x} is no opcode")
            operation(self)
        raise ValueError(f"more than {MOST_OPERATIONS:,} operations")

    def spend(self, objects: int) -> None:
        """Account for objects before they are made. Raises ValueError where there are too many."""
        self.left -= objects
        if self.left < 0:
            raise ValueError(f"more than {MOST_OBJECTS:,} objects, or as much text")

    def push(self, value: object) -> None:
        self.spend(1)
        self.stack.append(value)

    def number(self, form: str) -> Any:
        """A number of the `struct` format `form`."""
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return value

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


def _text(machine: _Machine, nbytes: int) -> None:
    if nbytes > _MOST_TEXT_BYTES or (nbytes > machine.tape.held and machine.encodes_next()):
        machine.push(machine.tape.skip(nbytes, is_text=True))
        return
    machine.spend(nbytes // BYTES_PER_OBJECT)
    machine.push(machine.take(nbytes).decode("utf-8", "surrogatepass"))


def _raw(machine: _Machine, nbytes: int) -> None:
    if nbytes > machine.tape.held:
        machine.push(machine.tape.skip(nbytes, is_text=False))
        return
    machine.spend(nbytes // BYTES_PER_OBJECT)
    machine.push(machine.take(nbytes))


def _long_old_text(machine: _Machine) -> None:
    nbytes = machine.number("<i")
    if nbytes < 0:
        raise ValueError("a length below zero")
    if nbytes > machine.tape.held:
        _raw(machine, nbytes)
    else:
        _old_text(machine, machine.take(nbytes))


def _old_text(machine: _Machine, raw: bytes) -> None:
    """What Python 2 called a string: text if it is UTF-8, else bytes."""
    machine.spend(len(raw) // BYTES_PER_OBJECT)
    try:
        machine.push(raw.decode())
    except UnicodeDecodeError:
        machine.push(raw)


def _quoted(machine: _Machine) -> None:
    line = machine.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("text without quotes")
    _old_text(machine, codecs.escape_decode(line[1:-1])[0])


def _long(machine: _Machine, nbytes: int) -> None:
    if not 0 <= nbytes <= _MOST_NUMBER_BYTES:
        raise ValueError(f"a number of {nbytes:,} bytes")
    machine.spend(nbytes // _NUMBER_BYTES_PER_OBJECT)
    machine.push(int.from_bytes(machine.take(nbytes), "little", signed=True))


def _decimal(machine: _Machine) -> None:
    line = machine.line().strip()
    if len(line) > _MOST_NUMBER_BYTES:
        raise ValueError(f"a number of {len(line):,} digits")
    machine.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.removesuffix(b"L") or b"0"))


def _protocol(machine: _Machine) -> None:
    protocol = machine.number("B")
    if protocol > 5:
        raise ValueError(f"protocol {protocol}; 5 is the newest")


def _mark(machine: _Machine) -> None:
    machine.spend(1)
    machine.outer.append(machine.stack)
    machine.stack = []


def _pop(machine: _Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.above_mark()


def _tuple_of(machine: _Machine, length: int) -> None:
    if len(machine.stack) < length:
        raise IndexError
    values = tuple(machine.stack[-length:])
    del machine.stack[-length:]
    machine.push(values)


def _dictionary(machine: _Machine) -> None:
    items = machine.above_mark()
    machine.push({})
    machine.put_items(items)


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.put_items([key, value])


def _global(machine: _Machine) -> None:
    module, name = machine.line().decode(), machine.line().decode()
    machine.push(machine.named(module, name))


def _stack_global(machine: _Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise ValueError("a name that is no text")
    machine.push(machine.named(module, name))


def _reduce(machine: _Machine) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.call(function, arguments)


def _new_object_with_names(machine: _Machine) -> None:
    named, arguments, function = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    machine.call(function, (*arguments, named) if named and type(arguments) is tuple else arguments)


def _instance(machine: _Machine) -> None:
    module, name = machine.line().decode(), machine.line().decode()
    machine.call(machine.named(module, name), tuple(machine.above_mark()))


def _object(machine: _Machine) -> None:
    function, *arguments = machine.above_mark() or [None]
    machine.call(function, tuple(arguments))


def _build(machine: _Machine) -> None:
    state = machine.stack.pop()
    machine.builder.build(machine.stack[-1], state)


def _refuse_code(machine: _Machine) -> None:
    raise ValueError("an extension code, which only the program that wrote it can know")


def _refuse_buffer(machine: _Machine) -> None:
    raise ValueError("a buffer that is not in the pickle")


_STOP = ord(".")
_OPERATIONS: dict[int, Callable[[_Machine], object]] = {
    ord("("): _mark,
    ord("0"): _pop,
    ord("1"): lambda machine: machine.above_mark(),
    ord("2"): lambda machine: machine.push(machine.stack[-1]),
    ord("N"): lambda machine: machine.push(None),
    ord("F"): lambda machine: machine.push(float(machine.line())),
    ord("I"): _decimal,
    ord("L"): _decimal,
    ord("J"): lambda machine: machine.push(machine.number("<i")),
    ord("K"): lambda machine: machine.push(machine.number("B")),
    ord("M"): lambda machine: machine.push(machine.number("<H")),
    ord("G"): lambda machine: machine.push(machine.number(">d")),
    ord("S"): _quoted,
    ord("T"): _long_old_text,
    ord("U"): lambda machine: _old_text(machine, machine.take(machine.number("B"))),
    ord("V"): lambda machine: machine.push(machine.line().decode("raw-unicode-escape")),
    ord("X"): lambda machine: _text(machine, machine.number("<I")),
    ord("B"): lambda machine: _raw(machine, machine.number("<I")),
    ord("C"): lambda machine: _raw(machine, machine.number("B")),
    ord(")"): lambda machine: machine.push(()),
    ord("]"): lambda machine: machine.push([]),
    ord("}"): lambda machine: machine.push({}),
    ord("t"): lambda machine: machine.push(tuple(machine.above_mark())),
    ord("l"): lambda machine: machine.push(machine.above_mark()),
    ord("d"): _dictionary,
    ord("a"): lambda machine: machine.put_values([machine.stack.pop()]),
    ord("e"): lambda machine: machine.put_values(machine.above_mark()),
    ord("s"): _set_item,
    ord("u"): lambda machine: machine.put_items(machine.above_mark()),
    ord("g"): lambda machine: machine.recall(int(machine.line())),
    ord("h"): lambda machine: machine.recall(machine.number("B")),
    ord("j"): lambda machine: machine.recall(machine.number("<I")),
    ord("p"): lambda machine: machine.remember(int(machine.line())),
    ord("q"): lambda machine: machine.remember(machine.number("B")),
    ord("r"): lambda machine: machine.remember(machine.number("<I")),
    ord("c"): _global,
    ord("i"): _instance,
    ord("o"): _object,
    ord("R"): _reduce,
    ord("b"): _build,
    ord("P"): lambda machine: machine.push(machine.builder.persistent(machine.line().decode())),
    ord("Q"): lambda machine: machine.push(machine.builder.persistent(machine.stack.pop())),
    0x80: _protocol,
    0x81: _reduce,
    0x82: _refuse_code,
    0x83: _refuse_code,
    0x84: _refuse_code,
    0x85: lambda machine: _tuple_of(machine, 1),
    0x86: lambda machine: _tuple_of(machine, 2),
    0x87: lambda machine: _tuple_of(machine, 3),
    0x88: lambda machine: machine.push(True),
    0x89: lambda machine: machine.push(False),
    0x8A: lambda machine: _long(machine, machine.number("B")),
    0x8B: lambda machine: _long(machine, machine.number("<i")),
    0x8C: lambda machine: _text(machine, machine.number("B")),
    0x8D: lambda machine: _text(machine, machine.number("<Q")),
    0x8E: lambda machine: _raw(machine, machine.number("<Q")),
    0x8F: lambda machine: machine.push([]),
    0x90: lambda machine: machine.put_values(machine.above_mark()),
    0x91: lambda machine: machine.push(machine.above_mark()),
    0x92: _new_object_with_names,
    0x93: _stack_global,
    0x94: lambda machine: machine.remember(len(machine.memo)),
    0x95: lambda machine: machine.take(8),
    0x96: lambda machine: _raw(machine, machine.number("<Q")),
    0x97: _refuse_buffer,
    0x98: _refuse_buffer,
}
