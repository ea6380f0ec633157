"""Whether a large JSON text has the shape of a header or index, asked before it is parsed: a list in a text takes 3 bytes, in memory 64.

Serves the safetensors header and the index of sharded checkpoints. Knows nothing of values: what passes is parsed and checked as ever, and
then takes about as much memory as the honest header of that length. Texts that count like honest ones are not looked at any further.
"""

from __future__ import annotations

import re

_SMALL = 4 << 20
"""So much text can do no harm, whatever it says."""
_LEAST_ENTRY_BYTES = 48
"""`"a":{"dtype":"F32","shape":[],"data_offsets":[0,0]},`, rounded down."""
_LEAST_TEXT_BYTES = 5
"""For each quotation mark of an index, with a comma or colon."""
_FEW = 50_000
"""As many objects, lists, texts or numbers more than a header needs."""


def _joined(*parts: str) -> str:
    return r"[ \t\r\n]*+".join(parts)


_TEXT = r'"(?:[^"\\]|\\.)*+"'
_PLAIN = r'(?:"(?:[^"\\]|\\.)*+"|[-+.\w]{1,40}+)'
_NUMBERS = r"\[[0-9, \t\r\n]{0,2000}+\]"
_TEXTS = _joined(r"\{(?:", _TEXT, ":", _PLAIN, r"(?:,|(?=\})))*+\}")
_FIELD = _joined(_TEXT, ":", f"(?:{_NUMBERS}|{_PLAIN})")
_ENTRY = _joined(_TEXT, ":", r"\{", _FIELD, ",", _FIELD, ",", _FIELD, r"\}")
_METADATA = _joined('"__metadata__"', ":", _TEXTS)
_HEADER = _joined("", r"\{(?:", f"(?:{_ENTRY}|{_METADATA})", r"(?:,|(?=\})))*+\}", "")
_INDEX = _joined("", r"\{(?:", _TEXT, ":", f"(?:{_TEXTS}|{_PLAIN})", r"(?:,|(?=\})))*+\}", "")


def like_header(raw: bytes) -> bool:
    """Whether a text is an object of metadata and of entries with three fields, or too small to matter."""
    return len(raw) <= _SMALL or _counts_like_header(raw) or _matches(_HEADER, raw)


def _counts_like_header(raw: bytes) -> bool:
    entries = raw.count(b"{")
    most = {b"[": 2 * entries, b'"': 10 * entries, b",": 10 * entries}
    return entries * _LEAST_ENTRY_BYTES <= len(raw) and all(raw.count(sign) <= count + _FEW for sign, count in most.items())


def like_index(raw: bytes) -> bool:
    """Whether a text is an object of plain values and of mappings to plain values, or too small to matter."""
    return len(raw) <= _SMALL or _counts_like_index(raw) or _matches(_INDEX, raw)


def _counts_like_index(raw: bytes) -> bool:
    return raw.count(b"{") + raw.count(b"[") <= _FEW and raw.count(b'"') * _LEAST_TEXT_BYTES <= len(raw) and raw.count(b",") <= raw.count(b'"')


def _matches(pattern: str, raw: bytes) -> bool:
    return re.fullmatch(pattern.encode(), raw, re.DOTALL) is not None
