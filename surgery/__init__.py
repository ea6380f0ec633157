"""Checkpoint surgery: plan from headers, then move the bytes.

    import surgery
    plan = surgery.plan("recipe.yaml", params={"source": "bert_model.ckpt"})
    plan.run()
    surgery.open("out/model.safetensors")["encoder.layer.0.weight"].numpy()

Everything is imported when it is first asked for, so that `import surgery` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take the name for true; `typing` would be half of the time of `surgery --version`
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_HOME = {
    "open": "surgery.api",
    "plan": "surgery.api",
    "Checkpoint": "surgery.api",
    "LazyTensor": "surgery.api",
    "Plan": "surgery.api",
    "Report": "surgery.execute",
    **dict.fromkeys(
        (
            "SurgeryError",
            "RecipeError",
            "PlanError",
            "NotFoundError",
            "KeyCollisionError",
            "MismatchError",
            "SourceError",
            "CorruptFile",
            "UnsupportedFeature",
            "StaleSource",
            "ApplyError",
        ),
        "surgery.errors",
    ),
}

__all__ = [
    "ApplyError",
    "Checkpoint",
    "CorruptFile",
    "KeyCollisionError",
    "LazyTensor",
    "MismatchError",
    "NotFoundError",
    "Plan",
    "PlanError",
    "RecipeError",
    "Report",
    "SourceError",
    "StaleSource",
    "SurgeryError",
    "UnsupportedFeature",
    "__version__",
    "open",
    "plan",
]

if TYPE_CHECKING:
    from surgery.api import Checkpoint, LazyTensor, Plan, open, plan
    from surgery.errors import (
        ApplyError,
        CorruptFile,
        KeyCollisionError,
        MismatchError,
        NotFoundError,
        PlanError,
        RecipeError,
        SourceError,
        StaleSource,
        SurgeryError,
        UnsupportedFeature,
    )
    from surgery.execute import Report


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'surgery' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
