"""A recipe that is being written: its steps as plain data, what could not be said in them, and its text as a person would write it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Step = Mapping[str, Any]
"""One item of `steps`: the step's word with its options, and perhaps a `name`."""

SOURCE, TARGET = "source", "target"
_LINE = 140
_PLAIN = re.compile(r"[A-Za-z_](?:[\w./ -]*[\w./-])?")
_NOT_TEXT = {"true", "false", "null", "yes", "no", "on", "off"}


class Reference(str):
    """A text in which `${…}` means a parameter; elsewhere it would be a text that happens to look so."""


class Inexpressible(Exception):
    """A rule for which no step is known. The text says why, and goes into the recipe's header."""


class Draft(NamedTuple):
    """A recipe with a source and a target of its own. `unexpressed` are rules, each with the reason, that its steps do not carry out."""

    name: str
    description: str
    steps: Sequence[Step]
    rules: int
    unexpressed: Sequence[str] = ()
    params: Mapping[str, Mapping[str, Any]] = {}
    notes: Sequence[str] = ()

    def text(self, made_by: str) -> str:
        """The recipe as YAML. `made_by` is the command that made it, for the header."""
        said = self.rules - len(self.unexpressed)
        lines = [f"# Made by `{made_by}`: {said} of {self.rules} rules are expressed.", *(f"# {note}" for note in self.notes)]
        lines += [f"# Not expressed: {reason}" for reason in self.unexpressed]
        lines += ["surgery: 1", f"name: {_scalar(self.name)}", f"description: {_scalar(self.description)}", "params:"]
        lines += [f"  {name}: {_flow(schema)}" for name, schema in (_own_params() | dict(self.params)).items()]
        steps = [{"load": {"path": Reference(f"${{{SOURCE}}}")}}, *self.steps, {"save": {"path": Reference(f"${{{TARGET}}}")}}]
        return "\n".join([line.replace("\n", " ") for line in lines] + ["steps:", *(line for step in steps for line in _item(step))]) + "\n"


def _own_params() -> dict[str, Mapping[str, Any]]:
    return {
        SOURCE: {"type": "string", "description": "the checkpoint to read"},
        TARGET: {"type": "string", "description": "the checkpoint to write; its suffix tells the format"},
    }


def _item(step: Step) -> Iterator[str]:
    """The lines of one step: on one line where it fits, else an option or a rule on each."""
    lead = "  - "
    for word, options in step.items():
        if isinstance(options, list) and len(options) == 1:
            options = options[0]
        short = f"{lead}{word}: {_flow(options)}"
        if len(short) <= _LINE and not isinstance(options, list):
            yield short
        elif isinstance(options, list):
            yield f"{lead}{word}:"
            yield from (f"      - {_flow(rule)}" for rule in options)
        else:
            yield f"{lead}{word}:"
            yield from (f"      {key}: {_flow(value)}" for key, value in options.items())
        lead = "    "


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value) if isinstance(value, str) else json.dumps(value)


def _scalar(text: str) -> str:
    """A text that YAML reads back as itself: plain where nothing could be meant by it, else in quotes that keep backslashes."""
    if not isinstance(text, Reference):
        text = text.replace("${", "$${")
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    return "'" + text.replace("'", "''") + "'" if text.isprintable() else json.dumps(text)


def literal_pattern(text: str) -> str:
    """A pattern that means just this text; `/` and the like stay readable."""
    return re.sub(r"[][\\.^$*+?{}()|]", r"\\\g<0>", text)


def literal_to(text: str) -> str:
    """A `to` that means just this text."""
    return text.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}")


def literal_key(text: str) -> str:
    """An item of `keys` that means just this key."""
    return re.sub(r"[\\*]", r"\\\g<0>", text)
