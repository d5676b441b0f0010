"""Which text a spec may hold: whatever can be stored, shown and typed.

Postgres refuses NUL and unpaired surrogates; control characters and bidirectional overrides in a name would let it
look like another one, or move the cursor of whoever lists it.
"""

from __future__ import annotations

import unicodedata

MAX_NAME = 200
"""The longest name, in characters."""

_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_CONTROL_CATEGORIES = frozenset({"Cc", "Zl", "Zp"})


def check_text(text: str) -> str:
    """Any text that the database can hold.

    Raises:
        ValueError: it holds NUL or half of a surrogate pair; the message says where.
    """
    for position, char in enumerate(text):
        if char == "\x00" or "\ud800" <= char <= "\udfff":
            raise ValueError(f"cannot be stored: it holds {_code(char)} at character {position + 1}")
    return text


def check_name(name: str) -> str:
    """A name, of any script: no control characters, no bidirectional overrides, no space around it.

    Raises:
        ValueError: it holds one of those; the message says where.
    """
    check_text(name)
    if name != name.strip():
        raise ValueError("has space around it: take it away")
    for position, char in enumerate(name):
        if unicodedata.category(char) in _CONTROL_CATEGORIES or char in _BIDI_CONTROLS:
            raise ValueError(f"is a name, and holds the invisible {_code(char)} at character {position + 1}")
    return name


def check_json(value: object) -> None:
    """JSON whose every text can be stored.

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
