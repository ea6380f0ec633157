"""`compute` and `dequantize` beside torch's own functions for the same jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_bundles import load, run, save

import surgery

pytestmark = pytest.mark.peers


def ours(tmp_path: Path, arrays: dict[str, Any], *steps: dict[str, Any]) -> dict[str, Any]:
    np.savez(tmp_path / "in.npz", **{key: array.detach().numpy() for key, array in arrays.items()})
    run(load(tmp_path / "in.npz"), *steps, save(tmp_path / "out.safetensors"))
    with surgery.open(tmp_path / "out.safetensors") as checkpoint:
        return {key: checkpoint[key].numpy() for key in checkpoint}


def test_weight_norm(tmp_path: Path, torch: Any) -> None:
    torch.manual_seed(0)
    g, v = torch.rand(64, 1, 1) + 0.5, torch.randn(64, 48, 5)
    formula = "g * v / sqrt(sum(v ** 2, axis=(1, 2), keepdims=true))"
    made = ours(tmp_path, {"w_g": g, "w_v": v}, {"compute": {"let": {"g": "_g$", "v": "_v$"}, "expr": formula, "to": ""}})
    np.testing.assert_allclose(made["w"], torch._weight_norm(v, g, 0).numpy(), rtol=5e-7)


def test_batch_norm_in_a_convolution(tmp_path: Path, torch: Any) -> None:
    torch.manual_seed(1)
    w, b, mean, var, gamma, beta = torch.randn(16, 8, 3, 3), *(torch.rand(16) + 0.1 for _ in range(5))
    theirs = torch.nn.utils.fusion.fuse_conv_bn_weights(w, b, mean, var, 1e-5, gamma, beta)
    arrays = {"w": w, "b": b, "mean": mean, "var": var, "gamma": gamma, "beta": beta}
    let = {name: f"^{name}$" for name in arrays}
    kernel = {"let": {name: let[name] for name in ("w", "gamma", "var")}, "expr": "(w.T * (gamma / sqrt(var + 1e-5))).T", "to": "cw"}
    bias = {"let": {name: let[name] for name in arrays if name != "w"}, "expr": "(b - mean) / sqrt(var + 1e-5) * gamma + beta", "to": "cb"}
    made = ours(tmp_path, arrays, {"compute": kernel | {"keep_inputs": True}}, {"compute": bias})
    np.testing.assert_allclose(made["cw"], theirs[0].detach().numpy(), rtol=5e-7)
    np.testing.assert_allclose(made["cb"], theirs[1].detach().numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_block_scaled_weights(tmp_path: Path, torch: Any, kind: str) -> None:
    """As DeepSeek's `weight_dequant` does it: each weight in float32 times the scale of its block of 128 by 128, then bfloat16."""
    torch.manual_seed(2)
    small = torch.randn(300, 520).to(getattr(torch, kind)).float()
    scale = torch.rand(3, 5) * 0.01
    theirs = (small * scale.repeat_interleave(128, 0)[:300].repeat_interleave(128, 1)[:, :520]).to(torch.bfloat16)
    steps = {"cast": {"keys": "w", "dtype": kind}}, {"dequantize": {"match": "^w$", "scale": "w_scale_inv"}}
    made = ours(tmp_path, {"w": small, "w_scale_inv": scale}, *steps)
    assert made["w"].tobytes() == theirs.view(torch.int16).numpy().tobytes()


def test_a_product(tmp_path: Path, torch: Any) -> None:
    torch.manual_seed(3)
    w, a, b = torch.randn(200, 300), torch.randn(16, 300), torch.randn(200, 16)
    made = ours(tmp_path, {"w": w, "a": a, "b": b}, {"compute": {"let": {"w": "^w$", "a": "^a$", "b": "^b$"}, "expr": "w + 2 * (b @ a)", "to": "m"}})
    np.testing.assert_allclose(made["m"], torch.addmm(w, b, a, alpha=2).numpy(), rtol=0, atol=2e-5)
