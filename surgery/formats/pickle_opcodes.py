"""The opcodes of pickles, protocols 0 to 5: each is a function of the machine, which makes data of what would be an import or a call.

Source of format facts: `pickletools.py` of CPython 3.13.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping

from surgery.formats.pickle_machine import BYTES_PER_OBJECT, Machine

_MOST_NUMBER_BYTES = 1024
_NUMBER_BYTES_PER_OBJECT = 8
_MOST_TEXT_BYTES = 1 << 20


def _text(machine: Machine, nbytes: int) -> None:
    if nbytes > _MOST_TEXT_BYTES or (nbytes > machine.tape.held and machine.encodes_next()):
        machine.push(machine.tape.skip(nbytes, is_text=True))
        return
    machine.spend(nbytes // BYTES_PER_OBJECT)
    machine.push(machine.take(nbytes).decode("utf-8", "surrogatepass"))


def _raw(machine: Machine, nbytes: int) -> None:
    if nbytes > machine.tape.held:
        machine.push(machine.tape.skip(nbytes, is_text=False))
        return
    machine.spend(nbytes // BYTES_PER_OBJECT)
    machine.push(machine.take(nbytes))


def _long_old_text(machine: Machine) -> None:
    nbytes = machine.signed(4)
    if nbytes < 0:
        raise ValueError("a length below zero")
    if nbytes > machine.tape.held:
        _raw(machine, nbytes)
    else:
        _old_text(machine, machine.take(nbytes))


def _old_text(machine: Machine, raw: bytes) -> None:
    """What Python 2 called a string: text if it is UTF-8, else bytes."""
    machine.spend(len(raw) // BYTES_PER_OBJECT)
    try:
        machine.push(raw.decode())
    except UnicodeDecodeError:
        machine.push(raw)


def _quoted(machine: Machine) -> None:
    line = machine.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("text without quotes")
    _old_text(machine, codecs.escape_decode(line[1:-1])[0])


def _long(machine: Machine, nbytes: int) -> None:
    if not 0 <= nbytes <= _MOST_NUMBER_BYTES:
        raise ValueError(f"a number of {nbytes:,} bytes")
    machine.spend(nbytes // _NUMBER_BYTES_PER_OBJECT)
    machine.push(int.from_bytes(machine.take(nbytes), "little", signed=True))


def _decimal(machine: Machine) -> None:
    line = machine.line().strip()
    if len(line) > _MOST_NUMBER_BYTES:
        raise ValueError(f"a number of {len(line):,} digits")
    machine.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.removesuffix(b"L") or b"0"))


def _protocol(machine: Machine) -> None:
    protocol = machine.byte()
    if protocol > 5:
        raise ValueError(f"protocol {protocol}; 5 is the newest")


def _mark(machine: Machine) -> None:
    machine.spend(1)
    machine.outer.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.above_mark()


def _tuple_of(machine: Machine, length: int) -> None:
    if len(machine.stack) < length:
        raise IndexError
    values = tuple(machine.stack[-length:])
    del machine.stack[-length:]
    machine.push(values)


def _dictionary(machine: Machine) -> None:
    items = machine.above_mark()
    machine.push({})
    machine.put_items(items)


def _set_item(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.put_items([key, value])


def _global(machine: Machine) -> None:
    module, name = machine.line().decode(), machine.line().decode()
    machine.push(machine.named(module, name))


def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise ValueError("a name that is no text")
    machine.push(machine.named(module, name))


def _reduce(machine: Machine) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.call(function, arguments)


def _new_object_with_names(machine: Machine) -> None:
    named, arguments, function = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    machine.call(function, (*arguments, named) if named and type(arguments) is tuple else arguments)


def _instance(machine: Machine) -> None:
    module, name = machine.line().decode(), machine.line().decode()
    machine.call(machine.named(module, name), tuple(machine.above_mark()))


def _object(machine: Machine) -> None:
    function, *arguments = machine.above_mark() or [None]
    machine.call(function, tuple(arguments))


def _build(machine: Machine) -> None:
    state = machine.stack.pop()
    machine.builder.build(machine.stack[-1], state)


def _refuse_code(machine: Machine) -> None:
    raise ValueError("an extension code, which only the program that wrote it can know")


def _refuse_buffer(machine: Machine) -> None:
    raise ValueError("a buffer that is not in the pickle")


STOP = ord(".")
"""Ends a pickle; every other opcode is in OPERATIONS."""
OPERATIONS: Mapping[int, Callable[[Machine], object]] = {
    ord("("): _mark,
    ord("0"): _pop,
    ord("1"): lambda machine: machine.above_mark(),
    ord("2"): lambda machine: machine.push(machine.stack[-1]),
    ord("N"): lambda machine: machine.push(None),
    ord("F"): lambda machine: machine.push(float(machine.line())),
    ord("I"): _decimal,
    ord("L"): _decimal,
    ord("J"): lambda machine: machine.push(machine.signed(4)),
    ord("K"): lambda machine: machine.push(machine.byte()),
    ord("M"): lambda machine: machine.push(machine.unsigned(2)),
    ord("G"): lambda machine: machine.push(struct.unpack(">d", machine.take(8))[0]),
    ord("S"): _quoted,
    ord("T"): _long_old_text,
    ord("U"): lambda machine: _old_text(machine, machine.take(machine.byte())),
    ord("V"): lambda machine: machine.push(machine.line().decode("raw-unicode-escape")),
    ord("X"): lambda machine: _text(machine, machine.unsigned(4)),
    ord("B"): lambda machine: _raw(machine, machine.unsigned(4)),
    ord("C"): lambda machine: _raw(machine, machine.byte()),
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
    ord("h"): lambda machine: machine.recall(machine.byte()),
    ord("j"): lambda machine: machine.recall(machine.unsigned(4)),
    ord("p"): lambda machine: machine.remember(int(machine.line())),
    ord("q"): lambda machine: machine.remember(machine.byte()),
    ord("r"): lambda machine: machine.remember(machine.unsigned(4)),
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
    0x8A: lambda machine: _long(machine, machine.byte()),
    0x8B: lambda machine: _long(machine, machine.signed(4)),
    0x8C: lambda machine: _text(machine, machine.byte()),
    0x8D: lambda machine: _text(machine, machine.unsigned(8)),
    0x8E: lambda machine: _raw(machine, machine.unsigned(8)),
    0x8F: lambda machine: machine.push([]),
    0x90: lambda machine: machine.put_values(machine.above_mark()),
    0x91: lambda machine: machine.push(machine.above_mark()),
    0x92: _new_object_with_names,
    0x93: _stack_global,
    0x94: lambda machine: machine.remember(len(machine.memo)),
    0x95: lambda machine: machine.take(8),
    0x96: lambda machine: _raw(machine, machine.unsigned(8)),
    0x97: _refuse_buffer,
    0x98: _refuse_buffer,
}
