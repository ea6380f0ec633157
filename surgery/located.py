"""YAML text as plain data that remembers where it was written; the only module that knows PyYAML.

Serves whoever reads recipes, parameter files and target specs. Reads YAML 1.2's core schema from the parser's events, because
PyYAML's own constructor follows 1.1 (`on`, `012`, `1:30`) and keeps the last of two equal keys. Knows no recipe field
except the three whose mapping keys are tensor keys. Tags are refused, the core ones (`!!str`) too: quotes make text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, NamedTuple

from surgery.errors import RecipeError, Where
from surgery.yaml_faults import explain

LITERAL_KEYS = frozenset({"keys", "var_list", "variables"})
"""Fields whose mappings are keyed by tensors: there `0`, `on` and `~` are the text they are written as."""

MAX_NODES = 100_000
MAX_DEPTH = 64
MAX_TEXT = 4 << 20
_MAX_DIGITS = 500  # Python may be set to convert no more than 640 digits between int and text

_BREAK = re.compile(r"\r\n|\r|\n")
# U+0085, U+2028 and U+2029 end a line in YAML 1.1 and do not in 1.2, so they are refused like control characters.
_REFUSED = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


class Source(NamedTuple):
    """A text with a name, cut into lines; `starts` holds the character offset of each line."""

    name: str
    text: str
    lines: tuple[str, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, name: str, text: str) -> Source:
        """Cut `text` at LF, CRLF and CR."""
        breaks = list(_BREAK.finditer(text))
        starts = (0, *(found.end() for found in breaks))
        stops = (*(found.start() for found in breaks), len(text))
        return cls(name, text, tuple(text[start:stop] for start, stop in zip(starts, stops, strict=True)), starts)

    def where(self, start: int, stop: int) -> Where:
        """The place of the characters `start` to `stop`, as far as they stand on the first line."""
        line = bisect_right(self.starts, start)
        text = self.lines[line - 1]
        first = self.starts[line - 1]
        width = min(stop, first + len(text.rstrip())) - start
        return Where(self.name, line, start - first + 1, text, max(width, 1))


class Place(NamedTuple):
    """A value and the characters `start` to `stop` it was written as.

    `text_start` is the offset of the first character of a text that stands in the source letter by letter. `nodes`, `chars` and
    `height` are what the value amounts to with its aliases written out; mapping keys are not counted as nodes.
    """

    data: Any
    start: int
    stop: int
    text_start: int | None = None
    keys: Mapping[str, Place] = {}
    children: Mapping[str | int, Place] = {}
    nodes: int = 1
    chars: int = 0
    height: int = 1


class Document(NamedTuple):
    """A parsed text: `data` is plain dict, list, str, int, float, bool and None.

    What an alias stands for is the same object as at its anchor, so `data` must not be changed in place.
    """

    source: Source
    data: Any
    root: Place

    @property
    def name(self) -> str:
        """The file name given to `parse`."""
        return self.source.name

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of the text without their ends."""
        return self.source.lines

    def where(self, path: tuple[str | int, ...], *, key: bool = False, offset: int | None = None) -> Where:
        """The place of the value at `path`, or of its mapping key; of the longest existing prefix where `path` leads nowhere.

        `offset` counts characters of the text at `path`; it leads to that character if the text has no escapes and stands on
        one line, else it is ignored. A value left empty (`key:`) is found at its key.
        """
        place = self.root
        for depth, part in enumerate(path, 1):
            child = place.children.get(part)
            if child is None:
                return self.source.where(place.start, place.stop)
            place = place.keys.get(str(part), child) if key and depth == len(path) else child
        if offset is None or place.text_start is None:
            return self.source.where(place.start, place.stop)
        start = place.text_start + max(0, min(offset, len(place.data)))
        return self.source.where(start, start + 1)


def parse(text: str | bytes, name: str) -> Document:
    """Read one YAML document; `name` is the file name for messages.

    Bytes must be UTF-8; a byte order mark is skipped.

    Raises:
        RecipeError: with `where` set. Codes: `yaml` (not YAML, not UTF-8, empty, several documents), `duplicate-key`, `bad-key`
            (a key that is not text), `yaml-tag`, `yaml-limit` (text over 4 MiB; more than 100,000 values, 4 MiB of text or 64
            levels once aliases are written out; a number of over 500 digits; an alias inside its own anchor).

    Source: YAML 1.2.2, section 10.3 "Core Schema"; leading zeros make text here (`012`), since 1.1 reads them as octal.
    """
    source = _source(text, name)
    root = _Composer(source).document()
    return Document(source, root.data, root)


def _source(text: str | bytes, name: str) -> Source:
    if len(text) > MAX_TEXT:
        raise RecipeError("the text is longer than 4 MiB", code="yaml-limit").located(Where(name, 1, 1))
    decoded = text if isinstance(text, str) else _decode(text, name)
    decoded = decoded.removeprefix("\ufeff")
    bad = _REFUSED.search(decoded)
    if bad is None:
        return Source.of(name, decoded)
    number = ord(bad[0])
    escape = f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
    raise RecipeError(
        f"character U+{number:04X} cannot stand in YAML as it is",
        code="yaml",
        help="remove it" if 0xD800 <= number < 0xE000 else f"remove it, or write `{escape}` inside double quotes",
    ).located(_shown(name, decoded).where(bad.start(), bad.end()))


def _decode(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as fault:
        before = raw[: fault.start].decode().removeprefix("\ufeff")
        shown = _shown(name, raw.decode(errors="replace").removeprefix("\ufeff"))
        raise RecipeError(f"byte 0x{raw[fault.start]:02x} is not UTF-8", code="yaml", help="save the file as UTF-8").located(
            shown.where(len(before), len(before) + 1)
        ) from None


def _shown(name: str, text: str) -> Source:
    """A source that is safe to print to a terminal."""
    return Source.of(name, _REFUSED.sub("\ufffd", text))


class _Composer:
    """Builds places from the parser's events, front to back, and stops at the first fault."""

    def __init__(self, source: Source) -> None:
        import yaml

        self.source = source
        self.errors = (yaml.YAMLError, ValueError, OverflowError)  # the pure Python parser lets `chr` and `int` fail
        self.events: Any = yaml.events
        self.loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(source.text)
        self.anchors: dict[str, Place | None] = {}  # None: still open
        self.nodes = 0
        self.chars = 0

    def document(self) -> Place:
        self.next()
        if not isinstance(self.next(), self.events.DocumentStartEvent):
            raise self.fault("there is nothing in this file", 0, 0)
        event = self.next()
        root = self.node(event, "", 1)
        if root.data is None and root.start == root.stop:
            raise self.fault("there is nothing in this document", 0, 0)
        self.next()
        after = self.next()
        if isinstance(after, self.events.DocumentStartEvent):
            at = after.start_mark.index
            raise self.fault("a second document begins here", at, at + 3, help="keep one document per file")
        return root

    def next(self) -> Any:
        try:
            return self.loader.get_event()
        except self.errors as error:
            mark = getattr(error, "problem_mark", None) or self.loader.get_mark()
            raise self.explained(error, mark.index) from None

    def explained(self, error: Exception, index: int) -> RecipeError:
        complaint = explain(error, self.source.text, index)
        note = complaint.note
        if complaint.opened:
            at = self.source.where(complaint.opened_at, complaint.opened_at)
            note = f"{complaint.opened} began at {at.line}:{at.column}"
        return self.fault(complaint.title, complaint.start, complaint.stop, note=note, help=complaint.help)

    def fault(self, title: str, start: int, stop: int, *, code: str = "yaml", note: str = "", help: str = "") -> RecipeError:
        return RecipeError(title, code=code, notes=[note], help=help).located(self.source.where(start, stop))

    def node(self, event: Any, under: str, depth: int) -> Place:
        """The value that begins with `event`; `under` is the key it stands directly under."""
        start, stop = event.start_mark.index, event.end_mark.index
        if depth > MAX_DEPTH:
            raise self.fault(f"values are nested deeper than {MAX_DEPTH} levels", start, stop, code="yaml-limit")
        if isinstance(event, self.events.AliasEvent):
            return self.alias(event, depth)
        self.count(1, 0, start, stop)
        if isinstance(event, self.events.ScalarEvent):
            return self.scalar(event)
        self.open(event)
        nodes, chars = self.nodes - 1, self.chars
        place = self.list(event, depth) if isinstance(event, self.events.SequenceStartEvent) else self.mapping(event, under, depth)
        return self.close(event, place._replace(nodes=self.nodes - nodes, chars=self.chars - chars))

    def count(self, nodes: int, chars: int, start: int, stop: int) -> None:
        self.nodes += nodes
        self.chars += chars
        if self.nodes > MAX_NODES or self.chars > MAX_TEXT:
            limit = f"{MAX_NODES:,} values" if self.nodes > MAX_NODES else f"{MAX_TEXT:,} characters"
            raise self.fault(f"with aliases written out, the file has more than {limit}", start, stop, code="yaml-limit")

    def open(self, event: Any) -> None:
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            start, stop = event.start_mark.index, event.end_mark.index
            raise self.fault(f"tags are not supported: `{tag}`", start, stop, code="yaml-tag", help="leave it out; quotes make text of a value")
        if event.anchor is not None:
            self.anchors[event.anchor] = None

    def close(self, event: Any, place: Place) -> Place:
        # An anchor that was used again inside its own value belongs to the inner, later one.
        if event.anchor is not None and self.anchors[event.anchor] is None:
            self.anchors[event.anchor] = place
        return place

    def alias(self, event: Any, depth: int) -> Place:
        start, stop = event.start_mark.index, event.end_mark.index
        if event.anchor not in self.anchors:
            raise self.fault(f"no `&{event.anchor}` stands before `*{event.anchor}`", start, stop, help="quotes make text of it, for example a glob")
        target = self.anchors[event.anchor]
        if target is None:
            raise self.fault(f"`*{event.anchor}` stands inside its own anchor", start, stop, code="yaml-limit")
        if depth + target.height - 1 > MAX_DEPTH:
            raise self.fault(f"values are nested deeper than {MAX_DEPTH} levels", start, stop, code="yaml-limit")
        self.count(target.nodes, target.chars, start, stop)
        return target._replace(start=start, stop=stop, text_start=None)

    def scalar(self, event: Any, literal: bool = False) -> Place:
        """A scalar; `literal` takes plain text as it is written."""
        self.open(event)
        start, stop, value = event.start_mark.index, event.end_mark.index, event.value
        self.count(0, len(value), start, stop)
        if _SURROGATE.search(value):  # only the pure Python parser lets one through
            raise self.fault("an escape in this text stands for no character", start, stop)
        plain = not event.style and not literal
        if plain and len(value) > _MAX_DIGITS and _INTEGER.fullmatch(value):
            raise self.fault(f"a number of more than {_MAX_DIGITS} digits is too long", start, stop, code="yaml-limit")
        data = _resolved(value) if plain else value
        quoted = event.style in ("'", '"')
        text_start = stop - quoted - len(value)
        verbatim = event.style not in ("|", ">") and text_start >= start and self.source.text.startswith(value, text_start)
        return self.close(event, Place(data, start, stop, text_start if verbatim and isinstance(data, str) else None, chars=len(value)))

    def list(self, event: Any, depth: int) -> Place:
        children: dict[str | int, Place] = {}
        while not isinstance(item := self.next(), self.events.SequenceEndEvent):
            children[len(children)] = self.node(item, "", depth + 1)
        return self.collection(event, item, [child.data for child in children.values()], {}, children)

    def mapping(self, event: Any, under: str, depth: int) -> Place:
        keys: dict[str, Place] = {}
        children: dict[str | int, Place] = {}
        while not isinstance(item := self.next(), self.events.MappingEndEvent):
            key = self.key(item, under in LITERAL_KEYS)
            first = keys.setdefault(key.data, key)
            if first is not key:
                at = self.source.where(first.start, first.stop)
                raise self.fault(
                    f"key `{key.data}` occurs twice in this mapping",
                    key.start,
                    key.stop,
                    code="duplicate-key",
                    note=f"first at {at.line}:{at.column}",
                    help="keep one of them, or join their values into one list",
                )
            value = self.node(self.next(), key.data, depth + 1)
            # The two parsers disagree about where nothing stands.
            children[key.data] = value if value.stop > value.start else value._replace(start=key.start, stop=key.stop)
        return self.collection(event, item, {key: children[key].data for key in keys}, keys, children)

    def collection(self, event: Any, end: Any, data: Any, keys: dict[str, Place], children: dict[str | int, Place]) -> Place:
        # A block collection ends, for the parsers, where the next thing begins; here it ends with its last value.
        stop = end.end_mark.index
        if not event.flow_style:
            stop = max((child.stop for child in children.values()), default=stop)
        height = 1 + max((child.height for child in children.values()), default=0)
        return Place(data, event.start_mark.index, stop, None, keys, children, height=height)

    def key(self, event: Any, literal: bool) -> Place:
        start, stop = event.start_mark.index, event.end_mark.index
        if isinstance(event, self.events.ScalarEvent):
            if event.value == "<<" and not event.style and not literal:
                raise self.fault("merge keys (`<<`) are not part of YAML 1.2", start, stop, code="bad-key", help="write the fields out")
            place = self.scalar(event, literal)
        elif isinstance(event, self.events.AliasEvent):
            place = self.alias(event, 1)
        else:
            raise self.fault("a list or mapping cannot be a key", start, stop, code="bad-key")
        if isinstance(place.data, str):
            return place
        if start == stop:
            raise self.fault("a key is missing before `:`", start, stop, code="bad-key")
        kind = {bool: "a boolean", type(None): "null", int: "a number", float: "a number"}.get(type(place.data), "a list or mapping")
        written = self.source.text[start:stop]
        raise self.fault(f"key `{written}` is {kind}, and keys are text", start, stop, code="bad-key", help=f"put it in quotes: '{written}'")


def _resolved(text: str) -> Any:
    """The value of a plain scalar in the core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text
