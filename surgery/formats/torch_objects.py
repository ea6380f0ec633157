"""What PyTorch's pickles are made of: tensors and their storages, as data. Serves the readers of all PyTorch containers.

Knows the functions that `torch.save` names for rebuilding; every other class or function stays a `Stub`. Imports nothing that a
pickle names. Source of format facts: torch 2.13, `torch/_utils.py` and `torch/serialization.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeGuard

from surgery.dtypes import DTYPES, DType
from surgery.formats.numpy_pickle import NumpyArray, encoded, of_buffer, scalar
from surgery.formats.pickle_machine import Global, Stub
from surgery.formats.tape import Span
from surgery.regions import strides_of

STORAGE_TYPES = {
    "Bool": "bool",
    "Byte": "uint8",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Float": "float32",
    "Double": "float64",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
"""The typed storages, by what stands before `Storage` in their names; newer types have untyped ones."""
NEWER_TYPES = ("uint16", "uint32", "uint64", "float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz", "float8_e8m0fnu")
_OTHER_WIDTHS = {"torch.QInt8Storage": 1, "torch.QUInt8Storage": 1, "torch.QInt32Storage": 4, "torch.QUInt4x2Storage": 1, "torch.QUInt2x4Storage": 1}
"""Bytes of an element of types that are skipped."""
_BYTES = DTYPES["uint8"]
_TORCH_DTYPES = {name: DTYPES[name] for name in (*STORAGE_TYPES.values(), *NEWER_TYPES)}
_UNREADABLE = {
    "torch._utils._rebuild_sparse_tensor": "is sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "is sparse",
    "torch._utils._rebuild_nested_tensor": "is nested",
    "torch._utils._rebuild_qtensor": "is quantised",
    "torch._utils._rebuild_meta_tensor_no_storage": "is a meta tensor, which has no values",
    "torch._utils._rebuild_wrapper_subclass": "is wrapped by a class of its own",
    "torch._utils._rebuild_device_tensor_from_numpy": "was saved through numpy",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "lay on a device that has no storages",
    "torch._utils._rebuild_xla_tensor": "was saved through numpy",
}
_FIRST_ARGUMENT = {
    "builtins.set",
    "builtins.frozenset",
    "builtins.list",
    "builtins.tuple",
    "__builtin__.set",
    "__builtin__.frozenset",
    "torch.Size",
    "torch.device",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.restore_type_tag",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
}
"""Calls that are, as far as values go, what they are given first; containers are handed on, not copied."""
_MAPPINGS = {"collections.OrderedDict", "builtins.dict", "__builtin__.dict"}


class Storage(NamedTuple):
    """Bytes that tensors look at, under a name within their file; `dtype` is None for element types unknown here.

    Those of a numpy array have no name: `content` has them, or their place in the pickle.
    """

    key: str
    dtype: DType | None
    type_name: str
    content: bytes | Span | None = None
    big_endian: bool = False

    @property
    def width(self) -> int:
        """Bytes of an element; 0 where it is not known."""
        return self.dtype.itemsize if self.dtype else _OTHER_WIDTHS.get(self.type_name, 0)


class Tensor:
    """A window into a storage: offset and strides in elements, not checked against the storage's size."""

    __slots__ = ("dtype", "offset", "shape", "storage", "strides")

    def __init__(self, storage: Storage, dtype: DType, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.storage = storage
        self.dtype = dtype
        self.offset = offset
        self.shape = shape
        self.strides = strides


class Unreadable(NamedTuple):
    """A tensor whose values cannot be had; `reason` continues its name."""

    reason: str


def tensor_of_array(array: NumpyArray) -> Tensor | Unreadable:
    """A numpy array as a tensor, whose storage is all of its bytes."""
    data = array.content
    if isinstance(data, str):
        return Unreadable(data)
    storage = Storage("", data.dtype, "numpy", data.raw, data.big_endian)
    strides = strides_of(data.shape[::-1])[::-1] if data.is_fortran else strides_of(data.shape)
    return Tensor(storage, data.dtype, 0, data.shape, strides)


class StorageInside(Exception):
    """A storage that is a pickle in the pickle, as Python's own `pickle.dump` leaves it (`torch.storage._load_from_bytes`)."""


class TorchBuilder:
    """Makes tensors, storages and containers of the calls in a pickle of PyTorch."""

    def call(self, function: Global, arguments: tuple[object, ...], spend: Callable[[int], None]) -> object:
        """What a call means; a `Stub` where that is not known. Raises ValueError for arguments that cannot be, and StorageInside."""
        name = function.name
        if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v3"):
            return _tensor(arguments, typed=name.endswith("v3"))
        if name in _UNREADABLE:
            return Unreadable(_UNREADABLE[name])
        if name in _FIRST_ARGUMENT:
            return arguments[0] if arguments else []
        if name in _MAPPINGS:
            return _mapping(arguments[0] if arguments else (), spend)
        if name == "collections.defaultdict":
            return {}
        if name == "torch._tensor._rebuild_from_type_v2" and len(arguments) == 4:
            return self._rebuilt(arguments[0], arguments[2], spend)
        if name == "_codecs.encode":
            return encoded(arguments, spend)
        if name in ("builtins.bytes", "__builtin__.bytes", "__builtin__.str") and not arguments:
            return b""
        if name == "torch.storage._load_from_bytes":
            raise StorageInside
        if name.startswith("numpy."):
            return _of_numpy(name, arguments)
        return Stub(name, arguments)

    def _rebuilt(self, function: object, arguments: object, spend: Callable[[int], None]) -> object:
        """A tensor of a subclass, by the function that makes the plain one."""
        if type(function) is not Global or type(arguments) is not tuple or function.name == "torch._tensor._rebuild_from_type_v2":
            raise ValueError("a tensor of a subclass that is not made from a plain one")
        return self.call(function, arguments, spend)

    def build(self, target: object, state: object) -> None:
        """Keep the state of a `Stub` or an array; containers and tensors have attributes that are no values of theirs."""
        if type(target) is Stub:
            target.state = state
        elif type(target) is NumpyArray:
            target.build(state)

    def persistent(self, name: object) -> object:
        """A storage, or in the legacy format a class with its source text. Raises ValueError for anything else."""
        if type(name) is tuple and len(name) == 4 and name[0] == "module":
            return name[1]
        if type(name) is not tuple or len(name) not in (5, 6) or name[0] != "storage":
            raise ValueError("a persistent name that is no storage")
        _, kind, key = name[:3]
        if type(kind) is not Global or type(key) is not str:
            raise ValueError("a storage without type and name")
        if len(name) == 6 and name[5] is not None:
            raise ValueError("a storage that is a view of another, as only PyTorch before 0.4 wrote it")
        return storage_type(kind, key)


def storage_type(kind: Global, key: str) -> Storage:
    """A storage by the class that PyTorch has for its element type."""
    short = kind.name.rpartition(".")[2].removesuffix("Storage")
    dtype = _BYTES if short == "Untyped" else DTYPES.get(STORAGE_TYPES.get(short, ""))
    return Storage(key, dtype, kind.name)


def torch_dtype(kind: Global) -> DType | None:
    """The element type of a name such as `torch.float32`; None where it is not known here."""
    return _TORCH_DTYPES.get(kind.name.removeprefix("torch."))


def _of_numpy(name: str, arguments: tuple[object, ...]) -> object:
    _, _, function = name.rpartition(".")
    if function == "_reconstruct":
        return NumpyArray()
    if function == "_frombuffer":
        return of_buffer(arguments)
    if function == "scalar":
        return scalar(arguments)
    return Stub(name, arguments)


def _tensor(arguments: tuple[object, ...], *, typed: bool) -> Tensor | Unreadable:
    least, at_metadata = (7, 7) if typed else (4, 6)
    if len(arguments) < least:
        raise ValueError("a tensor without storage, offset, shape and strides")
    storage, offset, shape, strides = arguments[:4]
    if type(storage) is not Storage or not _is_count(offset) or not _are_counts(shape) or not _are_counts(strides):
        raise ValueError("a tensor whose storage, offset, shape or strides are none")
    if len(shape) != len(strides):
        raise ValueError(f"a tensor with {len(shape)} axes and {len(strides)} strides")
    dtype, name = storage.dtype, storage.type_name
    if typed:
        kind = arguments[6]
        if type(kind) is not Global:
            raise ValueError("a tensor without element type")
        dtype, name = torch_dtype(kind), kind.name
    if dtype is None:
        return Unreadable(f"has elements of a type that is not known here, {name[:80]}")
    metadata = arguments[at_metadata] if len(arguments) > at_metadata else None
    if type(metadata) is dict and (metadata.get("conj") or metadata.get("neg")):
        return Unreadable("is stored conjugated or negated (`resolve_conj`, `resolve_neg`)")
    return Tensor(storage, dtype, offset, shape, strides)


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 63


def _are_counts(values: object) -> TypeGuard[tuple[int, ...]]:
    return type(values) is tuple and all(map(_is_count, values))


def _mapping(items: object, spend: Callable[[int], None]) -> dict[object, object]:
    """A mapping from pairs, as protocol 0 and Python 2 spell it."""
    if not isinstance(items, dict | list | tuple):
        raise ValueError("a mapping of something that is no pairs")
    spend(len(items))
    if isinstance(items, dict):
        return dict(items)
    made: dict[object, object] = {}
    for pair in items:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or type(pair[0]) not in (str, int):
            raise ValueError("a mapping of something that is no pairs")
        made[pair[0]] = pair[1]
    return made
