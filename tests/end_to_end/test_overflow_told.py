"""Values that a type cannot hold only show while running: the key, the worst value and the place in the recipe are told all the same."""

import numpy as np
import pytest

import surgery
from surgery.library import Source

STEPS = {
    "cast": "cast: {keys: x, dtype: float16}",
    "compute": "compute: {let: {x: '^x$'}, expr: x * 1, to: x, dtype: float16}",
    "dequantize": "dequantize: {keys: x, scale: scale, dtype: float16}",
    "interpolate": "interpolate: {keys: half, axes: [0], size: [9], mode: cubic}",
}


@pytest.mark.parametrize("word", STEPS)
def test_a_value_that_leaves_the_range_is_told_with_the_step_and_the_key(tmp_path, word):
    source = tmp_path / "in.npz"
    half = np.array([-65504, 65504, 65504, -65504], np.float16)
    np.savez(source, x=np.array([1, -7e4, 1e5, 2], np.float32), scale=np.ones(1, np.float32), half=half)
    text = f"surgery: 1\nsteps:\n  - load: {{path: '{source}'}}\n  - {STEPS[word]}\n  - save: {{path: '{tmp_path}/out.npz'}}\n"
    with pytest.raises(surgery.ApplyError) as caught:
        surgery.plan(Source(text, "r.yaml")).run()
    fault = caught.value
    assert (fault.code, fault.data["key"]) == ("overflow", "half" if word == "interpolate" else "x")
    assert f"--> r.yaml:4:5 | - {word}:" in str(fault)
    assert word == "interpolate" or "the value 100000," in str(fault)
    assert not (tmp_path / "out.npz").exists()
