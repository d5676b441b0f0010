"""Issues of a spec: their paths, positions in the file, and rendering."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

Path = tuple[str | int, ...]
"""Keys and indices from the top of a spec, such as ("parameters", "lr", "min")."""

_MOST = 100
"""Issues shown per file, at most."""
_WIDEST = 160
"""Characters shown of an offending line."""


@dataclass(frozen=True, slots=True)
class SpecIssue:
    """One issue at one path of a spec."""

    path: Path
    text: str
    at_key: bool = False
    """The last key of the path is wrong, not its value."""

    def __str__(self) -> str:
        label = dotted(self.path[:-1] if self.at_key else self.path)
        return f"{label}: {self.text}" if label else self.text


@dataclass(frozen=True, slots=True, order=True)
class TextPosition:
    """A position in a text; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, order=True)
class LocatedIssue:
    """One issue at one position of a file."""

    position: TextPosition
    text: str


def render(issues: Iterable[LocatedIssue], lines: Sequence[str], filename: str) -> str:
    """Render each issue on a line, in the order of the file, followed by the offending line."""
    ordered = sorted(set(issues))
    shown = []
    for number, group in groupby(ordered[:_MOST], key=lambda issue: issue.position.line):
        shown += [f"{filename}:{number}:{issue.position.column}: {issue.text}" for issue in group]
        if 0 < number <= len(lines) and lines[number - 1].strip():
            shown.append(f"{number:5} | {_printable(lines[number - 1])}")
    if len(ordered) > _MOST:
        shown.append(f"{filename}: and {len(ordered) - _MOST} more mistakes")
    return "\n".join(shown)


def dotted(path: Path) -> str:
    """Format a path as `parameters.lr.values[2]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in path)
    return text.removeprefix(".")


def printable(text: str) -> str:
    """Escape invisible characters of a key or line, and cut it to the width of a terminal."""
    shown = "".join(map(_escape, text[:_WIDEST]))
    return shown + ("…" if len(text) > _WIDEST else "")


def _escape(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()


def _printable(line: str) -> str:
    return printable(line.rstrip().replace("\t", "    "))
