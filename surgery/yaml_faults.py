"""What a YAML parser's complaint means, in plain words.

Serves `located`. PyYAML has two parsers, in C and in Python, which word the same fault differently and sometimes point to neighbouring
characters; here both come to the same text and place. Imports neither.
"""

from __future__ import annotations

from typing import NamedTuple


class Complaint(NamedTuple):
    """A fault at the characters `start` to `stop`; `opened`, if set, names what began at `opened_at` and did not end well."""

    title: str
    start: int
    stop: int
    note: str = ""
    help: str = ""
    opened: str = ""
    opened_at: int = 0


class _Fault(NamedTuple):
    """`fragment` occurs in what both parsers say; `{char}` and `{escape}` stand for the text at the fault."""

    fragment: str
    title: str
    help: str = ""
    opened: str = ""
    at_context: bool = False  # point to where it began, not to where the parser gave up


_SINGLE = "use single quotes for regular expressions: there a backslash is a backslash"
_FITS = "correct the indentation, or put the whole text in quotes"

_FAULTS = (
    _Fault("document start>", "this does not continue the document", "correct the indentation; a file holds one document"),
    _Fault("quoted scalar: found unexpected", "this quote is never closed", "close it; inside single quotes `''` is one quote", at_context=True),
    _Fault("unknown escape", "`{escape}` means nothing inside double quotes", _SINGLE),
    _Fault("hex", "`{escape}` wants more hexadecimal digits", _SINGLE),
    _Fault("escape code", "`{escape}` with this number stands for no character", _SINGLE),
    _Fault("mapping values are not allowed", "`:` cannot stand here", "put text that contains `: ` in quotes, or correct the indentation"),
    _Fault("entries are not allowed", "a list cannot begin in the middle of this line", "put `- ` on a line of its own, or write `[a, b]`"),
    _Fault("could not find expected ':'", "this is neither a value nor `key: value`", "add the `:`, or correct the indentation", at_context=True),
    _Fault("node content", "a value is missing before `{char}`", "put text that begins with `{char}` in quotes"),
    _Fault("flow sequence", "`,` or `]` is missing", "put text that contains `: ` or brackets in quotes", "the list `[`"),
    _Fault("flow mapping", "`,` or `}` is missing", "put text that contains `: ` or braces in quotes", "the mapping `{`"),
    _Fault("block mapping", "this does not continue the mapping it stands in", _FITS, "the mapping"),
    _Fault("block collection", "this does not continue the list it stands in", _FITS, "the list"),
    _Fault("cannot start any token", "plain text cannot begin with `{char}`", "put it in quotes"),
    _Fault("scanning an anchor: ", "a name is missing after `&`", "put text that begins with `&` in quotes"),
    _Fault("scanning an alias: ", "a name is missing after `*`", "put text that begins with `*` in quotes, a glob for example"),
    _Fault("tag", "this tag cannot be read, and tags are not supported", "put text that begins with `!` in quotes"),
    _Fault("block scalar", "only `+`, `-` and a digit may follow `|` and `>`", "put text that begins with `|` or `>` in quotes"),
)
_TAB = _Fault("", "a tab cannot be used for indentation", "use spaces")
_END = _Fault("", "the file ends where a value is wanted", "close what is open")
_OTHER = _Fault("", "this is not valid YAML")


def explain(error: Exception, text: str, index: int) -> Complaint:
    """The meaning of what PyYAML raised at the character `index` of `text`."""
    # The pure Python parser lets `chr` and `int` fail on escapes and version numbers.
    problem = str(getattr(error, "problem", "a number is out of range"))
    fault = _match(f"{getattr(error, 'context', '')}: {problem}", text, index)
    note = f"the parser says: {problem}" if fault is _OTHER else ""
    context = getattr(error, "context_mark", None)
    begin = index if context is None else context.index
    if "{escape}" in fault.title:
        index = max(text.rfind("\\", 0, index + 1), 0)
        return Complaint(fault.title.replace("{escape}", text[index : index + 2]), index, index + 2, note, fault.help)
    at_end = bool(fault.opened) and index >= len(text.rstrip())
    if fault.at_context or at_end:
        return Complaint(fault.title, begin, begin + 1, note, fault.help)
    char = text[index : index + 1]
    return Complaint(fault.title.replace("{char}", char), index, index + 1, note, fault.help.replace("{char}", char), fault.opened, begin)


def _match(words: str, text: str, index: int) -> _Fault:
    if text.startswith("\t", index) and ("start any token" in words or "tab character" in words):
        return _TAB
    if "node content" in words and index >= len(text.rstrip()):
        return _END
    return next((fault for fault in _FAULTS if fault.fragment in words), _OTHER)
