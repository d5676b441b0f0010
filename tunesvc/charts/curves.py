"""Learning curves as traces, axes and tables. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import axis, count_axis, whole
from tunesvc.queries.rows import Objective, ReportCurve


def with_values(curves: Sequence[ReportCurve]) -> list[ReportCurve]:
    """Return the curves with at least one value."""
    return [curve for curve in curves if any(point.value is not None for point in curve.points)]


def joined_curves(name: str, curves: Sequence[ReportCurve], **look: Any) -> go.Scatter:
    """Return curves as one trace with gaps between them: one trace per curve would be slow."""
    rows: list[tuple[float, float | None, int]] = []
    for curve in curves:
        rows += [(point.step, point.value, curve.trial_number) for point in curve.points]
        rows.append((np.nan, None, curve.trial_number))
    x, y, numbers = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    are_points = all(len(curve.points) == 1 for curve in curves)
    return go.Scatter(
        x=x,
        y=y,
        customdata=whole(numbers),
        meta={"trials": "customdata"},
        mode="markers" if are_points else "lines",
        name=name,
        connectgaps=False,
        hovertemplate="trial %{customdata}, step %{x}: %{y:.5g}<extra></extra>",
        **look,
    )


def curve_axes(objective: Objective, curves: Sequence[ReportCurve]) -> dict[str, Any]:
    """Return the axes of curves, by step and value."""
    points = [point for curve in curves for point in curve.points]
    values = [point.value for point in points if point.value is not None]
    steps = count_axis(objective.step, [point.step for point in points])
    return {"xaxis": steps, "yaxis": axis(objective.name, values)}


def curve_columns(objective: Objective, curves: Sequence[ReportCurve]) -> dict[str, Any]:
    """Return the table of curves: a row per report; None for missing values."""
    rows = []
    for curve in curves:
        rows += [(curve.trial_number, point.step, point.value) for point in curve.points]
    numbers, steps, values = zip(*rows, strict=True)
    return {"trial": numbers, objective.step: steps, objective.name: values}
