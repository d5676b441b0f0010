"""Charts over time: the optimisation history, learning curves, and the timeline of attempts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import COLOURS, Chart, axis, figure, finished, hover, label, sample, short, showing
from tunesvc.insights import AttemptRow, Curve, Objective, TrialRow

CURVES = 300
"""Learning curves in one chart, at most."""
BARS = 2_000
"""Attempts in the timeline, at most: the newest."""


def history(objective: Objective, trials: Sequence[TrialRow], index: int = 0) -> Chart:
    """Every complete trial's value by number, and the best so far.

    Args:
        objective: what is drawn.
        trials: all trials of the study, by number.
        index: the objective's place among the values.
    """
    title = f"History of {objective.name}"
    done = finished(trials, index)
    if not done:
        return Chart(title, None, "No trial is complete yet.")
    values = [trial.values[index] for trial in done if trial.values is not None]
    shown = sample(done)
    drawn = figure(
        _points("feasible", [trial for trial in shown if trial.feasible], index, COLOURS["complete"]),
        _points("infeasible", [trial for trial in shown if not trial.feasible], index, COLOURS["pruned"]),
        _best_so_far(objective, [trial for trial in done if trial.feasible], index),
        xaxis=axis("trial"),
        yaxis=axis(objective.name, values),
    )
    pruned = sum(trial.state == "pruned" for trial in trials)
    notes = [showing(len(shown), len(done)), f"{pruned:,} pruned are not drawn" if pruned else ""]
    return Chart(title, drawn, " · ".join(filter(None, notes)))


def _points(name: str, trials: Sequence[TrialRow], index: int, colour: str) -> go.Scatter:
    return go.Scatter(
        x=[trial.number for trial in trials],
        y=[trial.values[index] for trial in trials if trial.values is not None],
        mode="markers",
        name=name,
        visible=bool(trials),
        marker={"color": colour, "size": 7, "opacity": 0.75},
        text=[hover(trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
    )


def _best_so_far(objective: Objective, trials: Sequence[TrialRow], index: int) -> go.Scatter:
    values = np.array([trial.values[index] for trial in trials if trial.values is not None], dtype=float)
    best = np.maximum.accumulate(values) if objective.maximize else np.minimum.accumulate(values)
    # only where it changes, and at the end: a study of 100,000 trials has a few dozen such points
    kept = [i for i in range(len(best)) if i in (0, len(best) - 1) or best[i] != best[i - 1]]
    return go.Scatter(
        x=[trials[i].number for i in kept],
        y=[float(best[i]) for i in kept],
        mode="lines",
        name="best so far",
        line={"color": COLOURS["best"], "width": 2.5, "shape": "hv"},
        hovertemplate="best %{y:.5g}<extra></extra>",
    )


def choose_curves(objective: Objective, trials: Sequence[TrialRow], limit: int = CURVES) -> list[int]:
    """Numbers of the trials whose learning curves are worth drawing: the best ones, and a sample of the rest."""
    sign = -1 if objective.maximize else 1
    ranked = sorted(finished(trials), key=lambda trial: sign * (trial.value or 0.0))
    best = {trial.number for trial in ranked[:20]}
    tried = [trial for trial in trials if trial.last_step is not None]
    return [trial.number for trial in sample(tried, limit, lambda trial: trial.number in best)]


def learning_curves(
    objective: Objective, trials: Sequence[TrialRow], curves: Sequence[Curve], best: int | None
) -> Chart:
    """Curves by step: the best trial's on top, pruned ones faded.

    Args:
        objective: the first objective, which the curves are of.
        trials: all trials of the study.
        curves: those to draw, see `choose_curves`.
        best: the best trial's number.
    """
    title = f"Learning curves of {objective.name}"
    states = {trial.number: trial.state for trial in trials}
    drawn = [curve for curve in curves if any(point.value is not None for point in curve.points)]
    if not drawn:
        return Chart(title, None, "No trial has reported yet; curves appear for objectives that call trial.report().")
    groups: dict[str, list[Curve]] = {}
    for curve in drawn:
        kind = "best" if curve.trial_number == best else states.get(curve.trial_number, "running")
        groups.setdefault(kind, []).append(curve)
    order = [kind for kind in ("fail", "pruned", "paused", "complete", "waiting", "running", "best") if kind in groups]
    values = [point.value for curve in drawn for point in curve.points if point.value is not None]
    chart = figure(
        *(_curve_trace(kind, groups[kind]) for kind in order), xaxis=axis("step"), yaxis=axis(objective.name, values)
    )
    reported = sum(trial.last_step is not None for trial in trials)
    return Chart(title, chart, showing(len(drawn), max(reported, len(drawn)), "curves"))


_OPACITY = {
    "best": 1.0,
    "pruned": 0.55,
    "paused": 0.55,
    "fail": 0.5,
    "complete": 0.6,
    "running": 0.9,
    "waiting": 0.6,
}


def _curve_trace(kind: str, curves: Sequence[Curve]) -> go.Scatter:
    """All curves of a kind as one trace, with gaps between: one trace per curve would be slow."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for curve in curves:
        for point in curve.points:
            x.append(point.step)
            y.append(point.value)
            text.append(f"trial {curve.trial_number}, step {point.step}: {short(point.value)}")
        x.append(None)
        y.append(None)
        text.append("")
    lonely = all(len(curve.points) == 1 for curve in curves)
    return go.Scatter(
        x=x,
        y=y,
        text=text,
        mode="markers" if lonely else "lines",
        name=kind,
        opacity=_OPACITY[kind],
        connectgaps=False,
        line={"color": COLOURS[kind], "width": 3 if kind == "best" else 1.2},
        marker={"color": COLOURS[kind]},
        hovertemplate="%{text}<extra></extra>",
    )


_BAR_COLOURS: Mapping[str, str] = {
    "finished": COLOURS["complete"],
    "pruned": COLOURS["pruned"],
    "paused": COLOURS["paused"],
    "failed": COLOURS["fail"],
    "lost": "#b3261e",
    "interrupted": "#c98a1b",
    "running": COLOURS["running"],
    "opened": COLOURS["waiting"],
}


def timeline(attempts: Sequence[AttemptRow], now: datetime | None = None) -> Chart:
    """When which trial was on a worker, a bar per attempt.

    Args:
        attempts: of the study.
        now: where bars end that are still running.
    """
    title = "Timeline"
    started = [attempt for attempt in attempts if attempt.started_at is not None]
    if not started:
        return Chart(title, None, "No attempt has started yet.")
    shown = started[-BARS:]
    moment = now or datetime.now(UTC)
    states = [state for state in _BAR_COLOURS if any(attempt.state == state for attempt in shown)]
    chart = figure(
        *(_bars(state, [a for a in shown if a.state == state], moment) for state in states),
        barmode="overlay",
        xaxis={**axis(""), "type": "date"},
        yaxis={**axis("trial"), "autorange": "reversed"},
    )
    return Chart(title, chart, showing(len(shown), len(started), "attempts"))


def _bars(state: str, attempts: Sequence[AttemptRow], now: datetime) -> go.Bar:
    spans = [(a, a.started_at, a.ended_at or now) for a in attempts if a.started_at is not None]
    return go.Bar(
        orientation="h",
        name=state,
        width=0.8,
        base=[start.isoformat() for _, start, _ in spans],
        # Plotly measures bars on a date axis in milliseconds
        x=[max(1.0, (end - start).total_seconds() * 1000) for _, start, end in spans],
        y=[attempt.trial_number for attempt, _, _ in spans],
        marker={"color": _BAR_COLOURS[state], "line": {"width": 0}},
        text=[_bar_text(attempt, (end - start).total_seconds()) for attempt, start, end in spans],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
    )


def _bar_text(attempt: AttemptRow, seconds: float) -> str:
    parts: list[Any] = [f"<b>trial {attempt.trial_number}</b> attempt {attempt.number}: {attempt.state}"]
    parts.append(f"{seconds:.1f} s on {label(attempt.node or 'an unknown node')}")
    if attempt.devices:
        parts.append("devices " + label(", ".join(attempt.devices)))
    if attempt.message:
        parts.append(label(attempt.message, 100))
    return "<br>".join(parts)
