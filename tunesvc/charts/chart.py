"""What every chart shares: its value, its look, labels that cannot act, and traces that stay small.

Pure: no database, no files. Columns of numbers go to Plotly as arrays, which it writes as a few bytes each.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go

COLOURS = {
    "complete": "#4f7cff",
    "pruned": "#9aa3b2",
    "paused": "#b08ad9",
    "failed": "#e5484d",
    "stopped": "#c5cad3",
    "infeasible": "#d6409f",
    "running": "#f5a524",
    "waiting": "#c5cad3",
    "queued": "#c5cad3",
    "interrupted": "#c98a1b",
    "best": "#12a594",
}
"""Middle tones: they read on white as on black."""

SCALE = [[0.0, "#12a594"], [0.35, "#4f7cff"], [1.0, "#c9b8e8"]]
"""From the best value to the worst."""

POINTS = 4_000
"""In one chart, at most: a browser draws them within a second, without WebGL."""
_WHOLE_TICKS = 12
"""A tick at each whole number, up to so many."""
NOTHING = "No trial is complete yet."


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled figure, or, where there is nothing to draw, the reason why."""

    title: str
    figure: go.Figure | None
    note: str = ""
    """Below the title: what is shown and what is left out; or why there is nothing."""
    wide: bool = False
    """Whether it wants the whole width of the page."""
    columns: Mapping[str, Sequence[object] | np.ndarray] = field(default_factory=dict)
    """What is drawn as a table, by the heads of its columns: for who cannot see it, and to take away."""

    def rows(self, limit: int | None = None) -> list[tuple[object, ...]]:
        """The table's rows, from the first."""
        cut = [list(column[:limit]) for column in self.columns.values()]
        return list(zip(*cut, strict=True))

    def __len__(self) -> int:
        """Rows of the table."""
        return len(next(iter(self.columns.values()), ()))


def points(
    x: np.ndarray,
    y: np.ndarray,
    numbers: np.ndarray | None = None,
    **how: Any,
) -> go.Scatter:
    """Points, each of a trial: `numbers`, or where None, `x` itself. A page finds the trial of a point by it."""
    if numbers is None:
        return go.Scatter(x=whole(x), y=y, meta={"trials": "x"}, **how)
    return go.Scatter(
        x=x,
        y=y,
        customdata=whole(numbers),
        meta={"trials": "customdata"},
        **how,
    )


def whole(numbers: np.ndarray) -> np.ndarray:
    """Trial numbers in four bytes each."""
    return np.asarray(numbers, dtype=np.int32)


def figure(*traces: Any, height: int = 380, **layout: Any) -> go.Figure:
    """A figure in our look; the page colours text and grid by the reader's light or dark mode."""
    base: dict[str, Any] = {
        "height": height,
        "margin": {"l": 64, "r": 20, "t": 16, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hoverlabel": {"align": "left"},
        "template": "none",
    }
    return go.Figure(list(traces), {**base, **layout})


def label(text: object, longest: int = 60) -> str:
    """Text that Plotly shows as it is: its own markup and links are switched off."""
    shown = str(text)
    return html.escape(
        shown if len(shown) <= longest else shown[: longest - 1] + "…",
        quote=False,
    )


def axis(
    name: str,
    values: Iterable[float] = (),
    *,
    log: bool | None = None,
) -> dict[str, Any]:
    """An axis; logarithmic where that is asked for or, with None, where it shows more."""
    finite = [value for value in values if math.isfinite(value)]
    log = spans_decades(finite) if log is None else log and bool(finite) and min(finite) > 0
    decades = math.log10(max(finite) / min(finite)) if log else 0.0
    # whole decades, about six of them; below two, Plotly's own ticks in between
    ticks = {"dtick": math.ceil(decades / 6)} if decades >= 2 else {}
    return {
        "title": {"text": label(name)},
        "type": "log" if log else "linear",
        **ticks,
        "automargin": True,
        "zeroline": False,
        # not "power": the small print of its superscripts is an inline style, which the dashboard's policy blocks
        "exponentformat": "e",
        "minexponent": 5,
    }


def count_axis(name: str, values: Iterable[float] = ()) -> dict[str, Any]:
    """An axis of whole numbers."""
    finite = [value for value in values if math.isfinite(value)]
    # Plotly would set ticks at halves, and the format would round them: 1 2 2 3 3
    is_short = bool(finite) and max(finite) - min(finite) <= _WHOLE_TICKS
    return {**axis(name), "tickformat": ",d", **({"dtick": 1} if is_short else {})}


def spans_decades(values: Iterable[float]) -> bool:
    """Whether a logarithmic scale shows more than a linear one: a decade and a half and more, and most values low.

    Uniform draws from 0 ... 1 may span decades as well, but their median lies near the middle.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) <= 0:
        return False
    return max(finite) >= 30 * min(finite) and float(np.median(finite)) <= max(finite) / 4


def short(value: object) -> str:
    """A value in few characters."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def notes(*parts: str) -> str:
    """Those that say something, in one line."""
    return " · ".join(filter(None, parts))


def drawn_of(shown: int, there: int, pruned: int) -> str:
    """`9 of 36 trials`, and how many of them were pruned; nothing where all are drawn and complete."""
    said = f"{shown:,} of {there:,} trials" if shown != there or pruned else ""
    return said + (f", {pruned:,} pruned, at {'its' if pruned == 1 else 'their'} last value" if pruned else "")


def showing(shown: int, there: int, what: str = "trials") -> str:
    """`showing 1,000 of 10,000 trials`, where some are left out."""
    return "" if shown == there else f"showing {shown:,} of {there:,} {what}"
