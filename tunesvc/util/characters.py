"""Characters that cannot be stored or shown, and their replacements. Imports nothing of tunesvc.

Postgres refuses NUL and unpaired surrogates. Control characters move the cursor of a terminal, and
bidirectional controls reorder a line, so that a name or a path looks like another one.
"""

from __future__ import annotations

import re

_BIDI = "\u202a-\u202e\u2066-\u2069"
_BIDI_CONTROL = re.compile(f"[{_BIDI}]")
_INVISIBLE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}]")
_INVISIBLE_IN_NAME = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{_BIDI}]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\ufffd"

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n|$)")


def find_unstorable(text: str) -> int | None:
    """Return the position of the first character that Postgres refuses, or None."""
    found = _UNSTORABLE.search(text)
    return None if found is None else found.start()


def find_invisible(name: str) -> int | None:
    """Return the position of the first character that a name cannot have, or None.

    In a name, line breaks and tabs are invisible too.
    """
    found = _INVISIBLE_IN_NAME.search(name)
    return None if found is None else found.start()


def storable(text: str) -> str:
    """Return text that Postgres can store: NUL and lone surrogates become U+FFFD."""
    if find_unstorable(text) is None:
        return text
    without_nul = text.replace("\x00", _REPLACEMENT)
    return without_nul.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def visible(text: str) -> str:
    """Replace control characters, except line feeds and tabs, and bidirectional controls."""
    return _INVISIBLE.sub(_REPLACEMENT, text)


def left_to_right(text: str) -> str:
    """Replace bidirectional controls."""
    return _BIDI_CONTROL.sub(_REPLACEMENT, text)


def strip_control(text: str) -> str:
    """Return a program's output as plain text.

    Removes colours and cursor moves, keeps the last state of an overwritten line (a progress bar),
    and replaces all other invisible characters.
    """
    shown = _OVERWRITTEN.sub("", _ESCAPES.sub("", text))
    return visible(shown.replace("\r", ""))
