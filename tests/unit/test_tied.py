from __future__ import annotations

import pytest

from surgery.dtypes import DTYPES
from surgery.expr import Stored
from surgery.formats.base import FileLayout, Layout, Origin, Placement
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec
from surgery.tied import untied_note

SPEC = TensorSpec(DTYPES["float32"], (2,))


def stored(start: int, path: str = "in.pt", spec: TensorSpec = SPEC) -> Stored:
    return Stored(Extent(SourceFile(path, Fingerprint(99, 0, 0, 0)), start, spec.nbytes, spec))


def note(tensors: dict[str, Stored], origins: dict[str, str] | None = None) -> str:
    layout = Layout("any", ".", (FileLayout("out", None, tuple(Placement(key, expr, 0) for key, expr in tensors.items())),))
    return untied_note(layout, {key: Origin("in.pt", (origins or {}).get(key, key)) for key in tensors})


def test_tensors_that_were_one_in_the_source_are_told() -> None:
    said = note({"a": stored(0), "b": stored(8), "c": stored(0), "d": stored(0)})
    assert said == "2 tensors tied to others in the source, stored once more each (16 B): c, d"


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": stored(0), "b": stored(8)},
        {"a": stored(0), "b": stored(0, "other.pt")},
        {"a": stored(0, spec=TensorSpec(DTYPES["float32"], (0,))), "b": stored(0)},
    ],
)
def test_tensors_with_bytes_of_their_own_are_not(tensors: dict[str, Stored]) -> None:
    assert note(tensors) == ""


def test_what_the_recipe_copied_is_not() -> None:
    assert note({"a": stored(0), "b": stored(0)}, {"b": "a"}) == ""
