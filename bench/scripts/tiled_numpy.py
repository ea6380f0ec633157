"""The least that numpy can do with these bytes: `tiled_numpy.py cast|transpose`, in a folder beside `models`.

Reads the tensors, writes their new bytes one after the other and flushes them, on all cores. No header, no names, no checks.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

MODEL = "../models/llama-f32/model.safetensors"
AT_ONCE = 1 << 20  # values that one job casts or copies
PIECE = 1 << 16  # values whose temporaries stay in the cache
SIDE = 64  # of the squares that are transposed, in values; as many rows of the result are one job

source = np.memmap(MODEL, np.uint8, "r")
data = 8 + int.from_bytes(source[:8].tobytes(), "little")
target = os.open("out.bin", os.O_RDWR | os.O_CREAT)


def copy(values, at):
    os.pwrite(target, values, at)


def cast(values, at):
    """float32 to bfloat16, rounded to nearest even, by integer arithmetic."""
    out = np.empty(values.size, np.uint16)
    for low in range(0, values.size, PIECE):
        bits = values[low : low + PIECE]
        out[low : low + PIECE] = (bits + ((bits >> 16 & 1) + 0x7FFF)) >> 16
    os.pwrite(target, out, at)


def transpose(columns, at):
    """A few columns become rows."""
    height, width = columns.shape
    out = np.empty((width, height), np.uint32)
    for row in range(0, height, SIDE):
        out[:, row : row + SIDE] = columns[row : row + SIDE].T
    os.pwrite(target, out, at)


def jobs(operation):
    """A function, the values it is given, and the offset where its result goes."""
    header = json.loads(source[8:data].tobytes())
    del header["__metadata__"]
    for key, tensor in header.items():
        start, stop = tensor["data_offsets"]
        values = source[data + start : data + stop].view(np.uint32)
        if operation == "transpose" and key.endswith("_proj.weight"):
            height, width = tensor["shape"]
            matrix = values.reshape(height, width)
            for column in range(0, width, SIDE):
                yield transpose, matrix[:, column : column + SIDE], start + column * height * 4
        else:
            function, itemsize = (cast, 2) if operation == "cast" else (copy, 4)
            for low in range(0, values.size, AT_ONCE):
                yield function, values[low : low + AT_ONCE], start * itemsize // 4 + low * itemsize


with ThreadPoolExecutor(os.cpu_count()) as pool:
    running = [pool.submit(function, values, at) for function, values, at in jobs(sys.argv[1])]
    for job in running:
        job.result()
os.fsync(target)
