"""`compute` and `dequantize` through files: the jobs that people have for them, and the same bytes for every memory and number of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import surgery
from surgery.api import Plan, Source

DICE = np.random.default_rng(11)


def normal(*shape: int) -> Any:
    return DICE.standard_normal(shape).astype("f4")


def planned(folder: Path, arrays: dict[str, Any], steps: str, out: str = "out.safetensors", **how: Any) -> Plan:
    np.savez(folder / "in.npz", **arrays)
    recipe = f"surgery: 1\nsteps:\n  - load: {{path: '{folder}/in.npz'}}\n{steps}  - save: {{path: '{folder}/{out}'}}\n"
    return surgery.plan(Source(recipe, "r.yaml"), **how)


def ran(folder: Path, arrays: dict[str, Any], steps: str) -> dict[str, Any]:
    planned(folder, arrays, steps).run()
    with surgery.open(folder / "out.safetensors") as written:
        return {key: written[key].numpy() for key in written}


LORA = r"""
  - compute:
      let: {w: '^(.*)\.base_layer\.weight$', a: '^(.*)\.lora_A\.weight$', b: '^(.*)\.lora_B\.weight$'}
      expr: w + 16 / dim(a, 0) * (b @ a)
      to: '\1.weight'
"""


def lora(rows: int, columns: int) -> dict[str, Any]:
    return {"q.base_layer.weight": normal(rows, columns), "q.lora_A.weight": normal(4, columns), "q.lora_B.weight": normal(rows, 4)}


def test_a_lora_adapter_is_merged(tmp_path: Path) -> None:
    arrays = lora(30, 20)
    (merged,) = ran(tmp_path, arrays, LORA).values()
    w, a, b = (array.astype("f8") for array in arrays.values())
    np.testing.assert_allclose(merged, w + 4 * (b @ a), rtol=0, atol=2e-6)


def test_weight_norm_is_folded(tmp_path: Path) -> None:
    g, v = normal(8, 1, 1), normal(8, 5, 3)
    step = "  - compute: {let: {g: _g$, v: _v$}, expr: 'g * v / sqrt(sum(v ** 2, axis=(1, 2), keepdims=true))', to: ''}\n"
    folded = ran(tmp_path, {"c.weight_g": g, "c.weight_v": v}, step)
    norms = np.linalg.norm(v.astype("f8").reshape(8, -1), axis=1).reshape(8, 1, 1)
    np.testing.assert_allclose(folded["c.weight"], g * v / norms, rtol=5e-7)


def test_batch_norm_is_folded_into_a_convolution(tmp_path: Path) -> None:
    w, gamma, beta, mean, var = normal(6, 3, 2, 2), normal(6), normal(6), normal(6), abs(normal(6))
    arrays = {"c.weight": w, "n.weight": gamma, "n.bias": beta, "n.mean": mean, "n.var": var}
    steps = """
  - compute: {let: {w: ^c.weight$, g: ^n.weight$, v: ^n.var$}, expr: '(w.T * (g / sqrt(v + 1e-5))).T', to: c.w, keep_inputs: true}
  - compute: {let: {b: ^n.bias$, m: ^n.mean$, g: ^n.weight$, v: ^n.var$}, expr: b - m * g / sqrt(v + 1e-5), to: c.b}
"""
    folded = ran(tmp_path, arrays, steps)
    scale = gamma.astype("f8") / np.sqrt(var.astype("f8") + 1e-5)
    np.testing.assert_allclose(folded["c.w"], w * scale[:, None, None, None], rtol=5e-7)
    np.testing.assert_allclose(folded["c.b"], beta - mean * scale, rtol=0, atol=1e-5)


def test_small_jobs(tmp_path: Path) -> None:
    arrays = {"norm.weight": normal(5), "logit_scale": np.float32(4.6052), "a.w": normal(3), "b.w": normal(3)}
    steps = r"""
  - compute: {let: {w: '(norm\.weight)$'}, expr: w + 1, to: '\1'}
  - compute: {let: {s: ^logit_scale$}, expr: exp(s), to: scale}
  - compute: {let: {a: ^a/?\., b: ^b/?\.}, expr: (a + b) / 2, to: mean., keep_inputs: true}
  - compute: {let: {a: ^a\., b: ^b\.}, expr: 0.999 * a + (1 - 0.999) * b, to: ema.}
"""
    made = ran(tmp_path, arrays, steps)
    assert made["norm.weight"].tobytes() == (arrays["norm.weight"] + np.float32(1)).tobytes()
    assert made["scale"] == np.float32(np.exp(np.float64(np.float32(4.6052))))
    assert made["mean.w"].tobytes() == ((arrays["a.w"] + arrays["b.w"]) / np.float32(2)).tobytes()
    np.testing.assert_allclose(made["ema.w"], 0.999 * arrays["a.w"].astype("f8") + 0.001 * arrays["b.w"], rtol=0, atol=3e-7)


def test_a_result_is_rounded_once_to_nearest_even(tmp_path: Path) -> None:
    w = normal(1_000).astype(ml_dtypes.bfloat16).astype("f4")
    steps = "  - cast: {dtype: bfloat16}\n  - compute: {let: {w: ^w$}, expr: w * 1.001, to: w}\n"
    assert ran(tmp_path, {"w": w}, steps)["w"].tobytes() == (w * np.float32(1.001)).astype(ml_dtypes.bfloat16).tobytes()


def test_a_value_beyond_the_result_is_an_error_with_its_key(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"w": np.array([1, 300], "f4")}, "  - compute: {let: {w: ^w$}, expr: w * w, to: v, dtype: float16}\n")
    with pytest.raises(surgery.ApplyError, match="`v` has the value 90000, which float16 cannot hold"):
        plan.run()
    assert not (tmp_path / "out.safetensors").exists()


def test_memory_and_threads_change_no_bit(tmp_path: Path) -> None:
    arrays = lora(333, 1_700) | {"x.weight": normal(400, 700)}
    steps = LORA + "  - compute: {let: {x: ^x}, expr: 'x @ x.T / sqrt(sum(x ** 2, axis=1, keepdims=true)) - mean(x)', to: y}\n"
    written = set()
    for jobs in (1, 2, 4):
        for memory in (1 << 20, 4 << 20, 1 << 30):
            planned(tmp_path, arrays, steps, f"{jobs}-{memory}.safetensors", memory=memory, jobs=jobs).run()
            written.add((tmp_path / f"{jobs}-{memory}.safetensors").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize(("shape", "scales"), [((300, 200), (3, 2)), ((2, 130, 128), (2, 2, 1)), ((300, 200), (300,)), ((300, 200), ())])
def test_weights_are_dequantised(tmp_path: Path, shape: tuple[int, ...], scales: tuple[int, ...]) -> None:
    weight, scale = normal(*shape).astype(ml_dtypes.float8_e4m3fn).astype("f4"), abs(normal(*scales)).astype("f4")
    steps = "  - cast: {keys: w, dtype: float8_e4m3fn}\n  - dequantize: {keys: w, scale: s}\n"
    spread = scale.reshape(*scales, *[1] * (len(shape) - len(scales)))
    for axis in (len(shape) - 2, len(shape) - 1):
        if spread.shape[axis] not in (1, shape[axis]) or (len(scales) == len(shape) and spread.shape[axis] == 1):
            spread = spread.repeat(128, axis)
    spread = spread[tuple(slice(size) for size in shape)]
    made = ran(tmp_path, {"w": weight, "s": scale}, steps)
    assert list(made) == ["w"]
    assert made["w"].tobytes() == (weight * spread).astype(ml_dtypes.bfloat16).tobytes()
