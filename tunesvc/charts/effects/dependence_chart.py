"""Chart of the partial dependence on single parameters. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tunesvc.charts.chart import COLOURS, Chart, axis, figure, label, notes, showing
from tunesvc.charts.parameters import TOO_FEW, x_axis
from tunesvc.queries.rows import Objective
from tunesvc.queries.trials.tried_parameters import Parameter
from tunesvc.search.analysis.partial_dependence import PartialDependence

_COLUMNS = 4
_BAND = "rgba(18,165,148,.22)"
_SINGLE = "rgba(123,127,135,.35)"


def dependence(
    objective: Objective,
    shown: Sequence[tuple[Parameter, PartialDependence]],
    trials: int = 0,
    of: int = 0,
) -> Chart:
    """Draw the mean along each parameter with its band, and curves of single configurations.

    Args:
        objective: whose values are drawn.
        shown: parameters with their partial dependence; empty while there is no model.
        trials: that the model was fitted to.
        of: number of parameters of the model.
    """
    title = f"Partial dependence of {objective.name}"
    if not trials:
        return Chart(title, None, TOO_FEW)
    if not shown:
        return Chart(title, None, "The model has no parameter that varies.")
    rows = math.ceil(len(shown) / _COLUMNS)
    columns = math.ceil(len(shown) / rows)
    chart = make_subplots(rows=rows, cols=columns, shared_yaxes=True, horizontal_spacing=0.03)
    drawn = np.concatenate([np.r_[one.low, one.high] for _, one in shown])
    y_axis = axis("", drawn.tolist())
    for i, (parameter, one) in enumerate(shown):
        cell = {"row": i // columns + 1, "col": i % columns + 1}
        for trace in _traces(parameter, one):
            chart.add_trace(trace, **cell)
        chart.update_xaxes(x_axis(parameter), **cell)
        y_title = label(objective.name) if i % columns == 0 else ""
        chart.update_yaxes({**y_axis, "title": {"text": y_title}}, **cell)
    chart.update_layout(figure().layout)
    chart.update_layout(height=90 + 250 * rows, showlegend=False)
    partly = [one.name for _, one in shown if one.share < 1]
    conditional = f"{', '.join(partly[:3])}: where it exists" if partly else ""
    return Chart(
        title,
        chart,
        notes(
            "line: mean over the other parameters; band: its 95 % by the model",
            "thin: single configurations",
            showing(len(shown), of, "parameters"),
            conditional,
            f"a model of {trials} trials",
        ),
        wide=True,
        columns=_table(shown),
    )


def _traces(parameter: Parameter, one: PartialDependence) -> Iterator[go.Scatter]:
    mean, low, high = (part.astype(np.float32) for part in (one.mean, one.low, one.high))
    if parameter.choices:
        yield _marks([label(place, 20) for place in one.places], mean, low, high)
        return
    x = np.array(one.places, dtype=float)
    hidden: dict[str, Any] = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    yield go.Scatter(x=x, y=low, **hidden)
    yield go.Scatter(x=x, y=high, fill="tonexty", fillcolor=_BAND, **hidden)
    for curve in one.curves.astype(np.float32):
        thin = {"width": 1, "color": _SINGLE}
        yield go.Scatter(x=x, y=curve, mode="lines", line=thin, hoverinfo="skip")
    yield go.Scatter(
        x=x,
        y=mean,
        mode="lines",
        line={"color": COLOURS["best"], "width": 2.5},
        customdata=np.column_stack([low, high]),
        hovertemplate="%{x:.4g}: %{y:.4g} (95 %: %{customdata[0]:.4g} to %{customdata[1]:.4g})"
        "<extra></extra>",
    )


def _marks(names: list[str], mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> go.Scatter:
    colour = COLOURS["best"]
    return go.Scatter(
        x=names,
        y=mean,
        mode="markers",
        marker={"symbol": "line-ew", "size": 18, "line": {"width": 3, "color": colour}},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": np.maximum(high - mean, 0.0),
            "arrayminus": np.maximum(mean - low, 0.0),
            "color": colour,
            "thickness": 1.5,
        },
        hovertemplate="%{x}: %{y:.4g} (+%{error_y.array:.2g} −%{error_y.arrayminus:.2g})"
        "<extra></extra>",
    )


def _table(shown: Sequence[tuple[Parameter, PartialDependence]]) -> dict[str, list[object]]:
    table: dict[str, list[object]] = {
        "parameter": [],
        "value": [],
        "mean": [],
        "low": [],
        "high": [],
    }
    for _, one in shown:
        table["parameter"] += [one.name] * len(one.places)
        table["value"] += list(one.places)
        table["mean"] += one.mean.tolist()
        table["low"] += one.low.tolist()
        table["high"] += one.high.tolist()
    return table
