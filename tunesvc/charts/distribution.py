"""The distribution of an objective's values. Pure."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import COLOURS, NOTHING, Chart, axis, drawn_of, figure, notes
from tunesvc.queries.rows import Objective
from tunesvc.queries.trials.trial_results import Results

_STEPS = 400


def edf(
    objective: Objective,
    results: Results,
    index: int = 0,
    states: Collection[str] = (),
) -> Chart:
    """The share of the trials of these states that is at least as good as a value."""
    title = f"Distribution of {objective.name}"
    has = results.drawable(index, states)
    values = results.values[has, index]
    if not len(values):
        return Chart(title, None, NOTHING)
    pruned = int((has & results.of_state("pruned")).sum())
    ordered = np.sort(values)[::-1] if objective.maximize else np.sort(values)
    places = np.unique(
        np.linspace(0, len(ordered) - 1, min(len(ordered), _STEPS)).astype(int),
    )
    shares = (places + 1) / len(ordered)
    trace = go.Scatter(
        x=ordered[places],
        y=shares.astype(np.float32),
        mode="lines",
        line={"color": COLOURS["complete"], "width": 2, "shape": "hv"},
        hovertemplate="%{y:.1%} at %{x:.5g} or better<extra></extra>",
    )
    drawn = figure(
        trace,
        xaxis={
            **axis(objective.name, values),
            **({"autorange": "reversed"} if objective.maximize else {}),
        },
        yaxis={**axis("share of trials"), "tickformat": ".0%", "range": [0, 1.02]},
    )
    return Chart(
        title,
        drawn,
        notes(
            "share of trials at least as good",
            drawn_of(len(values), len(results), pruned),
        ),
        columns={objective.name: ordered[places], "share": np.round(shares, 4)},
    )
