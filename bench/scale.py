"""How planning grows from a thousand keys to a million: whole commands on a mixture of experts, sharded and all header."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from bench.checkpoints import write_mixture
from bench.measure import SURGERY, run

SIZES = (1_000, 10_000, 100_000, 1_000_000)

RULES = [
    ("^model\\.", "decoder."),
    ("^optimizer\\.(exp_avg|exp_avg_sq)\\.model\\.", "slots.\\1.decoder."),
    ("\\.exp_avg\\.", ".m."),
    ("\\.exp_avg_sq\\.", ".v."),
    ("layers\\.(\\d+)\\.", "blocks.\\1."),
    ("blocks\\.(?P<n>\\d+)\\.", "blocks.{n+1}."),
    ("mlp\\.experts\\.(\\d+)\\.gate_proj", "moe.\\1.w1"),
    ("mlp\\.experts\\.(\\d+)\\.up_proj", "moe.\\1.w3"),
    ("mlp\\.experts\\.(\\d+)\\.down_proj", "moe.\\1.w2"),
    ("_scale_inv$", ".scale"),
    ("\\.weight\\.scale$", ".scale"),
    ("\\.weight$", ".kernel"),
    ("self_attn", "attention"),
    ("kv_a_proj_with_mqa", "kv_down"),
    ("kv_b_proj", "kv_up"),
    ("q_a_proj", "q_down"),
    ("q_b_proj", "q_up"),
    ("o_proj", "out"),
    ("input_layernorm", "norm"),
    ("post_attention_layernorm", "mlp_norm"),
    ("shared_experts\\.(gate|up|down)_proj", "shared.\\1"),
    ("^lm_head\\.weight$", "head.kernel"),
    ("embed_tokens", "embedding"),
    ("rotary_emb\\.inv_freq$", "rotary.frequencies"),
    ("\\.(m|v)\\.decoder\\.(.*)$", ".\\2.\\1"),
    ("^slots\\.(.*)\\.kernel\\.([mv])$", "decoder.\\1.\\2"),
    ("moe\\.(\\d+)\\.w(\\d)\\.", "moe.w\\2.\\1."),
    ("[.]bias$", ".offset"),
    ("attention\\.(\\w+)\\.", "attention/\\1/"),
    ("\\.", "/"),
]
"""Literals and captures, anchored and not: some touch every key, some a few, some none."""


def scale(folder: Path, runs: int) -> list[str]:
    """Plans with 30 rename rules over a thousand to a million keys."""
    lines = [
        f"### Planning at scale, {len(RULES)} rules",
        "",
        f"| keys | wall, median of {runs} | cpu | peak memory | wall per 1,000 keys |",
        "|---|---|---|---|---|",
    ]
    for keys in SIZES:
        write_mixture(folder / f"mixture-{keys}", keys)
        (folder / "scale.yaml").write_text(recipe(f"mixture-{keys}"))
        results = [run([SURGERY, "plan", "scale.yaml"], folder) for _ in range(runs + 1)][1:]
        wall = median(result.wall for result in results)
        cpu, peak = median(result.cpu for result in results), median(result.peak_mib for result in results)
        lines.append(f"| {keys:,} | {wall:.2f} s | {cpu:.2f} s | {peak:,.0f} MiB | {wall / keys * 1e6:.1f} ms |")
    return [*lines, ""]


def recipe(path: str) -> str:
    """Loads a checkpoint, renames it by all rules and saves it in shards: a million keys are more than one header may have."""
    rules = "".join(f"      - {{match: '{pattern}', to: '{to}', optional: true}}\n" for pattern, to in RULES)
    save = "  - save: {path: out, format: safetensors, shard_size: 16MB}\n"
    return f"surgery: 1\nsteps:\n  - load: {{path: {path}}}\n  - rename:\n{rules}{save}"
