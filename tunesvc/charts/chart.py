"""Parts that all charts share: the `Chart` value, look, escaped labels and small traces.

Pure: no database, no files. Columns of numbers go to Plotly as arrays, which it serialises as a few
bytes each.
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
"""Middle tones, which are readable on white and on black."""

SCALE = [[0.0, "#12a594"], [0.35, "#4f7cff"], [1.0, "#c9b8e8"]]
"""Colours from the best value to the worst."""

_TEXT, _GRID = "#7b7f87", "rgba(128,128,128,.3)"

POINTS = 4_000
"""Most points in one chart. A browser draws them within a second, without WebGL."""
COLOUR_BAR = {"thickness": 12, "outlinewidth": 0}
_INTEGER_TICKS_MAX = 12
"""Longest range with a tick at each integer."""
_NUMBERED_MAX = 12
"""Most rows of a heat map whose cells have numbers."""
NOTHING = "No trial is complete yet."


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled figure, or the reason why there is none."""

    title: str
    figure: go.Figure | None
    note: str = ""
    """Text below the title: the shown and omitted parts, or the reason why there is no figure."""
    wide: bool = False
    """True if it needs the whole width of the page."""
    columns: Mapping[str, Sequence[object] | np.ndarray] = field(default_factory=dict)
    """The figure's data as a table, by column: for screen readers and downloads."""

    def rows(self, limit: int | None = None) -> list[tuple[object, ...]]:
        """Return the first rows of the table; all if `limit` is None."""
        columns = [list(column[:limit]) for column in self.columns.values()]
        return list(zip(*columns, strict=True))

    def __len__(self) -> int:
        """Return the number of rows of the table."""
        for column in self.columns.values():
            return len(column)
        return 0


def points(
    x: np.ndarray,
    y: np.ndarray,
    numbers: np.ndarray | None = None,
    **how: Any,
) -> go.Scatter:
    """Return a trace with a point per trial.

    `numbers` are the trials' numbers; if None, `x` is. The page uses them to open a point's trial.
    """
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
    """Return trial numbers in four bytes each."""
    return np.asarray(numbers, dtype=np.int32)


def heatmap(
    names: Sequence[str],
    table: np.ndarray,
    texttemplate: str,
    **options: Any,
) -> go.Figure:
    """Return a square table of pairs of names as colours, with its numbers while they fit.

    Args:
        names: of rows and columns.
        table: of shape (names, names).
        texttemplate: how a number is shown, in Plotly's form.
        options: of the trace, such as its scale of colours.
    """
    shown = [label(name, 24) for name in names]
    trace = go.Heatmap(
        x=shown,
        y=shown,
        z=table.astype(np.float32),
        colorbar=COLOUR_BAR,
        texttemplate=texttemplate if len(names) <= _NUMBERED_MAX else None,
        hovertemplate=f"%{{x}}, %{{y}}: {texttemplate}<extra></extra>",
        xgap=1,
        ygap=1,
        **options,
    )
    return figure(
        trace,
        height=max(380, min(720, 120 + 30 * len(names))),
        xaxis=axis("", type="category"),
        yaxis=axis("", type="category", autorange="reversed"),
    )


def figure(*traces: Any, height: int = 380, **layout: Any) -> go.Figure:
    """Return a figure in the common look.

    The page's CSS colours text and grid for light and dark mode.
    """
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


def on_any_background(drawn: go.Figure) -> go.Figure:
    """Return a figure with text and grid that are readable on white and on black.

    A notebook has no CSS of ours, which colours them on pages.
    """
    drawn.update_layout(font_color=_TEXT, legend_bgcolor="rgba(0,0,0,0)")
    for axes in (drawn.update_xaxes, drawn.update_yaxes):
        axes(gridcolor=_GRID, linecolor=_GRID, tickcolor=_GRID)
    return drawn


def label(text: object, longest: int = 60) -> str:
    """Escape a text, so that Plotly shows it without its own markup and links, and shorten it."""
    shown = str(text)
    if len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    return html.escape(shown, quote=False)


def axis(
    name: str,
    values: Iterable[float] = (),
    *,
    log: bool | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return an axis, with `more` of Plotly's properties.

    `log` requests a logarithmic scale, if all values are positive; None selects the clearer scale.
    """
    finite = [value for value in values if math.isfinite(value)]
    is_positive = bool(finite) and min(finite) > 0
    log = spans_decades(finite) if log is None else log and is_positive
    decades = math.log10(max(finite) / min(finite)) if log else 0.0
    # At most six ticks, at whole decades. Below two decades, Plotly chooses ticks in between.
    ticks = {"dtick": math.ceil(decades / 6)} if decades >= 2 else {}
    return {
        "title": {"text": label(name)},
        "type": "log" if log else "linear",
        **ticks,
        "automargin": True,
        "zeroline": False,
        # Not "power": its superscripts use inline styles, which the dashboard's policy blocks.
        "exponentformat": "e",
        "minexponent": 5,
        **more,
    }


def category_axis(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Return an axis of names in this order."""
    return axis(name, type="category", categoryorder="array", categoryarray=names)


def count_axis(name: str, values: Iterable[float] = (), **more: Any) -> dict[str, Any]:
    """Return an axis of integers, with `more` of Plotly's properties."""
    finite = [value for value in values if math.isfinite(value)]
    integers = axis(name, tickformat=",d", **more)
    if finite and max(finite) - min(finite) <= _INTEGER_TICKS_MAX:
        # Otherwise Plotly sets ticks at halves, which the format rounds: 1 2 2 3 3.
        integers["dtick"] = 1
    return integers


def spans_decades(values: Iterable[float]) -> bool:
    """Return True if a logarithmic scale is clearer than a linear one.

    This is so if the values span at least 1.5 decades and most of them are low. Uniform values
    between 0 and 1 may span decades as well, but their median lies near the middle.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) <= 0:
        return False
    return max(finite) >= 30 * min(finite) and float(np.median(finite)) <= max(finite) / 4


def short(value: object) -> str:
    """Format a value in few characters."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def notes(*parts: str) -> str:
    """Join the texts that are not empty in one line."""
    return " · ".join(filter(None, parts))


def describe_selection(shown: int, total: int, pruned: int) -> str:
    """Return `9 of 36 trials, 2 pruned, at their last value`; empty if all are shown and
    complete."""
    if shown == total and not pruned:
        return ""
    text = f"{shown:,} of {total:,} trials"
    if pruned:
        text += f", {pruned:,} pruned, at {'its' if pruned == 1 else 'their'} last value"
    return text


def showing(shown: int, total: int, what: str = "trials") -> str:
    """Return `showing 1,000 of 10,000 trials`; empty if all are shown."""
    return "" if shown == total else f"showing {shown:,} of {total:,} {what}"
