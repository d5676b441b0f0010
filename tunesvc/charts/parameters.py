"""Charts of parameters: parallel coordinates, slices, and importance. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tunesvc.charts.chart import (
    COLOURS,
    SCALE,
    Chart,
    axis,
    figure,
    finished,
    hover,
    label,
    sample,
    showing,
    spans_decades,
)
from tunesvc.insights import Objective, TrialRow
from tunesvc.spec import ParamValue

LINES = 1_000
"""Lines in parallel coordinates, at most."""
SLICES = 12
"""Parameters in the slice plot, at most."""
_NOTHING = "No trial is complete yet."


def parallel(
    objective: Objective, trials: Sequence[TrialRow], index: int = 0, log: Collection[str] | None = None
) -> Chart:
    """Every trial a line through its parameters to its value; the best drawn last, on top.

    Args:
        objective: what the lines end at.
        trials: all trials of the study.
        index: the objective's place among the values.
        log: parameters with a logarithmic scale; None to judge by their values.
    """
    title = "Parallel coordinates"
    done = finished(trials, index)
    names = parameter_names(done)
    if not done or not names:
        return Chart(title, None, _NOTHING if not done else "The trials have no parameters.")
    ranked = sorted(done, key=lambda trial: _cost(objective, trial, index), reverse=True)
    best = {trial.number for trial in ranked[-LINES // 4 :]}
    shown = sample(ranked, LINES, lambda trial: trial.number in best)
    values = [trial.values[index] for trial in shown if trial.values is not None]
    dimensions = [
        to_scale([trial.params.get(name) for trial in shown], _log(name, log)).dimension(name) for name in names
    ]
    dimensions.append(to_scale(values).dimension(objective.name))
    trace = go.Parcoords(
        dimensions=dimensions,
        line={
            "color": to_scale(values).positions,
            "colorscale": SCALE,
            "reversescale": objective.maximize,
        },
        labelangle=-20 if len(dimensions) > 6 else 0,
    )
    return Chart(
        title,
        figure(trace, height=420, margin={"l": 80, "r": 80, "t": 80, "b": 30}),
        " · ".join(filter(None, [showing(len(shown), len(done)), "drag along an axis to select"])),
        wide=True,
    )


def slices(
    objective: Objective, trials: Sequence[TrialRow], index: int = 0, log: Collection[str] | None = None
) -> Chart:
    """The objective over each parameter by itself; darker points came later. Arguments as for `parallel`."""
    title = f"{objective.name} by parameter"
    done = finished(trials, index)
    names = parameter_names(done)
    if not done or not names:
        return Chart(title, None, _NOTHING if not done else "The trials have no parameters.")
    shown, drawn = sample(done, 2_000), names[:SLICES]
    columns = min(4, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    chart = make_subplots(rows=rows, cols=columns, shared_yaxes=True, horizontal_spacing=0.03)
    y_axis = axis("", [trial.values[index] for trial in shown if trial.values is not None])
    for i, name in enumerate(drawn):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        having = [trial for trial in shown if name in trial.params]
        chart.add_trace(_slice(name, having, index), **place)
        chart.update_xaxes(_slice_axis(name, having, _log(name, log)), **place)
        chart.update_yaxes({**y_axis, "title": {"text": label(objective.name) if i % columns == 0 else ""}}, **place)
    chart.update_layout(figure().layout)
    chart.update_layout(height=90 + 250 * rows, showlegend=False)
    notes = [showing(len(shown), len(done)), showing(len(drawn), len(names), "parameters"), "darker came later"]
    return Chart(title, chart, " · ".join(filter(None, notes)), wide=True)


def _slice(name: str, trials: Sequence[TrialRow], index: int) -> go.Scatter:
    numeric = _is_numeric([trial.params[name] for trial in trials])
    return go.Scatter(
        x=[trial.params[name] if numeric else label(trial.params[name], 20) for trial in trials],
        y=[trial.values[index] for trial in trials if trial.values is not None],
        mode="markers",
        text=[hover(trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
        marker={
            "size": 7,
            "color": [trial.number for trial in trials],
            "colorscale": [[0, "#b9c8ff"], [1, "#2747c7"]],
            "line": {"width": 0.5, "color": "rgba(128,128,128,.5)"},
        },
    )


def _slice_axis(name: str, trials: Sequence[TrialRow], log: bool | None) -> dict[str, Any]:
    values = [trial.params[name] for trial in trials]
    if _is_numeric(values):
        return axis(name, [float(value) for value in values if value is not None], log=log)
    return {**axis(name), "type": "category"}


def importance(importances: Mapping[str, float] | None, objective: Objective) -> Chart:
    """How much of the difference in the objective each parameter accounts for.

    Args:
        importances: by parameter, as Optuna computes them; None while there are too few trials.
        objective: what they are for.
    """
    title = f"Importance for {objective.name}"
    if not importances:
        return Chart(title, None, "Too few complete trials to tell parameters apart.")
    ordered = sorted(importances.items(), key=lambda item: item[1])
    trace = go.Bar(
        orientation="h",
        x=[share for _, share in ordered],
        y=[label(name) for name, _ in ordered],
        marker={"color": COLOURS["complete"]},
        text=[f"{share:.0%}" for _, share in ordered],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    x_axis = {**axis(""), "tickformat": ".0%", "rangemode": "tozero"}
    return Chart(title, figure(trace, xaxis=x_axis, yaxis={**axis(""), "type": "category"}))


def _log(name: str, log: Collection[str] | None) -> bool | None:
    return None if log is None else name in log


def parameter_names(trials: Sequence[TrialRow]) -> list[str]:
    """Parameters that any trial has, in the order in which they were drawn."""
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


@dataclass(frozen=True, slots=True)
class Scale:
    """Values as positions along an axis, with its ticks."""

    positions: list[float]
    ticks: list[float]
    texts: list[str]

    def dimension(self, name: str) -> dict[str, Any]:
        """One axis of parallel coordinates."""
        return {
            "label": label(name, 24),
            "values": self.positions,
            "tickvals": self.ticks,
            # Plotly sets these as plain text, its markup has no effect on them
            "ticktext": [text if len(text) <= 18 else text[:17] + "…" for text in self.texts],
        }


_ABSENT = "absent"


def to_scale(values: Sequence[ParamValue], log: bool | None = None) -> Scale:
    """Positions for numbers or categories; None is set apart. `log` None: logarithmic where that shows more."""
    there = [value for value in values if value is not None]
    absent = len(there) < len(values)
    if _is_numeric(there):
        return _number_scale([None if value is None else float(value) for value in values], absent, log)
    names = sorted({str(value) for value in there})
    place = {name: float(i) for i, name in enumerate(names)}
    ticks, texts = [*place.values()], [*place]
    if absent:
        ticks, texts = [-1.0, *ticks], [_ABSENT, *texts]
    return Scale([-1.0 if value is None else place[str(value)] for value in values], ticks, texts)


def _number_scale(values: Sequence[float | None], absent: bool, wanted: bool | None) -> Scale:
    numbers = [value for value in values if value is not None]
    log = spans_decades(numbers) if wanted is None else wanted and min(numbers) > 0

    def position(value: float) -> float:
        return math.log10(value) if log else value

    low, high = position(min(numbers)), position(max(numbers))
    whole = sorted(set(numbers))
    few = len(whole) <= 8 and all(number.is_integer() for number in whole)
    ticks = [position(number) for number in whole] if few else [float(tick) for tick in np.linspace(low, high, 5)]
    texts = [f"{10**tick if log else tick:.3g}" for tick in ticks]
    below = low - 0.15 * ((high - low) or 1.0)
    if absent:
        ticks, texts = [below, *ticks], [_ABSENT, *texts]
    return Scale([below if value is None else position(value) for value in values], ticks, texts)


def _is_numeric(values: Sequence[ParamValue]) -> bool:
    return bool(values) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _cost(objective: Objective, trial: TrialRow, index: int) -> float:
    value = trial.values[index] if trial.values else math.inf
    return -value if objective.maximize else value
