"""Chart of the best value against what the study has cost, with the forecast. Pure."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import COLOURS, NOTHING, POINTS, Chart, axis, figure, notes
from tunesvc.queries.cost.outlook import Outlook
from tunesvc.queries.cost.spending import EffortUnit
from tunesvc.queries.rows import Objective

_BAND = "rgba(18,165,148,.22)"


def best_by_cost(
    objective: Objective,
    unit: EffortUnit,
    spent: np.ndarray,
    best: np.ndarray,
    outlook: Outlook | None = None,
) -> Chart:
    """Draw the best value so far against what all trials that had ended then took.

    Args:
        objective: of the study.
        unit: of `spent`.
        spent: sum at the end of each finished trial, in the order in which they ended.
        best: best value then; NaN before the first candidate.
        outlook: further trials, drawn as a band that continues the line.
    """
    title = f"Best {objective.name} by {unit.name}"
    is_known = ~np.isnan(best)
    if not is_known.any():
        return Chart(title, None, NOTHING)
    if not spent[-1] > 0:
        return Chart(title, None, "No time of a trial has been recorded.")
    thinned = np.unique(np.linspace(0, is_known.sum() - 1, POINTS).round().astype(int))
    x, y = spent[is_known][thinned], best[is_known][thinned]
    traces = [
        go.Scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": COLOURS["best"], "width": 2.5, "shape": "hv"},
            name=f"best {objective.name} so far",
            hovertemplate=f"after %{{x:.4g}} ({unit.name}): %{{y:.5g}}<extra></extra>",
        )
    ]
    text = ""
    if outlook is not None and outlook.gain is not None and len(spent):
        traces += _forecast(objective, outlook, (float(x[-1]), float(y[-1])), spent)
        text = f"shaded: another {outlook.trials} trials, 90 %"
    drawn = figure(
        *traces,
        height=340,
        xaxis=axis(unit.name, log=False, rangemode="tozero"),
        yaxis=axis(objective.name, log=False),
    )
    return Chart(
        title,
        drawn,
        notes("failed and stopped trials were paid for too", text),
        columns={unit.name: x, f"best {objective.name}": y},
    )


def _forecast(
    objective: Objective,
    outlook: Outlook,
    last: tuple[float, float],
    spent: np.ndarray,
) -> list[go.Scatter]:
    gain = outlook.gain
    if gain is None:
        return []
    at, best = last
    sign = objective.orientation
    x = [at, float(spent[-1]) * (1 + outlook.trials / len(spent))]
    hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    ends = [best - sign * bound for bound in (gain.low, gain.high, gain.mean)]
    return [
        go.Scatter(x=x, y=[best, ends[0]], **hidden),
        go.Scatter(x=x, y=[best, ends[1]], fill="tonexty", fillcolor=_BAND, **hidden),
        go.Scatter(
            x=x,
            y=[best, ends[2]],
            mode="lines",
            line={"color": COLOURS["best"], "width": 2, "dash": "dot"},
            name="forecast",
            hovertemplate="%{x:.4g}: %{y:.5g}<extra>forecast</extra>",
        ),
    ]
