"""transformers' operations on tensors as steps: each takes the tensors that go by some names, and gives others under new ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from surgery.importers.draft import Inexpressible, Reference, Step, literal_pattern, literal_to
from surgery.importers.transforms import Operation, Transform

_WILDCARD = r".*\."
_NUMBER = r"(?P<i>\d+)\."
_END = r"\b"


class _Part(NamedTuple):
    """Tensors on their way: the pattern that finds them, and what transformers calls them in between (a source or a target)."""

    match: str
    called: str
    plain: str = ""
    lead: str = ""
    """The `\\1` for what a pattern finds in front of the name: the place of a model in a model."""


class Conversion:
    """Makes the steps of converters, and gathers the parameters that they need: `params`, with defaults where a value is `known`."""

    def __init__(self, known: Mapping[str, int]) -> None:
        self.params: dict[str, dict[str, Any]] = {}
        self.known = known

    def steps(self, transform: Transform) -> list[Step]:
        """The steps of one converter. Raises Inexpressible."""
        if any("\\" in target for target in transform.targets):
            raise Inexpressible("a converter with groups")
        steps: list[Step] = []
        sources = [source.replace(_WILDCARD, _NUMBER) for source in transform.sources]
        parts = [
            _Part(transform.within(source), called, _plain(source), transform.lead) for source, called in zip(sources, transform.called, strict=True)
        ]
        if len(transform.operations) == 1 and transform.operations[0].name in _ERNIE:
            if transform.scopes:
                raise Inexpressible("experts of two kinds inside of another model")
            return _ERNIE[transform.operations[0].name](self, transform, parts, transform.operations[0].options)
        for position, operation in enumerate(transform.operations):
            make = _OPERATIONS.get(operation.name)
            if make is None:
                raise Inexpressible(f"nothing is known of what `{operation.name}` does")
            names = list(transform.targets) if position == len(transform.operations) - 1 else []
            made, parts = make(self, operation, parts, _Names(transform, names))
            steps += made
        left = [part for part in parts if part.match]
        if left and len(parts) != len(transform.targets):
            raise Inexpressible("its operations do not give its targets")
        rules = (
            [
                {"match": part.match, "to": part.lead + literal_to(target), "optional": True}
                for part, target in zip(parts, transform.targets, strict=True)
                if part.match and part.plain != target
            ]
            if left
            else []
        )
        return steps + ([{"rename": rules}] if rules else [])

    def number(self, name: str, description: str) -> str:
        """The name of a parameter that is a whole number."""
        self.params[name] = {"type": "integer", "minimum": 1, "description": description}
        self.params[name] |= {"default": self.known[name]} if name in self.known else {}
        return name


class _Names(NamedTuple):
    """What an operation may call its results: the targets if it is the last one, else names that no checkpoint has."""

    transform: Transform
    targets: Sequence[str]

    def result(self, parts: Sequence[_Part], index: int, count: int, mark: str) -> tuple[str, _Part]:
        """The `to` of a result, in which `*` stands for its number, and what goes on from there (nothing behind the last operation)."""
        lead = parts[min(index, len(parts) - 1)].lead
        if self.targets:
            if len(self.targets) != count:
                raise Inexpressible("its operations do not give its targets")
            return lead + literal_to(self.targets[index]), _Part("", self.targets[index])
        between = f"{parts[min(index, len(parts) - 1)].plain}:{mark}"
        called = self.transform.targets[index] if count == len(self.transform.targets) else parts[index].called
        return lead + literal_to(between), _Part(literal_pattern(between), called, between)


_Made = tuple[list[Step], list[_Part]]


def _plain(match: str) -> str:
    """The text that a pattern stands for, without the number."""
    text = re.sub(r"\\([^\w\s])", r"\1", match.replace(_NUMBER, "").removesuffix(_END))
    return re.sub(r"[^\w.:]", "", text)


def _stack(conversion: Conversion, operation: Operation, parts: Sequence[_Part], names: _Names) -> _Made:
    return _each("stack", operation.options["dim"], parts, names, "stacked")


def _unstack(conversion: Conversion, operation: Operation, parts: Sequence[_Part], names: _Names) -> _Made:
    if not names.targets:
        raise Inexpressible("it works on tensors that were taken apart by number")
    return _each("unstack", operation.options["dim"], parts, names, "")


def _each(word: str, axis: int, parts: Sequence[_Part], names: _Names, mark: str) -> _Made:
    """The step for each of the parts alone."""
    results = [names.result(parts, index, len(parts), mark) for index in range(len(parts))]
    options = [
        {"match": part.match, "to": name.replace("*", "{i}"), "axis": axis, "optional": True} for part, (name, _) in zip(parts, results, strict=True)
    ]
    return [{word: option} for option in options], [part for _, part in results]


def _concat(conversion: Conversion, operation: Operation, parts: Sequence[_Part], names: _Names) -> _Made:
    name, result = names.result(parts, 0, 1, "joined")
    matches = [part.match for part in parts]
    options = {"match": matches[0] if len(matches) == 1 else matches, "to": name, "axis": operation.options["dim"], "optional": True}
    return [{"concat": options}], [result]


def _chunk(conversion: Conversion, operation: Operation, parts: Sequence[_Part], names: _Names) -> _Made:
    axis, attribute, part = operation.options["dim"], operation.options.get("num_shards_attribute"), _only(parts)
    if attribute is not None:
        return _shards(conversion, attribute, axis, part, names)
    count = len(names.transform.targets)
    results = [names.result([part] * count, index, count, str(index)) for index in range(count)]
    to = [name for name, _ in results]
    return [{"split": {"match": part.match, "axis": axis, "parts": count, "to": to, "optional": True}}], [part for _, part in results]


def _shards(conversion: Conversion, attribute: str, axis: int, part: _Part, names: _Names) -> _Made:
    """As many parts as the configuration says: an axis of its own, then a tensor for each index."""
    if axis < 0 or not names.targets:
        raise Inexpressible("an axis counted from the last, or further work on as many tensors as the configuration says")
    count = conversion.number(attribute, f"the number of parts, {attribute} in config.json")
    name, result = names.result([part], 0, 1, "")
    before = "".join(f"a{index} " for index in range(axis))
    divide = {"match": part.match, "pattern": f"{before}(n a) ... -> {before}n a ...", "axes": {"n": _value(count)}, "optional": True}
    return [{"rearrange": divide}, {"unstack": {"match": part.match, "to": name.replace("*", "{i}"), "axis": axis, "optional": True}}], [result]


def _split(conversion: Conversion, operation: Operation, parts: Sequence[_Part], names: _Names) -> _Made:
    part, count = _only(parts), len(names.transform.targets)
    results = [names.result([part] * count, index, count, str(index)) for index in range(count)]
    axis = operation.options["dim"]
    sizes = [
        _value(conversion.number(f"{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_')}_size", f"the size of {name} along axis {axis}"))
        for name in names.transform.targets
    ]
    to = [name for name, _ in results]
    return [{"split": {"match": part.match, "axis": axis, "sizes": sizes, "to": to, "optional": True}}], [part for _, part in results]


def _transpose(conversion: Conversion, operation: Operation, parts: Sequence[_Part], names: _Names) -> _Made:
    first, second = sorted((operation.options["dim0"], operation.options["dim1"]))
    if operation.options.get("check_dims"):
        raise Inexpressible("it transposes only what has not the model's shape, which the recipe cannot know")
    if first < 0 <= second:
        raise Inexpressible("one axis counted from the first and one from the last")
    most = max(second + 1, -first)
    axes = [f"a{index}" for index in range(most)]
    moved = list(axes)
    moved[first], moved[second] = moved[second], moved[first]
    old, new = " ".join(axes), " ".join(moved)
    return _rearranged(parts, f"{old} ... -> {new} ..." if first >= 0 else f"... {old} -> ... {new}", {})


def _interleave(conversion: Conversion, operation: Operation, parts: Sequence[_Part], names: _Names) -> _Made:
    axis = operation.options["dim"]
    if axis < 0:
        raise Inexpressible("an axis counted from the last")
    old, new = ("(two n)", "(n two)") if operation.options.get("inverse") else ("(n two)", "(two n)")
    before = "".join(f"a{index} " for index in range(axis))
    return _rearranged(parts, f"{before}{old} ... -> {before}{new} ...", {"two": 2})


def _rope(conversion: Conversion, operation: Operation, parts: Sequence[_Part], names: _Names) -> _Made:
    section, only = operation.options.get("subconfig_key"), operation.options.get("permute_layer_names")
    turned = [part for part in parts if only is None or any(name in part.called for name in only)]
    heads = conversion.number(
        f"{section + '_' if section else ''}heads", f"num_attention_heads in config.json{f', under {section}' if section else ''}"
    )
    old, new = ("(h two d)", "(h d two)") if operation.options.get("inverse") else ("(h d two)", "(h two d)")
    steps, _ = _rearranged(turned, f"{old} ... -> {new} ...", {"h": _value(heads), "two": 2}, {"where": {"ndim": [1, 2]}})
    return steps, list(parts)


def _rearranged(parts: Sequence[_Part], pattern: str, axes: Mapping[str, Any], facts: Mapping[str, Any] = {}) -> _Made:
    matches = [part.match for part in parts]
    options: dict[str, Any] = {"match": matches[0] if len(matches) == 1 else matches, **facts, "pattern": pattern}
    options |= {"axes": dict(axes)} if axes else {}
    return [{"rearrange": options | {"optional": True}}], list(parts)


def _only(parts: Sequence[_Part]) -> _Part:
    if len(parts) != 1:
        raise Inexpressible("it cuts several tensors at once")
    return parts[0]


def _value(parameter: str) -> Reference:
    return Reference(f"${{{parameter}}}")


def _ernie_join(conversion: Conversion, transform: Transform, parts: Sequence[_Part], options: Mapping[str, Any]) -> list[Step]:
    """Experts of which the first half is of one kind and the second of another: each kind stacked, then its projections side by side."""
    if len(transform.targets) != 2:
        raise Inexpressible("experts of more than two kinds")
    half = conversion.number("experts", "experts of one kind: half of those in a layer")
    steps: list[Step] = []
    rules = []
    for part in parts:
        to = re.sub(r"[^\w.:*{}$+-]", "", part.match.replace(_NUMBER, f"{{i-${{{half}}}}}.").removesuffix(_END))
        where = {"i": [_value(half), Reference(f"${{{{ 2 * {half} }}}}")]}
        rules.append({"match": part.match, "where": where, "to": Reference(f"{to}:second"), "optional": True})
    steps.append({"rename": rules})
    for target, kind in zip(transform.targets, ("", ":second"), strict=True):
        found = [_Part(f"{part.match.removesuffix(_END)}{kind}" + ("$" if not kind else ""), part.called, part.plain + kind) for part in parts]
        joined = _Names(transform._replace(targets=[target]), [target] if len(parts) == 1 else [])
        made, found = _stack(conversion, Operation("", {"dim": options["stack_dim"]}), found, joined)
        steps += made
        if len(parts) > 1:
            steps += _concat(conversion, Operation("", {"dim": options["concat_dim"]}), found, _Names(transform, [target]))[0]
    return steps


def _ernie_part(conversion: Conversion, transform: Transform, parts: Sequence[_Part], options: Mapping[str, Any]) -> list[Step]:
    """The way back: projections apart, then the experts of both kinds in one row of numbers."""
    if len(parts) != 2:
        raise Inexpressible("experts of more than two kinds")
    half = conversion.number("experts", "experts of one kind: half of those in a layer")
    steps: list[Step] = []
    for number, part in enumerate(parts):
        found = [part]
        if len(transform.targets) > 1:
            made, found = _chunk(conversion, Operation("", {"dim": options["concat_dim"]}), [part], _Names(transform, []))
            steps += made
        for one, target in zip(found, transform.targets, strict=True):
            index = f"{{i+${{{half}}}}}" if number else "{i}"
            to = Reference(literal_to(target).replace("*", index))
            steps.append({"unstack": {"match": one.match, "to": to, "axis": options["stack_dim"], "optional": True}})
    return steps


_OPERATIONS: Mapping[str, Callable[[Conversion, Operation, Sequence[_Part], _Names], _Made]] = {
    "MergeModulelist": _stack,
    "SplitModulelist": _unstack,
    "Concatenate": _concat,
    "Chunk": _chunk,
    "Split": _split,
    "Transpose": _transpose,
    "Interleave": _interleave,
    "PermuteForRope": _rope,
}
_ERNIE: Mapping[str, Callable[[Conversion, Transform, Sequence[_Part], Mapping[str, Any]], list[Step]]] = {
    "ErnieFuseAndSplitTextVisionExperts": _ernie_join,
    "ErnieSplitAndDecoupleTextVisionExperts": _ernie_part,
}
