from hypothesis import given
from hypothesis import strategies as st

from surgery.dtypes import DTYPES
from surgery.expr import Fill
from surgery.initializers import parse
from surgery.table import Entry, Table, Trail
from surgery.tensors import TensorSpec


def table(*keys: str) -> Table:
    spec = TensorSpec(DTYPES["float32"], ())
    return Table({key: Entry(Fill(spec, parse("zeros"), 0, key), Trail(0, key), "a.npz") for key in keys})


def origins(changed: Table) -> dict[str, str]:
    return {key: entry.root.key for key, entry in changed.items()}


def test_rekey_exchanges_all_names_at_once() -> None:
    changed = table("a", "b", "c").rekey({"a": "b", "b": "c", "c": "a"}, 1)
    assert list(origins(changed.table).items()) == [("b", "a"), ("c", "b"), ("a", "c")]
    assert changed.collisions == {}


def test_rekey_reports_every_collision_with_all_its_sources_in_table_order() -> None:
    changed = table("a", "x", "b", "c", "y", "d").rekey({"a": "x", "b": "x", "c": "y", "d": "z"}, 1)
    assert changed.collisions == {"x": ("a", "x", "b"), "y": ("c", "y")}


def test_a_winner_takes_the_name_of_one_that_stayed() -> None:
    changed = table("a", "x").rekey({"a": "x"}, 1, winners={"a"})
    assert origins(changed.table) == {"x": "a"}
    assert changed.collisions == {}


def test_two_winners_of_one_name_still_collide() -> None:
    changed = table("a", "b", "x").rekey({"a": "x", "b": "x"}, 1, winners={"a", "b"})
    assert changed.collisions == {"x": ("a", "b")}


def test_rekey_without_a_change_is_the_same_table() -> None:
    before = table("a", "b")
    assert before.rekey({"a": "a"}, 1).table is before


def test_an_entry_remembers_its_names() -> None:
    changed = table("a").rekey({"a": "b"}, 3).table.rekey({"b": "c"}, 5).table
    assert [(hop.step, hop.key) for hop in changed["c"].hops()] == [(0, "a"), (3, "a"), (5, "b")]
    assert changed["c"].root == Trail(0, "a")
    assert changed["c"].source == "a.npz"


def test_a_table_is_never_changed() -> None:
    before = table("a", "b", "c")
    before.rekey({"a": "z"}, 1)
    before.without(["a"])
    before.only(["a"])
    before.plus(table("d"))
    assert list(before) == ["a", "b", "c"]


def test_parts_of_a_table_keep_its_order() -> None:
    before = table("c", "a", "b")
    assert list(before.only(["b", "c", "q"])) == ["c", "b"]
    assert list(before.without(iter(["a"]))) == ["c", "b"]
    assert list(before.plus(table("d", "c"))) == ["c", "a", "b", "d"]
    assert len(before) == 3
    assert "a" in before
    assert "q" not in before


@given(st.lists(st.sampled_from("abcd"), unique=True), st.dictionaries(st.sampled_from("abcd"), st.sampled_from("abcdx")))
def test_rekey_keeps_the_first_of_each_new_name_in_order(keys: list[str], names: dict[str, str]) -> None:
    changed = table(*keys).rekey(names, 1)
    wanted: dict[str, list[str]] = {}
    for key in keys:
        wanted.setdefault(names.get(key, key), []).append(key)
    assert list(origins(changed.table).items()) == [(new, old[0]) for new, old in wanted.items()]
    assert changed.collisions == {new: tuple(old) for new, old in wanted.items() if len(old) > 1}
    assert all(len(entry.hops()) == 1 + (entry.root.key != new) for new, entry in changed.table.items())
