"""Text that a spec may contain: text that can be stored, shown and typed.

Postgres refuses NUL and unpaired surrogates. Control characters and bidirectional overrides could
make a name look like another one, or move the cursor of a terminal that lists it.
"""

from __future__ import annotations

import unicodedata

MAX_NAME = 200
"""The longest name, in characters."""

_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_CONTROL_CATEGORIES = frozenset({"Cc", "Zl", "Zp"})


def check_text(text: str) -> str:
    """Check that the database can store a text.

    Raises:
        ValueError: it contains NUL or half of a surrogate pair; the message gives the position.
    """
    for position, char in enumerate(text):
        if char == "\x00" or "\ud800" <= char <= "\udfff":
            where = f"{_code(char)} at character {position + 1}"
            raise ValueError(f"cannot be stored: it holds {where}")
    return text


def check_name(name: str) -> str:
    """Check a name, in any script: no control characters, no bidirectional overrides, no space
    around it.

    Raises:
        ValueError: it contains one of those; the message gives the position.
    """
    check_text(name)
    if name != name.strip():
        raise ValueError("has space around it: remove it")
    for position, char in enumerate(name):
        if unicodedata.category(char) in _CONTROL_CATEGORIES or char in _BIDI_CONTROLS:
            where = f"{_code(char)} at character {position + 1}"
            raise ValueError(f"is a name, and holds the invisible {where}")
    return name


def check_json(value: object) -> None:
    """Check that every text in a JSON value can be stored.

    Raises:
        ValueError: as `check_text`.
    """
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, list):
        for item in value:
            check_json(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key)
            check_json(item)


def _code(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip()
