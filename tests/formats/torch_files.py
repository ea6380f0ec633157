"""Writes PyTorch files without PyTorch, and without our writer: Python's own pickle and zipfile modules, and the shapes of the format."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

STORAGES = {
    "bool": "BoolStorage",
    "uint8": "ByteStorage",
    "int32": "IntStorage",
    "int64": "LongStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
}


class Named:
    """A global, written by its name without anyone importing it."""

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __call__(self) -> None:
        raise AssertionError("never called")


class Stored:
    """An array's storage, written as a persistent name."""

    def __init__(self, key: str, array: Array, tail: tuple[object, ...] = ()) -> None:
        self.name = ("storage", Named("torch", STORAGES[array.dtype.name]), key, "cpu", array.size, *tail)


class Call:
    """An object that is written as a call."""

    def __init__(self, function: Named, *arguments: object) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


class Pickler(pickle._Pickler):
    """Python's own, but for names and storages."""

    dispatch = dict(pickle._Pickler.dispatch)

    def persistent_id(self, obj: object) -> object:
        return obj.name if isinstance(obj, Stored) else None

    def save_named(self, obj: Named) -> None:
        self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())

    dispatch[Named] = save_named


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, 2).dump(value)
    return stream.getvalue()


def tensor_of(stored: Stored, array: Array) -> Call:
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), stored, 0, array.shape, strides, False, OrderedDict())


def state_dict(arrays: Mapping[str, Array], tail: tuple[object, ...] = ()) -> OrderedDict[str, Call]:
    return OrderedDict((key, tensor_of(Stored(str(number), array, tail), array)) for number, (key, array) in enumerate(arrays.items()))


def zip_file(arrays: Mapping[str, Array], order: str = "little") -> bytes:
    """A state dict in the zip container, in either byte order."""
    data = [array.astype(array.dtype.newbyteorder(">" if order == "big" else "<")).tobytes() for array in arrays.values()]
    return zip_of(
        {"data.pkl": pickled(state_dict(arrays)), "byteorder": order.encode(), **{f"data/{n}": raw for n, raw in enumerate(data)}, "version": b"3\n"}
    )


def zip_of(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"any/{name}"), content, method)
    return stream.getvalue()


def legacy_file(arrays: Mapping[str, Array]) -> bytes:
    """A state dict in the container before 1.6."""
    keys = [str(number) for number in range(len(arrays))]
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    heads: list[object] = [0x1950A86A20F9469CFC6C, 1001, system, state_dict(arrays, (None,)), keys]
    return b"".join([*map(pickled, heads), *(struct.pack("<q", array.size) + array.tobytes() for array in arrays.values())])


Write = Callable[[Mapping[str, Array]], bytes]
