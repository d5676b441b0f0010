"""Charts that compare curves of trials, and best values so far of studies. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import (
    COLOURS,
    Chart,
    axis,
    figure,
    label,
    notes,
    showing,
    whole,
)
from tunesvc.charts.curves import curve_axes, curve_columns, joined_curves, with_values
from tunesvc.queries.rows import Objective, ReportCurve

PALETTE = (
    "#4f7cff",
    "#e5484d",
    "#12a594",
    "#f5a524",
    "#a05cd6",
    "#0ea5d7",
    "#d6409f",
    "#7a8c1e",
)
"""Colours of compared trials or studies; they repeat with another dash."""
DASHES = ("solid", "dash", "dot", "dashdot")


def peer_curves(
    objective: Objective,
    own: ReportCurve,
    peers: Mapping[str, Sequence[ReportCurve]],
    total: int,
) -> Chart:
    """Draw a trial's curve in bold among others.

    Args:
        objective: The first objective, which the curves show.
        own: Curve of the trial.
        peers: Curves of other trials by kind: `best`, `compared` and `nearest` are highlighted,
            `others` are faded.
        total: Number of trials in the study.
    """
    kind = "Its curve" if objective.step == "step" else f"Its values by {objective.step}"
    title = f"{kind} of {objective.name}"
    if not with_values([own]):
        hint = "a curve appears when the objective calls trial.report()"
        return Chart(title, None, f"It has reported nothing; {hint}.")
    curves: list[ReportCurve] = []
    traces = []
    for kind in ("others", "nearest", "compared", "best"):
        if group := peers.get(kind):
            curves += group
            traces.append(_group(kind, group))
    look = {"line": {"color": _OWN, "width": 3.5}, "marker": {"color": _OWN, "size": 6}}
    traces.append(joined_curves(f"trial {own.trial_number}", [own], **look))
    curves.append(own)
    return Chart(
        title,
        figure(*traces, **curve_axes(objective, curves)),
        notes(showing(len(curves), total, "curves"), "click one to open its trial"),
        columns=curve_columns(objective, curves),
    )


def compared_curves(objective: Objective, curves: Sequence[ReportCurve]) -> Chart:
    """Draw the curves of a few trials in different colours."""
    title = f"Curves of {objective.name}"
    shown = with_values(curves)
    if not shown:
        return Chart(title, None, "None of these trials has reported.")
    traces = []
    for i, curve in enumerate(shown):
        name = f"trial {curve.trial_number}"
        traces.append(joined_curves(name, [curve], line=_line(i), marker=_marker(i)))
    drawn = figure(*traces, **curve_axes(objective, shown))
    return Chart(title, drawn, columns=curve_columns(objective, shown))


def best_so_far(metric: str, histories: Mapping[str, Sequence[tuple[int, float]]]) -> Chart:
    """Draw the best value so far over the number of trials, one line per study.

    Args:
        metric: Metric that all studies optimise.
        histories: (number of trials, best value) by study, see `comparison.best_value_history`.
    """
    title = f"Best {metric} so far"
    shown = {name: points for name, points in histories.items() if points}
    if not shown:
        return Chart(title, None, "None of these studies has a complete trial.")
    traces = [
        go.Scatter(
            x=whole(np.array([count for count, _ in points])),
            y=np.array([value for _, value in points]),
            mode="lines" if len(points) > 1 else "markers",
            name=label(name, 40),
            line={**_line(i), "shape": "hv"},
            marker=_marker(i),
            hovertemplate=f"{label(name, 40)}: %{{y:.5g}} after %{{x}} trials<extra></extra>",
        )
        for i, (name, points) in enumerate(shown.items())
    ]
    rows = []
    for name, points in shown.items():
        rows += [(name, count, value) for count, value in points]
    names, counts, values = zip(*rows, strict=True)
    return Chart(
        title,
        figure(*traces, xaxis=axis("trials"), yaxis=axis(metric, values)),
        columns={"study": names, "trials": counts, metric: values},
    )


_OWN = "#7c5cff"
_GROUPS: Mapping[str, tuple[str, str, float, float]] = {
    "others": ("others", COLOURS["pruned"], 1.0, 0.35),
    "nearest": ("nearest", COLOURS["complete"], 1.6, 0.9),
    "compared": ("compared with", COLOURS["running"], 1.6, 0.9),
    "best": ("best observed", COLOURS["best"], 2.2, 1.0),
}


def _group(kind: str, curves: Sequence[ReportCurve]) -> go.Scatter:
    name, colour, width, opacity = _GROUPS[kind]
    look = {
        "line": {"color": colour, "width": width},
        "marker": {"color": colour, "size": 5},
    }
    return joined_curves(name, curves, opacity=opacity, **look)


def _line(i: int) -> dict[str, Any]:
    return {
        "color": PALETTE[i % len(PALETTE)],
        "dash": DASHES[i // len(PALETTE) % len(DASHES)],
        "width": 2,
    }


def _marker(i: int) -> dict[str, Any]:
    return {"color": PALETTE[i % len(PALETTE)], "size": 8}
