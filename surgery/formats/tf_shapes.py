"""Shapes and slices of TensorFlow's protos, read from the wire. Serves V1 checkpoints and graphs.

Source: TensorFlow, core/framework/{tensor_shape,tensor_slice}.proto.
"""

from __future__ import annotations

from surgery.formats.tf_slices import Slice
from surgery.formats.wire import Field, Message

_MOST_AXES = 254


def read_shape(message: Message, field: Field) -> tuple[int, ...] | None:
    """The sizes of a TensorShapeProto, -1 where one is unknown; None where not even their number is known.

    Raises:
        CorruptFile: more axes than TensorFlow allows, or a damaged message.
    """
    sizes = []
    for part in message.fields(field.start, field.stop):
        if part.number == 3 and part.value:
            return None
        if part.number == 2:
            sizes.append(_numbers(message, part).get(1, 0))
            if len(sizes) > _MOST_AXES:
                raise message.corrupt(f"a shape has more than {_MOST_AXES} axes", field.start, field.stop)
    return tuple(sizes)


def read_slice(message: Message, field: Field) -> Slice:
    """A TensorSliceProto. Raises CorruptFile as `read_shape` does."""
    extents: list[tuple[int, int | None]] = []
    for part in message.fields(field.start, field.stop):
        if part.number == 1:
            told = _numbers(message, part)
            extents.append((told.get(1, 0), told.get(2)))
            if len(extents) > _MOST_AXES:
                raise message.corrupt(f"a slice has more than {_MOST_AXES} axes", field.start, field.stop)
    return Slice(tuple(extents))


def _numbers(message: Message, field: Field) -> dict[int, int]:
    """The integers of a small message by field number."""
    return {part.number: message.numbers(part)[0] for part in message.fields(field.start, field.stop) if part.kind == 0}
