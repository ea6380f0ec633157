"""What is printed while bytes are written, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re

import pytest

from surgery.cli.progress import progress

GIB = 1 << 30


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_elsewhere_there_is_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(10 * GIB) as advance:
        for _ in range(20):
            advance(GIB // 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == " 10 %  1.0 GiB of 10.0 GiB"
    assert len(lines) == 10


def test_what_is_done_at_once_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(GIB) as advance:
        advance(GIB)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_one_line_that_goes_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress(GIB) as advance:
        advance(GIB // 2)
    shown = terminal.getvalue().split("\r\x1b[K")
    assert re.fullmatch(r"writing ━{15}╌{15} 512.0 MiB of 1.0 GiB, .+/s, \d+ s left", shown[1])
    assert shown[2] == ""
