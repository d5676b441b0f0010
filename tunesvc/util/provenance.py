"""Provenance of a study: the git commit of its folder, Python and the installed packages.

Imports nothing of tunesvc. Nothing here raises, and nothing takes longer than a few seconds.
"""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

_GIT_S = 3.0
"""Time for git to answer; a large working tree on a slow disk does without."""


def provenance_of(folder: Path) -> dict[str, Any]:
    """Return the origin of a folder's study, as a mapping that can be stored as JSON.

    `git` has `commit`, `branch` (None if none is checked out) and `dirty`, whether the folder has
    changes that are in no commit; it is missing where there is no repository.
    """
    found: dict[str, Any] = {
        "folder": str(folder),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": installed_packages(),
    }
    if (git := git_state(folder)) is not None:
        found["git"] = git
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit, branch and whether the folder has changes; None without a repository."""
    command = ("git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--", ".")
    # without optional locks it disturbs no other git, and it asks for no password
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        status = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_S,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = status.stdout.splitlines()
    branch = dict(
        line.removeprefix("# branch.").split(" ", 1) for line in lines if line.startswith("# ")
    )
    commit = branch.get("oid", "")
    if not commit or commit == "(initial)":
        return None
    head = branch.get("head")
    return {
        "commit": commit,
        "branch": None if head == "(detached)" else head,
        "dirty": any(not line.startswith("#") for line in lines),
    }


def installed_packages() -> dict[str, str]:
    """Return the versions of the packages of this environment, by name."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        with suppress(Exception):  # a broken installation has packages without a name
            versions.setdefault(distribution.name, distribution.version)
    return dict(sorted(versions.items(), key=lambda item: item[0].lower()))
