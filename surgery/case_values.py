"""Values of tests: the arrays that they are made of, a file to hold them, and where an array differs from what is expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from surgery.cases import ExpectedTensor, Tensor, counted_from, shape_of
from surgery.casting import cast
from surgery.dtypes import DTYPES, DType
from surgery.errors import ApplyError
from surgery.formats.safetensors_header import CODE_OF
from surgery.initializers import check, fill, parse
from surgery.regions import whole
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_MOST_EXACT_BITS = 24


def array_of(tensor: Tensor, key: str) -> Array:
    """The values of a tensor of an input."""
    shape = shape_of(tensor.fill) or () if tensor.shape is None else tuple(tensor.shape)
    return filled(tensor.fill, TensorSpec(DTYPES[tensor.dtype], shape), key)


def filled(how: Any, spec: TensorSpec, key: str) -> Array:
    """Values of this spec as a `fill` says. Random ones depend on the key only. Raises ApplyError where the dtype cannot hold them."""
    import numpy as np

    if isinstance(how, (list, int, float)):
        return _cast(np.array(how), spec.dtype, key).reshape(spec.shape)
    start = counted_from(how)
    if start is not None:
        return _cast((np.arange(spec.size) + start) % _period(spec.dtype), spec.dtype, key).reshape(spec.shape)
    initializer = parse(how)
    refused = check(initializer, spec)
    if refused:
        raise ApplyError(f"`{key}`: {refused}", code="bad-initializer", help="use another `fill`")
    return fill(initializer, spec, 0, key, whole(spec.shape))


def _cast(values: Array, dtype: DType, key: str) -> Array:
    """Values in another type; floats become integers only where nothing is lost."""
    import numpy as np

    if values.dtype.kind == "f" and dtype.kind in ("int", "uint", "bool") and np.all(values == np.floor(values)):
        values = values.astype(np.int64)
    return cast(values, dtype, label=key)


def _period(dtype: DType) -> int:
    """Numbers from 0 to below this are exact in a dtype; counting begins again there, so that no two neighbours look alike."""
    import numpy as np

    if dtype.kind == "bool":
        return 2
    for bits in range(_MOST_EXACT_BITS, 1, -1):
        top = np.array([2**bits - 1])
        if cast(top, dtype, overflow="saturate").astype(np.complex128) == top:
            return 1 << bits
    return 2


def encoded(arrays: Mapping[str, Array], dtypes: Mapping[str, DType]) -> bytes:
    """A safetensors file with these arrays. Raises ApplyError for dtypes that it does not have."""
    header: dict[str, Any] = {}
    at, data = 0, []
    for key, array in arrays.items():
        dtype = dtypes[key]
        if dtype not in CODE_OF:
            raise ApplyError(f"`{key}`: tests have no inputs of {dtype}", code="unknown-dtype", help="`cast` can make one from another dtype")
        data.append(array.tobytes())
        header[key] = {"dtype": CODE_OF[dtype], "shape": list(array.shape), "data_offsets": [at, at + len(data[-1])]}
        at += len(data[-1])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(data)


def difference(found: Array, dtype: DType, wanted: ExpectedTensor, inputs: Mapping[str, Array], key: str) -> str:
    """What of a tensor is not as expected, in a few words; "" where all is."""
    if wanted.dtype is not None and dtype.name != wanted.dtype:
        return f"dtype {dtype.name}, {wanted.dtype} expected"
    if wanted.shape is not None and found.shape != tuple(wanted.shape):
        return f"shape {list(found.shape)}, {wanted.shape} expected"
    if wanted.input is not None:
        if wanted.input not in inputs:
            return f"no input has a tensor `{wanted.input}`"
        return unlike(found, inputs[wanted.input], wanted.rtol, wanted.atol)
    how = wanted.fill if wanted.values is None else wanted.values
    if how is None:
        return ""
    if isinstance(how, (list, int, float)) and shape_of(how) not in (found.shape, (found.size,)):
        return f"shape {list(found.shape)}, values of the shape {list(shape_of(how) or ())} expected"
    return unlike(found, filled(how, TensorSpec(dtype, found.shape), key), wanted.rtol, wanted.atol)


def unlike(found: Array, wanted: Array, rtol: float | None = None, atol: float | None = None) -> str:
    """Where two arrays differ; "" where they do not. Without a tolerance all bits count, but NaN is NaN."""
    import numpy as np

    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return f"{found.dtype.name} {list(found.shape)}, {wanted.dtype.name} {list(wanted.shape)} expected"
    wide = np.complex128 if found.dtype.kind == "c" else np.float64
    if rtol is not None or atol is not None:
        same = np.isclose(found.astype(wide), wanted.astype(wide), rtol=rtol or 0.0, atol=atol or 0.0, equal_nan=True)
    else:
        bits = f"V{found.dtype.itemsize}"
        same = (_flat(found).view(bits) == _flat(wanted).view(bits)).reshape(found.shape)
        if found.dtype.kind not in "biu":
            same |= np.isnan(found.astype(wide)) & np.isnan(wanted.astype(wide))
    if same.all():
        return ""
    first = tuple(int(index) for index in np.argwhere(~same)[0])
    more = f"; {int((~same).sum()):,} of {same.size:,} values differ" if same.size > 1 else ""
    return f"value {found[first]} at {list(first)}, {wanted[first]} expected{more}"


def _flat(array: Array) -> Array:
    import numpy as np

    return np.ascontiguousarray(array).reshape(-1)
