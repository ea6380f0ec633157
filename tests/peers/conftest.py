"""What the peers tests need.

They compare with implementations that are not ours: TensorFlow (with Keras), safetensors, torch and numpy. Install `.[dev,peers]` into an
environment and run `pytest -m peers` there. Everything is imported inside fixtures, so without a package its tests are collected and
shown as skipped with the package's name. torch is not part of the extra `peers`: it is large, and only some casts and two safetensors
frontends are compared with it. `test_a_published_model` and `test_corpus` download packages and are skipped where no registry can be reached.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

pytest.register_assert_rewrite("peer_bundles")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # oneDNN announces itself on stderr


@pytest.fixture(scope="session")
def tf() -> Any:
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed")


@pytest.fixture(scope="session")
def v1(tf: Any) -> Any:
    """TensorFlow's old interface: graphs, sessions and savers."""
    return tf.compat.v1


@pytest.fixture(scope="session")
def keras(tf: Any) -> Any:
    return pytest.importorskip("keras", reason="Keras is not installed")


@pytest.fixture(scope="session")
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture(scope="session")
def safetensors_numpy() -> Any:
    return pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")


@pytest.fixture(scope="session")
def safetensors_torch(torch: Any) -> Any:
    return pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
