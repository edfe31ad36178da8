"""What may go into a database: text without NUL or lone surrogates, JSON without NaN, paths as bytes.

PostgreSQL refuses what SQLite keeps, and a browser refuses what both keep; so it is put right here, at the door.
"""

from __future__ import annotations

import json
import math
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from lightkeep.model.errors import InvalidInput

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # os.fsencode, without its calls
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_WORD = re.compile(r"[^\W_]+")
_LONGEST_WORD = 100  # characters; a lexeme of PostgreSQL holds 2046 bytes
_LONGEST_FOLDED = 200  # characters; an index entry of PostgreSQL holds 2704 bytes


def clean(text: str) -> str:
    """Return the text with NUL and lone surrogates replaced by U+FFFD.

    >>> clean("a\\x00b")
    'a\ufffdb'
    """
    return _UNSTORABLE.sub("\ufffd", text)


def encode_path(path: str) -> bytes:
    """Return a path's bytes, as the file system has them.

    Raises
    ------
    InvalidInput: the path holds NUL or a surrogate that stands for no byte.
    """
    try:
        encoded = path.encode(_ENCODING, _ERRORS)
    except UnicodeEncodeError as error:
        raise InvalidInput(f"path {path!r} cannot be a file's name: {error.reason}") from error
    if b"\0" in encoded:
        raise InvalidInput(f"path {path!r} cannot be a file's name: it holds a NUL character")
    return encoded


def shown_path(path: str) -> str:
    """Return the path as it can be shown: bytes that are not UTF-8 become U+FFFD."""
    return path if path.isascii() else clean(path)


def to_json(value: Any) -> str:
    """Return canonical JSON of what `json_safe` makes of the value."""
    return json.dumps(json_safe(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def json_safe(value: Any) -> Any:
    """Return the value as plain JSON: text cleaned, NaN and infinities as text, anything else as its `str`."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(str(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {clean(str(key)): json_safe(item) for key, item in value.items()}
    if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [json_safe(item) for item in value]
    return clean(str(value))


def folded(text: str) -> str:
    """Return the text as equality without case compares it, cut to what an index can hold."""
    return clean(text).casefold()[:_LONGEST_FOLDED]


def words(text: str) -> list[str]:
    """Return the words of a text, without case, accents and punctuation: the same on every database.

    >>> words("Gold_wire, Ångström 2-BM")
    ['gold', 'wire', 'angstrom', '2', 'bm']
    """
    plain = unicodedata.normalize("NFKD", clean(text).casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return [word[:_LONGEST_WORD] for word in _WORD.findall(plain)]
