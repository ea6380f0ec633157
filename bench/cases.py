"""The three benchmarks: start-up, planning, copying."""

from __future__ import annotations

import json
import os
from pathlib import Path

from bench.measure import PYTHON, SURGERY, Case, compare

RENAME_SCRIPT = """
from safetensors import safe_open
from safetensors.numpy import save_file
with safe_open("big.safetensors", "np") as source:
    tensors = {key.replace("model.", "encoder.", 1): source.get_tensor(key) for key in source.keys()}
save_file(tensors, "script.out.safetensors")
"""

PLAN_SCRIPT = """
import re
from safetensors import safe_open
rules = [%s]
with safe_open("many.safetensors", "np") as source:
    names = {}
    for key in source.keys():
        new = key
        for pattern, to in rules:
            new = re.sub(pattern, to, new, count=1)
        names[key] = new
assert len(set(names.values())) == len(names)
"""

RULES = [
    ("^bert/", "model/"),
    (r"/layer_(\d+)/", r"/layer/\1/"),
    (r"/block_(\d+)/", r"/block/\1/"),
    (r"/unit_(\d+)/", r"/unit/\1/"),
    ("/kernel$", "/weight"),
    ("/gamma$", "/scale"),
    ("/beta$", "/bias"),
    (r"(\d+)/weight", r"\1/w"),
    ("attention", "attn"),
    ("intermediate", "mid"),
    ("output", "out"),
    ("^model/", "net/"),
    (r"layer/(\d+)", r"layers/\1"),
    (r"block/(\d+)", r"blocks/\1"),
    (r"unit/(\d+)", r"units/\1"),
    ("LayerNorm", "norm"),
    ("adam_[mv]$", "slot"),
    ("pooler", "pool"),
    ("/", "."),
    ("^net", "encoder"),
]


def start_up(folder: Path, runs: int) -> list[str]:
    """`surgery --version` and a tiny plan beside bare Python starts."""
    write_checkpoint(folder / "tiny.safetensors", {f"layer_{i}/kernel": [2, 2] for i in range(10)})
    (folder / "tiny.yaml").write_text(
        "surgery: 1\nsteps:\n  - load: {path: tiny.safetensors}\n  - rename: {match: kernel, to: weight}\n  - save: {path: out.safetensors}\n"
    )
    version = [Case("surgery --version", [SURGERY, "--version"]), Case("python -c pass", [PYTHON, "-c", "pass"])]
    imports = "import yaml, pydantic, regex, numpy"
    plan = [Case("surgery plan tiny.yaml", [SURGERY, "plan", "tiny.yaml"]), Case(f"python -c '{imports}'", [PYTHON, "-c", imports])]
    return compare("Start-up", version, folder, runs) + compare("A tiny plan", plan, folder, runs)


def planning(folder: Path, runs: int) -> list[str]:
    """A recipe with 20 rename rules over 100,000 keys beside a loop of `re.sub` over the same keys."""
    write_checkpoint(
        folder / "many.safetensors", {f"bert/layer_{i // 1000}/block_{i // 100 % 10}/unit_{i % 100}/kernel": [2, 2] for i in range(100_000)}
    )
    rules = "".join(f"      - {{match: '{pattern}', to: '{to}', optional: true}}\n" for pattern, to in RULES)
    (folder / "many.yaml").write_text(
        f"surgery: 1\nsteps:\n  - load: {{path: many.safetensors}}\n  - rename:\n{rules}  - save: {{path: out.safetensors}}\n"
    )
    script = PLAN_SCRIPT % ", ".join(f"(r'{pattern}', r'{to}')" for pattern, to in RULES)
    cases = [Case("surgery plan, 20 rules, 100,000 keys", [SURGERY, "plan", "many.yaml"]), Case("safetensors + re.sub loop", [PYTHON, "-c", script])]
    return compare("Planning", cases, folder, runs)


def copying(folder: Path, runs: int, nbytes: int = 2 << 30) -> list[str]:
    """A rename of 2 GiB beside `cp`, `cp` with its bytes flushed as surgery flushes them, and the usual script."""
    write_checkpoint(folder / "big.safetensors", {f"model.layers.{i}.weight": [1 << 12, 1 << 11] for i in range(nbytes >> 25)}, random=True)
    (folder / "big.yaml").write_text(
        "surgery: 1\nsteps:\n  - load: {path: big.safetensors}\n  - rename: {match: '^model', to: encoder}\n  - save: {path: out.safetensors}\n"
    )

    def remove(name: str) -> None:
        (folder / name).unlink()

    cases = [
        Case("surgery run (flushed)", [SURGERY, "run", "big.yaml"], lambda: remove("out.safetensors")),
        Case("safetensors + numpy script (not flushed)", [PYTHON, "-c", RENAME_SCRIPT], lambda: remove("script.out.safetensors")),
        Case("cp (not flushed)", ["cp", "big.safetensors", "cp.out"], lambda: remove("cp.out")),
        Case("cp + sync", ["sh", "-c", "cp big.safetensors cp.out && sync cp.out"], lambda: remove("cp.out")),
    ]
    return compare(f"Copying {nbytes >> 30} GiB with renames", cases, folder, runs)


def write_checkpoint(path: Path, shapes: dict[str, list[int]], *, random: bool = False) -> None:
    """A safetensors file of float32 tensors: zeros, or a repeated random block that no file system stores as a hole."""
    header, start = {}, 0
    for key, shape in shapes.items():
        stop = start + 4 * shape[0] * shape[1]
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    block = os.urandom(1 << 20) if random else bytes(1 << 20)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for done in range(0, start, len(block)):
            file.write(block[: start - done])
        file.flush()
        os.fsync(file.fileno())
