"""Vocabularies: which token has which row of a table, out of the files that tokenizers keep; and what becomes of rows when one takes
the place of another. Opens nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, NamedTuple

from surgery.data_files import bad_data, json_of, text_of

_HELP = "use a text file with a token on each line, a JSON object of tokens and their ids, or a `tokenizer.json`"


class Vocabulary(NamedTuple):
    """Tokens with their ids, each of which belongs to one token. `size` is one more than the greatest id."""

    ids: Mapping[str, int]
    size: int


def vocabulary(data: bytes, path: str) -> Vocabulary:
    """The tokens of a file: its lines, or where its name ends with `.json` an object or a list of tokens, or a tokenizer of Hugging Face.

    Raises:
        SourceError: it is none of these, or a token has two ids, or an id two tokens.
    """
    if path.endswith(".json"):
        return _checked(_pairs(json_of(data, path), path), path)
    lines = text_of(data, path).split("\n")
    if not lines[-1]:
        lines.pop()
    return _checked(((line.removesuffix("\r"), number) for number, line in enumerate(lines)), path)


def _pairs(document: Any, path: str) -> list[tuple[Any, Any]]:
    """The tokens of a JSON file with their ids, unchecked."""
    if isinstance(document, dict) and isinstance(document.get("model"), dict):
        added = document.get("added_tokens") or []
        if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
            raise bad_data(path, "is no vocabulary: `added_tokens` is no list of tokens", _HELP)
        return [*_pairs(document["model"].get("vocab"), path), *((token.get("content"), token.get("id")) for token in added)]
    if isinstance(document, dict):
        return list(document.items())
    if isinstance(document, list):  # of tokens, or of tokens with their scores
        return [(token[0] if isinstance(token, list) and token else token, number) for number, token in enumerate(document)]
    raise bad_data(path, "is no vocabulary", _HELP)


def _checked(pairs: Iterable[tuple[Any, Any]], path: str) -> Vocabulary:
    ids: dict[str, int] = {}
    tokens: dict[int, str] = {}
    for token, number in pairs:
        if not isinstance(token, str) or not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise bad_data(path, f"is no vocabulary: {token!r} has the id {number!r}", _HELP)
        if ids.setdefault(token, number) != number:
            raise bad_data(path, f"has the token {token!r} twice, as {ids[token]:,} and {number:,} (counted from 0)", "take one of them out")
        if tokens.setdefault(number, token) != token:
            raise bad_data(path, f"has two tokens for the id {number:,}: {tokens[number]!r} and {token!r}", "give each an id of its own")
    if not ids:
        raise bad_data(path, "has no tokens", _HELP)
    return Vocabulary(ids, max(tokens) + 1)


def remap(old: Vocabulary, new: Vocabulary, old_rows: int, size: int, old_size: int | None = None) -> tuple[int, ...]:
    """For each row of a new table the row of the old one that its token had; `old_rows` and so on for new tokens and ids without one.

    Of the old vocabulary only ids below `old_size` count. The maker has checked that those of the new tokens are below `old_rows`, too.
    """
    tokens = {number: token for token, number in new.ids.items()}
    fresh = count(old_rows)
    rows = (old.ids.get(tokens[number]) if number in tokens else None for number in range(size))
    return tuple(next(fresh) if row is None or (old_size is not None and row >= old_size) else row for row in rows)
