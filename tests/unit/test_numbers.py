from __future__ import annotations

import pytest

from surgery.errors import PlanError
from surgery.steps.numbers import Numbered, numbers_for

ALPHA = Numbered.model_validate({"cases": {r"layers\.1\.q": 5, "q": 8, "k|v": 2.5}, "else": 3})


FITTING = {"layers.1.q": 5, "model/layers.1.q": 5, "layers.11.q": 8, "mylayers.1.q": 8, "q": 8, "layers.1.k": 2.5, "layers.1.qk": 3, "k.out": 3}


@pytest.mark.parametrize(("name", "number"), FITTING.items())
def test_the_first_case_that_fits_whole_parts_at_the_end_counts(name: str, number: float) -> None:
    assert numbers_for({"alpha": ALPHA}, {name: None}) == {name: {"alpha": number}}


def test_patterns_that_take_too_long_are_told_with_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgery.patterns.SECONDS_PER_STEP", 0.2)
    slow = Numbered.model_validate({"cases": {"(a|aa)+b": 1}, "else": 2})
    with pytest.raises(PlanError) as caught:
        numbers_for({"s": slow}, {"a" * 100: None})
    assert (caught.value.code, caught.value.at) == ("pattern-timeout", ("numbers", "s", "cases"))
