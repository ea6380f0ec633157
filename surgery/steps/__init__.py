"""The steps, by the word that recipes use. Each is a file of its own, imported when a recipe names it."""

from __future__ import annotations

from importlib import import_module

from surgery.steps.base import Step

WORDS = (
    "load",
    "save",
    "rename",
    "scope",
    "drop",
    "keep",
    "copy",
    "init_missing",
    "expect",
    "assert",
    "cast",
    "transpose",
    "reshape",
    "rearrange",
    "slice",
    "pad",
    "resize",
    "interpolate",
    "split",
    "concat",
    "stack",
    "unstack",
    "tie",
    "compute",
    "dequantize",
    "use",
)


def by_word(word: str) -> type[Step]:
    """The class of a step. Raises KeyError for a word that is not in WORDS."""
    if word not in WORDS:
        raise KeyError(word)
    module = import_module(f"surgery.steps.{'assert_' if word == 'assert' else word}")
    step: type[Step] = module.STEP
    return step
