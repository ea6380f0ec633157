"""Quantised blocks as numbers: the node that `cast` puts over a tensor of blocks. Serves planning and computing; knows no file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surgery.dtypes import DTYPES
from surgery.ggml_blocks import decode
from surgery.nodes import Expr
from surgery.regions import Region, extent_of
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    from surgery.nodes import Array

_PIECE = 1 << 16
"""Numbers decoded at once: temporaries stay in the cache, and their memory is bounded."""


class Dequantised(Expr):
    """The float32 numbers in a tensor of blocks; the last axis, which counted blocks, becomes `block` times as long.

    The maker has asked `ggml_blocks.is_decodable`.
    """

    __slots__ = ()

    def __init__(self, child: Expr) -> None:
        *rows, blocks = child.spec.shape
        self.children = (child,)
        self.spec = TensorSpec(DTYPES["float32"], (*rows, blocks * child.spec.dtype.block))

    def needs(self, region: Region) -> tuple[Region, ...]:
        start, stop = region[-1]
        block = self.children[0].spec.dtype.block
        return ((*region[:-1], (start // block, -(-stop // block))),)

    def compute(self, region: Region, inputs: tuple[Array, ...]) -> Array:
        import numpy as np

        dtype, blocks = self.children[0].spec.dtype, inputs[0]
        flat = np.ascontiguousarray(blocks).reshape(-1).view(np.uint8).reshape(-1, dtype.itemsize)
        numbers = np.empty((len(flat), dtype.block), np.float32)
        step = _PIECE // dtype.block
        for start in range(0, len(flat), step):
            numbers[start : start + step] = decode(flat[start : start + step], dtype)
        whole_blocks = numbers.reshape(*blocks.shape[:-1], blocks.shape[-1] * dtype.block)
        first = region[-1][0] % dtype.block
        return whole_blocks[..., first : first + extent_of(region)[-1]]
