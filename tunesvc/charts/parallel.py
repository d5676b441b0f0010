"""Parallel coordinates made of lines and points. Pure.

Plotly's own parallel coordinates need WebGL and block the page for seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import figure, label, whole

_TICK_MAX = 14
"""Most characters of a tick's label."""


@dataclass(frozen=True, slots=True)
class AxisScale:
    """Values as positions along an axis, with its ticks."""

    positions: np.ndarray
    ticks: Sequence[float]
    texts: Sequence[str]

    def heights(self, positions: np.ndarray) -> np.ndarray:
        """Return positions as heights between 0 (bottom) and 1 (top)."""
        low = min(float(self.positions.min()), *self.ticks)
        high = max(float(self.positions.max()), *self.ticks)
        heights: np.ndarray = (positions - low) / ((high - low) or 1.0)
        return heights


@dataclass(frozen=True, slots=True)
class ChoiceGroup:
    """Trials with the same colour."""

    name: str
    rows: np.ndarray
    """Indices of the trials."""
    colour: str


def parallel_axes(
    scales: Sequence[tuple[str, AxisScale]],
    numbers: np.ndarray,
    groups: Sequence[ChoiceGroup],
) -> go.Figure:
    """Draw each trial as a line from axis to axis; later groups on top.

    Args:
        scales: Names and scales of the axes from left to right; positions in the order of
            `numbers`.
        numbers: Numbers of the trials.
        groups: Trials by colour.
    """
    heights = np.column_stack([scale.heights(scale.positions) for _, scale in scales])
    across = {
        "tickvals": list(range(len(scales))),
        "ticktext": [label(name, 18) for name, _ in scales],
        "side": "top",
        "range": [-0.15, len(scales) - 0.55],
        "zeroline": False,
    }
    return figure(
        *(_lines(group, heights[group.rows], numbers[group.rows]) for group in groups),
        _ticks([scale for _, scale in scales]),
        height=420,
        margin={"l": 20, "r": 20, "t": 40, "b": 16},
        xaxis=across,
        yaxis={"visible": False, "range": [-0.05, 1.05]},
        dragmode="select",
        showlegend=False,
        hovermode="closest",
    )


def _lines(group: ChoiceGroup, heights: np.ndarray, numbers: np.ndarray) -> go.Scatter:
    """Return all lines of a group as one trace, with gaps between them."""
    trials, axes = heights.shape
    gap = np.full((trials, 1), np.nan)
    y = np.column_stack([heights, gap]).ravel()
    x = np.tile([*range(axes), np.nan], trials)
    return go.Scatter(
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        customdata=whole(np.repeat(numbers, axes + 1)),
        meta={"trials": "customdata", "lines": True},
        mode="lines+markers",
        name=group.name,
        line={"color": group.colour, "width": 1.2},
        marker={"color": group.colour, "size": 4},
        opacity=0.75,
        hovertemplate="trial %{customdata}<extra></extra>",
    )


def _ticks(scales: Sequence[AxisScale]) -> go.Scatter:
    shown: list[tuple[int, float, str]] = []
    for axis_index, scale in enumerate(scales):
        heights = scale.heights(np.array(scale.ticks, dtype=float)).tolist()
        for height, text in zip(heights, scale.texts, strict=True):
            shown.append((axis_index, height, _shorten(text)))
    x, y, texts = zip(*shown, strict=True)
    return go.Scatter(
        x=x,
        y=y,
        text=[f" {label(text)}" for text in texts],
        cliponaxis=False,
        mode="text",
        textposition="middle right",
        hoverinfo="skip",
    )


def _shorten(text: str) -> str:
    return text if len(text) <= _TICK_MAX else text[: _TICK_MAX - 1] + "…"
