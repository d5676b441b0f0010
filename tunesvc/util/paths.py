"""Location of this user's data: the embedded database, checkpoints and all else on a machine; and
of settings.

Owns `TUNE_HOME` and its default, and what a path is. Creates nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from tunesvc.util.characters import find_invisible

_NAME_BYTES_MAX = 255
"""Most bytes of a name, on all file systems in use."""
ROOT_HOME = Path("/var/lib/tunesvc")
"""Root's default: the database server runs as another user, which cannot enter root's own home."""


def home_directory() -> Path:
    """Return the absolute path of the data directory: `TUNE_HOME`, else the system's default."""
    if configured := os.environ.get("TUNE_HOME"):
        return Path(configured).expanduser().absolute()
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return ROOT_HOME
    return Path(platformdirs.user_data_dir("tunesvc", appauthor=False))


def config_directory() -> Path:
    """Return the absolute path of settings: below `TUNE_HOME`, else the system's default."""
    if os.environ.get("TUNE_HOME"):
        return home_directory() / "config"
    return Path(platformdirs.user_config_dir("tunesvc", appauthor=False))


def is_url(address: str) -> bool:
    """Return True for a URL, such as `s3://bucket/folder`, and False for a path."""
    return re.match(r"[a-z][a-z0-9+.-]+://|file:", address) is not None


def is_file_name(name: str) -> bool:
    """Return True for the name of a file or folder, without a folder before it."""
    is_plain = name not in ("", ".", "..") and "/" not in name and find_invisible(name) is None
    return is_plain and len(name.encode("utf-8", "replace")) <= _NAME_BYTES_MAX
