"""What needs no data: starting, and planning with many keys."""

from __future__ import annotations

import json

from bench.measure import PYTHON, SURGERY, Case, Setting, compare
from bench.models import write_model
from bench.peers import script
from bench.tables import Findings, at_most, comparison_table

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


def start_up(setting: Setting) -> Findings:
    """`surgery --version` and a tiny plan beside bare Python starts."""
    folder = setting.folder
    write_model(folder / "tiny.safetensors", {f"layer_{i}/kernel": (2, 2) for i in range(10)}, "F32")
    (folder / "tiny.yaml").write_text(_recipe("tiny.safetensors", [("kernel", "weight")]))
    bare = Case("python -c pass", [PYTHON, "-c", "pass"])
    version = Case("surgery --version", [SURGERY, "--version"])
    needed = "import yaml, pydantic, regex"
    imports = Case(f"python -c '{needed}'", [PYTHON, "-c", needed])
    plan = Case("surgery plan tiny.yaml", [SURGERY, "plan", "tiny.yaml"])
    starts = compare("Start-up", [version, bare], folder, setting.runs)
    plans = compare("A tiny plan", [plan, imports], folder, setting.runs)
    goals = [
        at_most("`surgery --version` / `python -c pass`", 2, starts.ratio(version.name, bare.name)),
        at_most(f"tiny plan / `{imports.name}`", 1.2, plans.ratio(plan.name, imports.name)),
    ]
    return Findings([*comparison_table(starts, bare.name), *comparison_table(plans, imports.name)], goals)


def planning(setting: Setting) -> Findings:
    """A recipe with 20 rename rules over 100,000 keys beside a loop of `re.sub` over the same keys."""
    folder = setting.folder
    keys = (f"bert/layer_{i // 1000}/block_{i // 100 % 10}/unit_{i % 100}/kernel" for i in range(100_000))
    write_model(folder / "many.safetensors", dict.fromkeys(keys, (2, 2)), "F32")
    (folder / "many.yaml").write_text(_recipe("many.safetensors", RULES))
    (folder / "many.json").write_text(json.dumps(RULES))
    plan = Case("surgery plan", [SURGERY, "plan", "many.yaml"])
    loop = script("safetensors + re.sub loop", "rename_keys.py", "many.safetensors many.json", "safetensors", flush="")
    compared = compare("Planning: 20 rules, 100,000 keys", [plan, loop], folder, setting.runs)
    return Findings(comparison_table(compared, loop.name))


def _recipe(path: str, rules: list[tuple[str, str]]) -> str:
    rename = "".join(f"      - {{match: '{pattern}', to: '{to}', optional: true}}\n" for pattern, to in rules)
    return f"surgery: 1\nsteps:\n  - load: {{path: {path}}}\n  - rename:\n{rename}  - save: {{path: out.safetensors}}\n"
