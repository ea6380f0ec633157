from __future__ import annotations

import pytest

from surgery import formats
from surgery.cli.tables import format_list


def lines() -> dict[str, str]:
    return {line.split()[0]: line for line in format_list().splitlines()}


def test_formats_tell_what_can_be_done_with_them() -> None:
    assert " read, write  " in lines()["safetensors"]
    assert " read         " in lines()["onnx"]


def test_a_format_whose_package_is_missing_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats._ROWS, "npz", formats._ROWS["npz"]._replace(needs=("no_such_package", "arrays")))
    assert " needs model-surgery[arrays]  " in lines()["npz"]


def test_a_format_whose_package_is_there_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats._ROWS, "npz", formats._ROWS["npz"]._replace(needs=("numpy", "arrays")))
    assert " read, write  " in lines()["npz"]
