"""Small drawings as SVG, for a table's cell or a notebook: no script, and a few kilobytes.

Colours are attributes, which the CSS of a page overrides. Pure.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesvc.charts.chart import COLOURS, spans_decades
from tunesvc.charts.progress import improvements, incumbents
from tunesvc.queries.rows import Objective
from tunesvc.queries.trials.trial_results import Results
from tunesvc.util.formatting import number

POINTS = 300
"""Most points of a history."""
_WIDTH, _HEIGHT = 600, 90
_MARGIN = 5
_OUTLINE = 'fill="none" vector-effect="non-scaling-stroke"'


@dataclass(frozen=True, slots=True)
class History:
    """Values by trial number, thinned, and the best value so far where it improved."""

    numbers: np.ndarray
    values: np.ndarray
    is_pruned: np.ndarray
    best_numbers: np.ndarray
    best_values: np.ndarray
    last: int
    """Number of the last trial."""

    @classmethod
    def of(cls, objective: Objective, results: Results) -> History:
        """Return the history of a study's first objective."""
        best = incumbents(objective, results)
        improved = improvements(best)
        losses = results.losses(objective)
        shown = results.best_rows(results.with_value(), losses, POINTS)
        return cls(
            results.numbers[shown],
            results.values[shown, 0],
            results.of_state("pruned")[shown],
            results.numbers[improved],
            best[improved],
            int(results.numbers.max(initial=0)),
        )


def sparkline(values: Sequence[float], name: str) -> str:
    """Return a line through values; empty for fewer than two finite ones."""
    values = [value for value in values if math.isfinite(value)]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    height = (high - low) or 1.0
    width = len(values) - 1
    points = " ".join(
        f"{80 * i / width:.1f},{20 * (high - value) / height:.1f}" for i, value in enumerate(values)
    )
    return (
        '<svg class="spark" viewBox="-2 -2 84 24" width="84" height="24" role="img" '
        f'aria-label="{html.escape(name)}"><polyline fill="none" stroke="{COLOURS["best"]}" '
        f'stroke-width="1.5" points="{points}"/></svg>'
    )


def history_drawing(metric: str, history: History) -> str:
    """Return values as points with the best so far as a line; empty for fewer than two values.

    The drawing stretches to its place; its labels are HTML around it, so that they stay readable.
    """
    if len(history.values) < 2:
        return ""
    scale = _Scale.of(history)
    pruned = history.is_pruned
    drawn = (
        _dots(scale, history.numbers[pruned], history.values[pruned], COLOURS["pruned"]),
        _dots(scale, history.numbers[~pruned], history.values[~pruned], COLOURS["complete"]),
        _steps(scale, history.best_numbers, history.best_values),
    )
    best = history.best_values
    ends = f"; best so far: from {number(best[0])} to {number(best[-1])}" if len(best) else ""
    name = html.escape(f"{metric} by trial{ends}")
    kind = ", logarithmic" if scale.is_log else ""
    return (
        f'<div class="history"><div class="y"><span>{scale.high:.4g}</span>'
        f"<span>{scale.low:.4g}</span></div>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" height="{_HEIGHT}" role="img" '
        f'preserveAspectRatio="none" aria-label="{name}"><title>{name}</title>{"".join(drawn)}'
        f'</svg><div class="x"><span>trial 0</span><span>{html.escape(metric)}{kind}</span>'
        f"<span>trial {history.last:,}</span></div></div>"
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """Places of trial numbers and values in the drawing."""

    low: float
    high: float
    is_log: bool
    last: int

    @classmethod
    def of(cls, history: History) -> _Scale:
        values = [float(value) for value in history.values]
        return cls(min(values), max(values), spans_decades(values), max(history.last, 1))

    def x(self, trial: float) -> float:
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * float(trial) / self.last

    def y(self, value: float) -> float:
        low, high, at = self.low, self.high, float(value)
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = (high - at) / ((high - low) or 1.0)
        return _MARGIN + (_HEIGHT - 2 * _MARGIN) * share


def _dots(scale: _Scale, numbers: np.ndarray, values: np.ndarray, colour: str) -> str:
    if not len(numbers):
        return ""
    places = zip(numbers, values, strict=True)
    marks = "".join(f"M{scale.x(trial):.1f} {scale.y(value):.1f}h0" for trial, value in places)
    look = 'stroke-width="5" stroke-linecap="round" stroke-opacity=".7"'
    return f'<path d="{marks}" {_OUTLINE} stroke="{colour}" {look}/>'


def _steps(scale: _Scale, numbers: np.ndarray, values: np.ndarray) -> str:
    if not len(values):
        return ""
    x, y = map(scale.x, numbers), map(scale.y, values)
    line = f"M{next(x):.1f} {next(y):.1f}"
    line += "".join(f"H{right:.1f}V{up:.1f}" for right, up in zip(x, y, strict=True))
    line += f"H{scale.x(scale.last):.1f}"
    return f'<path d="{line}" {_OUTLINE} stroke="{COLOURS["best"]}" stroke-width="2"/>'
