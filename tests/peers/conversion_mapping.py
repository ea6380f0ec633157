"""What the installed transformers does to keys made up from its own patterns: the reference for `surgery import transformers`."""

from __future__ import annotations

import re
import re._constants as token
import re._parser as sre
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

HEADS, SHARDS, EXPERTS = 2, 4, 4
SIZES = [12, 6, 6]
"""Along the axis that `Split` cuts."""


class Config(SimpleNamespace):
    """As much of a model's configuration as operations ask for."""

    def get_text_config(self) -> Config:
        return self


CONFIG = Config(num_attention_heads=HEADS, split_ngram_parts=SHARDS, vision_config=SimpleNamespace(num_attention_heads=HEADS))


class Model:
    """As much of a model as `Split` asks for: parameters of the sizes that are wanted, by the targets of the converter."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.sizes = {
            target: size
            for transform in transforms
            if any(type(operation).__name__ == "Split" for operation in getattr(transform, "operations", ()))
            for target, size in zip(transform.target_patterns, SIZES, strict=False)
        }

    def get_parameter(self, name: str) -> Any:
        (size,) = {size for target, size in self.sizes.items() if target in name}
        return SimpleNamespace(shape=(size, 48))


def params(transforms: Sequence[Any], declared: Sequence[str]) -> dict[str, Any]:
    """Values for the parameters of a recipe."""
    sizes = {f"{re.sub('[^A-Za-z0-9]+', '_', name).strip('_')}_size": size for name, size in Model(transforms).sizes.items()}
    known = {"heads": HEADS, "vision_config_heads": HEADS, "split_ngram_parts": SHARDS, "experts": EXPERTS // 2} | sizes
    return {name: known[name] for name in declared if name in known}


def loaded(transforms: Sequence[Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers makes of these tensors on loading."""
    from transformers import core_model_loading as core

    transforms = deepcopy(list(transforms))
    renamings = [transform for transform in transforms if isinstance(transform, core.WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, core.WeightConverter)]
    return _converted(core, tensors, converters, lambda key: core.rename_source_key(key, renamings, converters), Model(transforms), None)


def saved(transforms: Sequence[Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers makes of these tensors on saving."""
    from transformers import core_model_loading as core

    backwards = [transform.reverse_transform() for transform in deepcopy(list(transforms))[::-1]]
    renamings = [transform for transform in backwards if isinstance(transform, core.WeightRenaming)]
    converters = [transform for transform in backwards if isinstance(transform, core.WeightConverter)]

    def named(key: str) -> tuple[str, str | None]:
        name, pattern = core.apply_converters(key, converters)
        return (name, pattern) if pattern is not None else (core.apply_renamings(name, renamings), None)

    return _converted(core, tensors, converters, named, Model(()), lambda key: core.apply_renamings(key, renamings))


def _converted(core: Any, tensors: Mapping[str, Any], converters: Sequence[Any], named: Any, model: Any, finish: Any) -> dict[str, Any]:
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    waiting: dict[str, Any] = {}
    for key in sorted(tensors, key=core.dot_natural_key):
        name, pattern = named(key)
        made = core.WeightRenaming(key, name) if pattern is None else deepcopy(by_pattern[pattern])
        waiting.setdefault(name, made).add_tensor(name, key, key if pattern is None else pattern, tensors[key])
    result: dict[str, Any] = {}
    for name, transform in waiting.items():
        for key, value in transform.convert(name, model=model, config=CONFIG).items():
            key = finish(key) if finish and isinstance(transform, core.WeightConverter) else key
            assert key not in result, f"two tensors become {key}"
            result[key] = value[0] if isinstance(value, list) else value
    return result


def checkpoint(transforms: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
    """A checkpoint with keys that each entry is for, and the entries for which there are none."""
    tensors: dict[str, Any] = {}
    made: set[str] = set()
    without = []
    for index, transform in enumerate(transforms):
        used = False
        for group in _groups(transform, index):
            try:
                new = loaded(transforms, group)
                result = loaded(transforms, {**tensors, **group})
            except (AssertionError, KeyError, ValueError, RuntimeError):
                continue
            if made & set(new) or set(result) != made | set(new) or not _uses(transforms, index, group):
                continue
            tensors |= group
            made |= set(new)
            used = True
        if not used:
            without.append(transform)
    return tensors, without


def _uses(transforms: Sequence[Any], index: int, group: Mapping[str, Any]) -> bool:
    from transformers import core_model_loading as core

    transforms = deepcopy(list(transforms))
    renamings = [transform for transform in transforms if isinstance(transform, core.WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, core.WeightConverter)]
    for key in group:
        core.rename_source_key(key, renamings, converters)
    return bool(transforms[index].was_used())


def _groups(transform: Any, index: int) -> Iterator[dict[str, Any]]:
    """Tensors that belong together, for each spelling of the patterns."""
    import torch

    operations = [type(operation).__name__ for operation in getattr(transform, "operations", ())]
    deep = any(name in ("Transpose", "Interleave") for name in operations)
    merges = any("*" in pattern for pattern in transform.source_patterns)
    spellings = [list(_spelled(pattern.replace("*", "7") if not operations else pattern)) for pattern in transform.source_patterns]
    for number in range(max(map(len, spellings))):
        for prefix in ("", "model.layers.1", f"layers.{index}.x"):
            group = {}
            for texts in spellings:
                text = texts[min(number, len(texts) - 1)]
                for expert in range(EXPERTS) if merges and operations else (0,):
                    key = _complete(prefix, text.replace("*", str(expert)))
                    generator = torch.Generator().manual_seed(hash((index, number, len(group))) % 1000)
                    shape = (24,) if key.endswith("bias") else (4, 24, 48) if deep else (24, 48)
                    group[key] = torch.rand(shape, generator=generator)
            yield from [group] if operations else ({key: value} for key, value in group.items())


def _complete(prefix: str, text: str) -> str:
    key = text if not prefix else prefix + text if text.startswith(".") else f"{prefix}.{text}"
    key = key.removeprefix(".") if not prefix else key
    return key + ("weight" if key.endswith(".") else "" if key.endswith(("weight", "bias", "proj")) else ".weight")


def _spelled(pattern: str) -> Iterator[str]:
    """Texts that a pattern matches, with `*` for itself: each alternative once, `.` for any character, no lookarounds."""
    yield from _sequence(list(sre.parse(pattern.replace("*.", "\x00.") if r"\d" not in pattern else pattern)))


def _sequence(items: list[Any]) -> Iterator[str]:
    if not items:
        yield ""
        return
    for first in _one(*items[0]):
        for rest in _sequence(items[1:]):
            yield first + rest


def _one(kind: Any, value: Any) -> Iterator[str]:
    if kind is token.LITERAL:
        yield chr(value).replace("\x00", "*")
    elif kind is token.ANY:
        yield "."
    elif kind is token.SUBPATTERN:
        yield from _sequence(list(value[3]))
    elif kind is token.BRANCH:
        for branch in value[1]:
            yield from _sequence(list(branch))
    elif kind in (token.MAX_REPEAT, token.MIN_REPEAT):
        inner = "".join(next(_sequence(list(value[2]))))
        yield "x.y" if inner == "." else inner * max(value[0], 1)
    elif kind is token.IN:
        yield "3" if value[0][0] in (token.CATEGORY, token.RANGE) else chr(value[0][1])
    else:
        yield ""
