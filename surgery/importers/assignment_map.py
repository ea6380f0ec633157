"""A TensorFlow `assignment_map` as a recipe, with the meaning of `tf.compat.v1.train.init_from_checkpoint`.

A name goes to a name, `scope/` to `scope/`, and `/` is the root. TensorFlow asks the model for its variables; a recipe has only the
checkpoint, so a scope takes everything that the checkpoint has in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from surgery.errors import RecipeError
from surgery.importers.draft import Draft, Inexpressible, Step, literal_key, literal_pattern, literal_to

_ROOT = "/"
_MARK = "=>"
"""In front of keys that have their new name already, so that no other rule takes them for old ones."""


class _Pair(NamedTuple):
    """An old and a new name, or an old and a new scope without its slash at the root."""

    old: str
    new: str
    scope: bool

    @property
    def match(self) -> str:
        return f"^{literal_pattern(self.old)}" if self.scope else f"^{literal_pattern(self.old)}$"

    def meets(self, name: str, scope: bool) -> bool:
        """Whether one key could be both the pair's old one and this."""
        if self.scope and scope:
            return self.old.startswith(name) or name.startswith(self.old)
        return name.startswith(self.old) if self.scope else self.old.startswith(name) if scope else self.old == name


def read(text: str, name: str, reverse: bool) -> Draft:
    """The recipe for a JSON object, or a list of pairs, of names in the checkpoint and in the model; `reverse` goes from the model's to those.

    Raises:
        RecipeError: this is no assignment map.
    """
    pairs, unexpressed = [], []
    given = list(_given(text))
    for old, new in given:
        try:
            pairs.append(_pair(old, new, reverse))
        except Inexpressible as reason:
            unexpressed.append(f"{old!r}: {new!r}, {reason}")
    about = "The variables of an assignment map under the names of the " + ("checkpoint." if reverse else "model.")
    return Draft(name, about, list(_steps(pairs)), len(given), unexpressed)


def _given(text: str) -> Iterator[tuple[Any, Any]]:
    try:
        data = json.loads(text, object_pairs_hook=list)  # keeps both of two equal keys
    except (ValueError, RecursionError) as fault:
        raise RecipeError(f"this is no JSON: {fault}", code="bad-value", help="write `json.dumps(assignment_map)` into the file") from None
    if not isinstance(data, list) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in data):
        raise RecipeError("an assignment map is a JSON object", code="bad-value", help="write it as {old: new}, or as a list of pairs")
    yield from (tuple(pair) for pair in data)


def _pair(old: Any, new: Any, reverse: bool) -> _Pair:
    if not isinstance(old, str) or not isinstance(new, str):
        raise Inexpressible("only names can be read from a file, no variables")
    scope = old.endswith("/")
    if new.endswith("/") != scope:
        raise Inexpressible("TensorFlow maps a scope to a scope, both with `/` at the end, and a name to a name")
    old, new = (new, old) if reverse else (old, new)
    return _Pair("" if old == _ROOT else old, "" if new == _ROOT else new, scope)


def _steps(pairs: Sequence[_Pair]) -> Iterator[Step]:
    if not pairs:
        return
    if any(pair.meets(other.old, other.scope) for pair, other in combinations(pairs, 2)) or _chained(pairs):
        # Each key is copied under its marked new names; what has no mark is not wanted.
        yield {"copy": [{"match": pair.match, "to": literal_to(_MARK + pair.new)} for pair in pairs]}
        yield {"keep": {"match": f"^{_MARK}"}}
        yield {"rename": [{"match": f"^{_MARK}", "to": ""}]}
        return
    scopes = [pair for pair in pairs if pair.scope]
    names = [pair for pair in pairs if not pair.scope]
    if not any(pair.old == "" for pair in scopes):
        facts = {"match": [pair.match for pair in scopes]} if scopes else {"keys": [literal_key(pair.old) for pair in names]}
        patterns = [pair.match for pair in pairs]
        yield {"keep": facts if not (scopes and names) else {"match": patterns}}
    rules: list[dict[str, Any]] = [{"match": pair.match, "to": literal_to(pair.new)} for pair in scopes if pair.old != pair.new]
    renamed = {pair.old: pair.new for pair in names if pair.old != pair.new}
    if rules or renamed:
        yield {"rename": [*rules, *([{"keys": renamed}] if renamed else [])]}


def _chained(pairs: Sequence[_Pair]) -> bool:
    """Whether a rule would see what another one made. Exact names alone change at once, and cannot."""
    rules = [pair for pair in pairs if pair.old != pair.new]
    return any(one is not other and (one.scope or other.scope) and other.meets(one.new, one.scope) for one in rules for other in rules)
