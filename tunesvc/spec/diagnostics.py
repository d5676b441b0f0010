"""What is wrong with a spec, where, and how it is shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

Path = tuple[str | int, ...]
"""Keys and indices from the top of a spec, as in ("parameters", "lr", "min")."""

_MOST = 100
"""Mistakes that are shown of one file."""
_WIDEST = 160
"""Characters of an offending line that are shown."""


@dataclass(frozen=True, slots=True)
class SpecIssue:
    """One mistake at one path of a spec."""

    path: Path
    text: str
    at_key: bool = False
    """The last key of the path is wrong, not its value."""

    def __str__(self) -> str:
        label = dotted(self.path[:-1] if self.at_key else self.path)
        return f"{label}: {self.text}" if label else self.text


@dataclass(frozen=True, slots=True, order=True)
class TextPosition:
    """A place in a text; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, order=True)
class LocatedIssue:
    """One mistake at one place of a file."""

    place: TextPosition
    text: str


def render(faults: Iterable[LocatedIssue], lines: Sequence[str], filename: str) -> str:
    """Every fault on a line of its own in the order of the file, followed by the line that it is about."""
    told = sorted(set(faults))
    shown = []
    for number, group in groupby(told[:_MOST], key=lambda fault: fault.place.line):
        shown += [f"{filename}:{number}:{fault.place.column}: {fault.text}" for fault in group]
        if 0 < number <= len(lines) and lines[number - 1].strip():
            shown.append(f"{number:5} | {_printable(lines[number - 1])}")
    if len(told) > _MOST:
        shown.append(f"{filename}: and {len(told) - _MOST} mistakes more")
    return "\n".join(shown)


def dotted(path: Path) -> str:
    """`parameters.lr.values[2]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in path)
    return text.removeprefix(".")


def suggest(name: object, known: Iterable[str]) -> str:
    """`, did you mean ...?`, or nothing when no known name is near."""
    if not isinstance(name, str):
        return ""
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f", did you mean `{near[0]}`?" if near else ""


def printable(text: str) -> str:
    """A key or a line with everything escaped that would not show, cut to what fits a terminal."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:_WIDEST])
    return shown + ("…" if len(text) > _WIDEST else "")


def _printable(line: str) -> str:
    return printable(line.rstrip().replace("\t", "    "))
