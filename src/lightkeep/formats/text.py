"""Text from files, made safe to store, to show and to log."""

from __future__ import annotations

import unicodedata

LONGEST = 4096
"""Characters kept of one text."""
_KEPT_CONTROLS = "\n\t"
_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(value: object) -> str:
    """Return readable text: valid Unicode, NFC, no control characters, no direction tricks, bounded length.

    Bytes are taken as UTF-8, and as Latin-1 where they are not.

    >>> clean(b"tooth\\x00\\x00")
    'tooth'
    >>> clean("\\x1b[2Jgold\\udcff")
    '[2Jgold\\ufffd'
    >>> clean(b"25 \\xb5m")
    '25 µm'
    """
    text = _decode(value) if isinstance(value, bytes) else str(value)
    kept = "".join(map(_safe, text[: 2 * LONGEST]))
    return unicodedata.normalize("NFC", kept).strip()[:LONGEST]


def one_line(value: object) -> str:
    """Return `clean` text with its white space folded, for names and messages."""
    return " ".join(clean(value).split())


def _decode(value: bytes) -> str:
    value = value[: 4 * LONGEST]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _safe(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cs":
        return "\N{REPLACEMENT CHARACTER}"
    if (category == "Cc" and character not in _KEPT_CONTROLS) or character in _DIRECTIONS:
        return ""
    return character
