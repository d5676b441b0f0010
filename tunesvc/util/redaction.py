"""Recognises secrets in text, to leave them out. Imports nothing of tunesvc."""

from __future__ import annotations

import re

SECRET_PREFIX = "tune_"  # noqa: S105  # a prefix, not a secret
"""Before the kind and the random part of every secret, so that scanners find leaked ones."""
_SECRET = re.compile(rf"{SECRET_PREFIX}(token|session|link)_[A-Za-z0-9_-]{{43}}")

_PASSWORD = re.compile(r"(\w://[^\s:/@]*:)[^\s/@]+@")
"""The password of an address, such as a database's."""


def redacted(text: str) -> str:
    """Return a text without the random parts of tokens, and without passwords of addresses."""
    without_tokens = _SECRET.sub(rf"{SECRET_PREFIX}\1_***", text)
    return _PASSWORD.sub(r"\1***@", without_tokens)
