"""Chart of the distribution of an objective's values. Pure."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import COLOURS, NOTHING, Chart, axis, describe_selection, figure, notes
from tunesvc.queries.rows import Objective
from tunesvc.queries.trials.trial_results import Results

_STEPS = 400


def edf(
    objective: Objective,
    results: Results,
    index: int = 0,
    states: Collection[str] = (),
) -> Chart:
    """Draw the share of trials that are at least as good as each value."""
    title = f"Distribution of {objective.name}"
    selected = results.with_value(index, states)
    values = results.values[selected, index]
    if not len(values):
        return Chart(title, None, NOTHING)
    pruned = int((selected & results.of_state("pruned")).sum())
    best_first = np.sort(values)[::-1] if objective.maximize else np.sort(values)
    spaced = np.linspace(0, len(best_first) - 1, min(len(best_first), _STEPS))
    ranks = np.unique(spaced.astype(int))
    shares = (ranks + 1) / len(best_first)
    value_axis = axis(objective.name, values)
    if objective.maximize:
        value_axis["autorange"] = "reversed"
    trace = go.Scatter(
        x=best_first[ranks],
        y=shares.astype(np.float32),
        mode="lines",
        line={"color": COLOURS["complete"], "width": 2, "shape": "hv"},
        hovertemplate="%{y:.1%} at %{x:.5g} or better<extra></extra>",
    )
    edf_figure = figure(
        trace,
        xaxis=value_axis,
        yaxis=axis("share of trials", tickformat=".0%", range=[0, 1.02]),
    )
    selection = describe_selection(len(values), len(results), pruned)
    return Chart(
        title,
        edf_figure,
        notes("share of trials at least as good", selection),
        columns={objective.name: best_first[ranks], "share": np.round(shares, 4)},
    )
