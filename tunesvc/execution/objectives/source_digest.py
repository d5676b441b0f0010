"""Which code an attempt runs, as a digest, so that a change between attempts can be seen. Imports no user code."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tunesvc.execution.executor import Job

_DIGITS = 16
_SOURCE_BYTES_MAX = 2**20
"""What is larger is data that the command names, not code."""


def digest_of(job: Job, folder: Path) -> str:
    """A digest of the entrypoint's file, or of the files in `folder` that the command names.

    Empty for a function, and when a file goes away while it is read.
    """
    files = [path for path in _files(job, folder) if path.is_file() and path.stat().st_size <= _SOURCE_BYTES_MAX]
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
    """Where the module of an entrypoint may lie."""
    place = entrypoint.partition(":")[0]
    if not place:
        return []
    if place.endswith(".py"):
        return [folder / place]
    module = folder.joinpath(*place.split("."))
    return [module.with_suffix(".py"), module / "__init__.py"]


def mentions_resources(entrypoint: str | None, folder: Path) -> bool:
    """Return whether an entrypoint's file may bring resources along, as `ray.tune.with_resources` does."""
    files = [path for path in entrypoint_files(entrypoint or "", folder) if path.is_file()]
    texts = [path.read_text("utf-8", "replace") for path in files]
    return any(word in text for text in texts for word in ("with_resources", "default_resource_request"))


def _files(job: Job, folder: Path) -> list[Path]:
    if job.command:
        return [folder / argument for argument in job.command if argument and "\x00" not in argument]
    return entrypoint_files(job.entrypoint or "", folder)
