from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.formats.tf_state import State, parse, with_newest, write

DATA = Path(__file__).parents[1] / "data" / "tf"

HISTORY = b"""model_checkpoint_path: "model.ckpt-30"
all_model_checkpoint_paths: "model.ckpt-20"
all_model_checkpoint_paths: "model.ckpt-30"
"""
TIMED = b"""model_checkpoint_path: "ckpt-2"
all_model_checkpoint_paths: "ckpt-1"
all_model_checkpoint_paths: "ckpt-2"
all_model_checkpoint_timestamps: 1795354342.733807
all_model_checkpoint_timestamps: 1795354342.7496362
last_preserved_timestamp: 1795354341.6954565
"""


def test_reads_what_tensorflow_writes() -> None:
    assert parse(HISTORY) == State("model.ckpt-30", ("model.ckpt-20", "model.ckpt-30"))
    assert parse(TIMED) == State("ckpt-2", ("ckpt-1", "ckpt-2"), (1795354342.733807, 1795354342.7496362), 1795354341.6954565)


@pytest.mark.parametrize("path", sorted(DATA.glob("*/checkpoint")), ids=lambda path: path.parent.name)
def test_writes_as_tensorflow_does(path: Path) -> None:
    state = parse(path.read_bytes())
    assert state is not None
    assert write(state) == path.read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "model_checkpoint_path: 'é'",
        'model_checkpoint_path: "\\303\\251"',
        'model_checkpoint_path: "\\u00e9"',
        'model_checkpoint_path: "\\xc3" "\\xa9"  # two strings',
        'all_model_checkpoint_paths: []; model_checkpoint_path: "é",',
    ],
)
def test_reads_every_spelling_of_the_text_format(text: str) -> None:
    assert parse(text.encode()) == State("é", ())


def test_lists_may_stand_in_brackets() -> None:
    assert parse(b"all_model_checkpoint_paths: ['a', 'b'] all_model_checkpoint_paths: 'c'") == State("", ("a", "b", "c"))


@pytest.mark.parametrize(
    "text", [b"nonsense", b"model_checkpoint_path: 1", b"unknown: 1", b'model_checkpoint_path: "a', b"\xff", b'model_checkpoint_path: "\\377"']
)
def test_other_text_is_no_state(text: bytes) -> None:
    assert parse(text) is None


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: b"model_checkpoint_path: '" + text.encode()))
def test_any_bytes_can_be_asked(text: bytes) -> None:
    parse(text)


def test_quotes_and_other_scripts_are_written_as_tensorflow_does() -> None:
    assert write(State('a"é\n', ())) == 'model_checkpoint_path: "a\\"é\\n"\n'.encode()


def test_the_first_save_makes_the_file() -> None:
    assert with_newest(None, "m") == b'model_checkpoint_path: "m"\nall_model_checkpoint_paths: "m"\n'


def test_a_new_save_comes_last_and_nothing_goes() -> None:
    assert parse(with_newest(HISTORY, "edited")) == State("edited", ("model.ckpt-20", "model.ckpt-30", "edited"))


def test_a_listed_save_moves_to_the_end() -> None:
    assert parse(with_newest(HISTORY, "model.ckpt-20")) == State("model.ckpt-20", ("model.ckpt-30", "model.ckpt-20"))


def test_a_newest_that_was_not_listed_stays() -> None:
    assert parse(with_newest(b'model_checkpoint_path: "a"', "b")) == State("b", ("a", "b"))


def test_timestamps_move_with_their_path() -> None:
    assert parse(with_newest(TIMED, "ckpt-1")) == State("ckpt-1", ("ckpt-2", "ckpt-1"), (1795354342.7496362, 1795354342.733807), 1795354341.6954565)


def test_a_new_save_beside_timed_ones_gets_the_newest_timestamp() -> None:
    stamps = (1795354342.733807, 1795354342.7496362, 1795354342.7496362)
    assert parse(with_newest(TIMED, "new")) == State("new", ("ckpt-1", "ckpt-2", "new"), stamps, 1795354341.6954565)


def test_timestamps_go_where_they_do_not_fit_in_number() -> None:
    odd = TIMED + b"all_model_checkpoint_timestamps: 1\n"
    assert parse(with_newest(odd, "new")) == State("new", ("ckpt-1", "ckpt-2", "new"))


def test_a_file_that_is_no_state_is_replaced() -> None:
    assert with_newest(b"\xff", "m") == with_newest(None, "m")
