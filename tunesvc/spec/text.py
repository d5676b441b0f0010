"""Text that a spec may contain: text that can be stored, shown and typed.

Postgres refuses NUL and unpaired surrogates. Control characters and bidirectional overrides could
make a name look like another one, or move the cursor of a terminal that lists it.
"""

from __future__ import annotations

import unicodedata

from tunesvc.util.characters import find_invisible, find_unstorable

MAX_NAME = 200
"""The longest name, in characters."""


def check_text(text: str) -> str:
    """Check that the database can store a text.

    Raises:
        ValueError: it contains NUL or half of a surrogate pair; the message gives the position.
    """
    if (position := find_unstorable(text)) is not None:
        raise ValueError(f"cannot be stored: it holds {_where(text, position)}")
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
    if (position := find_invisible(name)) is not None:
        raise ValueError(f"is a name, and holds the invisible {_where(name, position)}")
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


def _where(text: str, position: int) -> str:
    char = text[position]
    code = f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip()
    return f"{code} at character {position + 1}"
