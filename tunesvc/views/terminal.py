"""Terminal output: consoles, tables, numbers, durations, JSON. A study's text is never markup."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tunesvc.util.characters import visible

T = TypeVar("T")

STYLES = {
    "complete": "green",
    "finished": "green",
    "best": "bold green",
    "pruned": "yellow",
    "running": "cyan",
    "waiting": "dim",
    "queued": "dim",
    "opened": "dim",
    "created": "dim",
    "paused": "yellow",
    "promoted": "cyan",
    "interrupted": "yellow",
    "stopped": "yellow",
    "failed": "red",
    "lost": "red",
}
"""Colours of states."""


WIDE = 400
"""Columns of a pipe, so that no line is cut."""


def out() -> Console:
    """Return a console on standard output, created on each call to follow redirections."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
    return Console(file=sys.stdout, highlight=False, width=width)


def err() -> Console:
    """Return a console on standard error."""
    return Console(file=sys.stderr, highlight=False)


def print_error(message: str) -> None:
    """Print one error on standard error, for people."""
    console = err()
    console.print(Text.assemble(("error: ", "bold red"), visible(message)), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    sys.stdout.write(to_json(value) + "\n")
    sys.stdout.flush()


def to_json(value: Any) -> str:
    """Return JSON text; NaN and infinities are the strings `NaN`, `Infinity`, `-Infinity`."""
    from tunesvc.db.engine import json_numbers

    return json_numbers.dump(plain(value))


def plain(value: Any) -> Any:
    """Convert dataclasses, enums and timestamps to JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_defaults=True)
    return value


def indented(text: Text | str) -> Padding:
    """Indent a text by two columns, without padding at the ends of lines."""
    return Padding(
        Text(text) if isinstance(text, str) else text,
        (0, 0, 0, 2),
        expand=False,
    )


def table(*columns: str) -> Table:
    """Return a table in our style. Columns with a name that begins with `>` contain numbers."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        name = Text(visible(column.removeprefix(">")))
        made.add_column(
            name,
            justify="right" if column.startswith(">") else "left",
            no_wrap=True,
        )
    return made


def fitted(
    heads: Sequence[str],
    lines: Sequence[Sequence[object]],
    width: int,
    spare: Sequence[str] = (),
) -> Table:
    """Return a table at most `width` columns wide, without the last columns in `spare` if
    necessary.

    Args:
        heads: names of the columns; `>` marks a column of numbers.
        lines: the values of each row.
        width: of the terminal.
        spare: headings of columns that may be left out.
    """
    rows = [cells(*line) for line in lines]
    widths = [cell_len(head.removeprefix(">")) for head in heads]
    for row in rows:
        widths = [
            max(pair)
            for pair in zip(
                widths,
                (cell.cell_len for cell in row),
                strict=True,
            )
        ]
    shown = list(range(len(heads)))
    left_out = 0
    for i in reversed([i for i, head in enumerate(heads) if head in spare]):
        needed = sum(widths[j] + 2 for j in shown) - 2
        if left_out:
            needed += len("  +99 more")
        if needed <= width:
            break
        shown.remove(i)
        left_out += 1
    made = table(*(heads[i] for i in shown))
    if left_out:
        made.add_column(Text(f"+{left_out} more"), no_wrap=True)
    for row in rows:
        made.add_row(*(row[i] for i in shown))
    return made


def cells(*values: object) -> list[Text]:
    """Convert values to a table's cells, without markup."""
    return [value if isinstance(value, Text) else Text(visible(str(value))) for value in values]


def state_text(state: str) -> Text:
    """Return a state in its colour."""
    return Text(state, STYLES.get(state, ""))


def markup(text: object) -> str:
    """Escape text for use inside rich markup."""
    return escape(visible(str(text)))


def bar(fraction: float, width: int = 10) -> str:
    """Format a fraction as a bar with its percentage."""
    full = round(fraction * width)
    return "━" * full + "╌" * (width - full) + f" {fraction:4.0%}"
