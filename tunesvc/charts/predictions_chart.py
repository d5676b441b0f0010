"""Chart of a model's predictions: a confusion matrix, or residuals against predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import COLOUR_BAR, COLOURS, Chart, axis, figure, label, notes, short

_COLOURS = [[0, "#f3f5f9"], [1, "#2f5fe0"]]
_DENSITY = [[0, "#a9bfff"], [1, "#1f3fae"]]
_NUMBERED_MAX = 12
"""Most classes whose cells have numbers."""


def predictions(summary: Mapping[str, Any]) -> Chart:
    """Draw the summary of a trial's predictions, see `evaluation.prediction_summary`."""
    if not summary.get("rows"):
        return Chart("Its predictions", None, "No prediction is a finite number.")
    draw = _confusion if summary["kind"] == "classes" else _residuals
    return draw(summary)


def _confusion(summary: Mapping[str, Any]) -> Chart:
    """Draw how often each class was predicted as which; colours are shares of the true class."""
    names, counts = list(summary["labels"]), np.asarray(summary["counts"])
    shown = [label(name, 24) for name in names]
    rows = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(rows, 1)
    trace = go.Heatmap(
        x=shown,
        y=shown,
        z=shares.astype(np.float32),
        text=counts,
        texttemplate="%{text}" if len(names) <= _NUMBERED_MAX else None,
        hovertemplate="%{y}, predicted as %{x}: %{text}, %{z:.1%} of its rows<extra></extra>",
        colorscale=_COLOURS,
        zmin=0,
        zmax=1,
        xgap=1,
        ygap=1,
        colorbar={**COLOUR_BAR, "tickformat": ".0%"},
    )
    right = int(np.trace(counts))
    pairs = [(true, guess) for true, guess in product(range(len(names)), repeat=2)]
    return Chart(
        "Confusion matrix",
        figure(
            trace,
            height=max(300, min(720, 120 + 30 * len(names))),
            xaxis=axis("predicted", type="category"),
            yaxis=axis("true", type="category", autorange="reversed"),
        ),
        notes(
            f"{right:,} of {summary['rows']:,} rows of the {summary['part']} are right",
            "colours are shares of a true class",
        ),
        columns={
            "true": [names[true] for true, _ in pairs],
            "predicted": [names[guess] for _, guess in pairs],
            "rows": [int(counts[pair]) for pair in pairs],
        },
    )


def _residuals(summary: Mapping[str, Any]) -> Chart:
    """Draw how many rows have which prediction and residual."""
    counts = np.asarray(summary["counts"])
    across = _middles(summary["predicted"], counts.shape[0])
    up = _middles(summary["residual"], counts.shape[1])
    trace = go.Heatmap(
        x=across,
        y=up,
        z=np.where(counts > 0, counts, np.nan).T.astype(np.float32),
        hovertemplate="predicted %{x:.4g}, residual %{y:.4g}: %{z} rows<extra></extra>",
        hoverongaps=False,
        colorscale=_DENSITY,
        zmin=0,
        colorbar={**COLOUR_BAR, "dtick": max(1, math.ceil(int(counts.max()) / 5))},
    )
    low, high = summary["predicted"]
    zero = go.Scatter(
        x=[low, high],
        y=[0, 0],
        mode="lines",
        line={"color": COLOURS["best"], "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
        showlegend=False,
    )
    filled = np.argwhere(counts > 0)
    return Chart(
        "Residuals",
        figure(
            trace,
            zero,
            xaxis=axis("predicted", log=False),
            yaxis=axis("true − predicted", log=False),
        ),
        notes(
            f"{summary['rows']:,} rows of the {summary['part']}",
            f"mean {short(summary['mean'])}, deviation {short(summary['deviation'])}",
            "outliers are in the outermost bins",
        ),
        columns={
            "predicted": [float(across[place]) for place, _ in filled],
            "true − predicted": [float(up[place]) for _, place in filled],
            "rows": [int(counts[tuple(place)]) for place in filled],
        },
    )


def _middles(span: tuple[float, float], bins: int) -> np.ndarray:
    edges = np.linspace(*span, bins + 1)
    return (edges[:-1] + edges[1:]) / 2
