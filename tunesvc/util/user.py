"""The user of this process. Imports nothing of tunesvc."""

from __future__ import annotations

import getpass


def whoami() -> str:
    """Return the system user's name; empty when there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
