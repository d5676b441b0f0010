"""Symbolic links in archives of any origin: which may be made.

A link goes up first, if at all, and then only down. It is made after all files, and nothing lies
below it. So where it leads depends on real folders alone, however many links there are.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import PurePosixPath


def links_problem(members: Iterable[tarfile.TarInfo]) -> str | None:
    """Return the reason why the links among members must not be made; None if they may."""
    members = tuple(members)
    links = {PurePosixPath(member.name) for member in members if member.issym()}
    for member in members:
        name = PurePosixPath(member.name)
        if links.intersection(name.parents):
            return f"{member.name!r} below a link"
        if member.issym() and _leads_out(name, PurePosixPath(member.linkname)):
            return f"a link that leads from {member.name!r} to {member.linkname!r}"
    return None


def _leads_out(name: PurePosixPath, target: PurePosixPath) -> bool:
    parts = target.parts
    ups = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    depth = len(name.parts) - 1
    return target.is_absolute() or ups > depth or ".." in parts[ups:] or "\0" in str(target)
