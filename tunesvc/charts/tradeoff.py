"""The chart of several objectives: the Pareto front among all complete trials. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from tunesvc.charts.chart import COLOURS, Chart, axis, figure, finished, hover, sample, showing
from tunesvc.charts.parameters import to_scale
from tunesvc.insights import Objective, TrialRow


def pareto(objectives: Sequence[Objective], trials: Sequence[TrialRow], front: Sequence[TrialRow]) -> Chart:
    """Trials by their objectives: two as a plane, more as parallel axes; the front stands out."""
    title = "Pareto front"
    done = [trial for trial in finished(trials) if trial.values is not None]
    if not done:
        return Chart(title, None, "No trial is complete yet.")
    chosen = {trial.number for trial in front}
    shown = sample(done, keep=lambda trial: trial.number in chosen)
    draw = _plane if len(objectives) == 2 else _axes
    notes = [f"{len(front)} of {len(done):,} trials are beaten by no other", showing(len(shown), len(done))]
    return Chart(title, draw(objectives, shown, front), " · ".join(filter(None, notes)))


def _plane(objectives: Sequence[Objective], trials: Sequence[TrialRow], front: Sequence[TrialRow]) -> go.Figure:
    chosen = {trial.number for trial in front}
    others = [trial for trial in trials if trial.number not in chosen]
    ordered = sorted(front, key=lambda trial: trial.values or ())
    first, second = ([trial.values[i] for trial in trials if trial.values is not None] for i in (0, 1))
    return figure(
        _cloud("other trials", others, COLOURS["pruned"], 6, "markers"),
        _cloud("Pareto front", ordered, COLOURS["best"], 10, "lines+markers"),
        xaxis=axis(_with_goal(objectives[0]), first),
        yaxis=axis(_with_goal(objectives[1]), second),
    )


def _cloud(name: str, trials: Sequence[TrialRow], colour: str, size: int, mode: str) -> go.Scatter:
    return go.Scatter(
        x=[trial.values[0] for trial in trials if trial.values is not None],
        y=[trial.values[1] for trial in trials if trial.values is not None],
        mode=mode,
        name=name,
        visible=bool(trials),
        marker={"color": colour, "size": size},
        line={"color": colour, "width": 1, "dash": "dot"},
        text=[hover(trial) for trial in trials],
        hovertemplate="%{text}<br>%{x:.5g}, %{y:.5g}<extra></extra>",
    )


def _axes(objectives: Sequence[Objective], trials: Sequence[TrialRow], front: Sequence[TrialRow]) -> go.Figure:
    chosen = {trial.number for trial in front}
    ordered = sorted(trials, key=lambda trial: trial.number in chosen)
    dimensions = [
        to_scale([trial.values[i] for trial in ordered if trial.values is not None]).dimension(_with_goal(objective))
        for i, objective in enumerate(objectives)
    ]
    line = {
        "color": [float(trial.number in chosen) for trial in ordered],
        "colorscale": [[0, COLOURS["pruned"]], [1, COLOURS["best"]]],
    }
    margin = {"l": 80, "r": 80, "t": 60, "b": 30}
    return figure(go.Parcoords(dimensions=dimensions, line=line), margin=margin)


def _with_goal(objective: Objective) -> str:
    return f"{objective.name} ({objective.goal})"
