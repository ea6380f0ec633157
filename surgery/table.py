"""The table of tensors: key → expression and the trail of how it came to be called so.

Immutable; every change is a new table. This is what steps rewrite and outputs are made of.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from collections.abc import Set as AbstractSet
from operator import eq
from typing import Any, NamedTuple

from surgery.expr import Expr
from surgery.tensors import TensorSpec


class Trail(NamedTuple):
    """One hop in the life of a tensor: `steps[step]` found it as `key`. The first hop is the step that brought it in."""

    step: int
    key: str
    before: Trail | None = None


class Entry(NamedTuple):
    """A row of the table. `source` is the checkpoint a loaded tensor came from, "" for a made one."""

    expr: Expr
    trail: Trail
    source: str = ""

    @property
    def spec(self) -> TensorSpec:
        """Element type and shape."""
        return self.expr.spec

    def hops(self) -> list[Trail]:
        """The trail, oldest first."""
        out: list[Trail] = []
        at: Trail | None = self.trail
        while at is not None:
            out.append(at)
            at = at.before
        return out[::-1]

    @property
    def root(self) -> Trail:
        """The hop that brought the tensor in: its first key, and the step that loaded or made it."""
        at = self.trail
        while at.before is not None:
            at = at.before
        return at


class Rekeyed(NamedTuple):
    """The result of a renaming, every collision (new key → the old keys that would become it), and the keys that gave way."""

    table: Table
    collisions: Mapping[str, tuple[str, ...]]
    replaced: tuple[str, ...] = ()


class Table(Mapping[str, Entry]):
    """An ordered mapping key → entry."""

    __slots__ = ("_rows",)

    def __init__(self, rows: dict[str, Entry] | None = None) -> None:
        self._rows = rows or {}

    def __getitem__(self, key: str) -> Entry:
        return self._rows[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def get(self, key: str, default: Any = None) -> Any:
        """The entry of a key, or `default`."""
        return self._rows.get(key, default)

    def keys(self) -> KeysView[str]:
        """The keys, in order. This and its kin are the dict's own, which are many times faster than Mapping's."""
        return self._rows.keys()

    def values(self) -> ValuesView[Entry]:
        """The entries, in order."""
        return self._rows.values()

    def items(self) -> ItemsView[str, Entry]:
        """Pairs of key and entry, in order."""
        return self._rows.items()

    def only(self, keys: Iterable[str]) -> Table:
        """The rows of these keys, in the table's order."""
        wanted = keys if isinstance(keys, (set, frozenset, dict)) else set(keys)
        return Table({key: entry for key, entry in self._rows.items() if key in wanted})

    def without(self, keys: Iterable[str]) -> Table:
        """The table less these keys."""
        gone = set(keys)
        return Table({key: entry for key, entry in self._rows.items() if key not in gone})

    def plus(self, rows: Mapping[str, Entry]) -> Table:
        """The table with rows set; a key that is there keeps its place."""
        return rows if isinstance(rows, Table) and not self._rows else Table({**self._rows, **rows})

    def rekey(self, names: Mapping[str, str], step: int, *, winners: AbstractSet[str] = frozenset()) -> Rekeyed:
        """Exchange all names at once, so that keys can swap and rotate; order stays.

        What the old keys in `winners` become wins over a key that stayed, which is then `replaced`. Collisions are returned, and the table
        then keeps the first of the colliding tensors.
        """
        if all(map(eq, self._rows, map(names.get, self._rows, self._rows))):
            return Rekeyed(self, {})
        if not winners:
            renamed = {
                new: entry if new == key else Entry(entry.expr, Trail(step, key, entry.trail), entry.source)
                for (key, entry), new in zip(self._rows.items(), map(names.get, self._rows, self._rows), strict=True)
            }
            if len(renamed) == len(self._rows):
                return Rekeyed(Table(renamed), {})
        moved = {old: new for old, new in names.items() if new != old}
        taken = {moved[old] for old in winners if old in moved}
        rows: dict[str, Entry] = {}
        replaced: list[str] = []
        sources: dict[str, list[str]] = {}
        for key, entry in self._rows.items():
            new = moved.get(key)
            if new is None:
                if key in taken:
                    replaced.append(key)
                    continue
                new = key
            else:
                entry = Entry(entry.expr, Trail(step, key, entry.trail), entry.source)
            if new in rows:
                sources.setdefault(new, []).append(key)
            else:
                rows[new] = entry
        if not sources:
            return Rekeyed(Table(rows), {}, tuple(replaced))
        first: dict[str, str] = {}
        for key in self._rows:
            new = moved.get(key, key)
            if new in sources and not (key not in moved and key in taken):
                first.setdefault(new, key)
        return Rekeyed(Table(rows), {new: (first[new], *others) for new, others in sources.items()}, tuple(replaced))
