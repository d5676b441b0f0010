"""Parallel coordinates of lines and points: Plotly's own need WebGL and block the page for seconds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import figure, label, whole

_TICK = 14
"""Characters of a tick, at most."""


@dataclass(frozen=True, slots=True)
class AxisScale:
    """Values as positions along an axis, with its ticks."""

    positions: np.ndarray
    ticks: Sequence[float]
    texts: Sequence[str]

    def heights(self, places: np.ndarray) -> np.ndarray:
        """Places as 0 ... 1 from bottom to top."""
        low = min(float(self.positions.min()), *self.ticks)
        high = max(float(self.positions.max()), *self.ticks)
        heights: np.ndarray = (places - low) / ((high - low) or 1.0)
        return heights


@dataclass(frozen=True, slots=True)
class ChoiceGroup:
    """Trials that are drawn in one colour."""

    name: str
    places: np.ndarray
    colour: str


def parallel_axes(
    scales: Sequence[tuple[str, AxisScale]],
    numbers: np.ndarray,
    groups: Sequence[ChoiceGroup],
    height: int = 420,
) -> go.Figure:
    """Each trial as a line from axis to axis; later groups on top.

    Args:
        scales: the axes from left to right, by name; positions in the order of `numbers`.
        numbers: the trials.
        groups: which trials are drawn in which colour.
        height: of the figure.
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
        *(_lines(group, heights[group.places], numbers[group.places]) for group in groups),
        _ticks([scale for _, scale in scales]),
        height=height,
        margin={"l": 20, "r": 20, "t": 40, "b": 16},
        xaxis=across,
        yaxis={"visible": False, "range": [-0.05, 1.05]},
        dragmode="select",
        showlegend=False,
        hovermode="closest",
    )


def _lines(group: ChoiceGroup, heights: np.ndarray, numbers: np.ndarray) -> go.Scatter:
    """All lines of a group as one trace, with gaps between."""
    trials, axes = heights.shape
    gap = np.full((trials, 1), np.nan)
    x = np.column_stack([np.tile(np.arange(axes, dtype=float), (trials, 1)), gap])
    return go.Scatter(
        x=x.ravel().astype(np.float32),
        y=np.column_stack([heights, gap]).ravel().astype(np.float32),
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
    for place, scale in enumerate(scales):
        heights = scale.heights(np.array(scale.ticks, dtype=float)).tolist()
        shown += [(place, at, _cut(text)) for at, text in zip(heights, scale.texts, strict=True)]
    x, y, texts = zip(*shown, strict=True)
    how: dict[str, Any] = {
        "mode": "text",
        "textposition": "middle right",
        "hoverinfo": "skip",
    }
    return go.Scatter(
        x=x,
        y=y,
        text=[f" {label(text)}" for text in texts],
        cliponaxis=False,
        **how,
    )


def _cut(text: str) -> str:
    return text if len(text) <= _TICK else text[: _TICK - 1] + "…"
