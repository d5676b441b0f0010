"""Who uses this process, for the record. Imports nothing of tunesvc."""

from __future__ import annotations

import getpass


def whoami() -> str:
    """The name of the system's user; empty when there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
