"""Mappings of other tools, read into recipes. A rule for which no step is known is told, never guessed."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of mapping: the module that reads it, and what it is. `of_file` ones are read from a file, others by a name."""

    module: str
    about: str
    of_file: bool = True


KINDS = {
    "tf": Kind("assignment_map", "a TensorFlow `assignment_map` as JSON: {checkpoint name or scope/: model name or scope/}"),
    "t5x": Kind("t5x", "a T5X `assignment_map` as JSON: [[pattern, replacement or null], …]"),
    "csv": Kind("csv_names", "a table of names: old,new or key,old,new"),
    "transformers": Kind("transformers_mapping", "the conversion of a model type in the installed transformers", of_file=False),
}
