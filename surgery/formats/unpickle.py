"""An interpreter of pickles that runs nothing: protocols 0 to 5, with every opcode that means an import or a call turned into data.

Containers, numbers, text and bytes are built. Names of classes and functions become `Global`; what would call one is handed to a
`Builder`, which may know it and otherwise makes a `Stub`. Work and memory are bounded, whatever the bytes say.
"""

from __future__ import annotations

from surgery.formats.collecting import no_garbage_collection
from surgery.formats.pickle_machine import Builder, Machine
from surgery.formats.pickle_opcodes import OPERATIONS, STOP
from surgery.formats.tape import PickleFault, Tape

MOST_OPERATIONS = 2_000_000
"""A tensor takes about 35, and about 20 objects; this ends within a second."""


def unpickle(tape: Tape, builder: Builder) -> object:
    """Interpret the next pickle on a tape, which then stands behind it.

    Values are None, bool, int, float, str, bytes, list (sets, too), tuple, dict, `Span`, `Global`, `Stub` and what `builder` makes. Nothing is
    copied that a pickle refers to twice, so that values may be shared, and contain themselves.

    Raises:
        PickleFault: it is no pickle, or wants more than MOST_OPERATIONS, MOST_OBJECTS, or what cannot be had here.
    """
    machine = Machine(tape, builder)
    try:
        with no_garbage_collection():
            return _run(machine)
    except IndexError:
        raise PickleFault("the stack has too few values", machine.op_start, tape.at) from None
    except (ValueError, TypeError) as fault:
        raise PickleFault(str(fault), machine.op_start, tape.at) from None


def _run(machine: Machine) -> object:
    tape, operations = machine.tape, OPERATIONS
    for _ in range(MOST_OPERATIONS):
        machine.op_start = tape.at
        code = tape.byte()
        if code == STOP:
            return machine.stack.pop()
        operation = operations.get(code)
        if operation is None:
            raise ValueError(f"{code:#04x} is no opcode")
        operation(machine)
    raise ValueError(f"more than {MOST_OPERATIONS:,} operations")
