"""Writes results.npz: tables as torch and timm interpolate them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table_simple

MODES = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}
dice = np.random.default_rng(7)
arrays = {}
for old, new in [((4, 4), (7, 7)), ((7, 6), (3, 10)), ((5, 1), (2, 3))]:
    values = dice.standard_normal((1, 2, *old)).astype(np.float32)
    arrays[f"in {old[0]}x{old[1]}"] = values
    for mode, corners, antialias in product(MODES, (False, True), (False, True)):
        if mode != "nearest" or not (corners or antialias):
            flags = {} if mode == "nearest" else {"align_corners": corners, "antialias": antialias}
            made = torch.nn.functional.interpolate(torch.from_numpy(values), size=new, mode=MODES[mode], **flags)
            arrays[f"{old[0]}x{old[1]} {new[0]}x{new[1]} {mode} {corners} {antialias}"] = made.numpy()
arrays["pos_embed"] = dice.standard_normal((1, 17, 3)).astype(np.float32)
arrays["pos_embed 6x6"] = resample_abs_pos_embed(torch.from_numpy(arrays["pos_embed"]), [6, 6], num_prefix_tokens=1).numpy()
half = torch.from_numpy(arrays["pos_embed"]).bfloat16()
arrays["pos_embed 3x3 bfloat16"] = resample_abs_pos_embed(half, [3, 3], num_prefix_tokens=1).float().numpy()
arrays["bias_table"] = dice.standard_normal((49, 2)).astype(np.float32)
arrays["bias_table 11x11"] = resize_rel_pos_bias_table_simple(torch.from_numpy(arrays["bias_table"]), (6, 6), (121, 2)).numpy()
np.savez(Path(__file__).parent / "results.npz", **arrays)
print(torch.__version__)
