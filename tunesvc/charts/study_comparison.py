"""Curves side by side: one trial's among its peers, chosen trials', and studies' best values so far. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import (
    COLOURS,
    Chart,
    axis,
    count_axis,
    figure,
    label,
    notes,
    showing,
    whole,
)
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
"""Of things compared; they repeat, with another dash."""
DASHES = ("solid", "dash", "dot", "dashdot")


def peer_curves(
    objective: Objective,
    own: ReportCurve,
    peers: Mapping[str, Sequence[ReportCurve]],
    there: int,
) -> Chart:
    """A trial's curve, bold, among others.

    Args:
        objective: the first, which curves are of.
        own: of the trial.
        peers: of other trials, by what they are: `best`, `compared` and `nearest` stand out, `others` are faded.
        there: trials of the study.
    """
    title = f"Its curve of {objective.name}"
    if not any(point.value is not None for point in own.points):
        return Chart(
            title,
            None,
            "It has reported nothing; a curve appears when the objective calls trial.report().",
        )
    kinds = [kind for kind in ("others", "nearest", "compared", "best") if peers.get(kind)]
    drawn = [*(curve for kind in kinds for curve in peers[kind]), own]
    traces = [_group(kind, peers[kind]) for kind in kinds]
    mark = {"line": {"color": _OWN, "width": 3.5}, "marker": {"color": _OWN, "size": 6}}
    traces.append(_joined(f"trial {own.trial_number}", [own], mode=_mode([own]), **mark))
    return Chart(
        title,
        figure(
            *traces,
            xaxis=count_axis("step", _steps(drawn)),
            yaxis=axis(objective.name, _values(drawn)),
        ),
        notes(showing(len(drawn), there, "curves"), "click one to open its trial"),
        columns=_columns(objective, drawn),
    )


def compared_curves(objective: Objective, curves: Sequence[ReportCurve]) -> Chart:
    """The curves of a few trials, a colour each."""
    title = f"Curves of {objective.name}"
    drawn = [curve for curve in curves if any(point.value is not None for point in curve.points)]
    if not drawn:
        return Chart(title, None, "None of these trials has reported.")
    traces = [
        _joined(
            f"trial {curve.trial_number}",
            [curve],
            mode=_mode([curve]),
            line=_line(i),
            marker=_marker(i),
        )
        for i, curve in enumerate(drawn)
    ]
    made = figure(
        *traces,
        xaxis=count_axis("step", _steps(drawn)),
        yaxis=axis(objective.name, _values(drawn)),
    )
    return Chart(title, made, columns=_columns(objective, drawn))


def best_so_far(metric: str, courses: Mapping[str, Sequence[tuple[int, float]]]) -> Chart:
    """The best value so far over the number of trials, a line for each study.

    Args:
        metric: what all of them optimise.
        courses: by study: trials that were there, and the best value of them; where it changes, and at the end.
    """
    title = f"Best {metric} so far"
    drawn = {name: points for name, points in courses.items() if points}
    if not drawn:
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
        for i, (name, points) in enumerate(drawn.items())
    ]
    flat = [(name, count, value) for name, points in drawn.items() for count, value in points]
    names, counts, values = zip(*flat, strict=True)
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
    "best": ("best", COLOURS["best"], 2.2, 1.0),
}


def _group(kind: str, curves: Sequence[ReportCurve]) -> go.Scatter:
    name, colour, width, opacity = _GROUPS[kind]
    look = {
        "line": {"color": colour, "width": width},
        "marker": {"color": colour, "size": 5},
    }
    return _joined(name, curves, mode=_mode(curves), opacity=opacity, **look)


def _joined(name: str, curves: Sequence[ReportCurve], **look: Any) -> go.Scatter:
    """Curves as one trace, with gaps between."""
    rows: list[tuple[float, float, int]] = []
    for curve in curves:
        rows += [
            (point.step, np.nan if point.value is None else point.value, curve.trial_number) for point in curve.points
        ]
        rows.append((np.nan, np.nan, curve.trial_number))
    x, y, numbers = (np.array(column) for column in zip(*rows, strict=True))
    return go.Scatter(
        x=x.astype(np.float64),
        y=y,
        customdata=whole(numbers),
        meta={"trials": "customdata"},
        name=name,
        connectgaps=False,
        hovertemplate="trial %{customdata}, step %{x}: %{y:.5g}<extra></extra>",
        **look,
    )


def _mode(curves: Sequence[ReportCurve]) -> str:
    return "markers" if all(len(curve.points) == 1 for curve in curves) else "lines"


def _line(i: int) -> dict[str, Any]:
    return {
        "color": PALETTE[i % len(PALETTE)],
        "dash": DASHES[i // len(PALETTE) % len(DASHES)],
        "width": 2,
    }


def _marker(i: int) -> dict[str, Any]:
    return {"color": PALETTE[i % len(PALETTE)], "size": 8}


def _steps(curves: Sequence[ReportCurve]) -> list[float]:
    return [point.step for curve in curves for point in curve.points]


def _values(curves: Sequence[ReportCurve]) -> list[float]:
    return [point.value for curve in curves for point in curve.points if point.value is not None]


def _columns(objective: Objective, curves: Sequence[ReportCurve]) -> dict[str, list[Any]]:
    flat = [(curve.trial_number, point.step, point.value) for curve in curves for point in curve.points]
    numbers, steps, values = (list(column) for column in zip(*flat, strict=True))
    return {"trial": numbers, "step": steps, objective.name: values}
