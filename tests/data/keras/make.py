"""Make the files beside this one: `python make.py`, with Keras 3 and TensorFlow installed."""

import os
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import keras
import numpy as np

HERE = Path(__file__).parent


def model(dtype: str = "float32") -> keras.Model:
    """Two layers with weights, one without; the weights count up from 0."""
    layers = keras.layers
    made = keras.Sequential(
        [layers.Input((3,)), layers.Dense(2, name="zeta", dtype=dtype), layers.Dropout(0.5), layers.BatchNormalization(name="alpha", dtype=dtype)]
    )
    for number, variable in enumerate(made.variables):
        if variable.name != "seed_generator_state":
            variable.assign(np.arange(np.prod(variable.shape)).reshape(variable.shape) + 10 * number)
    return made


model().save_weights(HERE / "small.weights.h5")
model("bfloat16").save_weights(HERE / "bfloat16.weights.h5")
model().save(HERE / "small.keras")
model().save(HERE / "small.h5")
(HERE / "shards").mkdir(exist_ok=True)
model().save_weights(HERE / "shards" / "whole.weights.h5")
model().save_weights(HERE / "shards" / "m.weights.json", max_shard_size=4.1e-8)
