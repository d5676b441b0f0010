"""Digest of the code that an attempt runs, to detect changes between attempts.

Imports no user code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tunesvc.execution.executor import Job

_DIGITS = 16
_SOURCE_BYTES_MAX = 2**20
"""A larger file is considered data, not code."""


def digest_of(job: Job, folder: Path) -> str:
    """Return a digest of the entrypoint's file, or of the files in `folder` that the command names.

    Empty for a function, and if a file disappears while it is read.
    """
    return digest_of_files(_files(job, folder))


def digest_of_files(paths: Iterable[Path]) -> str:
    """Return a digest of the files that exist, except large ones."""
    existing = [path for path in paths if path.is_file()]
    files = [path for path in existing if path.stat().st_size <= _SOURCE_BYTES_MAX]
    if not files:
        return ""
    digest = hashlib.sha256()
    try:
        for path in files:
            digest.update(path.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()[:_DIGITS]


def entrypoint_files(entrypoint: str, folder: Path) -> list[Path]:
    """Return the possible files of an entrypoint's module."""
    location = entrypoint.partition(":")[0]
    if not location:
        return []
    if location.endswith(".py"):
        return [folder / location]
    module = folder.joinpath(*location.split("."))
    return [module.with_suffix(".py"), module / "__init__.py"]


def mentions_resources(entrypoint: str | None, folder: Path) -> bool:
    """Return True if an entrypoint's file may request resources by `ray.tune.with_resources`."""
    for path in entrypoint_files(entrypoint or "", folder):
        if not path.is_file():
            continue
        text = path.read_text("utf-8", "replace")
        if "with_resources" in text or "default_resource_request" in text:
            return True
    return False


def _files(job: Job, folder: Path) -> list[Path]:
    if job.command:
        arguments = [argument for argument in job.command if argument]
        return [folder / argument for argument in arguments if "\x00" not in argument]
    return entrypoint_files(job.entrypoint or "", folder)
