"""Keys as text: globs, numeric order, and near names for a key that is missing.

Pure functions over strings; knows nothing of tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_NUMBER = re.compile(r"(\d+)")
_TOKEN = re.compile(r"[^/._:]+")
_CANDIDATES = 400


def natural(key: str) -> tuple[tuple[str, int], ...]:
    """A sort key in which numbers count as numbers: expert 9 comes before expert 10."""
    parts = _NUMBER.split(key)
    return tuple((text, int(number)) for text, number in zip(parts[::2], [*parts[1::2], "-1"], strict=True))


def is_glob(text: str) -> bool:
    """True if the text has a star that is not escaped."""
    return "*" in text.replace("\\\\", "").replace("\\*", "")


def literal(text: str) -> str:
    """The exact key that a glob without stars stands for: `\\*` is a star, `\\\\` a backslash."""
    return re.sub(r"\\([*\\])", r"\1", text)


@lru_cache(4096)
def glob(text: str) -> re.Pattern[str]:
    """A glob as a compiled expression to be used with `fullmatch`.

    `*` stops at `/` and `.`; `**` does not, and as a whole segment it also matches nothing (`**/x` matches `x`).
    """
    out, at = [], 0
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text) and text[at + 1] in "*\\":
            out.append(re.escape(text[at + 1]))
            at += 2
        elif text.startswith("**", at):
            starts_segment = at == 0 or text[at - 1] in "/."
            at += 2
            if starts_segment and at < len(text) and text[at] in "/.":
                out.append(f"(?:.*{re.escape(text[at])})?")
                at += 1
            else:
                out.append(".*")
        elif text[at] == "*":
            out.append("[^/.]*")
            at += 1
        else:
            out.append(re.escape(text[at]))
            at += 1
    return re.compile("".join(out), re.DOTALL)


def near_names(missing: str, keys: Iterable[str], most: int = 3) -> list[str]:
    """The keys most like a missing one.

    Similarity is only measured on a narrowed set (same last part, or same beginning), so that a million keys cost a
    few passes of plain string tests.
    """
    from difflib import SequenceMatcher

    pool = list(keys)
    tokens = _TOKEN.findall(missing)
    if not tokens:
        return []
    last = tokens[-1]
    half = missing[: max(1, len(missing) // 2)]
    lowered = missing.lower()
    wanted = [key for key in pool if key.endswith(last)][:_CANDIDATES]
    wanted += [key for key in pool if key.startswith(half)][:_CANDIDATES]
    wanted += [key for key in pool if missing in key or (len(key) > 2 and key in missing)][:_CANDIDATES]
    if len(pool) <= _CANDIDATES:
        wanted = pool
    matcher = SequenceMatcher(b=lowered, autojunk=False)
    scored = []
    for key in dict.fromkeys(wanted):
        matcher.set_seq1(key.lower())
        if matcher.real_quick_ratio() >= 0.6 and matcher.quick_ratio() >= 0.6 and (ratio := matcher.ratio()) >= 0.6:
            scored.append((-ratio, key))
    return [key for _, key in sorted(scored)[:most]]
