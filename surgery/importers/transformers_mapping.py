"""Hugging Face transformers' conversion of a model type as a recipe: first all names, then what is split, joined and moved.

That is the order in which it loads: every renaming, in turn, then at most one converter for a key. On the way back it is the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from surgery.errors import RecipeError
from surgery.importers.conversions import Conversion
from surgery.importers.draft import Draft, Inexpressible, Step, literal_to
from surgery.importers.transforms import Mapped, Transform, installed, of_config
from surgery.patterns import compile_pattern
from surgery.replacement import compile_template

_CONVERTER = "WeightConverter"


def read(model: str, reverse: bool) -> Draft:
    """The recipe that turns a checkpoint as on the hub into the model's own state dict; with `reverse` the other way.

    `model` is a model type, a class, or the path of a `config.json`. Raises as `installed` and `of_config` do.
    """
    return draft((of_config if model.endswith("config.json") else installed)(model, reverse), reverse)


def draft(mapped: Mapped, reverse: bool) -> Draft:
    """The recipe for these entries."""
    unexpressed: list[str] = []
    conversion = Conversion(mapped.known)
    rules, converters = [], []
    for transform in mapped.own:
        try:
            if transform.kind == _CONVERTER:
                converters += list(_checked(conversion.steps(transform)))
            else:
                rules += list(_rules(transform))
        except Inexpressible as reason:
            unexpressed.append(f"{transform.told}: {reason}")
    common = [rule for transform in mapped.common for rule in _rules(transform)]
    names: list[Step] = [{"rename": rules}] if rules else []
    names += [{"name": "old names that transformers knows of any model", "rename": common}] if common else []
    steps = [*converters, *names] if reverse else [*names, *converters]
    about = f"{mapped.name}: the model's own state dict as transformers {'saves' if reverse else 'loads'} it"
    about += " (names and layout of the hub)." if reverse else ", from a checkpoint as on the hub."
    note = f"Of transformers {mapped.version}; it passes by names that are the model's own already, this does not."
    return Draft(mapped.name, about, steps, len(mapped.own), unexpressed, conversion.params, () if reverse else (note,))


def _rules(transform: Transform) -> Iterator[Mapping[str, Any]]:
    """The rules of `rename` for an entry that only renames."""
    if transform.kind == "GroupWeightRename":
        pairs = list(zip(transform.sources, transform.targets, strict=True))
        for match, target in _one_at_a_time(pairs):
            yield _rule(transform.within(match), _as_to(target, r"\\(\d)", transform.lead))
        return
    if transform.kind == "Inkling2IndexOffsetWeightRename":
        (match,), (target,) = transform.sources, transform.targets
        number = f"{{i{transform.offset:+d}}}"
        yield _rule(transform.within(match.replace("(", "(?P<i>", 1)), transform.lead + number.join(literal_to(text) for text in target.split(r"\1")))
        return
    if transform.kind not in ("WeightRenaming", "PrefixChange"):
        raise Inexpressible(f"nothing is known of what `{transform.kind}` does")
    target = transform.targets[0]
    if len(transform.sources) > 1 and r"\1" in target:
        raise Inexpressible("a group in several patterns")
    if len(transform.sources) > 1 and transform.scopes:
        raise Inexpressible("several patterns inside of another model")
    tried = [transform.within(transform.sources[index]) for index in transform.tried]
    yield _rule(tried[0] if len(tried) == 1 else f"(?:{'|'.join(tried)})", _as_to(target, r"\\(1)", transform.lead))


def _rule(match: str, to: str) -> Mapping[str, Any]:
    try:
        compile_template(to, compile_pattern(match))
    except RecipeError as error:
        raise Inexpressible(error.title) from None
    return {"match": match, "to": to, "optional": True}


def _checked(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps, all of whose patterns a recipe takes."""
    for step in steps:
        options = step.get("rename", [next(iter(step.values()))])
        for text in (text for rule in options for text in ([rule["match"]] if isinstance(rule["match"], str) else rule["match"])):
            try:
                compile_pattern(text)
            except RecipeError as error:
                raise Inexpressible(error.title) from None
    return steps


def _as_to(target: str, reference: str, lead: str) -> str:
    """A target as `to`: its references, which a `lead` moves on by one, and all else as it is."""
    pieces = re.split(reference, target)
    return lead + "".join(f"\\{int(piece) + bool(lead)}" if at % 2 else literal_to(piece) for at, piece in enumerate(pieces))


def _one_at_a_time(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs that are meant at once, in an order in which none takes what another one made."""
    rest, ordered = list(pairs), list[tuple[str, str]]()
    while rest:
        free = next((pair for pair in rest if not any(_takes(other, pair[1]) for other in rest if other is not pair)), None)
        if free is None:
            raise Inexpressible("names that change places")
        ordered.append(free)
        rest.remove(free)
    return ordered


def _takes(pair: tuple[str, str], target: str) -> bool:
    return re.search(pair[0], re.sub(r"\\\d", "0", target)) is not None
