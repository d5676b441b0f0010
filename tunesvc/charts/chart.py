"""What every chart shares: its value, its look, labels that cannot act, and samples of what is too much to draw.

Pure: no database, no files.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import plotly.graph_objects as go

from tunesvc.insights import TrialRow

T = TypeVar("T")

COLOURS = {
    "complete": "#4f7cff",
    "pruned": "#9aa3b2",
    "paused": "#b08ad9",
    "fail": "#e5484d",
    "running": "#f5a524",
    "waiting": "#c5cad3",
    "best": "#12a594",
}
"""Middle tones: they read on white as on black."""

SCALE = [[0.0, "#12a594"], [0.35, "#4f7cff"], [1.0, "#c9b8e8"]]
"""From the best value to the worst."""

_POINTS = 5_000


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled figure, or, where there is nothing to draw, the reason why."""

    title: str
    figure: go.Figure | None
    note: str = ""
    """Below the title: what is shown and what is left out; or why there is nothing."""
    wide: bool = False
    """Whether it wants the whole width of the page."""


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
    return html.escape(shown if len(shown) <= longest else shown[: longest - 1] + "…", quote=False)


def axis(name: str, values: Iterable[float] = (), *, log: bool | None = None) -> dict[str, Any]:
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
        "exponentformat": "power",
    }


def spans_decades(values: Iterable[float]) -> bool:
    """Whether a logarithmic scale shows more than a linear one: two decades and more, and most values low.

    Uniform draws from 0 ... 1 may span decades as well, but their median lies near the middle.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) <= 0:
        return False
    return max(finite) >= 100 * min(finite) and float(np.median(finite)) <= max(finite) / 4


def hover(trial: TrialRow) -> str:
    """What a trial's point says."""
    params = "".join(f"<br>{label(name)} = {label(short(value), 40)}" for name, value in trial.params.items())
    value = "" if trial.value is None else f" · {short(trial.value)}"
    return f"<b>trial {trial.number}</b> {trial.state}{value}{params}"


def short(value: object) -> str:
    """A value in few characters."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def finished(trials: Iterable[TrialRow], objective: int = 0) -> list[TrialRow]:
    """Complete trials whose value for the objective can be drawn."""
    return [trial for trial in trials if trial.state == "complete" and _drawable(trial, objective)]


def _drawable(trial: TrialRow, objective: int) -> bool:
    return trial.values is not None and math.isfinite(trial.values[objective])


def sample(items: Sequence[T], limit: int = _POINTS, keep: Callable[[T], bool] | None = None) -> list[T]:
    """At most about `limit` items in their order: those to `keep`, and a fixed random sample of the others."""
    if len(items) <= limit:
        return list(items)
    kept = {i for i, item in enumerate(items) if keep is not None and keep(item)}
    others = [i for i in range(len(items)) if i not in kept]
    drawn = np.random.default_rng(0).choice(others, max(0, min(len(others), limit - len(kept))), replace=False)
    return [items[i] for i in sorted(kept | {int(i) for i in drawn})]


def showing(shown: int, there: int, what: str = "trials") -> str:
    """`showing 1,000 of 10,000 trials`, where some are left out."""
    return "" if shown == there else f"showing {shown:,} of {there:,} {what}"
